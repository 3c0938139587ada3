"""Rescaling of a kernel that bounds its norm by products alone."""

import itertools
import math

import numpy as np
from keras import ops

from keras_spectral.linalg.arrays import largest_entry
from keras_spectral.linalg.norms import magnitude


def almost_orthogonal(matrix, taps=(), groups=1, strides=1, transposed=False):
    """Rescale the inputs of a kernel so that its norm is at most one.

    With W the kernel of y = W x, it is W D with D_jj = (sum_i |W' W|_ij)^(-1/2). Of a
    convolution W' W is its correlation with itself at every shift, and j a channel of
    its input: the bound holds for zero and for circular padding, any size of images,
    and any dilation. With a stride j is a channel at one of the places in a stride, as
    if these were channels of their own. The norm is one where W has orthogonal columns.

    Args:
        matrix: Float tensor or NumPy array (inputs, outputs), W'; of a convolution
            the kernel (*taps, channels, outputs) flattened.
        taps: Tuple of integers, the size of a convolution's kernel in pixels; none for
            a matrix.
        groups: Integer, of a convolution.
        strides: Integer, or a tuple of one for each pixel axis.
        transposed: Boolean, whether the convolution is a transposed one.

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
    strides = (strides,) * len(taps) if isinstance(strides, int) else tuple(strides)
    pairs, places = _pairs(tuple(taps), strides, transposed)
    phases = max(places) + 1
    if count > 1:
        # Pairs of taps first, to be summed where they are equally far apart.
        gram = backend.reshape(gram, (groups, count, channels, count, channels))
        gram = backend.reshape(
            backend.transpose(gram, (1, 3, 0, 2, 4)), (count * count, -1)
        )
        if not numpy:
            pairs = ops.convert_to_tensor(pairs, dtype=matrix.dtype)
        gram = backend.matmul(pairs, gram)
    gram = backend.reshape(gram, (phases, -1, groups, channels, channels))
    sums = backend.sum(backend.abs(gram), (1, 4))
    # Columns of zeros have no sum.
    sums = backend.where(sums > 0, sums, backend.ones_like(sums))
    sums = backend.transpose(backend.take(sums, places, axis=0), (1, 0, 2))
    kernel = backend.reshape(kernel, (groups, count, channels, filters))
    kernel = kernel / backend.sqrt(sums)[..., None]
    kernel = backend.reshape(kernel, (groups, inputs, filters))
    return backend.reshape(backend.transpose(kernel, (1, 0, 2)), (inputs, outputs))


def _pairs(taps, strides, transposed):
    """Return which pairs of taps meet, and the place in a stride of each tap.

    Args:
        taps: Tuple of integers.
        strides: Tuple of integers.
        transposed: Boolean.

    Returns:
        Array (places * shifts, pairs), one where a pair of taps is so far apart and the
        first is at that place; array (taps,) of the places' numbers.
    """
    where = list(itertools.product(*map(range, taps)))
    # A transposed convolution moves its outputs by whole strides, and has one place.
    steps = strides if transposed else (1,) * len(taps)
    phase = [
        0 if transposed else int(np.ravel_multi_index(np.mod(tap, strides), strides))
        for tap in where
        if strides
    ] or [0]
    places = {number: at for at, number in enumerate(dict.fromkeys(phase))}
    places = np.array([places[number] for number in phase])
    shifts = [tuple(np.subtract(first, second)) for first in where for second in where]
    known = {shift: row for row, shift in enumerate(dict.fromkeys(shifts))}
    table = np.zeros((places.max() + 1, len(known), len(shifts)))
    for at, shift in enumerate(shifts):
        if not np.mod(shift, steps).any():
            table[places[at // len(where)], known[shift], at] = 1
    return table.reshape(-1, len(shifts)), places
