"""How PyTorch lays out what a Keras variable holds. NumPy alone."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Layout(NamedTuple):
    """Two ways of one permutation.

    Args:
        to_keras: Callable from PyTorch's array and the variable's shape to an array.
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


SAME = Layout(lambda array, shape: array, lambda array: array)
# (outputs, inputs) to (inputs, outputs).
DENSE = Layout(lambda array, shape: array.T, np.transpose)
# (out, in, *size) to (*size, in, out); of a transposed one (in, out, *size).
CONVOLUTION = Layout(
    lambda array, shape: array.transpose(*range(2, array.ndim), 1, 0),
    lambda array: np.moveaxis(array, (-1, -2), (0, 1)),
)
# (channels * multiplier, 1, *size) to (*size, channels, multiplier).
DEPTHWISE = Layout(_depthwise_to_keras, _depthwise_to_torch)
