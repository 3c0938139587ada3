"""Certified bounds of norms: never below the norm that they bound.

What `induced_norm` calls exact, and the SVDs of `unfolding_norm_bound`, are so to
the rounding of their dtype.
"""

import itertools
import math
from typing import Literal

import numpy as np
from keras import ops
from keras.backend import standardize_dtype

from keras_spectral.linalg.frequencies import largest_eigenvalue, times, transform
from keras_spectral.linalg.norms import magnitude, spectral_norm, wide
from keras_spectral.validation import check_choice, check_integer, check_positive

KernelKind = Literal["dense", "convolution", "depthwise", "transposed"]

# By what share the grid may exceed along one axis, by the number of axes: three need
# so many points that a coarser grid must do.
_TOLERANCE = {1: 8e-3, 2: 4e-3, 3: 1e-2}
# The share of a tolerance that the grid gets; squarings may stop within the rest.
_SHARE_OF_GRID = 0.8


def induced_norm(kernel, p=2, kind="dense", tolerance=None):
    """Return the p-norm of a layer's linear map, or a certified bound of it.

    For a dense kernel the value is exact. A convolution is bounded for every
    input size, stride, dilation and zero padding at once: the bound is the norm
    on an unbounded image (for p = 1 and inf exactly, for p = 2 within 1 %, in
    three dimensions 4 %), which padding and stride can only lower.

    Args:
        kernel: Float tensor: (inputs, units) for `kind="dense"`;
            (*spatial, inputs, filters) for `"convolution"`;
            (*spatial, inputs, multiplier) for `"depthwise"`;
            (*spatial, filters, inputs) for `"transposed"`; with one to three
            spatial axes. A grouped convolution is bounded too, but not as well.
        p: 1, 2 or `math.inf`: the vector norm on both sides.
        kind: One of those.
        tolerance: Float > 0 or `None`. With a number, for p = 2, a dense kernel is
            bounded too, by matrix products alone, and the bound may exceed the norm
            by that share: cheaper if it is larger. The grid's part of it is proved,
            that of the squarings is the worst that a search found.

    Returns:
        Scalar tensor, float32 (float64 for float64 input).

    Raises:
        ValueError: On another `p` or `kind`, or a kernel with other axes.

    Example:
    >>> import numpy as np
    >>> float(induced_norm(np.array([[1.0, -2.0], [3.0, 4.0]]), p=math.inf))
    6.0

    Source: [gouk2018], section 3; [zhang2020], eq. 16.
    """
    check_choice("p", p, (1, 2, math.inf))
    check_choice("kind", kind, KernelKind)
    if tolerance is not None:
        check_positive("tolerance", tolerance)
    kernel = _wide_kernel(kernel, kind)
    if p == 2:
        if kind == "dense" and tolerance is None:
            return spectral_norm(kernel)
        return spectral_bound(kernel, kind, tolerance)
    rank = len(kernel.shape) - 2
    spatial = tuple(range(rank))
    magnitudes = ops.sum(ops.abs(kernel), axis=spatial) if rank else ops.abs(kernel)
    if kind == "depthwise":
        # Each output has one input; each input has `multiplier` outputs.
        return ops.max(ops.sum(magnitudes, axis=1) if p == 1 else magnitudes)
    # In y = W x a column of W belongs to an input, a row to an output.
    inputs_axis = 1 if kind == "transposed" else 0
    return ops.max(ops.sum(magnitudes, axis=1 - inputs_axis if p == 1 else inputs_axis))


def _wide_kernel(kernel, kind):
    """Return a kernel in at least float32, after a check of its axes."""
    kernel = wide(kernel)
    rank = len(kernel.shape) - 2
    if rank != 0 if kind == "dense" else rank not in _TOLERANCE:
        raise ValueError(
            f"`kernel` must have the axes of a {kind} kernel. Received: "
            f"kernel.shape={tuple(kernel.shape)}"
        )
    return kernel


