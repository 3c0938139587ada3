"""Projections of a weight onto a set of spectra: one pure function a theorem."""

import math

from keras import ops

from keras_spectral.linalg.spectral_functions import SpectralValues, spectral_function
from keras_spectral.linalg.tracing import traced_once
from keras_spectral.validation import check_integer, check_positive, check_ratio


def normalizing_scale(norm, bound=1.0, epsilon=1e-12):
    """Return the factor `bound / norm` of spectral normalization.

    Args:
        norm: Scalar tensor, the norm of a weight.
        bound: Float > 0, the norm that the weight shall get.
        epsilon: Float > 0. Where the magnitude of the norm is not above it, or NaN,
            the factor is 1. (An estimate u' W v may be negative.)

    Returns:
        Scalar tensor; NaN where it is too small for its dtype (in float32, for norms
        above 8e37 times the bound), and not zero, which would hide that.

    Example:
    >>> import numpy as np
    >>> float(normalizing_scale(np.array(4.0), bound=0.5))
    0.125

    Source: [zhang2020], eq. 17 ([miyato2018]).
    """
    return _normalizing_scale(norm, bound=bound, epsilon=epsilon)


@traced_once
def _normalizing_scale(norm, bound, epsilon):
    norm = ops.where(ops.abs(norm) > epsilon, norm, bound)
    return _reciprocal(norm, bound)


def clipping_scale(norm, bound=1.0):
    """Return the factor 1 / max(1, norm / bound) of Gouk's projection.

    Args:
        norm: Scalar tensor, the norm of a weight.
        bound: Float > 0.

    Returns:
        Scalar tensor, 1 for a norm within the bound; NaN where it is too small for
        its dtype (in float32, for norms above 8e37 times the bound).

    Example:
    >>> import numpy as np
    >>> float(clipping_scale(np.array(4.0), bound=8.0))
    1.0

    Source: [zhang2020], eq. 16 ([gouk2018]).
    """
    return _reciprocal(ops.maximum(norm / bound, 1.0))


def _reciprocal(x, numerator=1.0):
    """Return numerator / x, whose slope does not underflow for an x of 1e30.

    Where it would itself, it is NaN: a kernel of 1e38 must not silently become zero.
    """
    fixed = ops.stop_gradient(x)
    quotient = numerator / fixed
    quotient = ops.where(ops.equal(quotient, 0), float("nan"), quotient)
    return quotient / (x / fixed)


def divide_by_norm(weight, norm, bound=1.0, epsilon=1e-12):
    """Return `bound * weight / norm` (spectral normalization).

    Args:
        weight: Float tensor of any shape.
        norm: Scalar tensor, the norm of `weight`.
        bound: Float > 0, the norm of the result.
        epsilon: Float > 0. A weight whose norm is not above it, a zero kernel
            among them, is returned as it is.

    Returns:
        Tensor of the shape of `weight`.

    Example:
    >>> import numpy as np
    >>> float(divide_by_norm(np.array(4.0), np.array(4.0), bound=0.5))
    0.5

    Source: [zhang2020], eq. 17 ([miyato2018]).
    """
    return weight * normalizing_scale(norm, bound, epsilon)


def clip_norm(weight, norm, bound=1.0):
    """Return `weight / max(1, norm / bound)` (Gouk's projection).

    A weight whose norm is within the bound is returned unchanged.

    Args:
        weight: Float tensor of any shape.
        norm: Scalar tensor, the norm of `weight`.
        bound: Float > 0.

    Returns:
        Tensor of the shape of `weight`.

    Example:
    >>> import numpy as np
    >>> float(clip_norm(np.array(4.0), np.array(4.0), bound=8.0))
    4.0

    Source: [zhang2020], eq. 16 ([gouk2018]).
    """
    return weight * clipping_scale(norm, bound)


def fixed_svd(matrix):
    """Return the SVD with singular vectors held constant.

    The singular values u_i' W v_i carry their exact gradients u_i v_i', also
    where they repeat; the vectors carry none. What is built from them has the
    gradient that the papers' estimators have.

    Args:
        matrix: Float tensor W (m, n), float32 or float64.

    Returns:
        Tuple (u, s, vt) of tensors (m, p), (p,) and (p, n) with p = min(m, n).

    Example:
    >>> import numpy as np
    >>> u, s, vt = fixed_svd(np.diag([3.0, 1.0]))
    >>> ops.convert_to_numpy(s).tolist()
    [3.0, 1.0]
    """
    matrix = ops.convert_to_tensor(matrix)
    fixed = ops.stop_gradient(matrix)
    # Some backends raise on NaN; the singular values then are NaN all the same.
    finite = ops.where(ops.isfinite(fixed), fixed, ops.zeros_like(fixed))
    u, _, vt = ops.svd(finite, full_matrices=False)
    u, vt = ops.stop_gradient(u), ops.stop_gradient(vt)
    return u, ops.sum(u * ops.matmul(matrix, ops.transpose(vt)), axis=0), vt


