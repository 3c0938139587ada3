"""Norms of kernels from above, on the host in float64: for measures, not for training.

`certificates` bounds by matrix products alone, which any backend differentiates and
compiles. A Cholesky factorization that does not fail proves as much at a tenth of the
work or less.
"""

import contextlib
import itertools
import math

import numpy as np
import scipy.linalg
import scipy.sparse.linalg

from keras_spectral.linalg.certificates import frequency_grid
from keras_spectral.linalg.threads import one_thread
from keras_spectral.validation import check_positive

_EPSILON = float(np.finfo("float64").eps)
# The share of the tolerance that the grid gets; the rest is the eigenvalue's.
_SHARE_OF_GRID = 0.92
# Numbers of the matrices that are formed at once.
_CHUNK = 2**21
# Up to this side all eigenvalues are found where one is asked for.
_LARGEST_FACTORED = 512


def certified_norm(kernel, kind="dense", groups=1, tolerance=0.01):
    """Return a number not below the norm of a layer's linear map, and hardly above.

    A convolution's holds for every image size, stride, dilation and zero padding: on a
    grid of frequencies that is fine enough for a proved factor, lambda I - G is shown
    to be positive semidefinite for the Gram matrix G of the kernel's transform, by its
    Cholesky factorization. What float64 rounds is added (see `_rounding`).

    Args:
        kernel: NumPy array of the axes that `induced_norm` tells.
        kind: A `KernelKind`.
        groups: Integer, of a convolution (*spatial, inputs / groups, filters).
        tolerance: Float > 0, by what share the number may exceed the norm (of a
            convolution that on an unbounded image); taken for 1e-5 if smaller.

    Returns:
        Float; NaN for a kernel that is not finite. With n the smaller number of
        channels a 3x3 kernel costs some 450 n^3 multiply-adds at a tolerance of 0.01.

    Example:
    >>> mean = np.full((3, 3, 1, 1), 1.0 / 9.0)
    >>> 1.0 <= certified_norm(mean, "convolution") < 1.01
    True

    Source: [sedghi2019] (Fourier spectrum), [ehlich1964] (grid factor), [rump2006]
    (positive definiteness by a Cholesky factorization in floating point).
    """
    check_positive("tolerance", tolerance)
    tolerance = max(tolerance, 1e-5)
    kernel = np.asarray(kernel, "float64")
    scale = float(np.abs(kernel).max(initial=0.0))
    if not scale or not math.isfinite(scale):
        return 0.0 if scale == 0 else math.nan
    kernel = kernel / scale
    if kind == "dense":
        kernel = kernel[None]
    elif kind == "depthwise":
        *taps, groups, multiplier = kernel.shape
        kernel = kernel.reshape(*taps, 1, groups * multiplier)
    *taps, inputs, filters = kernel.shape
    kernel = kernel.reshape(math.prod(taps), inputs, groups, filters // groups)
    # (taps, groups, outer, n): the smaller side is the Gram matrix's.
    order = (0, 2, 1, 3) if inputs >= filters // groups else (0, 2, 3, 1)
    kernel = kernel.transpose(order)

    axes = max(1, sum(size > 1 for size in taps))
    share = (1 + _SHARE_OF_GRID * tolerance) ** (1 / axes) - 1
    grids = [frequency_grid(size, share) for size in taps]
    factor = math.prod(factor for _, factor in grids)
    # Less what rounding adds.
    slack = ((1 + tolerance) / factor) ** 2 - 1 - 1e-8

    differences, grams = _gram_taps(kernel, taps)
    # Of minus K*K, to which lambda I is added.
    grams = -grams
    if len(differences) == 1:
        slack = min(slack, 1e-5)  # One matrix a group: there is nothing to save.
    points = [count for count, _ in grids]
    frequencies = _half_grid(points)
    # In any order but that of the grid, a new largest one is met a few times only.
    frequencies = np.random.default_rng(0).permutation(frequencies.T).T
    # An entry of one is no more than the norm: the grid's largest is no less than this,
    # and groups that are zero, or far smaller, are shown at once.
    largest = factor**-2
    n = kernel.shape[-1]
    with one_thread() if len(differences) > 1 else contextlib.nullcontext():
        for matrices in _transforms(grams, differences, frequencies, points):
            if n == 1:
                largest = max(largest, -float(matrices.real.min()))
                continue
            for matrix in matrices:
                largest = _exceeding(matrix, largest, slack)
    largest += _rounding(kernel, len(differences), largest)
    bound = math.sqrt(largest) * factor * (1 + 8 * _EPSILON)
    return math.nextafter(bound * scale, math.inf)


def _half_grid(points):
    """Return the grid's points (axes, points), one of each pair +-t.

    A real kernel has conjugate transforms at opposite frequencies.
    """
    grid = np.indices(points).reshape(len(points), -1)
    return grid[:, [tuple(point) <= tuple(-point % points) for point in grid.T]]


def _gram_taps(kernel, taps):
    """Return the taps of K*K of which no two are each other's adjoint.

    Args:
        kernel: Array (taps, groups, outer, n).
        taps: List of integers.

    Returns:
        Array (differences, axes), zero first, and array (differences, groups, n, n),
        the sums over pairs of taps i - j = d of K_j' K_i.
    """
    positions = list(np.ndindex(*taps))
    sums = {(0,) * len(taps): 0.0}
    pairs = itertools.product(enumerate(positions), repeat=2)
    for (at, first), (other, second) in pairs:
        difference = tuple(a - b for a, b in zip(first, second, strict=True))
        if difference < (0,) * len(taps):
            continue
        product = kernel[other].transpose(0, 2, 1) @ kernel[at]
        sums[difference] = sums.get(difference, 0.0) + product
    return np.array(list(sums)), np.stack(list(sums.values()))


def _transforms(grams, differences, frequencies, points):
    """Yield the transforms of the Gram taps, (some, n, n), real where of one tap."""
    _, groups, n, _ = grams.shape
    if len(differences) == 1:
        yield grams[0]
        return
    flipped = grams.transpose(0, 1, 3, 2)
    even = (grams + flipped).reshape(len(grams), -1)
    odd = (grams - flipped).reshape(len(grams), -1)
    even[0] /= 2
    size = max(1, _CHUNK // even.shape[1])
    for start in range(0, frequencies.shape[1], size):
        chosen = frequencies[:, start : start + size]
        # Whole turns are taken away before anything is rounded.
        turns = chosen.T[:, None] * differences % points / np.array(points)
        phases = 2 * np.pi * turns.sum(axis=-1)
        matrices = np.empty((len(phases), even.shape[1]), complex)
        matrices.real = np.cos(phases) @ even
        matrices.imag = np.sin(phases) @ odd
        yield matrices.reshape(-1, n, n)


def _exceeding(negative, largest, slack):
    """Return a number not below `largest` and a matrix' largest eigenvalue.

    Args:
        negative: Array (n, n), minus the Hermitian matrix. It is overwritten.
        largest: Float, which is returned if it is enough.
        slack: Float, by what share an eigenvalue is exceeded.
    """
    n = len(negative)
    factor = scipy.linalg.lapack.dpotrf
    if np.iscomplexobj(negative):
        factor = scipy.linalg.lapack.zpotrf
    diagonal = negative.flat[:: n + 1].copy()
    while True:
        # That largest * I - matrix has a Cholesky factor. Its transpose, which is
        # positive as well, lies as LAPACK wants it; the lower triangle stays.
        negative.flat[:: n + 1] = diagonal + largest
        if factor(negative.T, lower=1, clean=0, overwrite_a=1)[1] == 0:
            return largest
        below = np.tril(negative, -1)
        negative[:] = below + below.conj().T
        negative.flat[:: n + 1] = diagonal
        largest = max(_top_eigenvalue(-negative), largest) * (1 + slack)


def _top_eigenvalue(matrix):
    """Return about the largest eigenvalue: it is tried, not trusted."""
    if len(matrix) <= _LARGEST_FACTORED:
        return float(np.linalg.eigvalsh(matrix)[-1])
    start = np.random.default_rng(0).standard_normal(len(matrix))
    found = scipy.sparse.linalg.eigsh(
        matrix, k=1, v0=start, tol=1e-4, return_eigenvectors=False
    )
    return float(found[0])


def _rounding(kernel, differences, largest):
    """Return by what the eigenvalue that was shown may be below the true ones.

    In terms of eps, twice the unit roundoff. The products that make G are sums of
    outer * taps numbers, transformed by sums over the differences with factors of an
    absolute error below 40 roundoffs; all entries together are at most the square of
    the taps' Frobenius norms added up. A Cholesky factorization that ends has a
    backward error of at most gamma_(n + 1) times the trace, which is below n lambda
    (Rump 2006, lemma 2.2; four times that covers complex numbers).
    """
    taps, _, outer, n = kernel.shape
    # Of all groups together: no less than of each.
    total = np.sqrt(np.square(kernel).sum(axis=(1, 2, 3))).sum()
    formed = 2 * (outer + taps + differences + 64) * _EPSILON * total**2
    return float(formed + 4 * (n + 8) * _EPSILON * n * largest)