def spectral_bound(kernel, kind, tolerance, differentiable=True):
    """Return what `induced_norm` does for p = 2 and a kernel that has no exact norm.

    Args:
        kernel: Float tensor.
        kind: A `KernelKind`.
        tolerance: Float > 0, or `None` for a convolution's.
        differentiable: Boolean; without a gradient it is cheaper.
    """
    kernel, groups = _wide_kernel(kernel, kind), 1
    if kind == "dense":
        kernel = kernel[None]
    elif kind == "depthwise":
        *taps, groups, multiplier = kernel.shape
        kernel = ops.reshape(kernel, (*taps, 1, groups * multiplier))
    # A transposed convolution has the norm of its adjoint.
    if tolerance is None:
        return convolution_norm_bound(kernel, groups=groups)
    *taps, inputs, filters = kernel.shape
    effort = cheapest_bound(taps, min(inputs, filters // groups), tolerance)
    return _bound(kernel, groups, *effort, differentiable)


def unfolding_norm_bound(kernel):
    """Return the square root of the taps times the least norm of the unfoldings.

    It holds for every image size, stride and zero padding. The kernel is
    unfolded to a matrix in each way that puts some spatial axes beside the
    inputs and the others beside the filters (four ways in two dimensions). It
    costs a few SVDs, and is looser than `convolution_norm_bound`: 1.5 to 3 times
    the norm on random kernels.

    Args:
        kernel: Float tensor (*spatial, inputs, filters), one to three spatial
            axes.

    Returns:
        Scalar tensor, float32 (float64 for float64 input).

    Example:
    >>> import numpy as np
    >>> float(unfolding_norm_bound(np.ones((3, 3, 1, 1))))
    9.0

    Source: [singla2021], Theorem 1.
    """
    kernel = wide(kernel)
    rank = len(kernel.shape) - 2
    norms = []
    for beside in itertools.product((False, True), repeat=rank):
        rows = [axis for axis in range(rank) if not beside[axis]] + [rank]
        columns = [axis for axis in range(rank) if beside[axis]] + [rank + 1]
        shape = math.prod(kernel.shape[axis] for axis in rows), -1
        unfolded = ops.reshape(ops.transpose(kernel, (*rows, *columns)), shape)
        norms.append(spectral_norm(unfolded))
    taps = math.prod(kernel.shape[:-2])
    return math.sqrt(taps) * ops.min(ops.stack(norms))


def frequency_grid(taps, tolerance):
    """Return how many frequencies make the grid's maximum a bound, and its factor.

    The norm at frequency t is the supremum of functions whose frequencies lie
    in +-(taps - 1) / 2. Such a function falls from its maximum no faster than
    a cosine of that frequency (Riesz), so the grid's maximum times
    1 / cos(pi (taps - 1) / (2 points)) is above it.
    """
    if taps == 1:
        return 1, 1.0
    points = math.ceil(math.pi * (taps - 1) / (2 * math.acos(1 / (1 + tolerance))))
    return points, 1 / math.cos(math.pi * (taps - 1) / (2 * points))


def excess_of(squarings, channels):
    """Return by what share so many squarings exceed a norm at most.

    Not proved, but no spectrum of up to 512 channels (the smaller number of them)
    that an adversarial search tried has more; it is zero for two channels.
    """
    if channels <= 2:
        return 0.0
    # The hardest spectra have two values. The coefficients are the search's.
    worst = {1: 0.04, 2: 0.0108}.get(squarings, 0.0038 * 0.39 ** (squarings - 3))
    return worst * math.acosh(math.sqrt(channels)) ** 2


def cheapest_bound(taps, channels, tolerance):
    """Return the squarings, the grid's share along an axis and what is left to stop at.

    Frequencies cost all of the work, more squarings a part of it.

    Args:
        taps: Tuple of integers, the kernel's spatial axes.
        channels: Integer, the smaller number of channels of a group.
        tolerance: Float > 0, by what share the bound may exceed the norm.
    """
    axes = sum(size > 1 for size in taps)
    share = (1 + _SHARE_OF_GRID * tolerance) ** (1 / max(1, axes)) - 1
    slack = (1 + tolerance) / (1 + share) ** axes - 1
    squarings = next(k for k in itertools.count(1) if excess_of(k, channels) <= slack)
    return squarings, share, slack


def convolution_norm_bound(kernel, iterations=7, groups=1, tolerance=None):
    """Return a certified upper bound of a convolution's spectral norm.

    It holds for every image size, stride, dilation and zero padding. The norm on
    an unbounded image is the largest norm of the kernel's Fourier transform; this
    samples it on a grid fine enough for a stated factor (0.8 %, in three dimensions
    3 %) and bounds each sample from above by repeated squaring of its Gram matrix,
    shifted as Chebyshev polynomials are, which needs no start vector and cannot fall
    below; frequencies that cannot hold the largest are squared twice only. What float32
    products lose is allowed for, but not what products in TensorFloat-32 do,
    TensorFlow's default on GPUs that have it: switch them off by
    `tf.config.experimental.enable_tensor_float_32_execution(False)`.

    Its gradient is that of the norm at the frequency that was found, times the ratio
    of the bound to that norm.

    Args:
        kernel: Float tensor (*spatial, inputs / groups, filters), one to three
            spatial axes.
        iterations: Integer >= 1, squarings. With n = min(inputs, filters) the
            factor by which they can exceed is below
            ((1 + sqrt(n)) / 2) ** (1 / 2 ** (iterations + 1)); the worst that a
            search over spectra found is far lower: for 7 squarings and 512 channels
            0.13 %, for 3 squarings 1.8 % with 32 and 5.3 % with 512 channels.
        groups: Integer >= 1; the norm is the largest of the groups'.
        tolerance: Float > 0, by what share the grid may exceed along one axis. The
            default is 0.004 (0.008 for one axis of taps), and in three dimensions
            0.01: 0.0025 is within 1 % there too, and ten times the cost.

    Returns:
        Scalar tensor, float32 (float64 for float64 input). NaN for a kernel that
        is not finite. Subnormal entries (below 1.2e-38 in float32) may count as
        zero, as they do on most devices. Cost: with m and n the larger and the smaller
        number of channels about 30 m n^2 + 20,000 n^2 + 400 n^3 multiply-adds for a 3x3
        kernel, and 80 n^3 a squaring of a sixteenth of the frequencies: two or three
        for most kernels; a hundred where all frequencies have the same norm.

    Raises:
        ValueError: On a kernel with other axes, or an argument out of its range.

    Example:
    >>> import numpy as np
    >>> mean = np.full((3, 3, 1, 1), 1.0 / 9.0)
    >>> 1.0 <= float(convolution_norm_bound(mean)) < 1.01
    True

    Source: [sedghi2019] (Fourier spectrum), [ehlich1964] (grid factor), [delattre2023]
    (Gram iteration), [wolkowicz1980], eq. 2.1 (the largest eigenvalue by two traces).
    """
    kernel = wide(kernel)
    *taps, inputs, filters = kernel.shape
    if len(taps) not in _TOLERANCE:
        raise ValueError(
            "`kernel` must have one to three spatial axes and two of channels. "
            f"Received: kernel.shape={tuple(kernel.shape)}"
        )
    check_integer("iterations", iterations, least=1)
    if tolerance is not None:
        check_positive("tolerance", tolerance)
    check_integer("groups", groups, least=1)
    if filters % groups:
        raise ValueError(
            f"`groups` must divide the kernel's {filters} filters. Received: "
            f"groups={groups}"
        )
    if tolerance is None:
        axes = sum(size > 1 for size in taps)
        tolerance = _TOLERANCE[max(1, axes)]
    slack = excess_of(iterations, min(inputs, filters // groups))
    return _bound(kernel, groups, iterations, tolerance, slack)


def _bound(kernel, groups, squarings, share, slack, differentiable=True):
    """Return the bound of a kernel (*taps, inputs / groups, filters)."""
    *taps, inputs, filters = kernel.shape
    axes, filters = len(taps), filters // groups
    grids = {size: frequency_grid(size, share) for size in taps}
    factor = math.prod(grids[size][1] for size in taps)
    n, outer = sorted((inputs, filters))
    eps = float(np.finfo(standardize_dtype(kernel.dtype)).eps)
    factor *= 1 + eps * _roundings(math.prod(taps), outer, n)
    scale = magnitude(kernel)
    scaled = ops.reshape(kernel / scale, (*taps, inputs, groups, filters))
    # The longest axis, of which half will do, comes first. The Gram matrices' side
    # comes last, the smaller one: the adjoint's transform has the same norms.
    spatial = sorted(range(axes), key=lambda axis: -taps[axis])
    sides = (axes + 2, axes) if inputs < filters else (axes, axes + 2)
    scaled = ops.transpose(scaled, (*spatial, axes + 1, *sides))
    largest, *place = largest_eigenvalue(
        ops.stop_gradient(scaled),
        points=tuple(grids[taps[axis]][0] for axis in spatial),
        squarings=squarings if n > 2 else 0,
        slack=slack,
        eps=eps,
        located=differentiable,
    )
    bound = ops.sqrt(largest) * factor * scale
    nan = ops.full_like(bound, float("nan"))
    finite = ops.isfinite(ops.sum(ops.stop_gradient(scaled)))
    bound = ops.where(finite, bound, nan)
    return bound * _one_with_gradient(scaled, *place) if differentiable else bound


def _roundings(taps, outer, n):
    """Return what products lose, as a share of the norm in units of eps.

    In roundoffs u = eps / 2, and with errors that are as random as roundings are, which
    add as squares do: the entries of a product of matrices (n, k) and (k, n) are off
    by sqrt(k) u times the norms, so the product itself by 2 sqrt(n k) u. The Gram
    matrix has k = 2 outer, that is 2.9 sqrt(outer n) u of the square of the norm; its
    transform loses 2 sqrt(outer taps) u, and interpolations 20 sqrt(n) u. A squaring
    has k = 2 n, and what it loses counts by half, a quarter of that in the next one:
    in all 1.9 n u. Half of each is the norm's; 16 is for all that is counted in
    single roundings.
    """
    return 16 + 5 * math.sqrt(n) + 2 * math.sqrt(outer * n) + math.sqrt(outer * taps)


def _one_with_gradient(kernel, frequency, group, *vector):
    """Return 1, with the gradient of the logarithm of the norm at one frequency.

    Args:
        kernel: Tensor (*taps, groups, m, n), which the gradient reaches.
        frequency: Tensor (axes,), radians.
        group: Integer tensor.
        *vector: Tensors (n, 1), the singular vector's real and imaginary part.
    """
    frequency, *vector = (ops.stop_gradient(fixed) for fixed in (frequency, *vector))
    image = times(*transform(kernel, frequency, group), *vector)
    square = sum(ops.sum(ops.square(part)) for part in image)
    fixed = ops.stop_gradient(square)
    divisor = ops.where(fixed > 0, fixed, ops.ones_like(fixed))
    return 1.0 + 0.5 * (square - fixed) / divisor
