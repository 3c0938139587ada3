"""Kernels as linear operators: maps with their adjoints, and the algebra of these."""

import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import scipy.sparse.linalg
from keras import ops
from keras.backend import standardize_dtype

from keras_spectral.linalg.norms import wide


@dataclass(frozen=True, eq=False)
class LinearOperator:
    """A linear map A with its adjoint A'.

    Operators are added, scaled and composed as matrices are: `A + B`, `A - B`, `-A`,
    `2 * A`, `A @ B` (B comes first) and `A.T`, the adjoint. `A @ x` is the image of a
    tensor x. All of these are differentiable in the kernels.

    Both maps also take a stack of k tensors along the first axis. A vector has none,
    so k vectors are (k, n); an image has one already, so k images are
    (k, height, width, channels) where `input_shape` is (1, height, width, channels).

    Args:
        matvec: Callable, a tensor of `input_shape` to one of `output_shape`.
        adjoint: Callable, a tensor of `output_shape` to one of `input_shape`,
            such that <A x, y> = <x, A' y> for all x and y.
        input_shape: Tuple of integers, the shape of x: (n,) or (1, ...).
        output_shape: Tuple of integers, the shape of A x.
        dtype: String, the dtype of x and A x.
        matrix: Tensor (inputs, outputs), where A x is x @ matrix, or `None`. Only
            operators of vectors have it.

    Raises:
        ValueError: If operators in a sum or product do not fit.

    Example: a residual block x + C C' x.
    >>> from keras_spectral.linalg import convolution_operator, identity_operator
    >>> kernel = np.ones((1, 1, 2, 3), "float32")
    >>> convolution = convolution_operator(kernel, (4, 4))
    >>> block = identity_operator(convolution.output_shape)
    >>> block = block + convolution @ convolution.T
    >>> block.shape
    (48, 48)
    >>> ops.convert_to_numpy(block @ np.ones(block.input_shape))[0, 0, 0].tolist()
    [7.0, 7.0, 7.0]
    """

    matvec: Callable[[Any], Any]
    adjoint: Callable[[Any], Any]
    input_shape: tuple
    output_shape: tuple
    dtype: str = "float32"
    matrix: Any = None

    # NumPy would make an array of operators of `array * operator`.
    __array_ufunc__ = None

    @property
    def shape(self):
        """Tuple (outputs, inputs) of integers: that of the matrix W of y = W x."""
        return math.prod(self.output_shape), math.prod(self.input_shape)

    @property
    def T(self):
        """The adjoint, a `LinearOperator` from `output_shape` to `input_shape`."""
        matrix = None if self.matrix is None else ops.transpose(self.matrix)
        return LinearOperator(
            matvec=self.adjoint,
            adjoint=self.matvec,
            input_shape=self.output_shape,
            output_shape=self.input_shape,
            dtype=self.dtype,
            matrix=matrix,
        )

    def __matmul__(self, other):
        """Return the composition with an operator, or the image of a tensor."""
        if not isinstance(other, LinearOperator):
            return self._image(other)
        if (self.input_shape, self.dtype) != (other.output_shape, other.dtype):
            raise ValueError(
                "`A @ B` must have an A that takes the shape and dtype that B gives. "
                f"Received: {_named(self, other)}. Make them for the same images, of "
                "kernels in one dtype."
            )
        if self._has_matrix_with(other):
            (outputs, inner), inputs = self.shape, other.shape[1]
            # Otherwise the factors are smaller than their product.
            if outputs * inputs <= inner * (outputs + inputs):
                return dense_operator(_product(other.matrix, self.matrix))
        return LinearOperator(
            matvec=lambda x: self.matvec(other.matvec(x)),
            adjoint=lambda y: other.adjoint(self.adjoint(y)),
            input_shape=other.input_shape,
            output_shape=self.output_shape,
            dtype=self.dtype,
        )

    def __add__(self, other):
        if not isinstance(other, LinearOperator):
            return NotImplemented
        if _spaces(self) != _spaces(other):
            raise ValueError(
                "`A + B` must have operators of the same shapes and dtype. Received: "
                f"{_named(self, other)}. Make them for the same images, of kernels in "
                "one dtype."
            )
        if self._has_matrix_with(other):
            return dense_operator(self.matrix + other.matrix)
        return LinearOperator(
            lambda x: self.matvec(x) + other.matvec(x),
            lambda y: self.adjoint(y) + other.adjoint(y),
            *_spaces(self),
        )

    def __sub__(self, other):
        return self + -other if isinstance(other, LinearOperator) else NotImplemented

    def __neg__(self):
        return self * -1

    def __mul__(self, scalar):
        if not isinstance(scalar, numbers.Real):
            shape = getattr(scalar, "shape", None)
            if shape is None or len(shape):
                raise ValueError(
                    "`scalar` must be a real number or a tensor of shape () in "
                    f"`scalar * operator`. Received: scalar={scalar!r}. Use `@` for "
                    "operators and tensors."
                )
        scalar = ops.convert_to_tensor(scalar, dtype=self.dtype)
        if self.matrix is not None:
            return dense_operator(self.matrix * scalar)
        return LinearOperator(
            lambda x: self.matvec(x) * scalar,
            lambda y: self.adjoint(y) * scalar,
            *_spaces(self),
        )

    __rmul__ = __mul__

    def _has_matrix_with(self, other):
        return self.matrix is not None and other.matrix is not None

    def _image(self, x):
        x = ops.convert_to_tensor(x, dtype=self.dtype)
        shape, stack = tuple(x.shape), stack_shape(self.input_shape)
        if shape != self.input_shape and shape[1:] != stack[1:]:
            raise ValueError(
                f"`x` must be of shape {self.input_shape}, or a stack of shape "
                f"{('k', *stack[1:])}, for `operator @ x`. Received: x.shape={shape}"
            )
        return self.matvec(x)

    def to_matrix(self):
        """Return the matrix W of y = W x, the operator's answers to all impulses.

        Rows and columns are in the order in which reshaping flattens y and x, the
        last axis fastest: W @ x.ravel() is (A @ x).ravel().

        Returns:
            Tensor (outputs, inputs), float32 (float64 for a float64 operator). All
            impulses are answered at once, which takes inputs^2 numbers.

        Example:
        >>> operator = dense_operator(np.array([[1.0, 2.0]]))
        >>> ops.convert_to_numpy(operator.to_matrix()).tolist()
        [[1.0], [2.0]]
        """
        if self.matrix is not None:
            return wide(ops.transpose(self.matrix))
        outputs, inputs = self.shape
        impulses = ops.eye(inputs, dtype=self.dtype)
        answers = self.matvec(ops.reshape(impulses, stack_shape(self.input_shape)))
        return ops.transpose(wide(ops.reshape(answers, (inputs, outputs))))

    def to_scipy(self):
        """Return the operator on flat NumPy vectors, for SciPy's solvers.

        Returns:
            `scipy.sparse.linalg.LinearOperator` of `shape`, float32 (float64 for a
            float64 operator), with `matmat` and `rmatmat` on stacks. Its vectors are
            in the order of `to_matrix`.

        Example:
        >>> from keras_spectral.linalg import convolution_operator
        >>> convolution = convolution_operator(np.ones((1, 1, 1, 4)), (3, 3))
        >>> linear = convolution.to_scipy()
        >>> svds = scipy.sparse.linalg.svds
        >>> svds(linear, k=1, return_singular_vectors=False).round(6).tolist()
        [2.0]
        """
        forward = self._flat(self.matvec, self.input_shape)
        backward = self._flat(self.adjoint, self.output_shape)
        return scipy.sparse.linalg.LinearOperator(
            self.shape,
            matvec=forward,
            rmatvec=backward,
            matmat=forward,
            rmatmat=backward,
            dtype=_wide_dtype(self.dtype),
        )

    def _flat(self, function, shape):
        """Return `function` as a map of the columns of NumPy arrays."""
        if keras.backend.backend() == "tensorflow":
            # Traced once: Keras compiles grouped convolutions at each eager call.
            import tensorflow as tf

            function = tf.function(function)

        def apply(x):
            stack = np.reshape(x, (math.prod(shape), -1)).T.reshape(stack_shape(shape))
            y = function(ops.convert_to_tensor(stack, dtype=self.dtype))
            y = ops.convert_to_numpy(wide(y)).reshape(len(stack), -1)
            return y.T.astype(_wide_dtype(self.dtype), copy=False)

        return apply


