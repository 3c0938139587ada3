import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from scipy.sparse.linalg import aslinearoperator, svds

from keras_spectral.linalg import (
    convolution_operator,
    dense_operator,
    diagonal_operator,
    identity_operator,
    repeated_operator,
    reshaped_matrix,
)

GEOMETRIES = [
    # kernel, size, strides, padding, dilation
    ((3, 3, 2, 4), (7, 9), 1, "same", 1),
    ((3, 3, 2, 4), (7, 9), 2, "same", 1),
    ((3, 3, 2, 4), (7, 9), 2, "valid", 1),
    ((3, 3, 2, 4), (8, 8), 2, "valid", 1),
    ((3, 3, 2, 4), (8, 8), 2, "same", 1),
    ((3, 3, 2, 4), (8, 8), 3, "same", 1),
    ((4, 2, 3, 1), (9, 6), (2, 1), "same", 1),
    ((1, 1, 3, 2), (7, 7), 2, "same", 1),
    ((3, 3, 2, 2), (9, 11), 1, "valid", 2),
    ((3, 3, 2, 2), (9, 11), 1, "same", (2, 3)),
    ((5, 5, 1, 2), (5, 5), 1, "valid", 1),
]


def check_adjoint(operator, rng, tolerance=1e-11):
    x = rng.standard_normal(operator.input_shape)
    y = rng.standard_normal(operator.output_shape)
    ax = ops.convert_to_numpy(operator.matvec(ops.convert_to_tensor(x)))
    aty = ops.convert_to_numpy(operator.adjoint(ops.convert_to_tensor(y)))
    assert ax.shape == operator.output_shape
    assert aty.shape == operator.input_shape
    assert np.vdot(ax, y) == pytest.approx(np.vdot(x, aty), rel=tolerance)


@pytest.mark.parametrize("kernel, size, strides, padding, dilation", GEOMETRIES)
def test_convolution_is_the_keras_layer_and_its_adjoint_is_exact(
    rng, kernel, size, strides, padding, dilation
):
    weight = rng.standard_normal(kernel)
    operator = convolution_operator(weight, size, strides, padding, dilation)
    layer = keras.layers.Conv2D(
        kernel[3],
        kernel[:2],
        strides=strides,
        padding=padding,
        dilation_rate=dilation,
        use_bias=False,
        dtype="float64",
    )
    x = rng.standard_normal(operator.input_shape)
    layer.build(x.shape)
    layer.kernel.assign(weight)
    expected = ops.convert_to_numpy(layer(x))
    actual = ops.convert_to_numpy(operator.matvec(ops.convert_to_tensor(x)))
    np.testing.assert_allclose(actual, expected, atol=1e-12)
    check_adjoint(operator, rng)


