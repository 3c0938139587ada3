"""Certified bounds of norms: never below the norm that they bound."""

import itertools
import math

import numpy as np
from keras import ops

from keras_spectral.linalg.norms import spectral_norm, wide
from keras_spectral.validation import check_choice

KINDS = ("dense", "convolution", "depthwise", "transposed")

# The grid's factor along one axis, by the number of axes: three need so many
# points that a coarser grid must do.
_TOLERANCE = {1: 1.5e-3, 2: 1.5e-3, 3: 1e-2}


def induced_norm(kernel, p=2, kind="dense"):
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

    Returns:
        Scalar tensor, float32 (float64 for float64 input).

    Raises:
        ValueError: On another `p` or `kind`, or a kernel with other axes.

    Example:
    >>> import numpy as np
    >>> float(induced_norm(np.array([[1.0, -2.0], [3.0, 4.0]]), p=math.inf))
    6.0

    Source: Gouk et al. 2018, section 3; papers/lipschitz-slides.md, eq. 16.
    """
    check_choice("p", p, (1, 2, math.inf))
    check_choice("kind", kind, KINDS)
    kernel = wide(kernel)
    rank = len(kernel.shape) - 2
    if rank != 0 if kind == "dense" else rank not in _TOLERANCE:
        raise ValueError(
            f"`kernel` must have the axes of a {kind} kernel. Received: "
            f"kernel.shape={tuple(kernel.shape)}"
        )
    if p == 2:
        if kind == "dense":
            return spectral_norm(kernel)
        if kind == "depthwise":
            *taps, inputs, multiplier = kernel.shape
            kernel = ops.reshape(kernel, (*taps, 1, inputs * multiplier))
            return convolution_norm_bound(kernel, groups=inputs)
        # A transposed convolution has the norm of its adjoint.
        return convolution_norm_bound(kernel)
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

    Source: Singla and Feizi 2021, Theorem 1.
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


def _frequency_grid(taps, tolerance):
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


def _phases(taps, points):
    """Return the phases (frequencies, taps) of the grid, one of each pair +-t.

    A real kernel has conjugate transforms at opposite frequencies.
    """
    points = [*points[:-1], points[-1] // 2 + 1], points
    phases = np.zeros((1, 1))
    for size, kept, full in zip(taps, *points, strict=True):
        axis = 2 * np.pi * np.outer(np.arange(kept), np.arange(size)) / full
        phases = phases[:, None, :, None] + axis[None, :, None, :]
        phases = phases.reshape(-1, phases.shape[2] * size)
    return phases


def convolution_norm_bound(kernel, iterations=8, groups=1):
    """Return a certified upper bound of a convolution's spectral norm.

    It holds for every image size, stride, dilation and zero padding. The norm on
    an unbounded image is the largest norm of the kernel's Fourier transform; this
    samples it on a grid fine enough for a stated factor (0.15 % an axis; 1 % in
    three dimensions) and bounds each sample from above by Gram iteration
    (squaring G'G and taking the Frobenius norm), which needs no start vector and
    cannot fall below.

    Args:
        kernel: Float tensor (*spatial, inputs / groups, filters), one to three
            spatial axes.
        iterations: Integer >= 1, Gram squarings. The factor by which they can
            exceed is min(inputs, filters) ** (1 / 2 ** (iterations + 2)): for
            8 and 512 channels below 0.7 %.
        groups: Integer >= 1; the norm is the largest of the groups'.

    Returns:
        Scalar tensor, float32 (float64 for float64 input). Cost: about
        `5200 * iterations * min(inputs, filters) ** 3` multiply-adds for a 3x3
        kernel.

    Example:
    >>> import numpy as np
    >>> mean = np.full((3, 3, 1, 1), 1.0 / 9.0)
    >>> 1.0 <= float(convolution_norm_bound(mean)) < 1.01
    True

    Source: Sedghi et al. 2019 (Fourier spectrum), Delattre et al. 2023 (Gram
    iteration), Ehlich and Zeller 1964 (grid factor).
    """
    kernel = wide(kernel)
    *taps, inputs, filters = kernel.shape
    if len(taps) not in _TOLERANCE:
        raise ValueError(
            "`kernel` must have one to three spatial axes and two of channels. "
            f"Received: kernel.shape={tuple(kernel.shape)}"
        )
    grids = [_frequency_grid(size, _TOLERANCE[len(taps)]) for size in taps]
    phases = _phases(taps, [points for points, _ in grids])
    factor = math.prod(factor for _, factor in grids)
    channels = (inputs, groups, filters // groups)
    # Of unit size, because compiled exponentials and logarithms fail near the
    # ends of float32's range. The scale carries no gradient: the bound is
    # homogeneous in the kernel.
    scale = ops.stop_gradient(ops.max(ops.abs(kernel)))
    scale = ops.where(scale > 0, scale, ops.ones_like(scale))
    flat = ops.reshape(kernel / scale, (math.prod(taps), -1))

    def transform(wave):
        wave = ops.convert_to_tensor(wave, dtype=kernel.dtype)
        samples = ops.reshape(ops.matmul(wave, flat), (-1, *channels))
        # Gram matrices are taken on the last axis, so the smaller side is put
        # there; the transform of the adjoint has the same norms.
        order = (0, 2, 3, 1) if inputs < filters // groups else (0, 2, 1, 3)
        samples = ops.transpose(samples, order)
        return ops.reshape(samples, (-1, *samples.shape[2:]))

    bounds = _gram_bounds(
        transform(np.cos(phases)), transform(-np.sin(phases)), iterations
    )
    return ops.max(bounds) * factor * scale


def _gram_bounds(real, imaginary, iterations):
    """Return upper bounds of the norms of complex matrices (batch, m, n)."""

    def gram(real, imaginary):
        real_t = ops.transpose(real, (0, 2, 1))
        imaginary_t = ops.transpose(imaginary, (0, 2, 1))
        cross = ops.matmul(real_t, imaginary)
        return (
            ops.matmul(real_t, real) + ops.matmul(imaginary_t, imaginary),
            cross - ops.transpose(cross, (0, 2, 1)),
        )

    def frobenius(real, imaginary):
        # Divided by the largest entry first, so that no square overflows.
        largest = ops.max(
            ops.maximum(ops.abs(real), ops.abs(imaginary)), axis=(1, 2), keepdims=True
        )
        largest = ops.where(largest > 0, largest, ops.ones_like(largest))
        squares = ops.square(real / largest) + ops.square(imaginary / largest)
        total = ops.sum(squares, axis=(1, 2))
        # A square root has no gradient at zero; NaN must stay NaN.
        zero = ops.equal(total, 0)
        root = ops.sqrt(ops.where(zero, ops.ones_like(total), total))
        return largest[:, 0, 0] * ops.where(zero, ops.zeros_like(root), root)

    # Rescaled at each step, so that no power overflows: log carries the scale.
    log = ops.zeros_like(real[:, 0, 0])
    power = 1
    for _ in range(iterations + 1):
        scale = frobenius(real, imaginary)
        scale = ops.where(scale > 0, scale, ops.ones_like(scale))
        real, imaginary = real / scale[:, None, None], imaginary / scale[:, None, None]
        log = log + ops.log(scale) / power
        real, imaginary = gram(real, imaginary)
        power *= 2
    final = frobenius(real, imaginary)
    zero = ops.equal(final, 0)
    safe = ops.where(zero, ops.ones_like(final), final)
    bounds = ops.exp(log) * ops.power(safe, 1.0 / power)
    return ops.where(zero, ops.zeros_like(bounds), bounds)
