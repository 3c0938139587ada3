"""Rescaling of a kernel that bounds its norm by products alone."""

import functools
import itertools
import math

import numpy as np
from keras import ops

from keras_spectral.linalg.arrays import largest_entry
from keras_spectral.linalg.norms import magnitude


def almost_orthogonal(matrix, taps=(), groups=1):
    """Rescale the inputs of a kernel so that its norm is at most one.

    With W the kernel of y = W x, it is W D with D_jj = (sum_i |W' W|_ij)^(-1/2). Of a
    convolution W' W is its correlation with itself at every shift, and j a channel of
    its input: the bound holds for zero and for circular padding, any size of images,
    any stride and dilation. It is attained where W has orthogonal columns.

    Args:
        matrix: Float tensor or NumPy array (inputs, outputs), W'; of a convolution
            the kernel (*taps, channels, outputs) flattened.
        taps: Tuple of integers, the size of a convolution's kernel in pixels; none for
            a matrix.
        groups: Integer, of a convolution.

    Returns:
        Float tensor, or array, of the same shape; columns of zeros of W stay so.

    Example:
    >>> matrix = np.array([[3.0, 0.0], [0.0, 0.1]])
    >>> almost_orthogonal(matrix).tolist()
    [[1.0, 0.0], [0.0, 1.0]]

    Source: [prach2022].
    """
    numpy = isinstance(matrix, np.ndarray)
    backend = np if numpy else ops
    inputs, outputs = matrix.shape
    count = math.prod(taps)
    channels, filters = inputs // count, outputs // groups
    # It changes nothing but squares that overflow or vanish.
    matrix = matrix / (largest_entry(matrix) or 1.0 if numpy else magnitude(matrix))
    kernel = backend.reshape(matrix, (inputs, groups, filters))
    kernel = backend.transpose(kernel, (1, 0, 2))
    gram = backend.matmul(kernel, backend.transpose(kernel, (0, 2, 1)))
    if count > 1:
        # Pairs of taps first, to be summed where they are equally far apart.
        gram = backend.reshape(gram, (groups, count, channels, count, channels))
        gram = backend.reshape(
            backend.transpose(gram, (1, 3, 0, 2, 4)), (count * count, -1)
        )
        pairs = _pairs(tuple(taps))
        if not numpy:
            pairs = ops.convert_to_tensor(pairs, dtype=matrix.dtype)
        gram = backend.matmul(pairs, gram)
    gram = backend.reshape(gram, (-1, groups, channels, channels))
    sums = backend.sum(backend.abs(gram), (0, 3))
    # Columns of zeros have no sum.
    sums = backend.where(sums > 0, sums, backend.ones_like(sums))
    kernel = backend.reshape(kernel, (groups, count, channels, filters))
    kernel = kernel / backend.sqrt(sums)[:, None, :, None]
    kernel = backend.reshape(kernel, (groups, inputs, filters))
    return backend.reshape(backend.transpose(kernel, (1, 0, 2)), (inputs, outputs))


@functools.lru_cache
def _pairs(taps):
    """Return the array (shifts, pairs of taps) that is one where a pair is so apart."""
    places = list(itertools.product(*map(range, taps)))
    apart = [tuple(np.subtract(first, second)) for first in places for second in places]
    known = {shift: row for row, shift in enumerate(dict.fromkeys(apart))}
    table = np.zeros((len(known), len(apart)))
    table[[known[shift] for shift in apart], np.arange(len(apart))] = 1
    return table
