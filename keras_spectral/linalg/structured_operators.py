"""Operators without a kernel: identity, diagonal, block diagonal."""

from keras import ops
from keras.backend import standardize_dtype

from keras_spectral.linalg.operators import LinearOperator, float_tensor, stack_shape


def identity_operator(shape, dtype="float32") -> LinearOperator:
    """Return x -> x, as the skip connection of a residual block.

    Args:
        shape: Tuple of integers: (n,) or (1, ...).
        dtype: String.

    Returns:
        A `LinearOperator` from `shape` to `shape`.

    Example:
    >>> ops.convert_to_numpy(3 * identity_operator((2,)) @ [1.0, 2.0]).tolist()
    [3.0, 6.0]
    """
    shape = tuple(shape)
    return LinearOperator(lambda x: x, lambda y: y, shape, shape, dtype)


def diagonal_operator(values) -> LinearOperator:
    """Return x -> values * x, as an activation at a point is: `values` are its slopes.

    Args:
        values: Float tensor (n,) or (1, ...).

    Returns:
        A `LinearOperator` from the shape of `values` to itself.

    Example:
    >>> import numpy as np
    >>> operator = diagonal_operator(np.array([1.0, 0.5]))
    >>> ops.convert_to_numpy(operator @ np.array([4.0, 4.0])).tolist()
    [4.0, 2.0]
    """
    values = float_tensor(values)
    shape, dtype = tuple(values.shape), standardize_dtype(values.dtype)

    def multiply(x):
        return x * values

    return LinearOperator(multiply, multiply, shape, shape, dtype)


def repeated_operator(operator, repeats) -> LinearOperator:
    """Return the operator that does the same to each of several tensors.

    Its matrix is block diagonal, the Kronecker product of an identity and the
    operator's. So a dense kernel acts on every position of a sequence, and a layer
    on every sample of a batch.

    Args:
        operator: A `LinearOperator`.
        repeats: Tuple of integers, how many tensors, an axis.

    Returns:
        A `LinearOperator` from (1, *repeats, *shape of x) to
        (1, *repeats, *shape of A x), where an image is without its leading 1.

    Example:
    >>> import numpy as np
    >>> from keras_spectral.linalg import dense_operator
    >>> operator = repeated_operator(dense_operator(np.ones((4, 2))), (5,))
    >>> operator.input_shape, operator.output_shape
    ((1, 5, 4), (1, 5, 2))
    """
    repeats = tuple(repeats)

    def repeated(function, before, after):
        def apply(x):
            y = function(ops.reshape(x, stack_shape(before)))
            return ops.reshape(y, (-1, *repeats, *stack_shape(after)[1:]))

        return apply

    before, after = operator.input_shape, operator.output_shape
    return LinearOperator(
        matvec=repeated(operator.matvec, before, after),
        adjoint=repeated(operator.adjoint, after, before),
        input_shape=(1, *repeats, *stack_shape(before)[1:]),
        output_shape=(1, *repeats, *stack_shape(after)[1:]),
        dtype=operator.dtype,
    )
