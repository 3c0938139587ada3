"""Projections of a weight onto a set of spectra: one pure function a theorem."""

import math

from keras import ops

from keras_spectral.validation import check_integer, check_positive, check_ratio


def normalizing_scale(norm, bound=1.0, epsilon=1e-12):
    """Return the factor `bound / norm` of spectral normalization.

    Args:
        norm: Scalar tensor, the norm of a weight.
        bound: Float > 0, the norm that the weight shall get.
        epsilon: Float > 0. Where the norm is not above it, or NaN, the factor
            is 1.

    Returns:
        Scalar tensor.

    Example:
    >>> import numpy as np
    >>> float(normalizing_scale(np.array(4.0), bound=0.5))
    0.125

    Source: papers/lipschitz-slides.md, eq. 17 (Miyato et al. 2018).
    """
    return bound / ops.where(norm > epsilon, norm, bound)


def clipping_scale(norm, bound=1.0):
    """Return the factor 1 / max(1, norm / bound) of Gouk's projection.

    Args:
        norm: Scalar tensor, the norm of a weight.
        bound: Float > 0.

    Returns:
        Scalar tensor, 1 for a norm within the bound.

    Example:
    >>> import numpy as np
    >>> float(clipping_scale(np.array(4.0), bound=8.0))
    1.0

    Source: papers/lipschitz-slides.md, eq. 16 (Gouk et al. 2018).
    """
    return 1.0 / ops.maximum(norm / bound, 1.0)


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

    Source: papers/lipschitz-slides.md, eq. 17 (Miyato et al. 2018).
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

    Source: papers/lipschitz-slides.md, eq. 16 (Gouk et al. 2018).
    """
    return weight * clipping_scale(norm, bound)


def remainder_factor(squares, sigma, stable_rank):
    """Return by how much all but the leading singular triplet must shrink.

    With f the factor and sigma u v' the leading triplet, f W + (1 - f) sigma u v'
    is the solution of Theorem 1 for k = 1; divided by sigma it is Algorithm 2.

    Args:
        squares: Scalar tensor ||W||_F^2.
        sigma: Scalar tensor u' W v with unit u and v, exactly; u and v may be
            estimates.
        stable_rank: Float >= 1, the target r.

    Returns:
        Scalar tensor f in [0, 1]; 1 where the stable rank is not above r, and
        where `squares` overflows or underflows (in float32, for norms outside
        of 1e-17 to 1e19).

    Example:
    >>> import numpy as np
    >>> factor = remainder_factor(np.array(12.0), np.array(2.0), stable_rank=1.5)
    >>> float(factor)
    0.5

    Source: papers/stable-rank-normalization.md, Theorem 1 and Algorithm 2,
    lines 6 to 10.
    """
    # The remainder is orthogonal to the triplet, so it need not be formed.
    # Where the squares leave the range of float32 there is nothing to compare.
    usable = squares < float("inf")
    leading = ops.where(usable, ops.square(sigma), 0.0)
    remainder = ops.where(usable, squares - leading, 0.0)
    # Not zero, so that the square root has a gradient for a zero kernel too.
    target = ops.maximum((stable_rank - 1.0) * leading, 1e-37)
    return ops.sqrt(target / ops.maximum(remainder, target))


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
        singular values that were preserved (0 for k = 0). The gradient holds
        the singular vectors constant, the paper's estimator.

    Raises:
        ValueError: If `stable_rank` < 1 or `preserved` < 0.

    Example:
    >>> import numpy as np
    >>> projected, _ = project_stable_rank(np.eye(3), 2.0, preserved=1)
    >>> sorted(ops.convert_to_numpy(ops.diagonal(projected)).round(4).tolist())
    [0.7071, 0.7071, 1.0]

    Source: papers/stable-rank-normalization.md, Theorem 1, Algorithm 1, eq. 5.
    """
    if not stable_rank >= 1:
        raise ValueError(
            "`stable_rank` must be at least 1: no matrix has a smaller one. "
            f"Received: stable_rank={stable_rank}"
        )
    check_integer("preserved", preserved, least=0)
    matrix = ops.convert_to_tensor(matrix)
    dtype = matrix.dtype
    if "16" in str(dtype):
        matrix = ops.cast(matrix, "float32")
    u, s, vt = fixed_svd(matrix)
    # Only ratios matter; squares of the values themselves would leave float32's
    # range for norms outside of 1e-19 to 1e19. The scale needs no gradient.
    scale = ops.stop_gradient(s[0])
    squares = ops.square(s / ops.where(scale > 0, scale, ops.ones_like(scale)))
    largest = squares[0]
    rounding = 1.0 + 1e-6
    within = ops.sum(squares) <= stable_rank * largest * rounding
    # Algorithm 1 stops at the first index that is not feasible; the running
    # sums grow, so a mask of the feasible prefix is the same.
    count = max(preserved, 1)
    prefix = ops.cumsum(squares) <= stable_rank * largest * rounding
    prefix = ops.logical_and(prefix, ops.arange(s.shape[0]) < count)
    prefix = ops.cast(prefix, s.dtype)
    kept = ops.sum(prefix * squares)
    rest = ops.sum((1.0 - prefix) * squares)
    # The branch that is not taken must be finite too, for the gradient's sake.
    target = stable_rank * largest - kept
    usable = ops.logical_and(target > 0, rest > 0)
    ratio = ops.where(usable, target, 1.0) / ops.where(usable, rest, 1.0)
    gamma = ops.where(usable, ops.sqrt(ratio), 0.0)
    lead = ops.ones_like(gamma)
    if preserved == 0 and stable_rank > 1:
        tail = (gamma + stable_rank - 1.0) / stable_rank
        # gamma is zero only for a matrix that is returned as it is.
        lead = tail / ops.where(usable, gamma, 1.0)
        gamma = tail
    # The remainder is W less the preserved triplets, so the gradient reaches W.
    scaled = gamma * matrix + ops.matmul(u * ((lead - gamma) * s * prefix), vt)
    projected = ops.where(within, matrix, scaled)
    kept_count = ops.cast(ops.sum(prefix), "int32")
    if preserved == 0:
        kept_count = ops.zeros_like(kept_count)
    return ops.cast(projected, dtype), kept_count


