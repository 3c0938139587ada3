"""Invertible residual blocks: x + g(x) with a g that is certified contractive."""

import math
from typing import NamedTuple

import keras
import numpy as np
from keras import layers as kl
from keras import ops

from keras_spectral.layers.kernels import check_plain, kernel_slots
from keras_spectral.layers.reparametrization import replaced
from keras_spectral.linalg import clipping_scale, induced_norm
from keras_spectral.validation import check_integer, check_positive

# Lipschitz constants of activations: the largest magnitude of the derivative,
# rounded up.
_ACTIVATIONS = {
    "linear": 1.0,
    "relu": 1.0,
    "relu6": 1.0,
    "leaky_relu": 1.0,
    "elu": 1.0,
    "softplus": 1.0,
    "softsign": 1.0,
    "tanh": 1.0,
    "hard_tanh": 1.0,
    "log_sigmoid": 1.0,
    "sigmoid": 0.25,
    "hard_sigmoid": 1.0 / 6.0,
    "selu": 1.7581,
    "gelu": 1.1290,
    "silu": 1.0999,
    "mish": 1.0885,
}

# Layers that only move or drop numbers.
_HARMLESS = (
    kl.Activation,
    kl.ELU,
    kl.Flatten,
    kl.InputLayer,
    kl.LeakyReLU,
    kl.Permute,
    kl.ReLU,
    kl.Reshape,
)


class Inversion(NamedTuple):
    """What `InvertibleResidual.inverse` found.

    Args:
        x: Tensor, the solution of x + g(x) = y.
        iterations: Integer, fixed-point steps that were taken.
        residual: Float, the largest step ||x_k - x_{k-1}|| of a sample at the end.
        rate: Float, the largest ratio of two successive steps, by which the error
            falls at least; at most Lip(g). NaN where there was one step.
    """

    x: object
    iterations: int
    residual: float
    rate: float