def clip_singular_values(matrix, bound=1.0):
    """Return the matrix nearest to `matrix` with no singular value above `bound`.

    Args:
        matrix: Float tensor W (m, n), finite. A float16 or bfloat16 matrix is
            computed in float32.
        bound: Float s > 0.

    Returns:
        Tensor of the shape and dtype of `matrix`; a matrix within the bound is
        returned as it is. The gradient is exact, how the singular vectors turn
        included, also where singular values repeat. The second derivative is exact
        for distinct singular values, and NaN where some repeat.

    Raises:
        ValueError: If `bound` is not positive.

    Example:
    >>> import numpy as np
    >>> clipped = clip_singular_values(np.diag([3.0, 1.0]), bound=2.0)
    >>> ops.convert_to_numpy(clipped).round(6).tolist()
    [[2.0, 0.0], [0.0, 1.0]]

    Source: [sanyal2020], Algorithm 3, eq. 18.
    """
    check_positive("bound", bound)
    matrix = ops.convert_to_tensor(matrix)
    wide = ops.cast(matrix, "float32") if "16" in str(matrix.dtype) else matrix

    def clipped(s, unit):
        s = s * unit
        below = s <= bound
        # In units of 1, and no multiple of W is set apart (the base is 0): for a
        # kernel far above the bound the difference would lose every digit.
        return SpectralValues(
            # A bare number would be rounded to float32 on torch.
            values=ops.where(below, s, ops.full_like(s, bound)),
            slopes=ops.where(below, unit, 0.0),
            groups=below,
            unit=ops.ones_like(unit),
            base=0.0,
            unchanged=ops.all(below),
            smallest_gap=0.0,
        )

    return ops.cast(spectral_function(wide, clipped)[0], matrix.dtype)


def rank_at_ratio(rank_ratio, full_rank):
    """Return the rank k = max(1, floor(rank_ratio * full_rank)).

    Args:
        rank_ratio: Float in (0, 1], the paper's S.
        full_rank: Integer >= 1, the smaller side of the matrix.

    Returns:
        Integer from 1 to `full_rank`; k for a ratio of k / full_rank.

    Raises:
        ValueError: If `rank_ratio` or `full_rank` is not as above.

    Example:
    >>> rank_at_ratio(0.75, 50), rank_at_ratio(0.29, 100), rank_at_ratio(0.25, 1)
    (37, 29, 1)

    Source: [garg2019], eq. 4, with the floor that its counts of parameters imply.
    """
    check_ratio("rank_ratio", rank_ratio)
    check_integer("full_rank", full_rank, least=1)
    # In floating point 0.29 * 100 is below 29.
    return max(1, math.floor(rank_ratio * full_rank + 1e-9))


def truncate_rank(matrix, rank):
    """Return the matrix of rank at most `rank` that is nearest to `matrix`.

    Args:
        matrix: Float tensor W (m, n), finite. A float16 or bfloat16 matrix is
            computed in float32.
        rank: Integer k >= 1.

    Returns:
        Tensor of the shape and dtype of `matrix`, in the Frobenius and the
        spectral norm the nearest. The gradient holds the singular vectors
        constant.

    Raises:
        ValueError: If `rank` is not an integer >= 1.

    Example:
    >>> import numpy as np
    >>> truncated = truncate_rank(np.diag([3.0, 1.0]), rank=1)
    >>> ops.convert_to_numpy(truncated).tolist()
    [[3.0, 0.0], [0.0, 0.0]]

    Source: [garg2019], section 3.1 ([eckart1936]).
    """
    check_integer("rank", rank, least=1)
    matrix = ops.convert_to_tensor(matrix)
    wide = ops.cast(matrix, "float32") if "16" in str(matrix.dtype) else matrix
    u, s, vt = fixed_svd(wide)
    kept = ops.matmul(u[:, :rank] * s[:rank], vt[:rank])
    return ops.cast(kept, matrix.dtype)


def nearest_orthonormal(matrix):
    """Return the matrix with orthonormal rows or columns nearest to `matrix`.

    The shorter side becomes orthonormal; this is the orthogonal factor of the
    polar decomposition, U V' of the SVD.

    Args:
        matrix: Float tensor W (m, n). A float16 or bfloat16 matrix is computed
            in float32.

    Returns:
        Tensor of the shape and dtype of `matrix`, without a gradient. A matrix
        without full rank has several; one of them is returned. All entries are
        NaN if one of the matrix is not finite.

    Example:
    >>> import numpy as np
    >>> nearest = nearest_orthonormal(np.diag([3.0, 1.0]))
    >>> ops.convert_to_numpy(nearest).round(6).tolist()
    [[1.0, 0.0], [0.0, 1.0]]

    Source: [fan1955], Theorem 1.
    """
    matrix = ops.convert_to_tensor(matrix)
    wide = ops.cast(matrix, "float32") if "16" in str(matrix.dtype) else matrix
    u, _, vt = fixed_svd(wide)
    # The vectors are finite always: what was not must stay visible.
    finite = ops.all(ops.isfinite(wide))
    nearest = ops.where(finite, ops.matmul(u, vt), float("nan"))
    return ops.cast(nearest, matrix.dtype)
