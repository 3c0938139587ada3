"""How PyTorch lays out what a Keras variable holds. NumPy alone."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Layout(NamedTuple):
    """Two ways of one permutation.

    Args:
        to_keras: Callable from PyTorch's array and the variable's shape to an array.
            Of a variable with several tensors it gives one's share: their sum is it.
        to_torch: Callable from the variable's array to PyTorch's.
    """

    to_keras: Callable
    to_torch: Callable


def _depthwise_to_keras(array, shape):
    moved = array.reshape(shape[-2], shape[-1], *shape[:-2])
    return np.moveaxis(moved, (0, 1), (-2, -1))


def _depthwise_to_torch(array):
    moved = np.moveaxis(array, (-2, -1), (0, 1))
    return moved.reshape(-1, 1, *array.shape[:-2])


def _first_two_swapped(array):
    """Return r, z, n as z, r, n and back: PyTorch's gates of a GRU and Keras'."""
    first, second, third = np.split(array, 3, axis=-1)
    return np.concatenate([second, first, third], axis=-1)


def _row(index):
    """Return the `Layout` of a bias that is one of the two rows in Keras."""

    def to_keras(array, shape):
        # Adding -0.0 changes no number, the sign of a zero neither.
        rows = np.full(shape, -0.0, array.dtype)
        rows[index] = _first_two_swapped(array)
        return rows

    return Layout(to_keras, lambda array: _first_two_swapped(array[index]))


SAME = Layout(lambda array, shape: array, lambda array: array)
# (n,) to (1, n), (heads, n / heads) or the like.
FLAT = Layout(lambda array, shape: array.reshape(shape), np.ravel)
# (outputs, inputs) to (inputs, outputs).
DENSE = Layout(lambda array, shape: array.T, np.transpose)
# (out, in, *size) to (*size, in, out); of a transposed one (in, out, *size).
CONVOLUTION = Layout(
    lambda array, shape: array.transpose(*range(2, array.ndim), 1, 0),
    lambda array: np.moveaxis(array, (-1, -2), (0, 1)),
)
# (channels * multiplier, 1, *size) to (*size, channels, multiplier).
DEPTHWISE = Layout(_depthwise_to_keras, _depthwise_to_torch)
# (heads * size, inputs) to (inputs, heads, size).
TO_HEADS = Layout(
    lambda array, shape: array.T.reshape(shape),
    lambda array: array.reshape(len(array), -1).T,
)
# (outputs, heads * size) to (heads, size, outputs).
FROM_HEADS = Layout(
    TO_HEADS.to_keras, lambda array: array.reshape(-1, array.shape[-1]).T
)
# (3 * units, inputs), gates r, z, n, to (inputs, 3 * units), gates z, r, n.
GATES = Layout(
    lambda array, shape: _first_two_swapped(array.T),
    lambda array: _first_two_swapped(array).T,
)
GATES_INPUT, GATES_RECURRENT = _row(0), _row(1)
# The second of two biases where Keras has one: its share is added, and goes back as 0.
ADDED = Layout(SAME.to_keras, np.zeros_like)


class Counterpart(NamedTuple):
    """Where a PyTorch module has a kernel, and the bias beside it.

    Kernels of one suffix are one tensor, one below the other.

    Args:
        suffix: String, the key of the kernel in the module. That of the bias has `bias`
            where this has `weight`.
        layout: `Layout` of the kernel.
        bias: `Layout` of the bias.
    """

    suffix: str
    layout: Layout
    bias: Layout = SAME
