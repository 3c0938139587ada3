"""The norm u' W v with constant vectors, and how these turn, for second derivatives.

The gradient of the norm by W is v u' with u and v as they are: their own derivatives
add nothing, since the norm is largest there. Differentiated once more by W it is those
derivatives that count, for W in the layout of kernels (inputs, outputs)

    dv = (s^2 - W W')^+ (dW W' + W dW') v

and the same with W' for u. So the vectors are constants here until a gradient by W is
itself differentiated by W. Only then is W factored: an ordinary step, or a gradient
penalty (by x, then by W), pays nothing. (`tf.autodiff.ForwardAccumulator` differentiates
what a custom gradient computes forward, in graphs, and so takes them for constants.)
"""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_spectral.linalg.norms import magnitude
from keras_spectral.linalg.tracing import with_gradient

# Farther from the singular vector than this, a constant vector is no estimate of it.
_LARGEST_ANGLE = 0.1


def turning_product(v, kernel, rows=None):
    """Return the product of rows and a left singular vector with a kernel.

    One more row in a product that is made anyway. On TensorFlow its gradient by the
    rows is fast: the backend's own, a product with the transposed kernel, takes four
    times as long on a CPU, 2/5 of a training step of a network of 2048-wide layers.

    Args:
        v: Unit tensor (inputs,), a constant.
        kernel: Float tensor (inputs, outputs).
        rows: Float tensor (batch, inputs), or `None`.

    Returns:
        Tuple (rows @ kernel or `None`, v @ kernel).

    Example:
    >>> import numpy as np
    >>> v, kernel = np.array([1.0, 0.0]), np.array([[3.0, 0.0], [0.0, 2.0]])
    >>> product, image = turning_product(v, kernel, np.ones((1, 2)))
    >>> ops.convert_to_numpy(product).tolist(), ops.convert_to_numpy(image).tolist()
    ([[3.0, 2.0]], [3.0, 0.0])
    """
    kernel = ops.convert_to_tensor(kernel)
    # Keras' products round float64 to float32 on torch: a vector may have been one.
    v = ops.cast(v, kernel.dtype)
    turn = _Turning(of_inputs=True)
    backend = keras.backend.backend()
    if rows is not None:
        rows = ops.convert_to_tensor(rows)
    if backend == "tensorflow":
        return _tensorflow_product(v, kernel, rows, turn)
    if backend == "torch":
        return _torch_product(v, kernel, rows, turn)
    v = _jax().held(v, kernel, turn)
    if rows is None:
        return None, v @ kernel
    product = ops.concatenate([rows, v[None]], axis=0) @ kernel
    return product[:-1], product[-1]


def turning_norm(u, image, kernel, refusal=None):
    """Return <u, image>, the norm of a kernel whose u turns.

    Args:
        u: Unit tensor of the shape of `image`, a constant.
        image: Tensor, what the kernel makes of v: `turning_product(v, kernel)[1]`.
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
    >>> float(turning_norm(v, turning_product(v, kernel)[1], kernel))
    3.0
    """
    kernel = ops.convert_to_tensor(kernel)
    u, image = ops.cast(u, kernel.dtype), ops.cast(image, kernel.dtype)
    turn = _Refusing(refusal) if refusal else _Turning(of_inputs=False)
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return _tensorflow_norm(u, image, kernel, turn)
    if backend == "torch":
        return _torch().Norm.apply(u, image, kernel, turn)
    return ops.sum(_jax().held(u, kernel, turn) * image)


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

    def pull(self, vector, matrix, cotangent):
        raise NotImplementedError(self.message)

    push = pull


