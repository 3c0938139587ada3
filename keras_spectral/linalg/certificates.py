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

from keras_spectral.linalg.norms import magnitude, spectral_norm, wide
from keras_spectral.validation import check_choice, check_integer, check_positive

KernelKind = Literal["dense", "convolution", "depthwise", "transposed"]

# The grid's factor along one axis, by the number of axes: three need so many
# points that a coarser grid must do.
_TOLERANCE = {1: 1.5e-3, 2: 1.5e-3, 3: 1e-2}


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
    kernel = wide(kernel)
    rank = len(kernel.shape) - 2
    if rank != 0 if kind == "dense" else rank not in _TOLERANCE:
        raise ValueError(
            f"`kernel` must have the axes of a {kind} kernel. Received: "
            f"kernel.shape={tuple(kernel.shape)}"
        )
    if p == 2:
        if kind == "dense" and tolerance is None:
            return spectral_norm(kernel)
        arguments = {}
        if kind == "dense":
            kernel = kernel[None]
        elif kind == "depthwise":
            *taps, inputs, multiplier = kernel.shape
            kernel = ops.reshape(kernel, (*taps, 1, inputs * multiplier))
            arguments["groups"] = inputs
        # A transposed convolution has the norm of its adjoint.
        if tolerance is not None:
            channels = 1 if kind == "depthwise" else min(kernel.shape[-2:])
            arguments["iterations"], arguments["tolerance"] = cheapest_bound(
                kernel.shape[:-2], channels, tolerance
            )
        return convolution_norm_bound(kernel, **arguments)
    spatial = tuple(range(rank))
    magnitudes = ops.sum(ops.abs(kernel), axis=spatial) if rank else ops.abs(kernel)
    if kind == "depthwise":
        # Each output has one input; each input has `multiplier` outputs.
        return ops.max(ops.sum(magnitudes, axis=1) if p == 1 else magnitudes)
    # In y = W x a column of W belongs to an input, a row to an output.
    inputs_axis = 1 if kind == "transposed" else 0
    return ops.max(ops.sum(magnitudes, axis=1 - inputs_axis if p == 1 else inputs_axis))


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


def half_grid(points):
    """Return the grid's points (axes, points), one of each pair +-t.

    A real kernel has conjugate transforms at opposite frequencies.
    """
    grid = np.indices(points).reshape(len(points), -1)
    return grid[:, [tuple(point) <= tuple(-point % points) for point in grid.T]]


def _waves(taps, points):
    """Return cos + sin (frequencies, differences of taps)."""
    differences = np.indices([2 * size - 1 for size in taps]).reshape(len(taps), -1)
    differences -= np.array(taps)[:, None] - 1
    frequencies = half_grid(points) / np.array(points)[:, None]
    phases = 2 * np.pi * frequencies.T @ differences
    return np.cos(phases) + np.sin(phases)


