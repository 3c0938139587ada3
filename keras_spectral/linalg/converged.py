"""Singular values and what becomes of kernels, to rounding in float64 by NumPy.

For export, and for files: no backend is started, but for the norm of an operator.
"""

import numpy as np
import scipy.linalg
import scipy.sparse.linalg

from keras_spectral.linalg.arrays import largest_entry

# Above, a full reduction to tridiagonal form takes longer than a Lanczos process.
_LARGEST_REDUCED_SIDE = 1024


def converged_triplet(matrix):
    """Return the leading singular triplet of a matrix.

    Args:
        matrix: Array (inputs, outputs), finite, the matrix of x -> x @ matrix.

    Returns:
        Tuple (u, sigma, v): unit arrays (outputs,) and (inputs,) and a float, with
        sigma u = v @ matrix; sigma is right to 1e-9 of itself. For a zero matrix
        sigma is 0 and the vectors are arbitrary.

    Example:
    >>> converged_triplet(np.diag([3.0, 1.0]))[1]
    3.0
    """
    matrix = np.asarray(matrix, "float64")
    scale = np.abs(matrix).max()
    if scale == 0:
        inputs, outputs = matrix.shape
        return np.full(outputs, outputs**-0.5), 0.0, np.full(inputs, inputs**-0.5)
    scaled = matrix / scale
    wide = matrix.shape[1] > matrix.shape[0]
    factor = scaled.T if wide else scaled
    right = _leading_right_vector(factor)
    left = factor @ right
    sigma = np.linalg.norm(left)
    left = left / sigma
    u, v = (left, right) if wide else (right, left)
    return u, float(sigma * scale), v


def converged_norm(matrix, make_operator=None):
    """Return the spectral norm of a matrix, or of the operator that it makes.

    Args:
        matrix: Array (inputs, outputs), finite.
        make_operator: Callable from a matrix to a `LinearOperator`, or `None` for
            the matrix itself.

    Returns:
        Float, right to 1e-9 of itself; where the backend has no float64, that of an
        operator to 1e-6.

    Example:
    >>> converged_norm(np.diag([3.0, 1.0]))
    3.0
    """
    scale = np.abs(matrix).max()
    if make_operator is None or scale == 0:
        return converged_triplet(matrix)[1]
    from keras import ops

    from keras_spectral.linalg.spectra import operator_singular_values

    operator = make_operator(ops.convert_to_tensor(matrix / scale))
    if operator.shape[1] <= _LARGEST_REDUCED_SIDE:
        matrix = ops.convert_to_numpy(operator.to_matrix())
        return float(scale * converged_triplet(matrix)[1])

    return float(scale * operator_singular_values(operator, count=1)[0])


def bounded_matrix(matrix, norm, bound=1.0, epsilon=1e-12, clip=False):
    """Return a matrix scaled to a bound, as `SpectralNormalization` does it.

    Args:
        matrix: Array, finite.
        norm: Float, its norm.
        bound: Float > 0.
        epsilon: Float; a matrix whose norm is not above it stays as it is.
        clip: Boolean; whether one within the bound does, too.

    Returns:
        Array like `matrix`.

    Example:
    >>> bounded_matrix(np.diag([4.0, 2.0]), 4.0).tolist()
    [[1.0, 0.0], [0.0, 0.5]]
    """
    if norm <= epsilon or (clip and norm <= bound):
        return matrix
    return bound / norm * matrix


def clipped_matrix(matrix, bound=1.0):
    """Return the nearest matrix with no singular value above a bound.

    Args:
        matrix: Array (inputs, outputs), finite.
        bound: Float > 0.

    Returns:
        Array like `matrix`.

    Example:
    >>> clipped_matrix(np.diag([4.0, 0.5])).tolist()
    [[1.0, 0.0], [0.0, 0.5]]
    """
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    return (u * np.minimum(s, bound)) @ vt


def capped_matrix(matrix, stable_rank):
    """Return a matrix whose stable rank is capped by shrinking all but the largest.

    Args:
        matrix: Array (inputs, outputs), finite.
        stable_rank: Float >= 1.

    Returns:
        Array like `matrix`; zeros and what is not finite as they are.

    Example:
    >>> capped_matrix(np.diag([4.0, 3.0]), 1.25).round(6).tolist()
    [[4.0, 0.0], [0.0, 2.0]]

    Source: [sanyal2020], Algorithm 2.
    """
    scale = largest_entry(matrix)
    if scale is None:
        return matrix
    u, sigma, v = converged_triplet(matrix / scale)
    remainder = (np.square(matrix / scale).sum() - sigma**2) / sigma**2
    factor = np.sqrt(min(1.0, (stable_rank - 1.0) / max(remainder, 1e-300)))
    return factor * matrix + (1.0 - factor) * scale * sigma * np.outer(v, u)


def _leading_right_vector(matrix):
    """Return the leading right singular vector of a matrix with no more columns."""
    size = matrix.shape[1]
    if size <= _LARGEST_REDUCED_SIDE:
        last = [size - 1, size - 1]
        return scipy.linalg.eigh(matrix.T @ matrix, subset_by_index=last)[1][:, 0]
    gram = scipy.sparse.linalg.LinearOperator(
        (size, size), lambda x: matrix.T @ (matrix @ x), dtype=matrix.dtype
    )
    start = np.random.default_rng(0).standard_normal(size)
    # The error of the eigenvalue is the square of the residual's, over the gap.
    return scipy.sparse.linalg.eigsh(gram, k=1, v0=start, ncv=60, tol=1e-8)[1][:, 0]
