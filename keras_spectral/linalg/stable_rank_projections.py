"""Projections onto the matrices of a stable rank: Theorem 1 and its algorithms."""

import functools
import math

import keras
from keras import ops

from keras_spectral.linalg.spectral_functions import SpectralValues, spectral_function
from keras_spectral.validation import check_integer

# As a fraction of the norm. The kept and the shrunk singular vectors swap where
# their singular values meet, so that the gradient grows as 1 / gap without bound.
_SMALLEST_GAP = 1e-3


def remainder_factor(squares, sigma, stable_rank, full_rank=None):
    """Return by how much all but the leading singular triplet must shrink.

    With f the factor and sigma u v' the leading triplet, f W + (1 - f) sigma u v'
    is the solution of Theorem 1 for k = 1; divided by sigma it is Algorithm 2.
    The gradient is finite for every input.

    Args:
        squares: Scalar tensor ||W||_F^2.
        sigma: Scalar tensor u' W v with unit u and v, exactly; u and v may be
            estimates.
        stable_rank: Float >= 1, the target r.
        full_rank: Integer >= 1, the smaller side of W, or `None`.

    Returns:
        Scalar tensor f in [0, 1]; 1 where the stable rank is not above r > 1, and 0
        for r = 1. Where `squares` is near the limits of its dtype (in float32, for
        norms outside of 1e-15 to 3e18) nothing can be compared: then it is
        sqrt((r - 1) / (full_rank - 1)) or 1, the smaller, which brings every matrix
        of that rank to a stable rank of at most r; and 1 without `full_rank`.

    Example:
    >>> import numpy as np
    >>> factor = remainder_factor(np.array(12.0), np.array(2.0), stable_rank=1.5)
    >>> round(float(factor), 6)
    0.5

    Source: [sanyal2020], Theorem 1 and Algorithm 2, lines 6 to 10.
    """
    squares = ops.convert_to_tensor(squares)
    sigma = ops.convert_to_tensor(sigma)
    if stable_rank == 1:
        uncapped, unknown = 0.0, 0.0
    else:
        uncapped, unknown = 1.0, 1.0
    if full_rank is not None and full_rank > 1:
        unknown = min(1.0, math.sqrt((stable_rank - 1.0) / (full_rank - 1.0)))
    wide = "float64" in keras.backend.standardize_dtype(squares.dtype)
    least, most = (1e-290, 1e290) if wide else (1e-30, 1e37)
    usable = ops.logical_and(squares > least, squares < most)
    # What a `where` does not take must be finite too, and so must its slope: its
    # gradient is zero times that.
    sigma = ops.abs(ops.where(usable, sigma, 1.0))
    # The remainder is orthogonal to the triplet, so it need not be formed.
    remainder = ops.where(usable, squares, 2.0) - ops.square(sigma)
    positive = remainder > 0
    root = ops.sqrt(ops.where(positive, remainder, 1.0))
    # Not the root of a quotient: the root of zero has no gradient, for r = 1.
    factor = math.sqrt(stable_rank - 1.0) * sigma / root
    capped = ops.logical_and(positive, factor < 1)
    factor = ops.where(capped, factor, uncapped)
    return ops.where(usable, factor, ops.full_like(factor, unknown))


def _capped_values(s, unit, stable_rank, preserved, new_norm=None):
    """Return (SpectralValues, how many are kept) for singular values s (p,)."""
    position = ops.arange(s.shape[0])
    squares = ops.square(s)
    largest = squares[0]
    allowed = stable_rank * largest * (1.0 + 1e-6)
    within = ops.sum(squares) <= allowed
    # Algorithm 1 stops at the first index that is not feasible; the running
    # sums grow, so a mask of the feasible prefix is the same. (Keras' own
    # running sums are of float32 on torch.)
    up_to = position[None, :] <= position[:, None]
    running = ops.sum(ops.where(up_to, squares[None, :], 0.0), axis=1)
    prefix = ops.logical_and(running <= allowed, position < max(preserved, 1))
    also_kept = ops.where(ops.logical_and(prefix, position > 0), squares, 0.0)
    rest = ops.sum(ops.where(prefix, 0.0, squares))
    target = (stable_rank - 1.0) * largest - ops.sum(also_kept)
    # The branch that is not taken must be finite too, for the gradient's sake.
    usable = ops.logical_and(target > 0, rest > 0)
    usable = ops.logical_and(usable, ops.logical_not(within))
    root = ops.sqrt(ops.where(usable, target, 1.0) / ops.where(usable, rest, 1.0))
    gamma, lead = ops.where(usable, root, 0.0), ops.ones_like(root)
    if preserved == 0 and stable_rank > 1:
        tail = (root + (stable_rank - 1.0)) / stable_rank
        gamma, lead = ops.where(usable, tail, 0.0), ops.where(usable, tail / root, 1.0)
    gamma, lead = ops.where(within, 1.0, gamma), ops.where(within, 1.0, lead)
    slopes = ops.where(prefix, lead, gamma)
    unchanged, out = within, unit
    if new_norm is not None:
        # In units of the entries norms never leave float32, and neither does the
        # slope of the quotient; that of 1 / norm would.
        norm = lead * s[0]
        unchanged = norm <= 0
        safe = ops.where(unchanged, 1.0, norm)
        scale = ops.cast(new_norm(unit * safe), s.dtype) / safe
        slopes, gamma, out = scale * slopes, scale * gamma, ops.ones_like(unit)
    groups = ops.where(within, False, prefix)
    values = slopes * s
    spectral = SpectralValues(
        values, slopes, groups, out, gamma, unchanged, _SMALLEST_GAP
    )
    count = ops.sum(ops.cast(prefix, "int32"))
    return spectral, ops.zeros_like(count) if preserved == 0 else count


