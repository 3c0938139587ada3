"""Functions of all singular values of a matrix, with exact gradients.

F(W) = U diag(t) V' with W = U diag(s) V' and t = function(s). Differentiating
through an SVD divides by the differences of squared singular values, which fails
where two of them meet: on an orthogonal kernel all do. The gradient of F itself has
divided differences of t instead, which are bounded where t is smooth, and at a tie
is their limit. With G the gradient by F, A = U' G V, S and K the symmetric and the
skew part of A, it is U C V' with

    C_ij = (t_i - t_j) / (s_i - s_j) S_ij + (t_i + t_j) / (s_i + s_j) K_ij,  i != j,
    C_ii = the pull-back of diag(A) through the function (its Jacobian, transposed),

and t_i / s_i times what of G lies outside of the span of U or V.
"""

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_spectral.linalg.norms import magnitude


class SpectralValues(NamedTuple):
    """What a function of singular values returns for s (p,), descending.

    Attributes:
        values: Tensor t (p,), the new singular values in multiples of `unit`.
        slopes: Tensor (p,), the slope of t_i by s_i alone, what all values share (a
            norm, a factor) held constant. It must be the slope of the divided
            differences at a tie within a group.
        groups: Integer or boolean tensor (p,). Two values of one group meet
            smoothly; between groups t may jump.
        unit: Scalar tensor, constant.
        base: Scalar tensor or float, the slope of the multiple of W that is added
            exactly, without the rounding of the SVD; only U diag(t - base s) V' is
            added to it. 0 where t is much smaller than s.
        unchanged: Boolean scalar tensor. Where true, F(W) is W and its gradient is
            the identity's, exactly.
        smallest_gap: Float, a fraction of the norm. Differences s_i - s_j between
            groups are at least this in the gradient, which else had no bound.
    """

    values: Any
    slopes: Any
    groups: Any
    unit: Any
    base: Any
    unchanged: Any
    smallest_gap: float


class _Factors(NamedTuple):
    """A matrix in parts: unit * U diag(s) V', and if it was finite."""

    unit: Any
    u: Any
    s: Any
    vt: Any
    finite: Any


def spectral_function(matrix, function):
    """Return U diag(t) V' for a function t of all singular values, and these.

    One SVD; the gradient takes none more. The gradient by the matrix is exact, also
    where singular values repeat. The second derivative goes through the backend's
    own SVD gradient: it is exact for distinct singular values and NaN where two of
    them are equal up to rounding.

    Args:
        matrix: Float tensor W (m, n), float32 or float64. Where an entry is not
            finite all of the result and of its gradient is NaN.
        function: Callable (s, unit) -> `SpectralValues`. s (p,) are the singular
            values in multiples of the constant `unit`, the largest absolute entry,
            so that s and its squares are within float32 for every W. It is
            differentiated by s, and must not close over tensors that are.

    Returns:
        Tuple (F, s): tensor (m, n), and s (p,) without gradient.

    Example:
    >>> import numpy as np
    >>> def doubled(s, unit):
    ...     ones = ops.ones_like(s)
    ...     return SpectralValues(2 * s, 2 * ones, ones, unit, 0.0, False, 0.0)
    >>> result, _ = spectral_function(np.diag([3.0, 1.0]), doubled)
    >>> ops.convert_to_numpy(result).round(6).tolist()
    [[6.0, 0.0], [0.0, 2.0]]

    Source: [noferini2017]; [daleckii1965].
    """
    matrix = ops.convert_to_tensor(matrix)
    shape = tuple(matrix.shape)
    size = shape[0] * shape[1]

    # The singular values ride along in one flat tensor: Keras' custom gradients
    # have one output on torch.
    @ops.custom_gradient
    def transform(matrix):
        factors = _factorize(matrix)
        result = ops.reshape(_forward(matrix, factors, function), (-1,))

        def gradient(*inputs, upstream=None):
            current = factors
            if upstream is None:
                (upstream,) = inputs
            elif _is_differentiated_again():
                # torch records nothing in the forward pass of a custom gradient.
                current = _factorize(inputs[0])
            upstream = ops.reshape(upstream[:size], shape)
            return _backward(current, function, upstream)

        return ops.concatenate([result, factors.s]), gradient

    flat = transform(matrix)
    return ops.reshape(flat[:size], shape), ops.stop_gradient(flat[size:])


def _is_differentiated_again():
    """Return whether torch records this backward pass."""
    import torch

    return torch.is_grad_enabled()


def _factorize(matrix):
    finite = ops.all(ops.isfinite(matrix))
    # Some backends raise on NaN.
    matrix = ops.where(finite, matrix, ops.zeros_like(matrix))
    unit = magnitude(matrix)
    u, s, vt = ops.svd(matrix / unit, full_matrices=False)
    is_square = matrix.shape[0] == matrix.shape[1]
    return _Factors(unit, u, _nan_slope_at_ties(s, is_square), vt, finite)


def _epsilon(tensor):
    return float(np.finfo(keras.backend.standardize_dtype(tensor.dtype)).eps)