@keras.saving.register_keras_serializable(package="keras_spectral")
class InvertibleResidual(kl.Layer):
    """A residual block y = x + g(x) that has an inverse, because Lip(g) < 1.

    Every weighted layer of g computes with W / max(1, ||W|| / b), where ||W|| is a
    certified bound of its norm (`linalg.induced_norm`) that holds for every image
    size, and b is chosen so that the product over g is `bound`. The kernels stay
    the optimizer's. The gradient flows through the certificates.

    The cost of a step is that of the certificates: an SVD of each dense kernel and
    Gram iterations for convolutions, see `linalg.convolution_norm_bound`.

    Args:
        function: The branch g: a `keras.Sequential` or a list of layers. It may
            hold `Dense`, `Conv1D/2D/3D` with stride 1, activations whose Lipschitz
            constant is known, and layers that only reshape. Its output must have
            the shape of its input.
        bound: Float in (0, 1), the largest Lipschitz constant of g.
        **kwargs: `name`, `trainable`.

    Call arguments:
        inputs: Tensor (batch, ...).
        training: Boolean, passed on.

    Raises:
        ValueError: If g holds a layer or an activation that cannot be bounded, or
            changes the shape.

    Example:
    >>> import keras, numpy as np
    >>> layers = [keras.layers.Dense(8, "elu"), keras.layers.Dense(2)]
    >>> block = InvertibleResidual(layers)
    >>> x = np.array([[1.0, -2.0]], "float32")
    >>> found = block.inverse(block(x))
    >>> bool(np.abs(keras.ops.convert_to_numpy(found.x) - x).max() < 1e-4)
    True

    Source: papers/lipschitz-slides.md, theorem of eqs. 1 and 2 (Behrmann et al.
    2019, Theorem 1).
    """

    def __init__(self, function, bound=0.9, **kwargs):
        check_positive("bound", bound)
        if bound >= 1:
            raise ValueError(
                "`bound` must be below 1, or the block may have no inverse. "
                f"Received: bound={bound}"
            )
        if isinstance(function, (list, tuple)):
            function = keras.Sequential(list(function))
        if not isinstance(function, keras.Sequential):
            raise ValueError(
                "`function` must be a `keras.Sequential` or a list of layers. "
                f"Received: function={function}"
            )
        kwargs.pop("autocast", None)
        dtype = keras.dtype_policies.get(kwargs.pop("dtype", None)).variable_dtype
        super().__init__(dtype=dtype, autocast=False, **kwargs)
        self.function = function
        self.bound = float(bound)
        # New probes in each training step; a fixed start repeats a run.
        self.seed_generator = keras.random.SeedGenerator(0)
        self._constant = math.prod(_constant(layer) for layer in function.layers)

    def build(self, input_shape):
        if not self.function.built:
            self.function.build(input_shape)
        output_shape = self.function.compute_output_shape(input_shape)
        if tuple(output_shape) != tuple(input_shape):
            raise ValueError(
                "`function` must keep the shape of its input. Received: "
                f"{tuple(input_shape)} mapped to {tuple(output_shape)}."
            )
        self._weighted = tuple(
            (slot, "dense" if slot.operator is None else "convolution")
            for layer in self.function.layers
            if isinstance(layer, _WEIGHTED)
            for slot in kernel_slots(layer)
        )
        # The activations take their share of the bound.
        share = self.bound / self._constant
        self._layer_bound = share ** (1.0 / max(1, len(self._weighted)))

    def _effective(self):
        """Return the (layer, attribute, effective kernel) of every weighted layer."""
        triples = []
        for slot, kind in self._weighted:
            check_plain(slot.owner)
            kernel = ops.convert_to_tensor(slot.variable)
            norm = induced_norm(kernel, 2, kind)
            scale = clipping_scale(norm, self._layer_bound)
            kernel = ops.cast(kernel, scale.dtype) * scale
            kernel = ops.cast(kernel, slot.owner.compute_dtype)
            triples.append((slot.owner, slot.attribute, kernel))
        return triples

    def branch(self, inputs, training=None):
        """Return g(x), with the bounded kernels.

        Args:
            inputs: Tensor (batch, ...).
            training: Boolean, passed on.
        """
        with replaced(self._effective()):
            return ops.cast(self.function(inputs, training=training), inputs.dtype)

    def call(self, inputs, training=None):
        return inputs + self.branch(inputs, training)

    def compute_output_shape(self, input_shape):
        return input_shape

    def lipschitz_bound(self):
        """Return a certified bound of Lip(g), at most `bound`.

        Returns:
            Float, the product of the layers' certificates and the activations'
            constants.
        """
        self._check_built()
        norms = [
            min(_number(induced_norm(slot.variable, 2, kind)), self._layer_bound)
            for slot, kind in self._weighted
        ]
        # Each is cut at its share, so the product is above `bound` by rounding only.
        return min(self._constant * math.prod(norms), self.bound)

    def inverse(self, outputs, tolerance=1e-5, max_iterations=500):
        """Solve x + g(x) = y by the fixed-point iteration x <- y - g(x).

        Args:
            outputs: Tensor (batch, ...), y.
            tolerance: Float > 0, relative to the norm of a sample of y: the
                iteration ends when the error that is left, residual * rate /
                (1 - rate) with the certified rate, is below it for each sample.
            max_iterations: Integer >= 1.

        Returns:
            An `Inversion` (x, iterations, residual, rate).

        Raises:
            RuntimeError: If the tolerance is not reached, or y is not finite.

        Source: Behrmann et al. 2019, Algorithm 1.
        """
        check_positive("tolerance", tolerance)
        check_integer("max_iterations", max_iterations, least=1)
        outputs = ops.convert_to_tensor(outputs)
        if not self.built:
            raise ValueError(
                f"The layer '{self.name}' must be built before it is inverted. Call "
                "it on a batch, or load its weights, first."
            )
        certified = self.lipschitz_bound()
        size = _norms(outputs)
        x, step, rate = outputs, None, math.nan
        for iteration in range(1, max_iterations + 1):
            following = outputs - self.branch(x, training=False)
            residual = _norms(following - x)
            if step is not None:
                moving = step > 1e-4 * np.maximum(size, 1e-30)
                if moving.any():
                    ratios = residual[moving] / step[moving]
                    rate = float(np.nanmax([rate, ratios.max()]))
            x, step = following, residual
            left = residual * certified / (1.0 - certified)
            if (left <= tolerance * np.maximum(size, 1e-30)).all():
                return Inversion(x, iteration, float(residual.max()), rate)
        raise RuntimeError(
            f"`inverse` reached a step of {residual.max():.2g} in {max_iterations} "
            f"iterations, not the tolerance. Received: tolerance={tolerance}, "
            f"max_iterations={max_iterations}, outputs of norm up to {size.max():.2g}. "
            "Raise `max_iterations` or `tolerance`; float32 ends near 1e-7."
        )

    def log_determinant(self, inputs, power_terms=10, probes=1, seed=None):
        """Estimate log |det| of the block's Jacobian, for each sample.

        The power series of log det(I + J) = sum (-1)^(k+1) tr(J^k) / k with
        Hutchinson's estimator of the traces, by Jacobian-vector products. The
        gradient flows. Cutting the series leaves an error of at most
        `truncation_error`; the estimator is unbiased and its spread falls as
        1 / sqrt(probes).

        Args:
            inputs: Tensor (batch, ...), x.
            power_terms: Integer >= 1, terms of the series.
            probes: Integer >= 1, random vectors a sample.
            seed: Integer for the same probes in each call, or a
                `keras.random.SeedGenerator`; default the layer's own, which
                gives other ones each time.

        Returns:
            Tensor (batch,).

        Source: Behrmann et al. 2019, section 3.2, Algorithm 2.
        """
        check_integer("power_terms", power_terms, least=1)
        check_integer("probes", probes, least=1)
        inputs = ops.convert_to_tensor(inputs)
        axes = tuple(range(1, len(inputs.shape)))
        if seed is None:
            seed = self.seed_generator
        total = 0.0
        with replaced(self._effective()):
            for index in range(probes):
                one = seed + index if isinstance(seed, int) else seed
                signs = keras.random.randint(ops.shape(inputs), 0, 2, seed=one)
                probe = ops.cast(2 * signs - 1, inputs.dtype)
                vector = probe
                for term in range(1, power_terms + 1):
                    _, vector = ops.jvp(self.function, (inputs,), (vector,))
                    trace = ops.sum(vector * probe, axis=axes)
                    total = total + (-1.0) ** (term + 1) / (term * probes) * trace
        return total

    def truncation_error(self, power_terms, dimensions):
        """Return a bound of what the terms after `power_terms` add up to.

        Args:
            power_terms: Integer >= 1.
            dimensions: Integer, the numbers in one sample.

        Returns:
            Float, dimensions * sum over k > power_terms of Lip(g)^k / k.

        Source: Behrmann et al. 2019, Theorem 4.
        """
        bound = self.lipschitz_bound()
        kept = sum(bound**k / k for k in range(1, power_terms + 1))
        return dimensions * (-math.log1p(-bound) - kept)

    def _check_built(self):
        if not self.built:
            raise ValueError(
                f"The layer '{self.name}' must be built first. Call it on a batch."
            )

    def get_config(self):
        return {
            **super().get_config(),
            "function": keras.saving.serialize_keras_object(self.function),
            "bound": self.bound,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        function = keras.saving.deserialize_keras_object(config.pop("function"))
        return cls(function, **config)


_WEIGHTED = (kl.Dense, kl.Conv1D, kl.Conv2D, kl.Conv3D)


def _number(tensor):
    return float(ops.convert_to_numpy(tensor))


def _norms(tensor):
    tensor = ops.convert_to_numpy(tensor).astype("float64")
    return np.linalg.norm(tensor.reshape(len(tensor), -1), axis=1)


def _constant(layer):
    """Return the Lipschitz constant of a layer, its kernel taken for 1."""
    if isinstance(layer, (kl.ReLU, kl.LeakyReLU)):
        slope = layer.negative_slope
        return max(1.0, abs(float(slope)))
    if isinstance(layer, kl.ELU):
        return max(1.0, abs(float(layer.alpha)))
    if isinstance(layer, _WEIGHTED):
        check_plain(layer)
        if max(getattr(layer, "strides", (1,))) > 1:
            raise _unbounded(layer, "with a stride", "Use stride 1.")
    elif not isinstance(layer, _HARMLESS):
        raise _unbounded(
            layer,
            "that cannot be bounded",
            "Use Dense, Conv1D, Conv2D, Conv3D and activations.",
        )
    activation = getattr(layer, "activation", None)
    if activation is None:
        return 1.0
    name = getattr(activation, "__name__", str(activation))
    known = keras.activations.get(name) if name in _ACTIVATIONS else None
    if known is not activation:
        raise _unbounded(
            layer,
            f"with the activation {name}, of an unknown Lipschitz constant",
            f"Use one of {', '.join(sorted(_ACTIVATIONS))}.",
        )
    return _ACTIVATIONS[name]


def _unbounded(layer, what, advice):
    return ValueError(
        "`function` must hold layers whose Lipschitz constant is known. Received: "
        f"'{layer.name}', a {type(layer).__name__} {what}. {advice}"
    )