@given(
    taps=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    extra=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.sampled_from(["same", "valid"]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=25, deadline=None)
def test_adjoint_on_any_geometry(taps, extra, strides, padding, seed):
    rng = np.random.default_rng(seed)
    size = tuple(t + e for t, e in zip(taps, extra, strict=True))
    weight = rng.standard_normal((*taps, 2, 3))
    check_adjoint(convolution_operator(weight, size, strides, padding), rng, 1e-9)


def test_grouped_convolution_against_torch(rng):
    import torch

    weight = rng.standard_normal((3, 3, 2, 6))
    operator = convolution_operator(weight, (7, 8, 4), strides=2, padding="valid")
    x = rng.standard_normal(operator.input_shape)
    expected = torch.nn.functional.conv2d(
        torch.tensor(x.transpose(0, 3, 1, 2)),
        torch.tensor(weight.transpose(3, 2, 0, 1)),
        stride=2,
        groups=2,
    )
    actual = ops.convert_to_numpy(operator.matvec(ops.convert_to_tensor(x)))
    np.testing.assert_allclose(
        actual.transpose(0, 3, 1, 2), expected.numpy(), atol=1e-12
    )
    check_adjoint(operator, rng)


def test_dense_operator_is_the_reshaped_matrix(rng):
    kernel = rng.standard_normal((3, 2, 4, 5))
    matrix = ops.convert_to_numpy(reshaped_matrix(kernel))
    operator = dense_operator(kernel)
    x = rng.standard_normal(operator.input_shape)
    np.testing.assert_allclose(
        ops.convert_to_numpy(operator.matvec(x)), matrix @ x, atol=1e-12
    )
    check_adjoint(operator, rng)


@pytest.mark.parametrize(
    "arguments, match",
    [
        (dict(padding="causal"), "`padding`"),
        (dict(strides=0), "`strides`"),
        (dict(dilation_rate=(1, 2, 3)), "`dilation_rate`"),
        (dict(strides=2, dilation_rate=2), "both exceed 1"),
        (dict(input_size=(2, 9)), "at least the extent"),
        (dict(input_size=(9, 9, 3)), "multiple of the kernel's inputs"),
        (dict(kernel=np.zeros((3, 3))), "`kernel`"),
    ],
)
def test_bad_geometry_is_refused(arguments, match):
    defaults = dict(kernel=np.zeros((3, 3, 2, 4)), input_size=(9, 9))
    with pytest.raises(ValueError, match=match):
        convolution_operator(**{**defaults, **arguments})


def keras_matrix(kernel, size, **geometry):
    """The matrix of Keras' own convolution, by its answers to all impulses."""
    shape = (*size, kernel.shape[2])
    impulses = np.eye(np.prod(shape)).reshape(-1, *shape)
    return ops.conv(impulses, kernel, **geometry).numpy().reshape(len(impulses), -1).T


def pair(kind, rng):
    """Two operators of the same shapes, and their matrices without our code."""
    if kind == "dense":
        kernels = rng.standard_normal((2, 6, 4))
        return [(dense_operator(kernel), kernel.T) for kernel in kernels]
    if kind == "diagonal":
        values = rng.standard_normal((2, 1, 3, 2))
        return [(diagonal_operator(v), np.diag(v.ravel())) for v in values]
    if kind == "repeated":
        kernels = rng.standard_normal((2, 6, 4))
        return [
            (repeated_operator(dense_operator(k), (2, 3)), np.kron(np.eye(6), k.T))
            for k in kernels
        ]
    geometry = dict(strides=2, padding="same") if kind == "strided" else {}
    kernels = rng.standard_normal((2, 3, 3, 2, 3))
    return [
        (
            convolution_operator(kernel, (5, 4), **geometry),
            keras_matrix(kernel, (5, 4), **geometry),
        )
        for kernel in kernels
    ]


EXPRESSIONS = {
    "sum": lambda a, b: a + b,
    "difference": lambda a, b: a - b,
    "negative": lambda a, b: -a,
    "scaled": lambda a, b: 2.5 * a * -3,
    "transposed": lambda a, b: a.T,
    "twice transposed": lambda a, b: a.T.T,
    "composed": lambda a, b: a.T @ b,
    "a polynomial": lambda a, b: (a + 2 * b).T @ (a - b) @ a.T - 0.5 * b.T,
}


@pytest.mark.parametrize(
    "kind", ["dense", "diagonal", "repeated", "convolution", "strided"]
)
@pytest.mark.parametrize("name", EXPRESSIONS)
def test_the_algebra_is_that_of_matrices_and_of_scipy(rng, kind, name):
    (a, a_matrix), (b, b_matrix) = pair(kind, rng)
    operator = EXPRESSIONS[name](a, b)
    expected = EXPRESSIONS[name](a_matrix, b_matrix)
    assert operator.shape == expected.shape
    np.testing.assert_allclose(operator.to_matrix(), expected, atol=1e-10)
    check_adjoint(operator, rng, 1e-9)

    scipy_expression = EXPRESSIONS[name](
        aslinearoperator(a_matrix), aslinearoperator(b_matrix)
    )
    columns = rng.standard_normal((expected.shape[1], 3))
    images = scipy_expression @ columns
    linear = operator.to_scipy()
    assert linear.shape == scipy_expression.shape and linear.dtype == np.float64
    np.testing.assert_allclose(linear @ columns, images, atol=1e-10)
    np.testing.assert_allclose(linear @ columns[:, 0], images[:, 0], atol=1e-10)
    np.testing.assert_allclose(linear.T @ images, expected.T @ images, atol=1e-9)

    # A stack of three, and one tensor alone.
    stack = columns.T.reshape(3, *(operator.input_shape[1:] or operator.input_shape))
    found = (operator @ stack).numpy()
    np.testing.assert_allclose(found.reshape(3, -1), images.T, atol=1e-10)
    x = stack[0].reshape(operator.input_shape)
    found = (operator @ x).numpy()
    assert found.shape == operator.output_shape
    np.testing.assert_allclose(found.ravel(), images[:, 0], atol=1e-10)


@given(
    taps=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    size=st.tuples(st.integers(3, 5), st.integers(3, 5)),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)),
    strides=st.integers(1, 2),
    scalar=st.floats(-10, 10),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=15, deadline=None)
