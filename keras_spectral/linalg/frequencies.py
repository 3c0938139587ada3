"""The largest eigenvalue of a convolution's Gram matrices over a grid, from above.

The Gram matrix G(t) of the kernel's transform is a trigonometric polynomial of the
frequency t, so what few frequencies know of it or of its square all others follow
from, exactly. A squaring, which is what costs, is done at as few as hold its result;
only from there on at single frequencies, and at those alone that may hold the largest.
"""

import math

import numpy as np
from keras import ops

from keras_spectral.linalg.tracing import traced_once

# How many squarings all frequencies get; the rest is for those that matter, unless
# it takes fewer multiply-adds than are worth a choice.
_SQUARINGS_OF_ALL = 2
_FEW_PRODUCTS = 10**7
# How many plain ones make the vector of the gradient.
_SQUARINGS_OF_ONE = 8
# At how many frequencies of the grid, as a share, more squarings are done at once.
_SHARE_AT_ONCE = 1 / 16


@traced_once
def largest_eigenvalue(kernel, points, squarings, slack, eps, located):
    """Return an upper bound of K*K's largest eigenvalue on a grid, and where it is.

    A Hermitian matrix R + iJ is kept as the real matrix M = R + J, of the same trace
    and Frobenius norm, whose transpose is R - J.

    Each squaring maps Y to (2 Y / g - 1)^2, whose eigenvalues u bound those of Y:
    y <= g (1 + sqrt(u)) / 2, for any g > 0. It separates best (a Chebyshev polynomial)
    if g is the largest eigenvalue, and never worse than plain powers if g is below;
    tr Y^2 / tr Y is.

    Args:
        kernel: Tensor (*taps, groups, m, n).
        points: Tuple of integers, of the grid, an axis of taps each.
        squarings: Integer >= 0, at most so many a frequency.
        slack: Float >= 0. It ends early where the root of the bound is above that of
            what was found from below by that share at most.
        eps: Float, the rounding of the dtype.
        located: Boolean, whether the rest is returned, too.

    Returns:
        Scalar tensor; and what is near: the frequency (axes,), the group, a scalar, and
        the eigenvector's real and imaginary part, each (n, 1).
    """
    *taps, groups, _, n = kernel.shape
    coarse = tuple(2 * size - 1 for size in taps)
    matrices = _gram_matrices(kernel, coarse)
    real = math.prod(taps) == 1
    guesses, finest = [], math.prod(_counts(points))
    of_all = min(squarings, _SQUARINGS_OF_ALL)
    if groups * finest * n**3 * (squarings - of_all) < _FEW_PRODUCTS:
        of_all = squarings
    for _ in range(of_all):
        finer = tuple(2 * count - 1 for count in coarse)
        if coarse != points and math.prod(_counts(finer)) < finest:
            matrices = _interpolated(matrices, coarse, finer)
            coarse = finer
        elif coarse != points:
            matrices = _interpolated(matrices, coarse, points)
            coarse = points
        matrices, guess = _squared(matrices, real)
        guesses.append(guess)
    if coarse != points:
        matrices = _interpolated(matrices, coarse, points)
    matrices = ops.reshape(matrices, (-1, n, n))
    left = squarings - len(guesses)

    def norm(value):
        return ops.sqrt(_undone(value, guesses))

    def from_below(matrices, vectors, index):
        """Return the largest Rayleigh quotient, and its place in the grid."""
        quotients = _quotients(matrices, vectors)
        best = ops.argmax(quotients)
        return ops.max(quotients), ops.cast(ops.take(index, best), "int32")

    at_once = max(1, round(matrices.shape[0] * _SHARE_AT_ONCE))
    uppers = _uppers(matrices, eps)
    _, index = ops.top_k(uppers, at_once)
    chosen = ops.take(matrices, index, axis=0)
    lower, place = from_below(chosen, _columns(chosen), index)
    for depth in sorted({1, left}) if left > 0 else ():

        def going(uppers, done, lower, place):
            top = ops.max(uppers)
            # Where u <= 1, y = g is known.
            wanted = (1 + slack) * norm(ops.maximum(lower, ops.ones_like(lower)))
            is_open = ops.max(uppers * (1 - done)) > ops.max(uppers * done)
            return ops.logical_and(is_open, norm(top) > wanted)

        def refined(uppers, done, lower, place, depth=depth):
            _, index = ops.top_k(uppers * (1 - done) - done, at_once)
            chosen = ops.take(matrices, index, axis=0)
            powers, inner = _powers(chosen, depth, real)
            values = _undone(_uppers(powers, eps), inner)
            found, at = from_below(chosen, _columns(powers), index)
            places = ops.reshape(ops.cast(index, "int32"), (-1, 1))
            uppers = ops.scatter_update(uppers, places, values)
            done = ops.scatter_update(done, places, ops.ones_like(values))
            place = ops.where(found > lower, at, place)
            return uppers, done, ops.maximum(found, lower), place

        state = uppers, ops.zeros_like(uppers), lower, place
        uppers, _, lower, place = _repeated(going, refined, state)

    bound = _undone(ops.max(uppers), guesses)
    if not located:
        return (bound,)
    frequency = ops.convert_to_tensor(_frequencies(points), dtype=kernel.dtype)
    frequency, group = ops.take(frequency, place // groups, axis=0), place % groups
    vector = _eigenvector(*transform(kernel, frequency, group), real)
    return bound, frequency, group, *vector


def transform(kernel, frequency, group):
    """Return a group's transform at a frequency, real and imaginary, each (m, n).

    Args:
        kernel: Tensor (*taps, groups, m, n).
        frequency: Tensor (axes,), radians.
        group: Integer tensor.
    """
    *taps, groups, outer, n = kernel.shape
    positions = np.indices(taps).reshape(len(taps), -1)
    phases = ops.matmul(frequency, ops.convert_to_tensor(positions, frequency.dtype))
    kernel = ops.reshape(kernel, (-1, groups, outer, n))
    kernel = ops.reshape(ops.take(kernel, group, axis=1), (-1, outer * n))
    waves = ops.stack([ops.cos(phases), ops.sin(phases)])
    both = ops.reshape(ops.matmul(waves, kernel), (2, outer, n))
    return both[0], both[1]


def times(real, imaginary, x, y):
    """Return the product of a complex matrix and a column, real and imaginary."""
    products = ops.matmul(real, x) - ops.matmul(imaginary, y)
    return products, ops.matmul(real, y) + ops.matmul(imaginary, x)


def _eigenvector(real, imaginary, is_real):
    """Return a unit vector near the largest eigenvalue of K*K, or zero.

    Plain powers: those that are shifted leave many eigenvalues as large as the first.
    """

    def going(done, matrix):
        return done < _SQUARINGS_OF_ONE

    def step(done, matrix):
        trace, _ = _traces(matrix)
        matrix = matrix / ops.where(trace > 0, trace, ops.ones_like(trace))
        return done + 1, _square(matrix, is_real)

    matrix = ops.matmul(ops.transpose(real), real + imaginary)
    matrix = matrix + ops.matmul(ops.transpose(imaginary), imaginary - real)
    state = ops.zeros((), "int32"), matrix[None]
    _, matrix = _repeated(going, step, state)
    vector = [part[0] for part in _columns(matrix)]
    length = ops.sqrt(sum(ops.sum(ops.square(part)) for part in vector))
    length = ops.where(length > 0, length, ops.ones_like(length))
    return [part / length for part in vector]


def _powers(matrices, squarings, real):
    """Return what so many squarings give, and the list of their guesses."""

    def step(done, matrices, guesses):
        matrices, guess = _squared(matrices, real)
        guesses = ops.slice_update(guesses, (done,), ops.reshape(guess, (1,)))
        return done + 1, matrices, guesses

    def going(done, matrices, guesses):
        return done < squarings

    guesses = ops.zeros((squarings,), matrices.dtype)
    state = ops.zeros((), "int32"), matrices, guesses
    _, matrices, guesses = _repeated(going, step, state)
    return matrices, [guesses[done] for done in range(squarings)]


def _repeated(going, step, state):
    """Return what a loop ends with: by Python where there are numbers, not traces."""
    while True:
        try:
            more = bool(ops.convert_to_numpy(going(*state)))
        except (NotImplementedError, TypeError):
            return ops.while_loop(going, step, state)
        if not more:
            return state
        state = step(*state)


def _undone(value, guesses):
    """Return the bound of Y that one of its squares, shifted by the guesses, gives."""
    for guess in reversed(guesses):
        value = guess * (1.0 + ops.sqrt(value)) / 2.0
    return value


def _counts(points):
    """Return the axes of half a grid: of a real kernel's two that are opposite, one."""
    return points[0] // 2 + 1, *points[1:]


def _indices(count):
    return np.arange(count) - (count - 1) // 2


def _frequencies(points):
    """Return half of the grid's frequencies (*counts, axes), as radians."""
    first, *others = points
    axes = [np.arange(first // 2 + 1), *map(_indices, others)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    return grid.reshape(-1, len(points)) * (2 * np.pi / np.array(points))


def _gram_matrices(kernel, points):
    """Return K*K at half a grid of frequencies: (*counts, groups, n, n)."""
    *taps, groups, outer, n = kernel.shape
    phases = _frequencies(points) @ np.indices(taps).reshape(len(taps), -1)
    real, imaginary = (
        ops.reshape(
            ops.matmul(
                ops.convert_to_tensor(waves, dtype=kernel.dtype),
                ops.reshape(kernel, (math.prod(taps), -1)),
            ),
            (*_counts(points), groups, outer, n),
        )
        for waves in (np.cos(phases), np.sin(phases))
    )
    if math.prod(taps) == 1:
        return ops.matmul(_transposed(real), real)
    matrices = ops.matmul(_transposed(real), real + imaginary)
    return matrices + ops.matmul(_transposed(imaginary), imaginary - real)


def _transposed(matrices):
    return ops.swapaxes(matrices, -1, -2)


def _interpolated(matrices, points, targets):
    """Return a trigonometric polynomial, known on an odd grid, on another one.

    Args:
        matrices: Tensor (*counts of `points`, groups, n, n).
        points: Tuple of odd integers.
        targets: Tuple of integers.
    """
    axes = len(points)
    rest = tuple(matrices.shape[axes:])
    # At opposite frequencies the matrices are each other's transposes.
    opposite = ops.flip(matrices[1:], axis=tuple(range(axes)))
    matrices = ops.concatenate([_transposed(opposite), matrices], axis=0)
    done, left = 1, math.prod(matrices.shape)
    for axis, (count, target) in enumerate(zip(points, targets, strict=True)):
        left //= count
        wanted = _indices(target) if axis else np.arange(target // 2 + 1)
        if count != 1 or target != 1:
            turns = wanted[:, None] / target - _indices(count) / count
            orders = np.arange(1, count // 2 + 1)
            waves = 1 + 2 * np.cos(2 * np.pi * turns[..., None] * orders).sum(axis=-1)
            weights = ops.convert_to_tensor(waves / count, dtype=matrices.dtype)
            matrices = ops.reshape(matrices, (done, count, left))
            matrices = ops.matmul(weights, matrices)
        done *= len(wanted)
    return ops.reshape(matrices, (*_counts(targets), *rest))


def _traces(matrices):
    """Return the trace of each and of its square."""
    n = matrices.shape[-1]
    flat = ops.reshape(matrices, (-1, n * n))
    return ops.sum(flat[:, :: n + 1], axis=1), ops.sum(ops.square(flat), axis=1)


def _squared(matrices, real):
    """Return (2 Y / g - 1)^2 and g."""
    trace, squares = _traces(matrices)
    positive = trace > 0
    ratios = squares / ops.where(positive, trace, ops.ones_like(trace))
    guess = ops.max(ops.where(positive, ratios, ops.zeros_like(ratios)))
    divisor = ops.where(guess > 0, guess, ops.ones_like(guess))
    # Since it is twice the square that is formed.
    half = math.sqrt(0.5)
    identity = half * np.eye(matrices.shape[-1])
    identity = ops.convert_to_tensor(identity, dtype=matrices.dtype)
    return _square(matrices * (2.0 * half / divisor) - identity, real), guess


def _square(matrices, real):
    """Return twice the square of each: M R + M'J, or of M = R alone."""
    if real:
        return ops.matmul(matrices, 2.0 * matrices)
    transposed = _transposed(matrices)
    product = ops.matmul(matrices, matrices + transposed)
    return product + ops.matmul(transposed, matrices - transposed)


def _uppers(matrices, eps):
    """Return a bound of the largest eigenvalue of each, positive semidefinite."""
    n = matrices.shape[-1]
    trace, squares = _traces(matrices)
    if n == 1:
        return ops.relu(trace)
    # Of n real numbers with these sums, and of their squares, none is larger. What the
    # difference loses to rounding is added.
    variance = ops.relu(squares - ops.square(trace) / n)
    deviation = ops.sqrt(variance + (n + 8) * eps * squares)
    return trace / n + math.sqrt((n - 1) / n) * deviation


def _columns(matrices):
    """Return the column (re, im) of each that is most of an eigenvector."""
    n = matrices.shape[-1]
    diagonal = ops.reshape(matrices, (-1, n * n))[:, :: n + 1]
    one = ops.one_hot(ops.argmax(diagonal, axis=1), n, dtype=matrices.dtype)[..., None]
    column, row = ops.matmul(matrices, one), ops.matmul(_transposed(matrices), one)
    return (column + row) / 2.0, (column - row) / 2.0


def _quotients(matrices, vectors):
    """Return the Rayleigh quotient of each."""
    real, imaginary = vectors
    products = (real + imaginary) * ops.matmul(matrices, real)
    products = products + (imaginary - real) * ops.matmul(matrices, imaginary)
    squares = ops.square(real) + ops.square(imaginary)
    squares = ops.sum(squares, axis=(1, 2))
    divisor = ops.where(squares > 0, squares, ops.ones_like(squares))
    return ops.sum(products, axis=(1, 2)) / divisor