def _nan_slope_at_ties(s, is_square):
    """Return s; its gradient is NaN where that of the SVD would be noise.

    Only second derivatives get here. The backends divide by the gaps between the
    singular values, and on rectangular matrices by these themselves; some then
    return numbers that mean nothing.
    """

    @ops.custom_gradient
    def identity(s):
        gaps = s[:-1] - s[1:]
        least = ops.min(ops.concatenate([gaps, s[:1] if is_square else s[-1:]]))
        unusable = least <= 100 * _epsilon(s) * s[0]

        def gradient(*inputs, upstream=None):
            upstream = inputs[0] if upstream is None else upstream
            return ops.where(unusable, float("nan"), upstream)

        return s + 0.0, gradient

    return identity(s)


def _forward(matrix, factors, function):
    unit, u, s, vt, finite = factors
    spectral = function(s, unit)
    change = (u * (spectral.values - spectral.base * s)) @ vt
    result = spectral.unit * (spectral.base * (matrix / unit) + change)
    result = ops.where(spectral.unchanged, matrix, result)
    return ops.where(finite, result, float("nan"))


def _backward(factors, function, upstream):
    unit, u, s, vt, finite = factors
    spectral = function(s, unit)
    # Applied where it shrinks: before, or after, so that nothing overflows.
    ratio = spectral.unit / unit
    shrinks = ratio < 1
    cotangent = ops.where(shrinks, ratio, 1.0) * upstream
    differences, sums, ratios = _divided(s, spectral)
    base = spectral.base
    ut, v = ops.transpose(u), ops.transpose(vt)
    right = cotangent @ v
    core = ut @ right
    skew = 0.5 * (core - ops.transpose(core))
    mixed = (differences - base) * (core - skew) + (sums - base) * skew
    diagonal = ops.diagonal(core)
    pulled = _pull_back(lambda s: function(s, unit).values, s, diagonal)
    on_diagonal = ops.eye(s.shape[0], dtype="bool")
    mixed = ops.where(on_diagonal, (pulled - base * diagonal)[:, None], mixed)
    result = u @ mixed
    if u.shape[0] > s.shape[0]:
        result = result + (right - u @ core) * (ratios - base)
    result = result @ vt
    if vt.shape[1] > s.shape[0]:
        outside = ut @ cotangent - core @ vt
        result = result + u @ ((ratios - base)[:, None] * outside)
    result = ops.where(shrinks, 1.0, ratio) * (base * cotangent + result)
    result = ops.where(spectral.unchanged, upstream, result)
    return ops.where(finite, result, float("nan"))


def _divided(s, spectral):
    """Return the quotients of differences, of sums (p, p), and t / s (p,)."""
    t, slopes = spectral.values, spectral.slopes
    position = ops.arange(s.shape[0])
    ahead = position[:, None] < position[None, :]
    mean_slopes = 0.5 * (slopes[:, None] + slopes[None, :])
    # The values descend, so with the sign of the order no gap is negative, and a
    # gap of zero between groups has a side.
    sign = ops.cast(ops.where(ahead, 1, -1), s.dtype)
    gaps = sign * (s[:, None] - s[None, :])
    rises = sign * (t[:, None] - t[None, :])
    totals = s[:, None] + s[None, :]
    together = ops.equal(spectral.groups[:, None], spectral.groups[None, :])
    floor = spectral.smallest_gap * s[0]
    floored = ops.logical_and(ops.logical_not(together), gaps < floor)
    gaps = ops.where(floored, floor, gaps)
    # There rounding and the curvature of t leave the most digits.
    close = gaps <= _epsilon(s) ** (1 / 3) * totals
    close = ops.logical_or(ops.logical_and(together, close), gaps <= 0)
    differences = ops.where(close, mean_slopes, rises / ops.where(close, 1.0, gaps))
    # Zero against zero; squares of these numbers must not vanish either.
    positive = s > 1e-18
    safe = ops.where(positive, s, 1.0)
    ratios = ops.where(positive, t / safe, slopes)
    positive = totals > 1e-18
    safe = ops.where(positive, totals, 1.0)
    sums = ops.where(positive, (t[:, None] + t[None, :]) / safe, mean_slopes)
    return differences, sums, ratios


def _pull_back(function, s, cotangent):
    """Return the transposed Jacobian of a function at s, times a vector."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(s)
            values = function(s)
        return tape.gradient(
            values, s, output_gradients=cotangent, unconnected_gradients="zero"
        )
    if backend == "jax":
        import jax

        return jax.vjp(function, s)[1](cotangent)[0]
    import torch

    again = torch.is_grad_enabled()
    with torch.enable_grad():
        # In a plain backward pass s is a constant.
        live = s if s.requires_grad else s.detach().requires_grad_()
        values = function(live)
        if not values.requires_grad:
            return torch.zeros_like(s)
        (slopes,) = torch.autograd.grad(
            values, live, cotangent, create_graph=again, allow_unused=True
        )
    return torch.zeros_like(s) if slopes is None else slopes