def clip_singular_values(matrix, bound=1.0):
    """Return the matrix nearest to `matrix` with no singular value above `bound`.

    Args:
        matrix: Float tensor W (m, n), finite. A float16 or bfloat16 matrix is
            computed in float32.
        bound: Float s > 0.

    Returns:
        Tensor of the shape and dtype of `matrix`; a matrix within the bound is
        returned as it is. The gradient holds the singular vectors constant.

    Raises:
        ValueError: If `bound` is not positive.

    Example:
    >>> import numpy as np
    >>> clipped = clip_singular_values(np.diag([3.0, 1.0]), bound=2.0)
    >>> ops.convert_to_numpy(clipped).round(6).tolist()
    [[2.0, 0.0], [0.0, 1.0]]

    Source: papers/stable-rank-normalization.md, Algorithm 3, eq. 18.
    """
    check_positive("bound", bound)
    matrix = ops.convert_to_tensor(matrix)
    wide = ops.cast(matrix, "float32") if "16" in str(matrix.dtype) else matrix
    u, s, vt = fixed_svd(wide)
    # The gradient is that of W less what sticks out; its value would lose every
    # digit for a kernel far above the bound, so that is taken from the SVD.
    less = wide - ops.matmul(u * ops.relu(s - bound), vt)
    value = ops.stop_gradient(ops.matmul(u * ops.minimum(s, bound), vt))
    clipped = value + (less - ops.stop_gradient(less))
    # Not written as s > bound, so that NaN stays NaN.
    within = ops.max(s) <= bound
    return ops.cast(ops.where(within, wide, clipped), matrix.dtype)


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

    Source: papers/low-rank-gans.md, eq. 4, with the floor that its counts of
    parameters imply.
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

    Source: papers/low-rank-gans.md, section 3.1 (Eckart and Young 1936).
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

    Source: Fan and Hoffman 1955, Theorem 1.
    """
    matrix = ops.convert_to_tensor(matrix)
    wide = ops.cast(matrix, "float32") if "16" in str(matrix.dtype) else matrix
    u, _, vt = fixed_svd(wide)
    # The vectors are finite always: what was not must stay visible.
    finite = ops.all(ops.isfinite(wide))
    nearest = ops.where(finite, ops.matmul(u, vt), float("nan"))
    return ops.cast(nearest, matrix.dtype)
