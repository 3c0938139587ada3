"""Projections of a weight onto a set of spectra: one pure function a theorem."""

from keras import ops

from keras_spectral.validation import check_integer


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
    usable = norm > epsilon
    safe = ops.where(usable, norm, ops.ones_like(norm))
    return weight * ops.where(usable, bound / safe, ops.ones_like(norm))


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
    return weight / ops.maximum(norm / bound, ops.ones_like(norm))


def rescale_remainder(weight, component, sigma, stable_rank):
    """Scale `weight - component` so that the stable rank is at most `stable_rank`.

    With `component = sigma u v'`, the leading singular triplet, this is the
    solution of Theorem 1 for k = 1; divided by sigma it is Algorithm 2.
    Singular vectors are constants here, so the gradient is the paper's
    estimator: it differs from that of the exact projection by the terms in
    du and dv, which vanish only where the remainder is not rescaled.

    Args:
        weight: Float tensor.
        component: Tensor of the same shape, sigma u v' with unit u and v and
            sigma = u' W v exactly; u and v may be estimates.
        sigma: Scalar tensor >= 0, the norm of `component`.
        stable_rank: Float >= 1, the target r.

    Returns:
        Tensor of the shape of `weight`; `weight` itself where its stable rank
        is not above the target.

    Example:
    >>> import numpy as np
    >>> w, s = np.diag([2.0, 2.0, 1.0]), np.array(2.0)
    >>> top = np.diag([2.0, 0.0, 0.0])
    >>> projected = ops.convert_to_numpy(rescale_remainder(w, top, s, 1.5))
    >>> round(float((projected**2).sum() / 4.0), 6)
    1.5

    Source: papers/stable-rank-normalization.md, Theorem 1 and Algorithm 2,
    lines 6 to 10.
    """
    # The remainder is orthogonal to the component, so it need not be formed.
    squared = ops.sum(ops.square(weight)) - ops.square(sigma)
    target = (stable_rank - 1.0) * ops.square(sigma)
    # The tolerance keeps a weight that was projected before from being moved
    # again by rounding, and both branches must be finite: the gradient of
    # `where` multiplies the branch not taken by zero.
    above = squared > target * (1.0 + 1e-6)
    safe = ops.where(above, squared, ops.ones_like(squared))
    reachable = ops.where(above, target, ops.ones_like(target))
    positive = reachable > 0
    root = ops.sqrt(ops.where(positive, reachable, ops.ones_like(reachable)) / safe)
    factor = ops.where(positive, root, ops.zeros_like(root))
    factor = ops.where(above, factor, ops.ones_like(factor))
    return factor * weight + (1.0 - factor) * component


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
        singular values that were preserved (0 for k = 0).

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
    u, s, vt = ops.svd(matrix, full_matrices=False)
    squares = ops.square(s)
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
    safe = ops.where(rest > 0, rest, ops.ones_like(rest))
    gamma = ops.sqrt(ops.maximum(stable_rank * largest - kept, 0.0) / safe)
    lead = ops.ones_like(gamma)
    if preserved == 0 and stable_rank > 1:
        tail = (gamma + stable_rank - 1.0) / stable_rank
        # gamma is zero only for a matrix that is returned as it is.
        lead = tail / ops.where(gamma > 0, gamma, ops.ones_like(gamma))
        gamma = tail
    scaled = (u * (s * (lead * prefix + gamma * (1.0 - prefix)))) @ vt
    projected = ops.where(within, matrix, scaled)
    kept_count = ops.cast(ops.sum(prefix), "int32")
    if preserved == 0:
        kept_count = ops.zeros_like(kept_count)
    return ops.cast(projected, dtype), kept_count