def _gram_kernel(kernel):
    """Return the taps of K*K: (differences of taps, groups, n, n).

    The kernel (groups, m, *taps, n) correlated with itself: the sum over pairs of
    taps i - j = d of K_j' K_i.
    """
    groups, outer, *taps, n = kernel.shape
    axes = range(2, 2 + len(taps))
    size = math.prod(taps)
    # With the taps of one factor reversed, a difference is a sum of positions.
    left = ops.reshape(ops.flip(kernel, axis=tuple(axes)), (groups, outer, size * n))
    right = ops.reshape(kernel, (groups, outer, size * n))
    pairs = ops.matmul(ops.transpose(left, (0, 2, 1)), right)
    pairs = ops.reshape(pairs, (groups, *taps, n, *taps, n))
    order = [axis for i in range(len(taps)) for axis in (1 + i, 2 + len(taps) + i)]
    pairs = ops.transpose(pairs, (*order, 0, 1 + len(taps), 2 + 2 * len(taps)))
    done, rest = 1, math.prod(pairs.shape)
    for taps_of_axis in taps:
        sums = 2 * taps_of_axis - 1
        rest //= taps_of_axis**2
        # Rows padded to one more than `sums` and read in rows of `sums`: row i
        # moves i places to the right, so that columns hold equal sums.
        pairs = ops.reshape(pairs, (done, taps_of_axis, taps_of_axis, rest))
        pairs = ops.pad(pairs, ((0, 0), (0, 0), (0, taps_of_axis), (0, 0)))
        pairs = ops.reshape(pairs, (done, -1, rest))[:, : taps_of_axis * sums]
        pairs = ops.sum(ops.reshape(pairs, (done, taps_of_axis, sums, rest)), axis=1)
        done *= sums
    return ops.reshape(pairs, (done, groups, n, n))


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
    """Return the squarings, and the grid's share along an axis, of the least work.

    A coarse grid with more squarings and a fine one with fewer end within the same
    `tolerance`; in two dimensions the coarse one is often three times cheaper.

    Args:
        taps: Tuple of integers, the kernel's spatial axes.
        channels: Integer, the smaller number of channels of a group.
        tolerance: Float > 0, by what share the bound may exceed the norm.
    """
    axes = max(1, sum(size > 1 for size in taps))
    choices = []
    for squarings in itertools.count(1):
        excess = excess_of(squarings, channels)
        if excess < tolerance:
            share = ((1 + tolerance) / (1 + excess)) ** (1 / axes) - 1
            points = math.prod(frequency_grid(size, share)[0] for size in taps)
            # Transforming costs about as much as one squaring.
            choices.append((points * (squarings + 1), squarings, share))
            if excess < tolerance / 10:
                return min(choices)[1:]