def test_laws_of_the_algebra(taps, size, channels, strides, scalar, seed):
    rng = np.random.default_rng(seed)
    inputs, middle, outputs = channels
    b, c = (
        convolution_operator(
            rng.standard_normal((*taps, inputs, middle)), size, strides, "same"
        )
        for _ in range(2)
    )
    a = convolution_operator(
        rng.standard_normal((*taps, middle, outputs)), b.output_shape[1:3], 1, "same"
    )

    def check_same(one, two):
        assert (one.input_shape, one.output_shape) == (
            two.input_shape,
            two.output_shape,
        )
        x = rng.standard_normal((2, *one.input_shape[1:]))
        y = rng.standard_normal((2, *one.output_shape[1:]))
        np.testing.assert_allclose(one @ x, two @ x, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(one.T @ y, two.T @ y, rtol=1e-9, atol=1e-9)

    check_same((a @ b).T, b.T @ a.T)
    check_same((b + scalar * c).T, b.T + scalar * c.T)
    check_same(a @ (b + c), a @ b + a @ c)
    check_same((a + a) @ b, 2 * (a @ b))
    check_same(a @ (scalar * b), (a * scalar) @ b)
    check_same(b.T @ (a.T @ a), (b.T @ a.T) @ a)
    check_adjoint(a @ b + a @ c, rng, 1e-8)


def test_svds_of_a_residual_block(rng):
    first, second = rng.standard_normal((2, 3, 3, 2, 2))
    matrices = [keras_matrix(k, (5, 4), padding="same") for k in (first, second)]
    first, second = (
        convolution_operator(k, (5, 4), padding="same") for k in (first, second)
    )
    slopes = rng.choice([0.0, 1.0], first.output_shape)
    block = identity_operator(first.input_shape, "float64")
    block = block + second @ diagonal_operator(slopes) @ first
    expected = np.eye(40) + matrices[1] @ np.diag(slopes.ravel()) @ matrices[0]
    u, s, vt = svds(block.to_scipy(), k=3, v0=np.ones(40))
    np.testing.assert_allclose(
        s[::-1], np.linalg.svd(expected, compute_uv=False)[:3], rtol=1e-10
    )
    np.testing.assert_allclose(expected @ vt.T, u * s, atol=1e-8)


def test_half_precision_operators_are_float32_outside(rng):
    kernel = ops.cast(rng.standard_normal((3, 3, 2, 2)), "bfloat16")
    linear = (2 * convolution_operator(kernel, (4, 4))).to_scipy()
    assert linear.dtype == np.float32
    assert linear.matvec(np.ones(32)).dtype == np.float32


@pytest.mark.parametrize("scalar", [np.float32(3), np.array(3.0), np.float64(3), True])
def test_scalars_of_every_kind(scalar):
    for operator in (dense_operator(np.eye(2, 3)), diagonal_operator(np.ones((1, 2)))):
        expected = float(scalar) * operator.to_matrix().numpy()
        for scaled in (scalar * operator, operator * scalar):
            np.testing.assert_array_equal(scaled.to_matrix(), expected)
        scaled = tf.constant(float(scalar)) * operator
        assert scaled.dtype == "float64"
        np.testing.assert_array_equal(scaled.to_matrix(), expected)


def test_dense_operators_stay_matrices_where_that_is_cheap(rng):
    square, other = (dense_operator(k) for k in rng.standard_normal((2, 5, 5)))
    for operator in (square.T, 2 * square, square - other, square @ other):
        assert operator.matrix is not None
    # Of rank one: the product is larger than its factors.
    column = dense_operator(rng.standard_normal((1, 5)))
    assert (column @ column.T).matrix is None
    assert (column.T @ column).matrix is not None
    assert (square + identity_operator((5,), "float64")).matrix is None


def test_gradients_and_compilation_of_products(rng):
    kernel = tf.constant(rng.standard_normal((3, 3, 2, 2)))
    x = rng.standard_normal((4, 5, 5, 2))
    y = rng.standard_normal((4, 5, 5, 2))

    def product(kernel, scalar):
        operator = convolution_operator(kernel, (5, 5), padding="same")
        residual = identity_operator((1, 5, 5, 2), "float64")
        residual = residual + scalar * (operator.T @ operator)
        return tf.reduce_sum(y * (residual @ x))

    @tf.function(jit_compile=True)
    def value_and_gradient(kernel, scalar):
        with tf.GradientTape() as tape:
            tape.watch([kernel, scalar])
            value = product(kernel, scalar)
        return value, tape.gradient(value, [kernel, scalar])

    value, (by_kernel, by_scalar) = value_and_gradient(kernel, tf.constant(0.7))
    matrix = keras_matrix(kernel.numpy(), (5, 5), padding="same")
    rows, answers = x.reshape(4, -1), y.reshape(4, -1)
    square = np.sum(answers * (rows @ matrix.T @ matrix))
    expected = np.sum(answers * rows) + np.float32(0.7) * square
    assert float(value) == pytest.approx(expected, rel=1e-10)
    assert float(by_scalar) == pytest.approx(square, rel=1e-6)
    # Quadratic in the kernel, so the central difference is exact.
    direction = rng.standard_normal(kernel.shape)
    scalar = tf.constant(0.7)
    slope = product(kernel + direction, scalar) - product(kernel - direction, scalar)
    assert np.vdot(by_kernel, direction) == pytest.approx(float(slope) / 2, rel=1e-9)


def test_operators_that_do_not_fit_are_refused():
    convolution = convolution_operator(np.zeros((3, 3, 2, 4)), (5, 5))
    half = convolution_operator(np.zeros((3, 3, 2, 4), "float32"), (5, 5))
    dense = dense_operator(np.zeros((4, 2)))
    images = r"A from \(1, 5, 5, 2\) to \(1, 3, 3, 4\) in float64"
    for other, named in (
        (dense, r"B from \(4,\) to \(2,\) in float64"),
        (half, r"B from \(1, 5, 5, 2\) to \(1, 3, 3, 4\) in float32"),
        (convolution.T, r"B from \(1, 3, 3, 4\) to"),
    ):
        with pytest.raises(ValueError, match=f"`A . B` must.*{images}, {named}"):
            convolution + other
    for other in (dense, convolution, half.T):
        with pytest.raises(ValueError, match=f"`A @ B` must.*{images}, B from"):
            convolution @ other
    with pytest.raises(ValueError, match=r"`x` must.*'k', 5, 5, 2.*\(3, 5, 4, 2\)"):
        convolution @ np.zeros((3, 5, 4, 2))
    with pytest.raises(ValueError, match=r"`x` must.*'k', 4\).*\(2, 3, 4\)"):
        dense @ np.zeros((2, 3, 4))
    for scalar in (convolution, np.zeros(3), 1j, "2"):
        with pytest.raises(ValueError, match="`scalar` must be a real number"):
            convolution * scalar
    zeros = np.zeros((3, 2))
    for wrong in (lambda: 1 + dense, lambda: dense - zeros, lambda: zeros @ dense):
        with pytest.raises(TypeError, match="operand"):
            wrong()


def test_integers_are_cast_to_floats():
    kernel = np.arange(6).reshape(2, 3)
    half = 0.5 * dense_operator(kernel)
    np.testing.assert_allclose(half.to_matrix(), 0.5 * kernel.T)
    found = diagonal_operator([1, 2]) @ np.array([0.5, 1.5], "float32")
    np.testing.assert_allclose(found, [0.5, 3.0])
    image = convolution_operator(np.ones((2, 2, 1, 1), int), (3, 3))
    assert image.dtype == "float32"
    np.testing.assert_allclose(image.to_matrix().shape, (4, 9))
