"""Block iteration: several leading singular vectors at once, advanced in few steps.

One vector follows the leading singular vector of a kernel that trains by the gap to
the second singular value, which is small; a block of k follows it by the gap to the
one of number k + 1. What is factored has at most three times as many rows.

A block is k rows: unit tensors of an operator's `output_shape` (or `input_shape`)
stacked along the first axis. Operators take such stacks.
"""

import math

import numpy as np
from keras import ops

from keras_spectral.linalg.arrays import largest_entry
from keras_spectral.linalg.norms import largest_divisor
from keras_spectral.linalg.operators import dense_operator
from keras_spectral.linalg.tracing import traced_once

# Where the smaller side is at most this, its Gram matrix is factored on the host.
LARGEST_FACTORED_SIDE = 512

# What the Gram matrix of unit rows gets on its diagonal, so that it has a Cholesky
# factor in float32 where they are dependent.
_SHIFT = 1e-5


def _flat(rows):
    if len(rows.shape) == 2:
        return rows
    return ops.reshape(rows, (rows.shape[0], math.prod(rows.shape[1:])))


def _like(rows, images):
    """Return rows in the shape of stacked images."""
    if len(images.shape) == 2:
        return rows
    return ops.reshape(rows, (-1, *images.shape[1:]))


def _unit_rows(rows, fallback):
    """Return each row divided by its length, or `fallback` where it has none."""
    squares = ops.sum(ops.square(rows), axis=1, keepdims=True)
    # Not so for zero and NaN.
    usable = squares > 0
    fallback = ops.cast(fallback, rows.dtype)
    return ops.where(usable, rows * ops.rsqrt(squares), fallback)


def _gram(rows):
    return ops.matmul(rows, ops.transpose(rows))


def block_iterate(operator, left, right, kept=0):
    """Advance leading singular vectors by one locally optimal iteration.

    The right vectors are those of the span of A' left, of the last right ones and of
    the directions in which these moved, that make A largest (Rayleigh-Ritz): what
    conjugate gradients are to steepest descent. Following a kernel that trains, it
    errs a hundred times less than the span of A' left alone. No gradient flows.

    Args:
        operator: A `LinearOperator`.
        left: Tensor (k, ...), rows of the operator's `output_shape`.
        right: Tensor (2 kept, ...), rows of its `input_shape`: right vectors, leading
            first, and as many directions. One row, which is ignored, for `kept` = 0.
        kept: Integer from 0 to k; k + 2 kept is at most the smaller side.

    Returns:
        Tuple (left, right) of the same shapes: left vectors, leading last, and right
        vectors, leading first, with directions. What would be zero or not finite stays
        as it was, so a broken kernel breaks nothing that is stored.

    Example:
    >>> import numpy as np
    >>> from keras_spectral.linalg import dense_operator
    >>> operator = dense_operator(np.diag([3.0, 2.0, 1.0]))
    >>> left = right = np.eye(3)[:1] + 0.1
    >>> for _ in range(20):
    ...     left, right = block_iterate(operator, left, right)
    >>> abs(ops.convert_to_numpy(left)[0]).round(4).tolist()
    [1.0, 0.0, 0.0]

    Source: [knyazev2001] (LOBPCG) for A'A, with one application of it.
    """
    if operator.matrix is not None:
        return _iterate_dense(operator.matrix, left, right, kept=kept)
    return _iterate(operator, left, right, kept)


@traced_once
def _iterate_dense(matrix, left, right, kept):
    return _iterate(dense_operator(matrix), left, right, kept)


def _iterate(operator, left, right, kept):
    left, right = ops.convert_to_tensor(left), ops.convert_to_tensor(right)
    count, top = left.shape[0], max(1, kept)
    old_left, old_right = _flat(left), _flat(right)
    # One scale serves all, so that nothing overflows whatever the kernel's is. Few
    # operations: on small kernels their number is what normalization costs.
    scaled = _flat(operator.adjoint(left))
    most, largest = largest_divisor(scaled), ops.max(ops.abs(scaled))
    # Infinity stays: rows that are divided by it have no direction.
    scale = ops.where(ops.isfinite(largest), most, largest)
    scale = ops.clip(largest, 1.0 / most, scale)
    span = _unit_rows(scaled / scale, 0.0)
    if kept:
        # Right vectors first: the other rows are then orthogonal to them.
        span = ops.concatenate([old_right, span], axis=0)
    shift = ops.convert_to_tensor(_SHIFT * np.eye(span.shape[0]), dtype=operator.dtype)
    gram = _gram(span) + shift
    span = ops.solve_triangular(ops.cholesky(gram), span, lower=True)
    images = operator.matvec(_like(span, right))
    images = _flat(images) / scale
    gram = _gram(images)
    # `eigh` raises on NaN on some backends.
    gram = ops.where(ops.isfinite(gram), gram, 0.0)
    # Columns, ascending: the last ones lead.
    mixtures = ops.eigh(gram)[1][:, -count:]
    # A sign that does not depend on who factored it, so that compilers agree.
    sums = ops.sum(mixtures, axis=0, keepdims=True)
    mixtures = ops.where(sums < 0, -mixtures, mixtures)
    new_left = _unit_rows(ops.matmul(ops.transpose(mixtures), images), old_left)
    leading = ops.flip(mixtures[:, -top:], axis=1)
    if kept:
        # A direction is the part of a new right vector that is not in the old ones.
        outside = np.repeat([[0.0], [1.0]], [kept, span.shape[0] - kept], axis=0)
        outside = leading * ops.convert_to_tensor(outside, dtype=operator.dtype)
        leading = ops.concatenate([leading, outside], axis=1)
    new_right = _unit_rows(ops.matmul(ops.transpose(leading), span), old_right)
    return (
        ops.stop_gradient(_like(new_left, left)),
        ops.stop_gradient(_like(new_right, right)),
    )


