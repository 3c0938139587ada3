"""Layers whose kernel is a truncated singular value decomposition."""

import math

import keras
from keras import layers as kl
from keras import ops

from keras_spectral.layers.kernels import kernel_slots
from keras_spectral.regularizers import Orthonormal
from keras_spectral.validation import check_ratio

# What a plain layer's config and an SVD layer's have in common.
_SHARED = ("activation", "use_bias", "bias_initializer", "bias_regularizer")
_COMMON = (*_SHARED, "bias_constraint", "activity_regularizer", "name", "trainable")


class SVDLayer(kl.Layer):
    """Computes with W = scale * U diag(e / max|e|) V of rank k, in factors.

    `first` maps the input to k channels with V, `second` those to the outputs
    with U; the kernel is never formed. Subclasses say which layers those are.

    Args:
        outputs: Integer, units or filters.
        geometry: Dict, the arguments of the plain layer that say how it slides.
        rank_ratio: Float in (0, 1], the paper's S.
        orthogonal_factor: Float >= 0, weight of ||U'U - I||_F^2 + ||V V' - I||_F^2.
        spectrum_regularizer: Regularizer of e, such as `regularizers.DOptimal`.
        factor_initializer: Initializer of U and V.
        activation, use_bias, bias_initializer, bias_regularizer,
            bias_constraint: As in `keras.layers.Dense`.
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer`.
    """

    # The plain Keras layer, and the one that maps the k channels to the outputs.
    plain_layer = None
    second_layer = None
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
        if isinstance(orthogonal_factor, bool) or not orthogonal_factor >= 0:
            raise ValueError(
                "`orthogonal_factor` must be a number >= 0. "
                f"Received: orthogonal_factor={orthogonal_factor}"
            )
        super().__init__(**kwargs)
        self.outputs = outputs
        self.geometry = geometry
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
        self._plain()

    def _bias_arguments(self):
        return dict(
            activation=self.activation,
            use_bias=self.use_bias,
            bias_initializer=self.bias_initializer,
            bias_regularizer=self.bias_regularizer,
            bias_constraint=self.bias_constraint,
        )

    def _plain(self, outputs=None, **arguments):
        return self.plain_layer(
            **{self.outputs_argument: outputs or self.outputs},
            **self.geometry,
            **arguments,
        )

    def _penalty(self, output_axis):
        if not self.orthogonal_factor:
            return None
        return Orthonormal(self.orthogonal_factor, output_axis=output_axis)

    def _initializer_of_v(self, transposed):
        initializer = self.factor_initializer.clone()
        if not transposed:
            return initializer

        # Keras' initializers take the last axis for that of the outputs.
        def swapped(shape, dtype=None):
            shape = (*shape[:-2], shape[-1], shape[-2])
            return ops.swapaxes(initializer(shape, dtype=dtype), -1, -2)

        return swapped

    def _second(self):
        """Return the layer from k channels to the outputs, one pixel each."""
        arguments = {}
        if self.second_layer is not kl.Dense:
            arguments = dict(kernel_size=1, data_format=self.first.data_format)
        return self.second_layer(
            self.outputs,
            kernel_initializer=self.factor_initializer.clone(),
            kernel_regularizer=self._penalty(-1),
            dtype=self.dtype_policy,
            name="u",
            **arguments,
            **self._bias_arguments(),
        )

    def build(self, input_shape):
        plain = self._plain()
        first = getattr(plain, "data_format", None) == "channels_first"
        channels = input_shape[1] if first else input_shape[-1]
        taps = math.prod(getattr(plain, "kernel_size", ()))
        smaller = min(self.outputs, taps * channels)
        self.rank = max(1, int(self.rank_ratio * smaller))
        transposed = self.plain_layer is kl.Conv2DTranspose
        self.first = self._plain(
            self.rank,
            use_bias=False,
            kernel_initializer=self._initializer_of_v(transposed),
            kernel_regularizer=self._penalty(-2 if transposed else -1),
            dtype=self.dtype_policy,
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
            regularizer=self.spectrum_regularizer,
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
        e = ops.convert_to_tensor(self.e)
        largest = ops.max(ops.abs(e))
        # A spectrum of zeros stays one.
        largest = ops.where(largest > 0, largest, ops.ones_like(largest))
        return ops.convert_to_tensor(self.scale) * e / largest

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
            Float tensor of the plain layer's kernel shape, in full precision.
        """
        (slot,) = kernel_slots(self.first)
        v = slot.view.flatten(ops.convert_to_tensor(slot.variable))
        u = ops.convert_to_tensor(kernel_slots(self.second)[0].variable)
        matrix = ops.matmul(v * self.singular_values(), ops.reshape(u, (self.rank, -1)))
        return slot.view.resized(self.outputs).unflatten(matrix)

    def to_layer(self):
        """Return a plain, built Keras layer with the same outputs.

        Returns:
            A `keras.layers.Dense`, `Conv2D` or `Conv2DTranspose`.
        """
        layer = self._plain(
            dtype=self.dtype_policy,
            name=self.name,
            activity_regularizer=self.activity_regularizer,
            **self._bias_arguments(),
        )
        layer.build(self.first.get_build_config()["input_shape"])
        layer.kernel.assign(self.effective_kernel())
        if self.use_bias:
            layer.bias.assign(self.second.bias)
        return layer

    @classmethod
    def from_layer(cls, layer, rank_ratio=1.0, **arguments):
        """Return the layer of rank k nearest to a trained one.

        Args:
            layer: A built layer of the plain kind.
            rank_ratio: Float in (0, 1]; at 1 the outputs are the same.
            **arguments: Other arguments of this class.

        Returns:
            A built layer of this class, with an exact truncated SVD.

        Raises:
            ValueError: If the layer is of another kind, not built, or grouped.
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
        new._assign(slot.view.flatten(ops.convert_to_tensor(slot.variable)))
        if layer.use_bias:
            new.second.bias.assign(layer.bias)
        return new

    def _assign(self, matrix):
        """Set the factors to the truncated SVD of `matrix` (inputs, outputs)."""
        v, s, u = ops.svd(matrix, full_matrices=False)
        (slot,) = kernel_slots(self.first)
        slot.variable.assign(slot.view.unflatten(v[:, : self.rank]))
        kernel = self.second.kernel
        kernel.assign(ops.reshape(u[: self.rank], kernel.shape))
        largest = s[0]
        self.scale.assign(largest)
        usable = largest > 0
        e = s[: self.rank] / ops.where(usable, largest, ops.ones_like(largest))
        self.e.assign(ops.where(usable, e, ops.ones_like(e)))

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


@keras.saving.register_keras_serializable(package="keras_spectral")
class SVDDense(SVDLayer):
    """`Dense` with a kernel of rank k: W = scale * U diag(e / max|e|) V.

    x is mapped to k numbers, scaled and mapped to the units, so that the layer
    computes k (inputs + units) products in place of inputs * units, and has
    k (inputs + units + 1) + units + 1 parameters with a bias.

    Args:
        units: Integer >= 1.
        rank_ratio: Float in (0, 1], the paper's S: k is
            max(1, floor(rank_ratio * min(inputs, units))).
        orthogonal_factor: Float >= 0, the paper's lambda: weight of
            ||U'U - I||_F^2 + ||V V' - I||_F^2 in the loss. (The paper prints
            U U', which cannot be I for k < units.)
        spectrum_regularizer: Regularizer of e, such as
            `regularizers.DOptimal(gamma)`; default none.
        factor_initializer: Initializer of U and V; the default makes them
            orthonormal.
        activation, use_bias, bias_initializer, bias_regularizer,
            bias_constraint: As in `keras.layers.Dense`.
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer`.

    Call arguments:
        inputs: Tensor (..., inputs).

    Raises:
        ValueError: On a ratio or factor out of range.

    Example:
    >>> import keras, numpy as np
    >>> layer = SVDDense(10, rank_ratio=0.5)
    >>> outputs = layer(np.ones((2, 800), "float32"))
    >>> layer.rank, layer.count_params()
    (5, 4066)

    Source: papers/low-rank-gans.md, section 3.2, eqs. 3 to 5.
    """

    plain_layer = kl.Dense
    second_layer = kl.Dense
    outputs_argument = "units"
    geometry_arguments = ()

    def __init__(self, units, **arguments):
        super().__init__(units, {}, **arguments)
        self.units = units


@keras.saving.register_keras_serializable(package="keras_spectral")
class SVDConv2D(SVDLayer):
    """`Conv2D` with a flattened kernel of rank k, as two convolutions.

    The first has the kernel's size and k filters (V), the second is 1 x 1 (U).
    The flattened kernel has filters x (height * width * inputs) entries.

    Args:
        filters: Integer >= 1.
        kernel_size: Integer or pair of integers, in pixels.
        strides: Integer or pair of integers.
        padding: `"valid"` or `"same"`.
        data_format: `"channels_last"`, `"channels_first"` or `None`.
        dilation_rate: Integer or pair of integers.
        **arguments: Those of `SVDDense` from `rank_ratio` on.

    Call arguments:
        inputs: Tensor (batch, height, width, inputs).

    Raises:
        ValueError: On a ratio or factor out of range, or bad geometry.

    Example:
    >>> import keras, numpy as np
    >>> layer = SVDConv2D(20, 5, rank_ratio=0.25)
    >>> layer(np.ones((1, 28, 28, 1), "float32")).shape[1:], layer.count_params()
    (TensorShape([24, 24, 20]), 251)

    Source: papers/low-rank-gans.md, section 3.2, eqs. 3 to 5.
    """

    plain_layer = kl.Conv2D
    second_layer = kl.Conv2D
    geometry_arguments = (
        "kernel_size",
        "strides",
        "padding",
        "data_format",
        "dilation_rate",
    )

    def __init__(
        self,
        filters,
        kernel_size,
        strides=1,
        padding="valid",
        data_format=None,
        dilation_rate=1,
        **arguments,
    ):
        super().__init__(
            filters,
            dict(
                kernel_size=kernel_size,
                strides=strides,
                padding=padding,
                data_format=data_format or keras.config.image_data_format(),
                dilation_rate=dilation_rate,
            ),
            **arguments,
        )
        self.filters = filters


@keras.saving.register_keras_serializable(package="keras_spectral")
class SVDConv2DTranspose(SVDLayer):
    """`Conv2DTranspose` with a flattened kernel of rank k.

    A transposed convolution to k channels (V) and a 1 x 1 convolution (U); the
    flattened kernel has filters x (height * width * inputs) entries.

    Args:
        filters: Integer >= 1.
        kernel_size: Integer or pair of integers, in pixels.
        strides: Integer or pair of integers.
        padding: `"valid"` or `"same"`.
        output_padding: Integer, pair of integers or `None`.
        data_format: `"channels_last"`, `"channels_first"` or `None`.
        dilation_rate: Integer or pair of integers.
        **arguments: Those of `SVDDense` from `rank_ratio` on.

    Call arguments:
        inputs: Tensor (batch, height, width, inputs).

    Raises:
        ValueError: On a ratio or factor out of range, or bad geometry.

    Example:
    >>> import keras, numpy as np
    >>> layer = SVDConv2DTranspose(3, 4, strides=2, padding="same")
    >>> layer(np.ones((1, 8, 8, 6), "float32")).shape[1:]
    TensorShape([16, 16, 3])

    Source: papers/low-rank-gans.md, section 3.2, eqs. 3 to 5.
    """

    plain_layer = kl.Conv2DTranspose
    second_layer = kl.Conv2D
    geometry_arguments = (
        "kernel_size",
        "strides",
        "padding",
        "output_padding",
        "data_format",
        "dilation_rate",
    )

    def __init__(
        self,
        filters,
        kernel_size,
        strides=1,
        padding="valid",
        output_padding=None,
        data_format=None,
        dilation_rate=1,
        **arguments,
    ):
        super().__init__(
            filters,
            dict(
                kernel_size=kernel_size,
                strides=strides,
                padding=padding,
                output_padding=output_padding,
                data_format=data_format or keras.config.image_data_format(),
                dilation_rate=dilation_rate,
            ),
            **arguments,
        )
        self.filters = filters
