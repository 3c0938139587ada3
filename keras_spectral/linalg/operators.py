"""Kernels as linear operators: a map and its adjoint, with their shapes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops
from keras.backend import standardize_dtype


@dataclass(frozen=True)
class LinearOperator:
    """A linear map A with its adjoint A'.

    Both maps also take a stack of k tensors along the first axis (which for images is
    there already).

    Args:
        matvec: Callable, a tensor of `input_shape` to one of `output_shape`.
        adjoint: Callable, a tensor of `output_shape` to one of `input_shape`,
            such that <A x, y> = <x, A' y> for all x and y.
        input_shape: Tuple of integers, the shape of x.
        output_shape: Tuple of integers, the shape of A x.
        dtype: String, the dtype of x and A x.
        matrix: Tensor (inputs, outputs), where A x is x @ matrix, or `None`.
    """

    matvec: Callable[[Any], Any]
    adjoint: Callable[[Any], Any]
    input_shape: tuple
    output_shape: tuple
    dtype: str = "float32"
    matrix: Any = None


def reshaped_matrix(kernel):
    """Return a kernel as the matrix that the GAN papers normalize.

    Args:
        kernel: Float tensor with the output channels on the last axis: a dense
            kernel (inputs, units) or a convolution kernel
            (height, width, inputs, filters).

    Returns:
        Tensor of shape (outputs, all other entries): W in y = W x.

    Example:
    >>> import numpy as np
    >>> reshaped_matrix(np.zeros((3, 3, 8, 16))).shape
    TensorShape([16, 72])

    Source: [miyato2018], as [sanyal2020], section 4, uses it.
    """
    kernel = ops.convert_to_tensor(kernel)
    return ops.transpose(ops.reshape(kernel, (-1, kernel.shape[-1])))


def dense_operator(kernel) -> LinearOperator:
    """Return x -> kernel' x for a kernel whose last axis is the output.

    For a dense kernel this is the layer without its bias. For a convolution
    kernel it is the reshaped kernel, whose norm does not bound the convolution.

    Args:
        kernel: Float tensor (..., outputs).

    Returns:
        A `LinearOperator` from (inputs,) to (outputs,).

    Example:
    >>> import numpy as np
    >>> operator = dense_operator(np.array([[1.0, 2.0], [3.0, 4.0]]))
    >>> ops.convert_to_numpy(operator.matvec(np.array([1.0, 1.0]))).tolist()
    [4.0, 6.0]
    """
    kernel = ops.convert_to_tensor(kernel)
    kernel = ops.reshape(kernel, (-1, kernel.shape[-1]))
    inputs, outputs = kernel.shape

    def adjoint(y):
        if len(y.shape) == 1:
            return ops.matmul(kernel, y)
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            # Nothing is transposed, which eagerly would copy the kernel, and in a graph
            # on a CPU costs more than the product of a small one.
            return tf.matmul(y, kernel, transpose_b=True)
        return ops.matmul(y, ops.transpose(kernel))

    return LinearOperator(
        matvec=lambda x: ops.matmul(x, kernel),
        adjoint=adjoint,
        input_shape=(inputs,),
        output_shape=(outputs,),
        dtype=standardize_dtype(kernel.dtype),
        matrix=kernel,
    )