def _prepared(matrix, stable_rank, preserved):
    """Return the matrix in at least float32; raise on bad arguments."""
    if not stable_rank >= 1:
        raise ValueError(
            "`stable_rank` must be at least 1: no matrix has a smaller one. "
            f"Received: stable_rank={stable_rank}"
        )
    check_integer("preserved", preserved, least=0)
    return ops.cast(matrix, "float32") if "16" in str(matrix.dtype) else matrix


def project_stable_rank(matrix, stable_rank, preserved=1):
    """Return the matrix nearest to `matrix` whose stable rank is `stable_rank`.

    Args:
        matrix: Float tensor (m, n), finite. A float16 or bfloat16 matrix is
            computed in float32.
        stable_rank: Float r, 1 <= r. A matrix whose stable rank is not above r
            is returned as it is.
        preserved: Integer k >= 0, how many leading singular values must stay.
            For k >= 1 the largest feasible l <= k is used (Algorithm 1). For
            k = 0 the norm may grow; the distance is the smallest of all.

    Returns:
        Tuple (projected matrix, l): l is an integer tensor, the number of
        singular values that were preserved (0 for k = 0). The gradient is exact,
        how the singular vectors turn included, but bounded: it grows as one over
        the gap between the last kept and the first shrunk singular value, and that
        gap counts as at least 0.1 % of the norm. The second derivative is as
        exact, and NaN where singular values repeat.

    Raises:
        ValueError: If `stable_rank` < 1 or `preserved` < 0.

    Example:
    >>> import numpy as np
    >>> projected, _ = project_stable_rank(np.eye(3), 2.0, preserved=1)
    >>> sorted(ops.convert_to_numpy(ops.diagonal(projected)).round(4).tolist())
    [0.7071, 0.7071, 1.0]

    Source: [sanyal2020], Theorem 1, Algorithm 1, eq. 5.
    """
    matrix = ops.convert_to_tensor(matrix)
    wide = _prepared(matrix, stable_rank, preserved)
    function = functools.partial(
        _capped_values, stable_rank=stable_rank, preserved=preserved
    )
    projected, s = spectral_function(wide, lambda s, unit: function(s, unit)[0])
    count = function(s, ops.ones_like(s[0]))[1]
    return ops.cast(projected, matrix.dtype), count


def normalize_stable_rank(matrix, stable_rank, preserved=1, new_norm=None):
    """Return `project_stable_rank` of a matrix, then scaled to another norm.

    Both from one SVD, with the exact gradient through both. It is that of
    scaling alone where the stable rank is not above the target, and for a target
    of 1 that of `new_norm` u v'.

    Args:
        matrix: Float tensor (m, n), finite. A float16 or bfloat16 matrix is
            computed in float32.
        stable_rank: Float r, 1 <= r.
        preserved: Integer k >= 0, see `project_stable_rank`.
        new_norm: Callable from the norm of the projected matrix, a positive scalar
            tensor, to the norm of the result; `None` for 1. It is a norm and no
            factor, since the slope of a factor leaves float32 for norms above
            1e19. It must not close over tensors that are differentiated.

    Returns:
        Tensor of the shape and dtype of `matrix`. The gradient is exact, see
        `project_stable_rank`. A zero matrix is returned as it is, with the
        gradient of the identity.

    Raises:
        ValueError: If `stable_rank` < 1 or `preserved` < 0.

    Example:
    >>> import numpy as np
    >>> def at_most_two(norm):
    ...     return ops.where(norm > 2.0, 2.0, norm)
    >>> result = normalize_stable_rank(np.eye(3) * 4, 2.0, new_norm=at_most_two)
    >>> sorted(ops.convert_to_numpy(ops.diagonal(result)).round(4).tolist())
    [1.4142, 1.4142, 2.0]

    Source: [sanyal2020], Theorem 1, Algorithms 1 and 2.
    """
    matrix = ops.convert_to_tensor(matrix)
    wide = _prepared(matrix, stable_rank, preserved)

    def function(s, unit):
        norm = ops.ones_like if new_norm is None else new_norm
        return _capped_values(s, unit, stable_rank, preserved, norm)[0]

    return ops.cast(spectral_function(wide, function)[0], matrix.dtype)
