"""Leading singular triplets to rounding in float64, on the host: for export."""

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
from keras import ops

from keras_spectral.linalg.spectra import operator_singular_values

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
    operator = make_operator(ops.convert_to_tensor(matrix / scale))
    if operator.shape[1] <= _LARGEST_REDUCED_SIDE:
        matrix = ops.convert_to_numpy(operator.to_matrix())
        return float(scale * converged_triplet(matrix)[1])

    return float(scale * operator_singular_values(operator, count=1)[0])


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
