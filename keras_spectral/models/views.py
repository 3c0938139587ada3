"""A kernel as a matrix. No backend is started for arrays of NumPy."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class MatrixView:
    """How a kernel is flattened to a matrix (inputs, outputs), and back.

    Args:
        kernel_shape: Tuple of integers.
        output_axes: Tuple of axes of the kernel that number outputs; the
            others number inputs. Both keep their order.
    """

    kernel_shape: tuple
    output_axes: tuple

    @property
    def _permutation(self):
        inputs = [
            axis
            for axis in range(len(self.kernel_shape))
            if axis not in self.output_axes
        ]
        return (*inputs, *self.output_axes)

    @property
    def shape(self):
        """Shape (inputs, outputs) of the matrix."""
        sizes = [self.kernel_shape[axis] for axis in self._permutation]
        inputs = len(sizes) - len(self.output_axes)
        return math.prod(sizes[:inputs]), math.prod(sizes[inputs:])

    def resized(self, outputs):
        """Return the view of a kernel with another number on its output axis."""
        shape = list(self.kernel_shape)
        shape[self.output_axes[0]] = outputs
        return MatrixView(tuple(shape), self.output_axes)

    def flatten(self, kernel):
        """Return `kernel` as a matrix (inputs, outputs), W' of y = W x."""
        ops = _operations(kernel)
        if self._permutation != tuple(range(len(self.kernel_shape))):
            kernel = ops.transpose(kernel, self._permutation)
        return ops.reshape(kernel, self.shape)

    def unflatten(self, matrix):
        """Return the kernel whose matrix is `matrix`."""
        ops = _operations(matrix)
        permutation = self._permutation
        shape = [self.kernel_shape[axis] for axis in permutation]
        kernel = ops.reshape(matrix, shape)
        if permutation != tuple(range(len(shape))):
            inverse = [permutation.index(axis) for axis in range(len(shape))]
            kernel = ops.transpose(kernel, inverse)
        return kernel


def _operations(array):
    if isinstance(array, np.ndarray):
        return np
    from keras import ops

    return ops
