"""Vectors and matrices as a few inner products with random ones ("helper string").

The helper string is a seed: its normals or signs are made in blocks when they are
needed, the same on every machine, and are never stored.
"""

import math

import numpy as np

from keras_spectral.gaussian import normals
from keras_spectral.theory.projection import (
    matrix_projections,
    rounding_quantum,
    vector_projections,
)
from keras_spectral.validation import check_integer

# Entries of the helper string in memory at a time. The seed's meaning depends on it.
_BLOCK = 2**16


def _signs(count, seed, key):
    """Return +-1 numbers: the bits of Philox's words, from low to high."""
    philox = np.random.Philox(np.random.SeedSequence(seed, spawn_key=key))
    words = philox.random_raw(-(-count // 64)).astype("<u8")
    bits = np.unpackbits(words.view("uint8"), count=count, bitorder="little")
    return 2.0 * bits - 1.0


def _blocks(draw, count, size, seed):
    """Yield (rows, columns, entries) of the helper matrix (count, size)."""
    width = min(size, _BLOCK)
    height = _BLOCK // width
    for i, top in enumerate(range(0, count, height)):
        rows = slice(top, min(top + height, count))
        for j, left in enumerate(range(0, size, width)):
            columns = slice(left, min(left + width, size))
            shape = (rows.stop - top, columns.stop - left)
            entries = draw(math.prod(shape), seed, (i, j))
            yield rows, columns, entries.reshape(shape).astype("float64")


def _products(draw, vector, count, seed):
    products = np.zeros(count)
    for rows, columns, entries in _blocks(draw, count, vector.size, seed):
        products[rows] += entries @ vector[columns]
    return products


def _combination(draw, coefficients, size, seed):
    coefficients = np.asarray(coefficients, "float64")
    if coefficients.ndim != 1 or not coefficients.size:
        raise ValueError(
            "`coefficients` must be a vector. "
            f"Received: an array of shape {coefficients.shape}"
        )
    total = np.zeros(size)
    for rows, columns, entries in _blocks(draw, coefficients.size, size, seed):
        total[columns] += coefficients[rows] @ entries
    return total / coefficients.size


def _finite(name, array, dimensions):
    array = np.asarray(array, "float64")
    if array.ndim != dimensions or not array.size or not np.isfinite(array).all():
        raise ValueError(
            f"`{name}` must be an array of {dimensions} dimension(s) with finite "
            f"numbers. Received: shape {array.shape}"
            + (", not all of them finite" if not np.isfinite(array).all() else "")
        )
    return array


def project_vector(vector, margin, eta, seed, variant="corrected", rounding=False):
    """Compress a vector to inner products with normal vectors (Vector-Project).

    For any one u with |u| <= 1, chosen before the seed, |c_hat u - c u| <= margin
    with probability 1 - eta; without rounding even margin / 2.

    Args:
        vector: Float array (h,), the paper's c, with |c| <= 1.
        margin: Float > 0, the paper's gamma.
        eta: Float in (0, 1), probability of failure.
        seed: Integer or sequence of integers >= 0, the helper string.
        variant: `"corrected"`, or `"as_printed"`, see `vector_projections` and
            `rounding_quantum`.
        rounding: Boolean, round the coefficients to multiples of
            `rounding_quantum`.

    Returns:
        Tuple (z, c_hat) of float64 arrays (k,) and (h,). `rebuild_vector` makes
        c_hat of z and the seed.

    Raises:
        ValueError: If an argument is out of range, or |c| > 1: scale it first.

    Example:
    >>> import numpy as np
    >>> c = np.full(100, 0.1)
    >>> z, c_hat = project_vector(c, margin=0.5, eta=0.1, seed=0)
    >>> len(z), bool(abs(c_hat @ c - 1) <= 0.25)
    (240, True)

    Source: [orton2018], Algorithm 1 and Lemma 2.
    """
    vector = _finite("vector", vector, 1)
    count = vector_projections(margin, eta, variant, rounding)
    norm = np.linalg.norm(vector)
    if norm > 1 + 1e-6:  # A float32 vector of norm 1 may be that much longer.
        raise ValueError(
            f"`vector` must have a norm of at most 1. Received: a norm of {norm:.6g}. "
            "Divide it, and `margin`, by that."
        )
    products = _products(normals, vector, count, seed)
    if rounding:
        quantum = rounding_quantum(margin, eta, vector.size, variant)
        products = np.round(products / quantum) * quantum
    return products, rebuild_vector(products, seed, vector.size)


def rebuild_vector(coefficients, seed, size):
    """Return the approximation that `project_vector` found.

    Args:
        coefficients: Float array (k,), the paper's z.
        seed: The seed it was made with.
        size: Integer h >= 1.

    Returns:
        Float64 array (h,): the mean of z_i v_i. The v_i are the same bits on
        every machine, their sum is so to rounding.

    Raises:
        ValueError: If `coefficients` is no vector or `size` is below 1.

    Example:
    >>> rebuild_vector([1.0, -1.0], seed=0, size=3).shape
    (3,)

    Source: [orton2018], Algorithm 1.
    """
    check_integer("size", size, least=1)
    return _combination(normals, coefficients, size, seed)


def project_matrix(matrix, epsilon, eta, seed, variant="corrected"):
    """Compress a matrix to inner products with matrices of signs (Matrix-Project).

    For any one pair u, v, chosen before the seed, |u' (A_hat - A) v| <= epsilon
    |A|_F |u| |v| with probability 1 - eta. A_hat is far from A all the same: with n
    entries E|A_hat|_F^2 = |A|_F^2 (1 + (n - 1) / k), so it is a proof's device.

    Args:
        matrix: Float array (h1, h2), the paper's A.
        epsilon: Float > 0.
        eta: Float in (0, 1).
        seed: Integer or sequence of integers >= 0, the helper string. Each matrix
            needs one of its own, such as (seed, layer).
        variant: See `matrix_projections`.

    Returns:
        Tuple (coefficients, approximation) of float64 arrays (k,) and (h1, h2);
        the coefficients are <A, M_i>. The time is that of 2 k h1 h2 products.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> import numpy as np
    >>> A = np.eye(10)
    >>> z, A_hat = project_matrix(A, epsilon=0.5, eta=0.1, seed=0)
    >>> z.shape, bool(abs(A_hat[0, 0] - 1) <= 0.5 * 10**0.5)
    ((96,), True)

    Source: [orton2018], Algorithm 2 and Lemma 8.
    """
    matrix = _finite("matrix", matrix, 2)
    count = matrix_projections(epsilon, eta, variant)
    coefficients = _products(_signs, matrix.ravel(), count, seed)
    return coefficients, rebuild_matrix(coefficients, seed, matrix.shape)


def rebuild_matrix(coefficients, seed, shape):
    """Return the approximation that `project_matrix` found.

    Args:
        coefficients: Float array (k,).
        seed: The seed it was made with.
        shape: Tuple (h1, h2).

    Returns:
        Float64 array (h1, h2): the mean of <A, M_i> M_i.

    Raises:
        ValueError: If `coefficients` is no vector or `shape` is not positive.

    Example:
    >>> rebuild_matrix([3.0], seed=0, shape=(2, 3)).ravel().tolist()
    [3.0, 3.0, 3.0, 3.0, -3.0, 3.0]

    Source: [orton2018], Algorithm 2.
    """
    for side in shape:
        check_integer("shape", side, least=1)
    total = _combination(_signs, coefficients, math.prod(shape), seed)
    return total.reshape(shape)
