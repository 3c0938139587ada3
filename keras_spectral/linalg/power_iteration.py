"""Power iteration: leading singular vectors of a matrix or an operator."""

from typing import Literal, NamedTuple

import numpy as np
from keras import ops

from keras_spectral.linalg.norms import largest_divisor
from keras_spectral.linalg.operators import LinearOperator, dense_operator
from keras_spectral.linalg.tracing import traced_once
from keras_spectral.validation import check_choice, check_integer

UpdateOrder = Literal["v_first", "u_first"]


class SingularTriplet(NamedTuple):
    """A singular value `sigma` with its left vector `u` and right vector `v`.

    Args:
        u: Tensor of the operator's `output_shape`, of length one.
        sigma: Scalar tensor.
        v: Tensor of its `input_shape`, of length one.
    """

    u: object
    sigma: object
    v: object


@traced_once
def normalized(x, fallback):
    """Return x / ||x||, or `fallback` where x is zero or not finite.

    No gradient may pass: the branch that is not taken may hold NaN.

    Args:
        x: Float tensor of any shape.
        fallback: Tensor of the same shape.

    Returns:
        Tensor of the same shape.

    Example:
    >>> import numpy as np
    >>> ops.convert_to_numpy(normalized(np.array([3.0, 4.0]), np.zeros(2))).tolist()
    [0.6, 0.8]
    """
    # Dividing by the largest entry first keeps the squares of kernels scaled by
    # 1e-38 or 1e38 inside float32, and makes NaN of what has no direction. Few
    # operations: on small kernels their number is what normalization costs.
    scaled = x / ops.clip(ops.max(ops.abs(x)), -1.0, largest_divisor(x))
    norm = ops.sqrt(ops.sum(ops.square(scaled)))
    return ops.where(norm > 0, scaled / norm, fallback)


def iterate(operator, u, v, iterations=1, update_order="v_first"):
    """Advance the estimates `u` and `v` by power iteration; no gradient flows.

    Args:
        operator: A `LinearOperator`.
        u: Unit tensor of the operator's `output_shape`.
        v: Unit tensor of the operator's `input_shape`.
        iterations: Integer >= 0.
        update_order: `"v_first"` (v = A'u / |A'u|, then u = A v / |A v|: the
            papers and `torch.nn.utils.spectral_norm`) or `"u_first"` (the
            other way: `torch.nn.utils.parametrizations.spectral_norm`).

    Returns:
        Tuple (u, v). A vector that would become zero or not finite (a zero or
        broken kernel) is left as it was.

    Example:
    >>> import numpy as np
    >>> operator = dense_operator(np.diag([3.0, 1.0]))
    >>> u = v = ops.convert_to_tensor(np.array([0.6, 0.8]))
    >>> u, v = iterate(operator, u, v, iterations=20)
    >>> ops.convert_to_numpy(u).round(6).tolist()
    [1.0, 0.0]

    Source: [sanyal2020], Algorithm 2, line 2 (the second `W^T v` must read `W v`).
    """
    for _ in range(iterations):
        if update_order == "v_first":
            v = normalized(operator.adjoint(u), v)
            u = normalized(operator.matvec(v), u)
        else:
            u = normalized(operator.matvec(v), u)
            v = normalized(operator.adjoint(u), v)
    return ops.stop_gradient(u), ops.stop_gradient(v)


def rayleigh_quotient(operator, u, v):
    """Return <u, A v>, differentiable in A.

    With u and v held constant its gradient at exact singular vectors is the
    gradient u v' of the singular value.

    Args:
        operator: A `LinearOperator`.
        u: Unit tensor of the operator's `output_shape`.
        v: Unit tensor of the operator's `input_shape`.

    Returns:
        Scalar tensor: sigma, an estimate from below.

    Example:
    >>> import numpy as np
    >>> operator = dense_operator(np.diag([3.0, 1.0]))
    >>> float(rayleigh_quotient(operator, np.array([1.0, 0]), np.array([1.0, 0])))
    3.0
    """
    return inner_product(u, operator.matvec(v))


def inner_product(x, y):
    """Return <x, y>, the sum of the products of entries.

    Args:
        x: Float tensor of any shape.
        y: Float tensor of the same shape and dtype.

    Returns:
        Scalar tensor.

    Example:
    >>> import numpy as np
    >>> float(inner_product(np.array([1.0, 2.0]), np.array([3.0, 4.0])))
    11.0
    """
    # As a product of matrices: the gradient of a sum copies a scalar, which on small
    # kernels costs as much as all else.
    product = ops.reshape(x, (1, -1)) @ ops.reshape(y, (-1, 1))
    return ops.reshape(product, ())


