"""Invertible residual blocks: x + g(x) with a g that is certified contractive."""

import math
from typing import NamedTuple

import keras
from keras import layers as kl
from keras import ops

from keras_spectral.layers.lipschitz_constants import KERNEL_KINDS, lipschitz_constant
from keras_spectral.layers.substitution import call_substituted
from keras_spectral.linalg import clipping_scale, induced_norm
from keras_spectral.linalg.norms import scaled_squares, wide
from keras_spectral.models.graph import has_graph
from keras_spectral.models.slots import check_plain, kernel_slots
from keras_spectral.validation import check_integer, check_positive


class Inversion(NamedTuple):
    """What `InvertibleResidual.inverse` found.

    Args:
        x: Tensor, the solution of x + g(x) = y.
        iterations: Integer, fixed-point steps that were taken.
        residual: Float, the largest step ||x_k - x_{k-1}|| of a sample at the end.
        rate: Float, the largest ratio of two successive steps, by which the error
            falls at least; at most Lip(g) but for rounding. Steps that are mostly
            rounding do not count; 0 if no other was taken, as in half precision.
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
    the optimizer's. Certificates pass gradients: a convolution's that of its norm.

    The certificates dominate the cost of a step: an SVD of each dense kernel, and a
    bound of each convolution within 1 %, a quarter of a second on a CPU for 3x3 taps
    and 128 channels (`linalg.convolution_norm_bound`). Layers of g in half
    precision round their kernel after it was scaled, which can raise Lip(g) by 0.4 %
    a layer in bfloat16, and their outputs.

    Args:
        function: The branch g: a list of layers, a `keras.Sequential` or a
            functional `keras.Model` of one path. It may hold `Dense`,
            `Conv1D/2D/3D`, their transposes and `DepthwiseConv1D/2D` with stride 1,
            activations whose Lipschitz constant is known, and layers that only
            reshape. Its output must have the shape of its input.
        bound: Float in (0, 1), the largest Lipschitz constant of g.
        **kwargs: `name`, `trainable`.

    Call arguments:
        inputs: Tensor (batch, ...).
        training: Boolean, passed on.

    Raises:
        ValueError: If g holds a layer or an activation that cannot be bounded,
            branches, or changes the shape.

    Example:
    >>> import keras, numpy as np
    >>> layers = [keras.layers.Dense(8, "elu"), keras.layers.Dense(2)]
    >>> block = InvertibleResidual(layers)
    >>> x = np.array([[1.0, -2.0]], "float32")
    >>> found = block.inverse(block(x))
    >>> bool(np.abs(keras.ops.convert_to_numpy(found.x) - x).max() < 1e-4)
    True

    Source: [zhang2020], theorem of eqs. 1 and 2 ([behrmann2019], Theorem 1).
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
        _check_one_path(function)
        constant = math.prod(lipschitz_constant(layer) for layer in function.layers)
        if constant > bound and not any(map(_has_kernel, function.layers)):
            raise ValueError(
                "`function` must have a layer with a kernel, or nothing can be "
                f"scaled. Received: layers {[layer.name for layer in function.layers]}"
                f" with the Lipschitz constant {constant}, bound={bound}"
            )
        kwargs.pop("autocast", None)
        dtype = keras.dtype_policies.get(kwargs.pop("dtype", None)).variable_dtype
        super().__init__(dtype=dtype, autocast=False, **kwargs)
        self.function = function
        if not self.trainable:
            function.trainable = False
        self.bound = float(bound)
        # New probes in each training step; a fixed start repeats a run.
        self.seed_generator = keras.random.SeedGenerator(0)
        self._constant = constant

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
            (slot, KERNEL_KINDS[type(layer)])
            for layer in self.function.layers
            if _has_kernel(layer)
            for slot in kernel_slots(layer)
        )
        # The activations take their share of the bound.
        share = self.bound / self._constant
        self._layer_bound = share ** (1.0 / max(1, len(self._weighted)))

    def _bounded(self):
        """Return (variable, kernel) pairs and the certificate of Lip(g)."""
        dtype = "float64" if self.variable_dtype == "float64" else "float32"
        values, certificate = [], self._constant
        for slot, kind in self._weighted:
            check_plain(slot.owner)
            kernel = ops.convert_to_tensor(slot.variable)
            norm = induced_norm(kernel, 2, kind)
            scale = clipping_scale(norm, self._layer_bound)
            values.append((slot.variable, ops.cast(kernel, scale.dtype) * scale))
            norm = ops.minimum(norm, self._layer_bound)
            certificate = certificate * ops.cast(norm, dtype)
        # Each is cut at its share, so the product is above `bound` by rounding only.
        return values, ops.minimum(certificate, self.bound)

    def branch(self, inputs, training=None):
        """Return g(x), with the bounded kernels.

        Args:
            inputs: Tensor (batch, ...).
            training: Boolean, passed on.
        """
        outputs = call_substituted(
            self.function,
            self._bounded()[0],
            lambda: self.function(inputs, training=training),
            self.add_loss,
        )
        return ops.cast(outputs, inputs.dtype)

    def call(self, inputs, training=None):
        return inputs + self.branch(inputs, training)

    def compute_output_spec(self, inputs, training=None):
        return keras.KerasTensor(inputs.shape, dtype=inputs.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def lipschitz_bound(self):
        """Return a certified bound of Lip(g), at most `bound`.

        Returns:
            Float, the product of the certificates and the activations' constants.

        Raises:
            ValueError: If a kernel is not finite, or has a norm above 8e37.
        """
        self._check_built()
        values, certificate = self._bounded()
        for (slot, _), (_, kernel) in zip(self._weighted, values, strict=True):
            if not ops.convert_to_numpy(ops.all(ops.isfinite(kernel))):
                raise ValueError(
                    "`function` must hold kernels that can be scaled. Received: "
                    f"'{slot.name}' of layer '{slot.owner.name}' with NaN, infinity or "
                    "a norm above 8e37. Go back to an earlier checkpoint."
                )
        return float(ops.convert_to_numpy(certificate))

    def inverse(self, outputs, tolerance=1e-5, max_iterations=500):
        """Solve x + g(x) = y by the fixed-point iteration x <- y - g(x).

        The kernels are bounded once; no gradient flows. In a compiled function
        (`tf.function`, `jax.jit`) nothing can be raised: there x is NaN if the
        tolerance is not reached, and the numbers are scalar tensors.

        Args:
            outputs: Tensor (batch, ...), y. Half precision is solved in float32;
                where layers of g compute in it, ask for a tolerance of theirs, 1e-2.
            tolerance: Float > 0, relative to the norm of a sample of x or y, the
                larger: the iteration ends when the error that is left, residual *
                rate / (1 - rate) with the certified rate, is below it for each
                sample.
            max_iterations: Integer >= 1.

        Returns:
            An `Inversion` (x, iterations, residual, rate).

        Raises:
            RuntimeError: If the tolerance is not reached, or y is not finite.

        Source: [behrmann2019], Algorithm 1.
        """
        check_positive("tolerance", tolerance)
        check_integer("max_iterations", max_iterations, least=1)
        self._check_built()
        outputs = ops.stop_gradient(wide(outputs))
        values, certificate = self._bounded()
        values = [(variable, ops.stop_gradient(kernel)) for variable, kernel in values]
        certificate = ops.cast(ops.stop_gradient(certificate), outputs.dtype)
        rounding = 256 * max(map(_epsilon, self.function.layers))
        size_of_y = _norms(outputs)

        def error(x, step):
            """Return a bound of each sample's error, relative to its size."""
            left = step * certificate / (1.0 - certificate)
            size = ops.maximum(_norms(x), size_of_y)
            return ops.where(left > 0, left / size, left)

        def going(x, step, rate, iteration):
            # Ends at NaN too, which no more steps mend.
            missing = ops.any(error(x, step) > tolerance)
            missing = ops.logical_or(missing, ops.equal(iteration, 0))
            return ops.logical_and(missing, iteration < max_iterations)

        def advance(x, step, rate, iteration):
            branch = ops.cast(self.function(x, training=False), x.dtype)
            following = ops.stop_gradient(outputs - branch)
            residual = _norms(following - x)
            counts = ops.logical_and(step > rounding * size_of_y, iteration > 0)
            ratios = residual / ops.where(counts, step, ops.ones_like(step))
            ratios = ops.where(counts, ratios, ops.zeros_like(ratios))
            rate = ops.maximum(rate, ops.max(ratios))
            return following, residual, rate, iteration + 1

        start = (
            outputs,
            ops.zeros_like(size_of_y),
            ops.zeros((), outputs.dtype),
            ops.zeros((), "int32"),
        )
        x, step, rate, iterations = call_substituted(
            self.function, values, lambda: ops.while_loop(going, advance, start)
        )
        converged = ops.all(error(x, step) <= tolerance)
        residual = ops.max(step)
        try:
            failed = not ops.convert_to_numpy(converged)
        except (NotImplementedError, TypeError):
            # A compiled function is being traced: there are no numbers yet.
            x = ops.where(converged, x, float("nan"))
            return Inversion(x, iterations, residual, rate)
        iterations, residual, rate = (
            ops.convert_to_numpy(number).item()
            for number in (iterations, residual, rate)
        )
        if failed:
            raise RuntimeError(
                f"`inverse` reached a step of {residual:.2g} in {iterations} "
                f"iterations, not the tolerance. Received: tolerance={tolerance}, "
                f"max_iterations={max_iterations}. Raise one of them; float32 ends "
                "near 1e-6, layers in half precision near 1e-2."
            )
        return Inversion(x, iterations, residual, rate)

    def log_determinant(self, inputs, power_terms=10, probes=1, seed=None):
        """Estimate log |det| of the block's Jacobian, for each sample.

        The power series of log det(I + J) = sum (-1)^(k+1) tr(J^k) / k with
        Hutchinson's estimator of the traces, by Jacobian-vector products. The
        gradient flows. Cutting the series leaves an error of at most
        `truncation_error`; the estimator of what is kept is unbiased and its
        spread falls as 1 / sqrt(probes). The cost is that of `power_terms`
        forward passes and as many products, each on `probes` times the batch.

        Args:
            inputs: Tensor (batch, ...), x.
            power_terms: Integer >= 1, terms of the series.
            probes: Integer >= 1, random vectors of signs a sample.
            seed: Integer for the same probes in each call, or a
                `keras.random.SeedGenerator`; default the layer's own, which
                gives other ones each time.

        Returns:
            Tensor (batch,), at least float32.

        Source: [behrmann2019], section 3.2, Algorithm 2.
        """
        check_integer("power_terms", power_terms, least=1)
        check_integer("probes", probes, least=1)
        self._check_built()
        inputs = wide(inputs)
        axes = tuple(range(1, len(inputs.shape)))
        if probes > 1:
            inputs = ops.tile(inputs, (probes, *(1 for _ in axes)))

        def branch(x):
            return ops.cast(self.function(x), x.dtype)

        seed = self.seed_generator if seed is None else seed
        signs = keras.random.randint(ops.shape(inputs), 0, 2, seed=seed)
        probe = ops.cast(2 * signs - 1, inputs.dtype)

        def series(vector=probe):
            total = 0.0
            for term in range(1, power_terms + 1):
                _, vector = ops.jvp(branch, (inputs,), (vector,))
                trace = ops.sum(vector * probe, axis=axes)
                total = total + (-1.0) ** (term + 1) / term * trace
            return total

        total = call_substituted(self.function, self._bounded()[0], series)
        return ops.mean(ops.reshape(total, (probes, -1)), axis=0)

    def truncation_error(self, power_terms, dimensions):
        """Return a bound of what the terms after `power_terms` add up to.

        Args:
            power_terms: Integer >= 1.
            dimensions: Integer, the numbers in one sample.

        Returns:
            Float, dimensions * sum over k > power_terms of Lip(g)^k / k.

        Source: [behrmann2019], section 3.2.
        """
        check_integer("power_terms", power_terms, least=1)
        check_integer("dimensions", dimensions, least=1)
        bound = self.lipschitz_bound()
        kept = sum(bound**k / k for k in range(1, power_terms + 1))
        return dimensions * (-math.log1p(-bound) - kept)

    def _check_built(self):
        if not self.built:
            raise ValueError(
                f"The layer '{self.name}' must be built first. Call it on a batch, "
                "or load its weights."
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


def _has_kernel(layer):
    return type(layer) in KERNEL_KINDS


def _check_one_path(function):
    """Raise a ValueError unless a model is a chain of layers."""
    # Of a user's subclass nobody knows what it computes.
    ours = type(function).__module__.partition(".")[0] == "keras"
    if ours and isinstance(function, keras.Sequential):
        return
    if not ours or not has_graph(function):
        raise ValueError(
            "`function` must be a list of layers, a `keras.Sequential` or a functional "
            f"`keras.Model`. Received: function={function}"
        )
    single = len(function.inputs) == len(function.outputs) == 1
    last = function.inputs[0]
    for operation in function.operations[1:] if single else ():
        # Merging layers have a list of inputs, and a shared layer its first one.
        single = single and operation.input is last and isinstance(operation, kl.Layer)
        last = operation.output
    if not single or last is not function.outputs[0]:
        raise ValueError(
            "`function` must be one path from one input to one output, with each "
            f"layer used once and no operations between. Received: '{function.name}'. "
            "Pass a list of layers."
        )


def _epsilon(layer):
    """Return the distance from 1 to the next number of a layer's precision."""
    dtype = keras.backend.standardize_dtype(layer.compute_dtype)
    return {"float64": 2.3e-16, "float32": 1.2e-7}.get(dtype, 7.9e-3)


def _norms(tensor):
    """Return the Euclidean norm of each sample, without overflow."""
    flat = ops.reshape(tensor, (ops.shape(tensor)[0], -1))
    largest, squares = scaled_squares(flat, (1,))
    return largest * ops.sqrt(squares)
