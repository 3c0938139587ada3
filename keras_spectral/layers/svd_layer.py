"""What the layers of `svd` share: a kernel that is never formed."""

import math

import keras
import ml_dtypes
import numpy as np
from keras import layers as kl
from keras import ops

from keras_spectral.linalg import rank_at_ratio
from keras_spectral.linalg.norms import magnitude, wide
from keras_spectral.models.slots import check_finite_kernel, kernel_slots
from keras_spectral.regularizers import Orthonormal
from keras_spectral.validation import check_ratio

# What a plain layer's config and an SVD layer's have in common.
_SHARED = ("activation", "use_bias", "bias_initializer", "bias_regularizer")
_COMMON = (*_SHARED, "bias_constraint", "activity_regularizer", "name", "trainable")

# Arguments of a plain layer that have no meaning without a kernel.
_REPLACED = {
    "groups": "a plain grouped layer: its kernel is several matrices",
    "kernel_initializer": "`factor_initializer`",
    "kernel_regularizer": "`orthogonal_factor` and `spectrum_regularizer`",
    "kernel_constraint": "`spectrum_regularizer`",
}


class SVDLayer(kl.Layer):
    """Computes with W = scale * U diag(e / max|e|) V of rank k, in factors.

    `first` maps the input to k channels with V, `second` those to the outputs
    with U; the kernel is never formed. Subclasses say which layers those are.

    Args:
        outputs: Integer, units or filters.
        geometry: Dict, the arguments of the plain layer that say how it slides.
        rank_ratio: Float in (0, 1], the paper's S.
        orthogonal_factor: Float >= 0, weight of ||U'U - I||_F^2 + ||V V' - I||_F^2.
        spectrum_regularizer: Regularizer of e / max|e|.
        factor_initializer: Initializer of U and V.
        activation: As in `keras.layers.Dense`; so are `use_bias`,
            `bias_initializer`, `bias_regularizer` and `bias_constraint`.
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer`.
    """

    # The plain Keras layer, and the one that maps the k channels to the outputs.
    plain_layer: type | None = None
    second_layer: type | None = None
    outputs_argument = "filters"

    def __init__(
        self,
        outputs,
        geometry,
        rank_ratio=1.0,
        orthogonal_factor=0.0,
        spectrum_regularizer=None,
        factor_initializer="orthogonal",
        activation=None,
        use_bias=True,
        bias_initializer="zeros",
        bias_regularizer=None,
        bias_constraint=None,
        **kwargs,
    ):
        check_ratio("rank_ratio", rank_ratio)
        for name in kwargs.keys() & _REPLACED.keys():
            raise ValueError(
                f"`{name}` is not an argument of {type(self).__name__}. Received: "
                f"{name}={kwargs[name]}. Use {_REPLACED[name]}."
            )
        if isinstance(orthogonal_factor, bool) or not orthogonal_factor >= 0:
            raise ValueError(
                "`orthogonal_factor` must be a number >= 0. "
                f"Received: orthogonal_factor={orthogonal_factor}"
            )
        super().__init__(**kwargs)
        self.outputs = outputs
        # A loaded config has lists where the saved one had tuples.
        self.geometry = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in geometry.items()
        }
        self.rank_ratio = float(rank_ratio)
        self.orthogonal_factor = float(orthogonal_factor)
        self.spectrum_regularizer = keras.regularizers.get(spectrum_regularizer)
        self.factor_initializer = keras.initializers.get(factor_initializer)
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.bias_constraint = keras.constraints.get(bias_constraint)
        # Says bad geometry before the layer is built.
        self.supports_masking = self._plain().supports_masking

    def _bias_arguments(self):
        return dict(
            activation=self.activation,
            use_bias=self.use_bias,
            bias_initializer=self.bias_initializer,
            bias_regularizer=self.bias_regularizer,
            bias_constraint=self.bias_constraint,
        )

    def _plain(self, outputs=None, **arguments):
        # A name, so that Keras counts none of these in the names of others.
        return self.plain_layer(
            **{self.outputs_argument: outputs or self.outputs},
            **self.geometry,
            **{"name": "plain", **arguments},
        )

    def _penalty(self, output_axis):
        if not self.orthogonal_factor:
            return None
        return Orthonormal(self.orthogonal_factor, output_axis=output_axis)

    def _initializer(self, index, transposed=False):
        """Return the initializer of V (index 0) or U (index 1)."""
        config = self.factor_initializer.get_config()
        # With the one seed of both, U and V of equal shape would be equal.
        if isinstance(config.get("seed"), int):
            config["seed"] += index
        initializer = type(self.factor_initializer).from_config(config)

        def initialize(shape, dtype=None):
            # QR does not take half precision, and Keras' initializers take the
            # last axis for that of the outputs.
            at_least = "float64" if dtype == "float64" else "float32"
            if transposed:
                shape = (*shape[:-2], shape[-1], shape[-2])
            factor = initializer(shape, dtype=at_least)
            if transposed:
                factor = ops.swapaxes(factor, -2, -1)
            return ops.cast(factor, dtype or at_least)

        return initialize

    def _spectrum_penalty(self, e):
        return self.spectrum_regularizer(_over_largest(e))

    def _second(self):
        """Return the layer from k channels to the outputs, one pixel each."""
        arguments = {}
        if self.second_layer is not kl.Dense:
            arguments = dict(kernel_size=1, data_format=self.first.data_format)
        return self.second_layer(
            self.outputs,
            kernel_initializer=self._initializer(1),
            kernel_regularizer=self._penalty(-1),
            dtype=self.dtype_policy,
            trainable=self.trainable,
            name="u",
            **arguments,
            **self._bias_arguments(),
        )

    def build(self, input_shape):
        plain = self._plain()
        first = getattr(plain, "data_format", None) == "channels_first"
        channels = input_shape[1] if first else input_shape[-1]
        taps = math.prod(getattr(plain, "kernel_size", ()))
        if channels is None:
            raise ValueError(
                "`input_shape` must have a number of channels. Received: "
                f"input_shape={input_shape} for layer '{self.name}'."
            )
        self.rank = rank_at_ratio(self.rank_ratio, min(self.outputs, taps * channels))
        transposed = self.plain_layer is kl.Conv2DTranspose
        self.first = self._plain(
            self.rank,
            use_bias=False,
            kernel_initializer=self._initializer(0, transposed),
            kernel_regularizer=self._penalty(-2 if transposed else -1),
            dtype=self.dtype_policy,
            # A frozen layer is loaded frozen, and then built.
            trainable=self.trainable,
            name="v",
        )
        self.first.build(input_shape)
        self.second = self._second()
        self.second.build(self.first.compute_output_shape(input_shape))
        # Full precision whatever the policy: the largest entry must be exact.
        self.e = self.add_weight(
            name="e",
            shape=(self.rank,),
            initializer="ones",
            regularizer=self._spectrum_penalty if self.spectrum_regularizer else None,
            autocast=False,
        )
        self.scale = self.add_weight(
            name="scale", shape=(), initializer="ones", autocast=False
        )
        self.input_spec = self.first.input_spec

    def singular_values(self):
        """Return scale * e / max|e|, the singular values while U and V are unitary.

        Returns:
            Float tensor (k,), in their order, signed.
        """
        self._check_built()
        return wide(self.scale) * _over_largest(self.e)

    def _check_built(self):
        if not self.built:
            raise ValueError(
                f"The layer '{self.name}' must be built first. Call it on a batch."
            )

    def call(self, inputs):
        hidden = self.first(inputs)
        gains = ops.cast(self.singular_values(), hidden.dtype)
        if self.geometry.get("data_format") == "channels_first":
            gains = ops.reshape(gains, (-1,) + (1,) * (len(hidden.shape) - 2))
        return self.second(hidden * gains)

    def compute_output_shape(self, input_shape):
        return self._plain().compute_output_shape(input_shape)

    def effective_kernel(self):
        """Return the kernel of the plain layer that computes the same.

        Returns:
            Float tensor of the plain layer's kernel shape, in at least float32.
        """
        v, u = self._factors()
        (slot,) = kernel_slots(self.first)
        matrix = ops.matmul(v * self.singular_values(), u)
        return slot.view.resized(self.outputs).unflatten(matrix)

    def orthogonality_error(self):
        """Return how far the factors are from orthonormal ones.

        Returns:
            Float scalar tensor, the larger of ||U'U - I||_F and ||V V' - I||_F; above
            0 the singular values are not those of the kernel.
        """
        v, u = self._factors()
        grams = ops.stack(
            [ops.matmul(ops.transpose(v), v), ops.matmul(u, ops.transpose(u))]
        )
        excess = grams - ops.eye(self.rank, dtype=grams.dtype)
        return ops.max(ops.sqrt(ops.sum(ops.square(excess), axis=(1, 2))))

    def _factors(self):
        """Return both factors as matrices, inputs x k and k x outputs."""
        self._check_built()
        (slot,) = kernel_slots(self.first)
        u = wide(kernel_slots(self.second)[0].variable)
        v = slot.view.flatten(wide(slot.variable))
        return v, ops.reshape(u, (self.rank, -1))

    def to_layer(self):
        """Return a plain, built Keras layer with the same outputs.

        Returns:
            A `keras.layers.Dense`, `Conv2D` or `Conv2DTranspose`.

        Raises:
            ValueError: If a factor holds NaN or infinity.
        """
        kernel = self.effective_kernel()
        check_finite_kernel(ops.convert_to_numpy(kernel), "kernel", self)
        layer = self._plain(
            dtype=self.dtype_policy,
            name=self.name,
            trainable=self.trainable,
            activity_regularizer=self.activity_regularizer,
            **self._bias_arguments(),
        )
        layer.build(self.first.get_build_config()["input_shape"])
        layer.kernel.assign(kernel)
        if self.use_bias:
            layer.bias.assign(self.second.bias)
        return layer

    @classmethod
    def from_layer(cls, layer, rank_ratio=1.0, **arguments):
        """Return the layer of rank k nearest to a trained one.

        A regularizer or constraint of the kernel is not taken over: there is no
        kernel any more. The SVD is computed in float64.

        Args:
            layer: A built layer of the plain kind.
            rank_ratio: Float in (0, 1]; at 1 the outputs are the same.
            **arguments: Other arguments of this class.

        Returns:
            A built layer of this class, with an exact truncated SVD.

        Raises:
            ValueError: If the layer is of another kind, not built, grouped,
                quantized or LoRA enabled, or its kernel or the norm of it is not
                finite.
        """
        if type(layer) is not cls.plain_layer:
            raise ValueError(
                f"`layer` must be a `keras.layers.{cls.plain_layer.__name__}`. "
                f"Received: layer={layer}"
            )
        if not layer.built or getattr(layer, "groups", 1) != 1:
            raise ValueError(
                "`layer` must be built and have one group. Received: "
                f"'{layer.name}' with built={layer.built} and "
                f"groups={getattr(layer, 'groups', 1)}."
            )
        (slot,) = kernel_slots(layer)
        kernel = ops.convert_to_numpy(slot.variable).astype("float64")
        if not np.isfinite(kernel).all():
            raise ValueError(
                "`layer` must have a finite kernel. Received: NaN or infinity in "
                f"'{layer.name}'. Use an earlier checkpoint."
            )
        config = layer.get_config()
        kept = {key: config[key] for key in _COMMON if key in config}
        for key in ("activation", "activity_regularizer"):
            kept[key] = getattr(layer, key)
        geometry = {key: config[key] for key in cls.geometry_arguments}
        new = cls(
            config[cls.outputs_argument],
            **geometry,
            **{**kept, "dtype": layer.dtype_policy, **arguments},
            rank_ratio=rank_ratio,
        )
        new.build(layer.get_build_config()["input_shape"])
        new.built = True
        new._assign(ops.convert_to_numpy(slot.view.flatten(kernel)))
        if layer.use_bias:
            new.second.bias.assign(layer.bias)
        return new

    def _assign(self, matrix):
        """Set the factors to the truncated SVD of `matrix` (inputs, outputs)."""
        v, s, u = np.linalg.svd(matrix, full_matrices=False)
        dtype = keras.backend.standardize_dtype(self.scale.dtype)
        if s[0] > float(ml_dtypes.finfo(dtype).max):
            raise ValueError(
                f"`layer` must have a kernel whose norm {dtype} holds. Received: the "
                f"norm {s[0]:.3g} in '{self.name}'. Scale the kernel down."
            )
        (slot,) = kernel_slots(self.first)
        slot.variable.assign(slot.view.unflatten(v[:, : self.rank]))
        kernel = self.second.kernel
        kernel.assign(u[: self.rank].reshape(kernel.shape))
        # A scale of zero stands for a zero kernel; e then stays as it is.
        self.scale.assign(s[0])
        if s[0] > 0:
            self.e.assign(s[: self.rank] / s[0])

    def get_config(self):
        serialize = keras.regularizers.serialize
        return {
            **super().get_config(),
            self.outputs_argument: self.outputs,
            **self.geometry,
            "rank_ratio": self.rank_ratio,
            "orthogonal_factor": self.orthogonal_factor,
            "spectrum_regularizer": serialize(self.spectrum_regularizer),
            "factor_initializer": keras.initializers.serialize(self.factor_initializer),
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "bias_regularizer": serialize(self.bias_regularizer),
            "bias_constraint": keras.constraints.serialize(self.bias_constraint),
        }


def _over_largest(e):
    """Return e / max|e|; a spectrum of zeros stays one."""
    e = wide(e)
    e = e / magnitude(e)  # No constant changes the quotient, nor its gradient.
    largest = ops.max(ops.abs(e))
    return e / ops.where(largest > 0, largest, ops.ones_like(largest))
