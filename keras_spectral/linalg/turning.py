"""The norm u' W v with constant vectors, and how these turn, for second derivatives.

The gradient of the norm by W is v u' with u and v as they are: their own derivatives
add nothing, since the norm is largest there. Differentiated once more by W it is those
derivatives that count, for W in the layout of kernels (inputs, outputs)

    dv = (s^2 - W W')^+ (dW W' + W dW') v

and the same with W' for u. So the vectors are constants here until a gradient by W is
itself differentiated by W. Only then is W factored: an ordinary step, or a gradient
penalty (by x, then by W), pays nothing. (In graphs `tf.autodiff.ForwardAccumulator`
differentiates what a custom gradient computes forward: it takes them for constants.)
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_spectral.linalg.norms import magnitude
from keras_spectral.linalg.tracing import with_gradient
from keras_spectral.linalg.turning_backends import jax_functions, torch_functions

# Farther from the singular vector than this, a constant vector is no estimate of it.
_LARGEST_ANGLE = 0.1


def turning_singular_value(sigma, u, v, kernel, refusal=None):
    """Return sigma = u' W v of a matrix, whose u and v turn with it.

    Args:
        sigma: Scalar tensor, the value.
        u: Unit tensor (outputs,), a constant.
        v: Unit tensor (inputs,), a constant.
        kernel: Float tensor (inputs, outputs).
        refusal: See `turning_norm`.

    Returns:
        Scalar tensor.

    Example:
    >>> import numpy as np
    >>> v, kernel = np.array([1.0, 0.0]), np.array([[3.0, 0.0], [0.0, 2.0]])
    >>> float(turning_singular_value(3.0, v, v, kernel))
    3.0
    """
    kernel = ops.convert_to_tensor(kernel)
    # Keras' products round float64 to float32 on torch: a vector may have been one.
    u, v = ops.cast(u, kernel.dtype), ops.cast(v, kernel.dtype)
    backend = keras.backend.backend()
    if backend == "tensorflow":
        sigma = ops.cast(sigma, kernel.dtype)
        inputs = [ops.stop_gradient(sigma), u, v, kernel]
        return with_gradient(_first, _by_singular_value, inputs, refusal)[0]
    # Elsewhere what has a gradient is computed with it.
    if backend == "torch":
        return torch_functions().SingularValue.apply(u, v, kernel, _turns(refusal))
    left, right = _turns(refusal)
    u, v = jax_functions().held(u, kernel, right), jax_functions().held(v, kernel, left)
    return ops.sum(u * (v @ kernel))


def _turns(refusal):
    """Return how the vectors of the inputs and of the outputs turn."""
    if refusal:
        return _Refusing(refusal), _Refusing(refusal)
    return _Turning(of_inputs=True), _Turning(of_inputs=False)


def turning_product(v, kernel, rows):
    """Return the product of rows and a left singular vector with a kernel.

    One more row in a product that is made anyway. On TensorFlow its gradient by the
    rows is fast: the backend's own, a product with the transposed kernel, takes four
    times as long on a CPU, 2/5 of a training step of a network of 2048-wide layers.

    Args:
        v: Unit tensor (inputs,), a constant.
        kernel: Float tensor (inputs, outputs).
        rows: Float tensor (batch, inputs).

    Returns:
        Tuple (rows @ kernel, v @ kernel).

    Example:
    >>> import numpy as np
    >>> v, kernel = np.array([1.0, 0.0]), np.array([[3.0, 0.0], [0.0, 2.0]])
    >>> product, image = turning_product(v, kernel, np.ones((1, 2)))
    >>> ops.convert_to_numpy(product).tolist(), ops.convert_to_numpy(image).tolist()
    ([[3.0, 2.0]], [3.0, 0.0])
    """
    kernel, rows = ops.convert_to_tensor(kernel), ops.convert_to_tensor(rows)
    v = ops.cast(v, kernel.dtype)
    turn = _Turning(of_inputs=True)
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return with_gradient(_product, _by_product, [v, kernel, rows], turn)
    if backend == "torch":
        return torch_functions().Product.apply(rows, kernel, v, turn)
    return _product(jax_functions().held(v, kernel, turn), kernel, rows)


def _product(v, kernel, rows):
    product = ops.concatenate([rows, v[None]], axis=0) @ kernel
    return product[:-1], product[-1]


def turning_norm(u, image, kernel, refusal=None):
    """Return <u, image>, the norm of a kernel whose u turns.

    Args:
        u: Unit tensor of the shape of `image`, a constant.
        image: Tensor, what the kernel makes of v, as `turning_product` has it.
        kernel: Float tensor; without `refusal` a matrix (inputs, outputs).
        refusal: String, the message of the `NotImplementedError` that a second
            derivative by the kernel raises, or `None` to compute it. It is right
            where the largest singular value is a single one and u and v are within
            0.1 of its vectors; else it is NaN.

    Returns:
        Scalar tensor.

    Example:
    >>> import numpy as np
    >>> v, kernel = np.array([1.0, 0.0]), np.array([[3.0, 0.0], [0.0, 2.0]])
    >>> float(turning_norm(v, v @ kernel, kernel))
    3.0
    """
    kernel = ops.convert_to_tensor(kernel)
    u, image = ops.cast(u, kernel.dtype), ops.cast(image, kernel.dtype)
    turn = _turns(refusal)[1]
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return with_gradient(_norm, _by_norm, [u, image, kernel], turn)[0]
    if backend == "torch":
        return torch_functions().Norm.apply(u, image, kernel, turn)
    return _norm(jax_functions().held(u, kernel, turn), image)[0]


def _norm(u, image, kernel=None):
    return (ops.sum(u * image),)


class _System(NamedTuple):
    """What a matrix A, `unit` times B or B', makes of a leading singular vector.

    Vectors are columns, for `@`: Keras' products round float64 to float32 on torch.

    Attributes:
        unit: Scalar tensor, constant.
        matrix: Tensor A / unit (size, other size).
        tall: Tensor B (long, short).
        on_long: Boolean, whether A is B, so that the vector has the longer side.
        square: Scalar tensor, s^2 of B.
        regular: Tensor (short, short), s^2 (I + z z') - B'B, for the right vector z.
        leading: Tensor (size, 1), the vector, with the sign of the estimate.
        trust: Scalar tensor, 1, or NaN where nothing is known.
    """

    unit: Any
    matrix: Any
    tall: Any
    on_long: bool
    square: Any
    regular: Any
    leading: Any
    trust: Any

    def resolve(self, c):
        """Return (s^2 - A A')^+ c, for A in multiples of `unit`."""
        c = c - self.leading * ops.sum(self.leading * c)
        if not self.on_long:
            return ops.solve(self.regular, c)
        within = ops.solve(self.regular, ops.transpose(self.tall) @ c)
        return (c + self.tall @ within) / self.square


@dataclass(frozen=True)
class _Turning:
    """How the leading singular vector on one side of a matrix turns with it."""

    of_inputs: bool
    refuses = False

    def _system(self, vector, matrix):
        finite = ops.all(ops.isfinite(matrix))
        unit = magnitude(matrix)
        # Some backends raise on NaN.
        scaled = ops.where(finite, matrix / unit, 0.0)
        is_tall = matrix.shape[0] >= matrix.shape[1]
        tall = scaled if is_tall else ops.transpose(scaled)
        gram = ops.transpose(tall) @ tall
        values, vectors = ops.eigh(ops.stop_gradient(gram))
        # It turns as well, for the derivatives after the second.
        turn = _Turning(of_inputs=not is_tall)
        short = turned(ops.stop_gradient(vectors[:, -1]), matrix, turn)[:, None]
        long = tall @ short
        square = ops.sum(ops.square(long))
        usable = square > 0
        square = ops.where(usable, square, 1.0)
        on_long = self.of_inputs == is_tall
        leading = long / ops.sqrt(square) if on_long else short
        overlap = ops.stop_gradient(ops.sum(leading * vector[:, None]))
        leading = ops.where(overlap < 0, -leading, leading)
        close = ops.logical_and(finite, ops.abs(overlap) >= np.cos(_LARGEST_ANGLE))
        if values.shape[0] > 1:
            epsilon = np.finfo(keras.backend.standardize_dtype(values.dtype)).eps
            gap = values[-1] - values[-2]
            close = ops.logical_and(close, gap > 100 * float(epsilon) * values[-1])
        # A zero kernel is used as it is: what its norm does reaches nothing.
        unknown = ops.where(ops.logical_or(usable, ~finite), float("nan"), 0.0)
        trust = ops.cast(ops.where(close, 1.0, unknown), square.dtype)
        identity = ops.eye(gram.shape[0], dtype=gram.dtype)
        regular = square * (identity + short @ ops.transpose(short)) - gram
        regular = ops.where(close, regular, identity)
        scaled = scaled if self.of_inputs else ops.transpose(scaled)
        return _System(unit, scaled, tall, on_long, square, regular, leading, trust)

    def push(self, vector, matrix, change):
        """Return how the vector turns for a change of the matrix."""
        system = self._system(vector, matrix)
        change = change / system.unit
        change = change if self.of_inputs else ops.transpose(change)
        moved = change @ (ops.transpose(system.matrix) @ system.leading)
        moved = moved + system.matrix @ (ops.transpose(change) @ system.leading)
        return (system.resolve(moved) * system.trust)[:, 0]

    def pull(self, vector, matrix, cotangent):
        """Return the gradient by the matrix for one by the vector."""
        system = self._system(vector, matrix)
        resolved = system.resolve(cotangent[:, None]) * (system.trust / system.unit)
        product = resolved @ (ops.transpose(system.leading) @ system.matrix)
        product = product + system.leading @ (ops.transpose(resolved) @ system.matrix)
        return product if self.of_inputs else ops.transpose(product)


@dataclass(frozen=True)
class _Refusing:
    """For vectors of which it is not known how they turn."""

    message: str
    refuses = True

    def pull(self, vector, matrix, cotangent):
        raise NotImplementedError(self.message)

    push = pull


def turned(vector, matrix, turn):
    """Return a vector as it turns with a matrix."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return with_gradient(_first, _by_turned, [vector, matrix], turn)[0]
    return (jax_functions() if backend == "jax" else torch_functions()).turned(
        vector, matrix, turn
    )


def _first(first, *_):
    return (ops.copy(first),)


def _by_turned(turn, inputs, upstream):
    return upstream[0], turn.pull(*inputs, upstream[0])


def _by_product(turn, inputs, upstream):
    # Two outputs with a gradient each: if one were a part of the other's, a gradient by
    # the rows would depend on how u turns, if only by zeros.
    import tensorflow as tf

    (v, kernel, rows), (of_product, of_image) = inputs, upstream
    left = tf.concat([rows, turned(v, kernel, turn)[None]], 0)
    right = tf.concat([of_product, of_image[None]], 0)
    by_kernel = tf.matmul(left, right, transpose_a=True)
    by_rows = tf.transpose(tf.matmul(kernel, of_product, transpose_b=True))
    return None, by_kernel, by_rows


def _by_norm(turn, inputs, upstream):
    u, _, kernel = inputs
    return None, upstream[0] * turned(u, kernel, turn), None


def _by_singular_value(refusal, inputs, upstream):
    _, u, v, kernel = inputs
    left, right = _turns(refusal)
    u, v = turned(u, kernel, right), turned(v, kernel, left)
    return None, None, None, ops.expand_dims(v, 1) * (upstream[0] * u)