def turned(vector, matrix, turn):
    """Return a vector as it turns with a matrix."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return _tensorflow_turned(vector, matrix, turn)
    return (_jax() if backend == "jax" else _torch()).turned(vector, matrix, turn)


def _tensorflow_turned(vector, matrix, turn):
    return with_gradient(_first_of_two, _by_turned, [vector, matrix], turn)[0]


def _first_of_two(vector, matrix):
    return (ops.copy(vector),)


def _by_turned(turn, inputs, upstream):
    return upstream[0], turn.pull(*inputs, upstream[0])


def _tensorflow_product(v, kernel, rows, turn):
    # Two outputs with a gradient each: if one were a part of the other's, a gradient by
    # the rows would depend on how u turns, if only by zeros.
    def product(v, kernel, *rows):
        whole = ops.concatenate([*rows, v[None]], axis=0) @ kernel
        return (whole[-1], whole[:-1]) if rows else (whole[0],)

    given = [] if rows is None else [rows]
    image, *products = with_gradient(product, _by_product, [v, kernel, *given], turn)
    return (products[0] if products else None), image


def _by_product(turn, inputs, upstream):
    import tensorflow as tf

    (v, kernel, *rows), (of_image, *of_product) = inputs, upstream
    left = tf.concat([*rows, turned(v, kernel, turn)[None]], 0)
    right = tf.concat([*of_product, of_image[None]], 0)
    by_kernel = tf.matmul(left, right, transpose_a=True)
    by_rows = [
        tf.transpose(tf.matmul(kernel, by, transpose_b=True)) for by in of_product
    ]
    return None, by_kernel, *by_rows


def _tensorflow_norm(u, image, kernel, turn):
    def norm(u, image, kernel):
        return (ops.sum(u * image),)

    return with_gradient(norm, _by_norm, [u, image, kernel], turn)[0]


def _by_norm(turn, inputs, upstream):
    u, _, kernel = inputs
    return None, upstream[0] * turned(u, kernel, turn), None


class _Jax(NamedTuple):
    held: Any
    turned: Any


@functools.cache
def _jax():
    import jax

    @functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
    def turned(vector, matrix, turn):
        return vector

    @turned.defjvp
    def _(turn, primals, tangents):
        vector, matrix = primals
        moved = turn.push(vector, matrix, tangents[1])
        return turned(vector, matrix, turn), tangents[0] + moved

    # Forward mode would raise where a derivative is made and then not used.
    @functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
    def refused(vector, matrix, turn):
        return vector

    refused.defvjp(
        lambda vector, matrix, turn: (vector, None),
        lambda turn, _, upstream: turn.pull(None, None, upstream),
    )

    @functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
    def held(vector, matrix, turn):
        return vector

    def no_tangent(turn, primals, tangents):
        again = refused if isinstance(turn, _Refusing) else turned
        return again(*primals, turn), tangents[0]

    held.defjvp(no_tangent, symbolic_zeros=True)
    return _Jax(held, turned)


def _torch_product(v, kernel, rows, turn):
    if rows is None:
        # A constant without rows, which the backward pass leaves alone.
        rows = ops.zeros((0, v.shape[0]), dtype=kernel.dtype)
        return None, _torch().Product.apply(rows, kernel, v, turn)[1]
    return _torch().Product.apply(rows, kernel, v, turn)


class _Torch(NamedTuple):
    Product: Any
    Norm: Any
    turned: Any


@functools.cache
def _torch():
    import torch

    class Function(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def setup_context(ctx, inputs, output):
            *tensors, ctx.turn = inputs
            ctx.save_for_backward(*tensors)
            ctx.save_for_forward(*tensors)

    class Turned(Function):
        @staticmethod
        def forward(vector, matrix, turn):
            return vector.clone()

        @staticmethod
        def backward(ctx, upstream):
            return upstream, ctx.turn.pull(*ctx.saved_tensors, upstream), None

        @staticmethod
        def jvp(ctx, vector_change, change, _):
            return vector_change + ctx.turn.push(*ctx.saved_tensors, change)

    def late(vector, matrix, turn):
        # A plain backward pass records nothing that could be differentiated.
        return Turned.apply(vector, matrix, turn) if torch.is_grad_enabled() else vector

    class Product(Function):
        @staticmethod
        def forward(rows, kernel, v, turn):
            whole = torch.cat([rows, v[None]]) @ kernel
            return whole[:-1], whole[-1]

        @staticmethod
        def backward(ctx, upstream, of_image):
            rows, kernel, v = ctx.saved_tensors
            by_rows = by_kernel = None
            if ctx.needs_input_grad[0]:
                by_rows = upstream @ kernel.T
            if ctx.needs_input_grad[1]:
                left = torch.cat([rows, late(v, kernel, ctx.turn)[None]])
                by_kernel = left.T @ torch.cat([upstream, of_image[None]])
            return by_rows, by_kernel, None, None

        @staticmethod
        def jvp(ctx, rows_change, change, *_):
            rows, kernel, v = ctx.saved_tensors
            moved = rows_change @ kernel + rows @ change
            return moved, late(v, kernel, ctx.turn) @ change

    class Norm(Function):
        @staticmethod
        def forward(u, image, kernel, turn):
            return (u * image).sum()

        @staticmethod
        def backward(ctx, upstream):
            u, _, kernel = ctx.saved_tensors
            return None, upstream * late(u, kernel, ctx.turn), None, None

        @staticmethod
        def jvp(ctx, _, change, *__):
            u, _, kernel = ctx.saved_tensors
            return (late(u, kernel, ctx.turn) * change).sum()

    return _Torch(Product, Norm, Turned.apply)