def _wide_dtype(dtype):
    return "float64" if dtype == "float64" else "float32"


def stack_shape(shape):
    """Return the shape of a stack of tensors of an operator's shape, -1 first.

    Args:
        shape: Tuple of integers, (n,) or (1, ...).

    Returns:
        Tuple (-1, n) or (-1, ...).

    Example:
    >>> stack_shape((3,)), stack_shape((1, 4, 4, 2))
    ((-1, 3), (-1, 4, 4, 2))
    """
    return (-1, *(shape[1:] or shape))


def _spaces(operator):
    return operator.input_shape, operator.output_shape, operator.dtype


def _named(*operators):
    return ", ".join(
        "{} from {} to {} in {}".format(name, *_spaces(operator))
        for name, operator in zip("AB", operators, strict=True)
    )


def _product(x, matrix):
    """Return x @ matrix, in float64 too."""
    if keras.backend.backend() == "torch" and standardize_dtype(matrix.dtype) == (
        "float64"
    ):
        # `ops.matmul` narrows it to float32.
        return ops.convert_to_tensor(x, dtype="float64") @ matrix
    return ops.matmul(x, matrix)


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


def float_tensor(values):
    """Return a tensor of floats; integers, which would cut off products, are cast.

    Args:
        values: Tensor or array.

    Example:
    >>> standardize_dtype(float_tensor([1, 2]).dtype)
    'float32'
    """
    tensor = ops.convert_to_tensor(values)
    if keras.backend.is_float_dtype(standardize_dtype(tensor.dtype)):
        return tensor
    return ops.cast(tensor, keras.config.floatx())


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
    kernel = float_tensor(kernel)
    kernel = ops.reshape(kernel, (-1, kernel.shape[-1]))
    inputs, outputs = kernel.shape

    def adjoint(y):
        if len(y.shape) == 1:
            return _product(kernel, y)
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            # Nothing is transposed, which eagerly would copy the kernel, and in a graph
            # on a CPU costs more than the product of a small one.
            return tf.matmul(y, kernel, transpose_b=True)
        return _product(y, ops.transpose(kernel))

    return LinearOperator(
        matvec=lambda x: _product(x, kernel),
        adjoint=adjoint,
        input_shape=(inputs,),
        output_shape=(outputs,),
        dtype=standardize_dtype(kernel.dtype),
        matrix=kernel,
    )