def leading_left_vectors(matrix, count, depth=8):
    """Find the leading left singular vectors of a matrix, on the host.

    Exact, by the eigenvectors of the smaller Gram matrix, where the smaller side is
    at most 512. Above, a block Krylov space of a fixed start is used; with the default
    depth its norm is too small by some 1e-3 for a random square matrix of 2048 rows,
    whose spectrum is flat, with a depth of 24 by some 1e-5.

    Args:
        matrix: Array (inputs, outputs), the matrix of x -> x @ matrix; float32 or
            float64.
        count: Integer >= 1, at most the smaller side.
        depth: Integer >= 1, see `krylov_left_vectors`.

    Returns:
        Array (count, outputs) of orthonormal rows, leading last. Where the rank is
        below `count`, or the matrix is not finite, the others are arbitrary.

    Example:
    >>> import numpy as np
    >>> rows = leading_left_vectors(np.diag([3.0, 1.0, 2.0]), count=2)
    >>> abs(rows).round(4).tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]

    Source: [musco2015], Algorithm 2, above 512.
    """
    scale = largest_entry(matrix)
    if scale is None:
        return _completed(np.zeros((0, matrix.shape[1]), matrix.dtype), count)
    if min(matrix.shape) > LARGEST_FACTORED_SIDE:
        # With the large matrix first, BLAS on two cores takes a third of the time.
        return krylov_left_vectors(
            lambda rows: (matrix.T @ (rows / scale).T).T,
            lambda rows: (matrix @ (rows / scale).T).T,
            matrix.shape[1],
            count,
            depth,
            matrix.dtype,
        )
    scaled = (matrix / scale).astype("float64")
    inputs, outputs = matrix.shape
    gram = scaled.T @ scaled if outputs <= inputs else scaled @ scaled.T
    values, vectors = np.linalg.eigh(gram)
    rows = vectors[:, -count:].T
    if outputs > inputs:
        rows = rows @ scaled
    # Those of the null space are rounding.
    rows = rows[values[-count:] > 1e-12 * values[-1]]
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return _completed(rows, count).astype(matrix.dtype)


def krylov_left_vectors(apply, adjoint, outputs, count, depth=8, dtype="float32"):
    """Find leading left singular vectors from a block Krylov space, on the host.

    Args:
        apply: Callable from an array of rows (k, inputs) to their images
            (k, outputs).
        adjoint: Callable from rows (k, outputs) to (k, inputs).
        outputs: Integer.
        count: Integer >= 1, at most the smaller side of the map.
        depth: Integer >= 1, applications of A A' to the start.
        dtype: String, of the start.

    Returns:
        Array (count, outputs) of orthonormal rows, leading last.

    Example:
    >>> import numpy as np
    >>> matrix = np.diag([3.0, 1.0, 2.0])
    >>> rows = krylov_left_vectors(
    ...     lambda x: x @ matrix, lambda y: y @ matrix.T, 3, 2, dtype="float64"
    ... )
    >>> abs(rows[-1]).round(4).tolist()
    [1.0, 0.0, 0.0]

    Source: [musco2015], Algorithm 2.
    """
    rows = _completed(np.zeros((0, outputs), dtype), count)
    space = [rows]
    for _ in range(depth):
        images = apply(adjoint(rows))
        size = largest_entry(images)
        if size is None:
            return space[0]
        rows = np.linalg.qr((images / size).T)[0].T
        space.append(rows)
    space = np.linalg.qr(np.concatenate(space).T)[0].T
    images = adjoint(space)
    images = images / np.abs(images).max()
    vectors = np.linalg.eigh((images @ images.T).astype("float64"))[1]
    return (vectors[:, -count:].T @ space).astype(dtype)


def _completed(rows, count):
    """Return `count` orthonormal rows that end with those given."""
    missing = count - len(rows)
    if not missing:
        return rows
    start = np.random.default_rng(0).standard_normal((missing, rows.shape[1]))
    # Twice: the first leaves a component along `rows` by rounding.
    for _ in range(2):
        start = start - (start @ rows.T) @ rows
        start = np.linalg.qr(start.T)[0].T
    return np.concatenate([start.astype(rows.dtype), rows])
