"""Norms: exact ones, and certified bounds of a convolution's norm.

`spectral_norm` and `stable_rank` are exact (SVD). `convolution_norm_bound` is a
certificate: it is never below the norm it bounds. Estimates from below are in
`power_iteration`.
"""

import math

import numpy as np
from keras import ops


def _wide(tensor):
    """Return `tensor` in at least float32, which SVD and sums need."""
    tensor = ops.convert_to_tensor(tensor)
    dtype = str(tensor.dtype)
    return tensor if "float64" in dtype else ops.cast(tensor, "float32")


def spectral_norm(matrix):
    """Return the largest singular value, by SVD.

    Args:
        matrix: Float tensor (m, n).

    Returns:
        Scalar tensor, float32 (float64 for float64 input). Cost: O(m n min(m, n)).

    Example:
    >>> import numpy as np
    >>> float(spectral_norm(np.diag([3.0, 4.0])))
    4.0

    Source: papers/lipschitz-slides.md, eq. 11.
    """
    return ops.max(ops.svd(_wide(matrix), full_matrices=False, compute_uv=False))


def frobenius_norm(weight):
    """Return the root of the sum of squares of all entries.

    Args:
        weight: Float tensor of any shape.

    Returns:
        Scalar tensor, float32 (float64 for float64 input).

    Example:
    >>> import numpy as np
    >>> float(frobenius_norm(np.array([3.0, 4.0])))
    5.0

    Source: papers/lipschitz-slides.md, eq. 13.
    """
    return ops.sqrt(ops.sum(ops.square(_wide(weight))))


def stable_rank(matrix):
    """Return ||W||_F^2 / ||W||_2^2, between 1 and the rank.

    Args:
        matrix: Float tensor (m, n); of a convolution, its `reshaped_matrix`.

    Returns:
        Scalar tensor; NaN for a zero matrix, which has none.

    Example:
    >>> import numpy as np
    >>> round(float(stable_rank(np.eye(5))), 6)
    5.0

    Source: papers/stable-rank-normalization.md, Definition 2.1.
    """
    squares = ops.square(ops.svd(_wide(matrix), full_matrices=False, compute_uv=False))
    return ops.sum(squares) / ops.max(squares)


def induced_norm(kernel, p=2, kind="dense"):
    """Return the p-norm of a layer's linear map, or a certified bound of it.

    For a dense kernel the value is exact. A convolution is bounded for every
    input size, stride and zero padding at once: the bound is the norm on an
    unbounded image (for p = 1 and inf exactly, for p = 2 within 1 %), which
    padding and stride can only lower.

    Args:
        kernel: Float tensor, (inputs, units) for `kind="dense"` or
            (height, width, inputs, filters) for `kind="convolution"`.
        p: 1, 2 or `math.inf`: the vector norm on both sides.
        kind: `"dense"` or `"convolution"`.

    Returns:
        Scalar tensor, float32 (float64 for float64 input).

    Example:
    >>> import numpy as np
    >>> float(induced_norm(np.array([[1.0, -2.0], [3.0, 4.0]]), p=math.inf))
    6.0

    Source: Gouk et al. 2018, section 3; papers/lipschitz-slides.md, eq. 16.
    """
    kernel = _wide(kernel)
    if p == 2:
        if kind == "dense":
            return spectral_norm(kernel)
        return convolution_norm_bound(kernel)
    inputs_axis = len(kernel.shape) - 2
    others = [axis for axis in range(len(kernel.shape)) if axis != inputs_axis]
    # In y = W x a column of W belongs to an input, a row to an output.
    axes = others if p == 1 else list(range(len(kernel.shape) - 1))
    return ops.max(ops.sum(ops.abs(kernel), axis=axes))


def _frequency_grid(taps, tolerance):
    """Return how many frequencies make the grid's maximum a bound.

    The norm at frequency t is the supremum of functions whose frequencies lie
    in +-(taps - 1) / 2. Such a function falls from its maximum no faster than
    a cosine of that frequency (Riesz), so the grid's maximum times
    1 / cos(pi (taps - 1) / (2 points)) is above it.
    """
    if taps == 1:
        return 1, 1.0
    points = math.ceil(math.pi * (taps - 1) / (2 * math.acos(1 / (1 + tolerance))))
    return points, 1 / math.cos(math.pi * (taps - 1) / (2 * points))


def convolution_norm_bound(kernel, iterations=8):
    """Return a certified upper bound of a convolution's spectral norm.

    It holds for every image size, stride and zero padding. The norm on an
    unbounded image is the largest norm of the kernel's Fourier transform; this
    samples it on a grid fine enough for a stated factor (0.15 % an axis) and
    bounds each sample from above by Gram iteration (squaring G'G and taking the
    Frobenius norm), which needs no start vector and cannot fall below.

    Args:
        kernel: Float tensor (height, width, inputs, filters).
        iterations: Integer >= 1, Gram squarings. The factor by which they can
            exceed is min(inputs, filters) ** (1 / 2 ** (iterations + 2)): for
            8 and 512 channels below 0.7 %.

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
    kernel = _wide(kernel)
    height, width, inputs, filters = kernel.shape
    if inputs < filters:
        # The transform of the adjoint has the same norms; Gram matrices are
        # taken on the last axis, so put the smaller side there.
        kernel = ops.transpose(kernel, (0, 1, 3, 2))
    rows, row_factor = _frequency_grid(height, 1.5e-3)
    columns, column_factor = _frequency_grid(width, 1.5e-3)
    # A real kernel has conjugate transforms at opposite frequencies.
    half = columns // 2 + 1
    row = 2 * np.pi * np.outer(np.arange(rows), np.arange(height)) / rows
    column = 2 * np.pi * np.outer(np.arange(half), np.arange(width)) / columns
    phase = (row[:, None, :, None] + column[None, :, None, :]).reshape(
        rows * half, height * width
    )
    dtype = kernel.dtype
    channels = kernel.shape[2:]
    taps = ops.reshape(kernel, (height * width, -1))

    def transform(wave):
        wave = ops.convert_to_tensor(wave, dtype=dtype)
        return ops.reshape(ops.matmul(wave, taps), (-1, *channels))

    real, imaginary = transform(np.cos(phase)), transform(-np.sin(phase))

    def gram(real, imaginary):
        real_t = ops.transpose(real, (0, 2, 1))
        imaginary_t = ops.transpose(imaginary, (0, 2, 1))
        cross = ops.matmul(real_t, imaginary)
        return (
            ops.matmul(real_t, real) + ops.matmul(imaginary_t, imaginary),
            cross - ops.transpose(cross, (0, 2, 1)),
        )

    def frobenius(real, imaginary):
        return ops.sqrt(ops.sum(ops.square(real) + ops.square(imaginary), axis=(1, 2)))

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
    bounds = ops.exp(log) * ops.power(frobenius(real, imaginary), 1.0 / power)
    return ops.max(bounds) * (row_factor * column_factor)
