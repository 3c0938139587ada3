"""Exact norms of a matrix.

Certificates, which are never below a norm, are in `certificates`; estimates from
below in `power_iteration`; whole spectra of convolutions in `spectra`.
"""

import keras
from keras import ops


def wide(tensor):
    """Return `tensor` in at least float32, which SVD and sums need."""
    tensor = ops.convert_to_tensor(tensor)
    dtype = str(tensor.dtype)
    return tensor if "float64" in dtype else ops.cast(tensor, "float32")


def largest_divisor(tensor):
    """Return the largest number to divide by, as a float: 2^126 in float32.

    XLA multiplies by the reciprocal, and takes what is smaller than 2^-126 for zero.

    Args:
        tensor: Float tensor, of the dtype that is meant.

    Example:
    >>> import numpy as np
    >>> largest_divisor(np.ones(3, "float32")) == 2.0**126
    True
    """
    wide = keras.backend.standardize_dtype(tensor.dtype) == "float64"
    return 2.0**1022 if wide else 2.0**126


def magnitude(tensor):
    """Return the largest absolute entry to divide by: 1 if zero or not finite.

    Squares of what was divided by it stay inside float32 for every kernel whose
    entries are normal numbers; the largest becomes 1, or up to 4 where XLA could not
    divide by it. No gradient flows.
    """
    largest = ops.max(ops.abs(ops.stop_gradient(tensor)))
    usable = ops.logical_and(largest > 0, largest < float("inf"))
    # Not `minimum`: on torch it makes float32 of float64.
    largest = ops.clip(largest, -1.0, largest_divisor(tensor))
    return ops.where(usable, largest, ops.ones_like(largest))


def scaled_squares(tensor, axes):
    """Return the largest magnitude and the sum of squares of what it divides.

    It is 2^126 where it is above that in float32, see `largest_divisor`.

    The norm is the first times the root of the second: products of many layers are far
    from 1, and their squares farther.

    Args:
        tensor: Float tensor.
        axes: Tuple of integers, over which the norm is.

    Returns:
        Tuple of tensors without those axes; NaN where an entry is not finite.

    Example:
    >>> import numpy as np
    >>> found = scaled_squares(np.array([[3.0, 4.0]]), (1,))
    >>> [ops.convert_to_numpy(part).tolist() for part in found]
    [[4.0], [1.5625]]
    """
    largest = ops.max(ops.abs(tensor), axis=axes, keepdims=True)
    largest = ops.clip(largest, -1.0, largest_divisor(tensor))
    scale = ops.where(largest > 0, largest, ops.ones_like(largest))
    squares = ops.sum(ops.square(tensor / scale), axis=axes)
    return ops.squeeze(largest, axis=axes), squares


def singular_values(matrix):
    """Return all singular values, by SVD.

    Args:
        matrix: Float tensor (m, n).

    Returns:
        Tensor (min(m, n),), float32 (float64 for float64 input), descending; NaN if
        an entry is not finite. Cost: O(m n min(m, n)).

    Example:
    >>> import numpy as np
    >>> ops.convert_to_numpy(singular_values(np.diag([3.0, 4.0]))).tolist()
    [4.0, 3.0]

    Source: [zhang2020], eq. 11.
    """
    matrix = wide(matrix)
    finite = ops.isfinite(matrix)
    # torch raises on NaN.
    fixed = ops.where(finite, matrix, ops.zeros_like(matrix))
    values = ops.svd(fixed, full_matrices=False, compute_uv=False)
    return ops.where(ops.all(finite), values, ops.full_like(values, float("nan")))


def spectral_norm(matrix):
    """Return the largest singular value, by SVD.

    Args:
        matrix: Float tensor (m, n).

    Returns:
        Scalar tensor, float32 (float64 for float64 input); NaN if an entry is not
        finite. Cost: O(m n min(m, n)).

    Example:
    >>> import numpy as np
    >>> float(spectral_norm(np.diag([3.0, 4.0])))
    4.0

    Source: [zhang2020], eq. 11.
    """
    return ops.max(singular_values(matrix))


def frobenius_norm(weight):
    """Return the root of the sum of squares of all entries.

    Args:
        weight: Float tensor of any shape.

    Returns:
        Scalar tensor, float32 (float64 for float64 input), with gradient zero at
        zero.

    Example:
    >>> import numpy as np
    >>> float(frobenius_norm(np.array([3.0, 4.0])))
    5.0

    Source: [zhang2020], eq. 13.
    """
    weight = wide(weight)
    scale = magnitude(weight)
    squares = ops.sum(ops.square(weight / scale))
    # A square root has no gradient at zero; NaN must stay NaN.
    zero = ops.equal(squares, 0)
    root = ops.sqrt(ops.where(zero, ops.ones_like(squares), squares))
    return scale * ops.where(zero, ops.zeros_like(root), root)


def squared_frobenius_norm(weight):
    """Return the sum of squares of all entries, in as few passes as there are.

    Args:
        weight: Float tensor of any shape.

    Returns:
        Scalar tensor of the same dtype.

    Example:
    >>> import numpy as np
    >>> float(squared_frobenius_norm(np.array([3.0, 4.0])))
    25.0
    """
    weight = ops.convert_to_tensor(weight)
    if keras.backend.backend() == "tensorflow":
        # One fused pass, and one for its gradient; the formula below takes three
        # and two, which on wide dense kernels is a third of a training step.
        import tensorflow as tf

        return 2.0 * tf.nn.l2_loss(weight)
    return ops.sum(ops.square(weight))


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

    Source: [sanyal2020], Definition 2.1.
    """
    matrix = wide(matrix)
    # Scaled, since norms and squares leave float32 before their ratio does.
    values = singular_values(matrix / magnitude(matrix))
    return ops.sum(ops.square(values / ops.max(values)))
