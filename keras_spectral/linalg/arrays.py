"""Scales of NumPy arrays, so that squares stay in range. No backend is started."""

import math

import numpy as np


def largest_entry(matrix):
    """Return the largest magnitude in an array, to divide by, without a copy of it.

    Args:
        matrix: Array of floats.

    Returns:
        Scalar of its dtype, not below the smallest normal number, by which vectors of
        length one can be divided; `None` if all is zero or some of it not finite.

    Example:
    >>> import numpy as np
    >>> float(largest_entry(np.array([1.0, -3.0])))
    3.0
    """
    scale = max(matrix.max(initial=0), -matrix.min(initial=0))
    if not 0 < scale < np.inf:
        return None
    return max(scale, np.finfo(matrix.dtype).tiny)


def stable_rank_of(values, norm=None):
    """Return the squared Frobenius norm over the squared spectral norm, in float64.

    `stable_rank` does this to a tensor on the backend.

    Args:
        values: Array of floats, all singular values; or, with `norm`, any numbers whose
            squares have the same sum.
        norm: Float, the spectral norm; by default the largest of `values`.

    Returns:
        Float; NaN where the norm is zero.

    Example:
    >>> stable_rank_of([2e-200, 1e-200])
    1.25

    Source: [sanyal2020], Definition 2.1.
    """
    values = np.asarray(values, "float64")
    norm = values.max(initial=0.0) if norm is None else norm
    # Divided first: no square overflows or vanishes.
    return float(np.square(values / norm).sum()) if norm else math.nan