@traced_once
def leading_triplet(matrix) -> SingularTriplet:
    """Return the largest singular value with its vectors, exactly; no gradient flows.

    By the eigenvectors of the smaller Gram matrix, so it is cheap where one
    side is. The value is exact to float32 rounding, for an error in the vector enters
    it squared.

    Args:
        matrix: Float tensor W' (inputs, outputs), float32 or float64.

    Returns:
        A `SingularTriplet` (u, sigma, v) with unit tensors u (outputs,) and v
        (inputs,), any of them for a zero or a non-finite matrix. Cost: m n min(m, n)
        multiply-adds and an eigendecomposition of min(m, n) rows.

    Example:
    >>> import numpy as np
    >>> triplet = leading_triplet(np.diag([3.0, 1.0]))
    >>> round(float(triplet.sigma), 6)
    3.0
    """
    matrix = ops.convert_to_tensor(matrix)
    rows, columns = matrix.shape
    # The largest entry becomes 1, so that no square overflows. Few operations: on small
    # kernels their number is what normalization costs.
    most = largest_divisor(matrix)
    scale = ops.clip(ops.max(ops.abs(matrix)), 1.0 / most, most)
    scaled = matrix / scale
    # Not `ops.matmul`, which computes in float32 on torch.
    tall, transposed = columns <= rows, ops.transpose(scaled)
    gram = transposed @ scaled if tall else scaled @ transposed
    # Some backends raise on NaN.
    gram = ops.where(ops.isfinite(gram), gram, 0.0)
    leading = ops.eigh(gram)[1][:, -1:]
    image = (scaled if tall else transposed) @ leading
    squares = ops.sum(ops.square(image))
    constant = ops.cast(max(rows, columns) ** -0.5, matrix.dtype)
    other = ops.where(squares > 0, image * ops.rsqrt(squares), constant)
    u, v = (leading, other) if tall else (other, leading)
    sigma = scale * ops.sqrt(squares)
    u, v = ops.reshape(u, (columns,)), ops.reshape(v, (rows,))
    return SingularTriplet(*map(ops.stop_gradient, (u, sigma, v)))


def power_iteration(
    operator, iterations=100, u=None, v=None, update_order="v_first", seed=0
) -> SingularTriplet:
    """Estimate the leading singular triplet, from below.

    The error falls as (sigma_2 / sigma_1)^(2 iterations), so a flat spectrum
    (a random square matrix) needs hundreds; `spectral_norm` is exact.

    Args:
        operator: A `LinearOperator`, or a float tensor (m, n), the matrix W
            with u of m and v of n entries.
        iterations: Integer >= 1.
        u: Optional start, a tensor of the operator's `output_shape`.
        v: Optional start, a tensor of the operator's `input_shape`.
        update_order: See `iterate`.
        seed: Integer, for the random start where `u` or `v` is not given.

    Returns:
        A `SingularTriplet` (u, sigma, v) in the dtype of the operator; of a
        matrix, in at least float32.

    Raises:
        ValueError: If `iterations` or `update_order` is not as above.

    Example:
    >>> import numpy as np
    >>> triplet = power_iteration(np.diag([3.0, 1.0]))
    >>> round(float(triplet.sigma), 6)
    3.0

    Source: [zhang2020], "Power Iteration".
    """
    check_integer("iterations", iterations, least=1)
    check_choice("update_order", update_order, UpdateOrder)
    if not isinstance(operator, LinearOperator):
        matrix = ops.convert_to_tensor(operator)
        dtype = "float64" if "float64" in str(matrix.dtype) else "float32"
        operator = dense_operator(ops.cast(ops.transpose(matrix), dtype))
    dtype = operator.dtype
    generator = np.random.default_rng(seed)

    def start(given, shape):
        if given is None:
            given = generator.standard_normal(shape)
            given = given / np.linalg.norm(given)
        return ops.cast(ops.convert_to_tensor(given), dtype)

    u, v = iterate(
        operator,
        start(u, operator.output_shape),
        start(v, operator.input_shape),
        iterations,
        update_order,
    )
    return SingularTriplet(u, rayleigh_quotient(operator, u, v), v)
