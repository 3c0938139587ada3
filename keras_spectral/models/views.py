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
        taps: Tuple of those among the others that number the pixels of a
            convolution's kernel.
    """

    kernel_shape: tuple
    output_axes: tuple
    taps: tuple = ()

    @property
    def input_axes(self):
        """Tuple of the axes that number inputs."""
        axes = range(len(self.kernel_shape))
        return tuple(axis for axis in axes if axis not in self.output_axes)

    @property
    def _permutation(self):
        return (*self.input_axes, *self.output_axes)

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
        return MatrixView(tuple(shape), self.output_axes, self.taps)

    def flatten(self, kernel):
        """Return `kernel` as a matrix (inputs, outputs), W' of y = W x."""
        ops = _operations(kernel)
        if self._permutation != tuple(range(len(self.kernel_shape))):
            kernel = ops.transpose(kernel, self._permutation)
        return ops.reshape(kernel, self.shape)

    def slices(self, matrix):
        """Return a convolution's matrix as a stack of them, one a pixel of its kernel.

        Args:
            matrix: NumPy array (inputs, outputs).

        Returns:
            NumPy array (pixels, channels, outputs).

        Example:
        >>> view = MatrixView((3, 3, 2, 8), (3,), taps=(0, 1))
        >>> view.slices(np.ones((18, 8))).shape
        (9, 2, 8)
        """
        stack = matrix.reshape(
            *(self.kernel_shape[axis] for axis in self.input_axes), -1
        )
        taps = [self.input_axes.index(axis) for axis in self.taps]
        stack = np.moveaxis(stack, taps, range(len(taps)))
        count = math.prod(self.kernel_shape[axis] for axis in self.taps)
        return stack.reshape(count, -1, self.shape[1])

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