def convolution_norm_bound(kernel, iterations=6, groups=1, tolerance=None):
    """Return a certified upper bound of a convolution's spectral norm.

    It holds for every image size, stride, dilation and zero padding. The norm on
    an unbounded image is the largest norm of the kernel's Fourier transform; this
    samples it on a grid fine enough for a stated factor (0.15 % an axis; 1 % in
    three dimensions) and bounds each sample from above by repeated squaring of its
    Gram matrix, shifted as Chebyshev polynomials are, which needs no start vector
    and cannot fall below. What float32 products lose is allowed for, but not what
    products in TensorFloat-32 do, TensorFlow's default on GPUs that have it: switch
    them off by `tf.config.experimental.enable_tensor_float_32_execution(False)`.

    Args:
        kernel: Float tensor (*spatial, inputs / groups, filters), one to three
            spatial axes.
        iterations: Integer >= 1, squarings. With n = min(inputs, filters) the
            factor by which they can exceed is below
            ((1 + sqrt(n)) / 2) ** (1 / 2 ** (iterations + 1)); the worst that a
            search over spectra found is far lower: for 6 squarings and 512 channels
            0.3 %, for 3 squarings 1.8 % with 32 and 5.3 % with 512 channels.
        groups: Integer >= 1; the norm is the largest of the groups'.
        tolerance: Float > 0, by what share the grid may exceed along one axis. The
            default is 0.0015, and in three dimensions 0.01: 0.002 is within 1 %
            there too, and ten times the cost.

    Returns:
        Scalar tensor, float32 (float64 for float64 input). NaN for a kernel that
        is not finite. Subnormal entries (below 1.2e-38 in float32) may count as
        zero, as they do on most devices. Cost: about
        `3400 * iterations * min(inputs, filters) ** 3` multiply-adds for a 3x3
        kernel.

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
    if tolerance is None:
        tolerance = _TOLERANCE[len(taps)]
    check_positive("tolerance", tolerance)
    check_integer("groups", groups, least=1)
    if filters % groups:
        raise ValueError(
            f"`groups` must divide the kernel's {filters} filters. Received: "
            f"groups={groups}"
        )
    grids = [frequency_grid(size, tolerance) for size in taps]
    factor = math.prod(factor for _, factor in grids)
    filters //= groups
    n = min(inputs, filters)
    eps = float(np.finfo(standardize_dtype(kernel.dtype)).eps)
    # What the products below may lose to rounding: for a 1x1 kernel the grid
    # leaves no room for it.
    factor *= 1 + eps * (max(16, n) + math.sqrt(math.prod(kernel.shape[:-1])))
    scale = magnitude(kernel)
    scaled = kernel / scale
    axes = len(taps)
    scaled_groups = ops.reshape(scaled, (*taps, inputs, groups, filters))
    # The Gram matrices' side comes last, the smaller one: the adjoint's transform
    # has the same norms.
    outer, inner = (axes + 2, axes) if inputs < filters else (axes, axes + 2)
    order = (axes + 1, outer, *range(axes), inner)
    gram = _gram_kernel(ops.transpose(scaled_groups, order))
    waves = ops.convert_to_tensor(
        _waves(taps, [points for points, _ in grids]), dtype=kernel.dtype
    )
    largest = _largest_eigenvalue(gram, waves, iterations if n > 2 else 0, eps)
    bound = _root(largest) * factor * scale
    nan = ops.full_like(bound, float("nan"))
    return ops.where(ops.isfinite(ops.sum(scaled)), bound, nan)


def _root(x):
    """Return the square root of x >= 0, with a gradient of zero at zero."""
    positive = ops.not_equal(x, 0)
    root = ops.sqrt(ops.where(positive, x, ops.ones_like(x)))
    return ops.where(positive, root, ops.zeros_like(root))


def _largest_eigenvalue(gram, waves, squarings, eps):
    """Return an upper bound of the largest eigenvalue of all transforms of `gram`.

    A Hermitian matrix R + iJ is kept as the real matrix M = R + J, of the same trace
    and Frobenius norm, whose transpose is R - J; its square is M R + M'J. The taps d
    of the transform get the weight cos + sin of their phase.

    Each squaring maps Y to (2 Y / g - 1)^2, whose eigenvalues u bound those of Y:
    y <= g (1 + sqrt(u)) / 2, for any g > 0. It separates best (a Chebyshev polynomial)
    if g is the largest eigenvalue, and never worse than plain powers if g is below;
    tr Y^2 / tr Y is.

    Args:
        gram: Tensor (differences, groups, n, n).
        waves: Tensor (frequencies, differences).
        squarings: Integer >= 0.
        eps: Float, the rounding of the dtype.
    """
    differences, groups, n, _ = gram.shape
    matrices = ops.matmul(waves, ops.reshape(gram, (differences, -1)))
    matrices = ops.reshape(matrices, (waves.shape[0] * groups, n, n))
    if n == 1:
        return ops.max(matrices)

    def traces(matrices):
        """Return the trace of each and of its square."""
        flat = ops.reshape(matrices, (-1, n * n))
        return ops.sum(flat[:, :: n + 1], axis=1), ops.sum(ops.square(flat), axis=1)

    def positive(x):
        return ops.where(x > 0, x, ops.ones_like(x))

    # Halved, since the sum and the difference below are twice R and J.
    half = math.sqrt(0.5)
    identity = ops.convert_to_tensor(half * np.eye(n), dtype=gram.dtype)
    guesses = []
    for _ in range(squarings):
        trace, squares = traces(matrices)
        ratios = squares / positive(trace)
        guess = ops.max(ops.where(trace > 0, ratios, ops.zeros_like(ratios)))
        guesses.append(guess)
        shifted = matrices * (2.0 * half / positive(guess)) - identity
        if differences == 1:
            # Of one tap: real and symmetric.
            matrices = ops.matmul(shifted, 2.0 * shifted)
            continue
        transposed = ops.transpose(shifted, (0, 2, 1))
        matrices = ops.matmul(shifted, shifted + transposed)
        matrices = matrices + ops.matmul(transposed, shifted - transposed)
    trace, squares = traces(matrices)
    # Of n real numbers with these sums, and of their squares, none is larger. What the
    # difference loses to rounding is added.
    variance = ops.maximum(squares - ops.square(trace) / n, 0.0)
    deviation = _root(variance + (n + 8) * eps * squares)
    bound = ops.max(trace / n + math.sqrt((n - 1) / n) * deviation)
    for guess in reversed(guesses):
        bound = guess * (1.0 + ops.sqrt(bound)) / 2.0
    return bound
