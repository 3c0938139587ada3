"""What must hold on TensorFlow, JAX and torch alike."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy.sparse.linalg import svds

from keras_spectral import linalg


@pytest.mark.parametrize("strides, padding", [(1, "same"), (2, "same"), (2, "valid")])
def test_convolution_adjoint(rng, strides, padding):
    kernel = rng.standard_normal((3, 4, 2, 3)).astype("float32")
    operator = linalg.convolution_operator(kernel, (7, 9), strides, padding)
    x = rng.standard_normal(operator.input_shape).astype("float32")
    y = rng.standard_normal(operator.output_shape).astype("float32")
    ax = ops.convert_to_numpy(operator.matvec(ops.convert_to_tensor(x)))
    aty = ops.convert_to_numpy(operator.adjoint(ops.convert_to_tensor(y)))
    assert np.vdot(ax, y) == pytest.approx(np.vdot(x, aty), rel=1e-3, abs=1e-3)


def test_norms_and_power_iteration(rng):
    matrix = rng.standard_normal((6, 4)).astype("float32")
    exact = np.linalg.norm(matrix.astype("float64"), 2)
    assert float(linalg.spectral_norm(matrix)) == pytest.approx(exact, rel=1e-5)
    sigma = linalg.power_iteration(matrix, iterations=200).sigma
    assert float(sigma) == pytest.approx(exact, rel=1e-5)
    for p in (1, np.inf):
        assert float(linalg.induced_norm(matrix, p)) == pytest.approx(
            np.linalg.norm(matrix.T.astype("float64"), p), rel=1e-5
        )
    kernel = rng.standard_normal((3, 3, 3, 2)).astype("float32")
    transform = np.fft.fft2(kernel, (64, 64), axes=(0, 1))
    circular = np.linalg.norm(transform, 2, axis=(2, 3)).max()
    bound = float(linalg.convolution_norm_bound(kernel))
    assert circular <= bound <= 1.01 * circular


@pytest.mark.parametrize("preserved", [0, 1, 2])
def test_stable_rank_projection(rng, preserved):
    matrix = rng.standard_normal((5, 7)).astype("float32")
    projected, _ = linalg.project_stable_rank(matrix, 1.5, preserved)
    assert float(linalg.stable_rank(projected)) == pytest.approx(1.5, rel=1e-4)


def make_operators(kernel):
    """One of every kind, from the same numbers (3, 3, 2, 4)."""
    return {
        "grouped": linalg.convolution_operator(kernel, (6, 5, 4), 1, "same"),
        "strided": linalg.convolution_operator(kernel, (6, 5), 2, "same"),
        "dilated": linalg.convolution_operator(kernel, (6, 5), dilation_rate=2),
        "causal": linalg.convolution_operator(kernel[0], (6,), 2, "causal"),
        "three": linalg.convolution_operator(kernel[None], (2, 4, 5), 1, "same"),
        "depthwise": linalg.depthwise_convolution_operator(kernel, (6, 5), 2, "same"),
        "transposed": linalg.transposed_convolution_operator(
            kernel, (3, 4), 2, "same", output_padding=1
        ),
        "dense": linalg.dense_operator(kernel),
    }


KINDS = list(make_operators(np.zeros((3, 3, 2, 4), "float32")))


@pytest.fixture
def kernel(rng):
    return rng.standard_normal((3, 3, 2, 4)).astype("float32")


@pytest.mark.parametrize("kind", KINDS)
def test_every_operator_has_its_adjoint_matrix_and_spectrum(kernel, kind):
    operator = make_operators(kernel)[kind]
    matrix = ops.convert_to_numpy(operator.to_matrix())
    adjoint = ops.convert_to_numpy(operator.T.to_matrix())
    np.testing.assert_allclose(adjoint, matrix.T, atol=1e-5)
    expected = np.linalg.svd(matrix.astype("float64"), compute_uv=False)
    values = linalg.operator_singular_values(operator, 2)
    np.testing.assert_allclose(values, expected[:2], rtol=1e-5)
    sigma = float(linalg.power_iteration(operator, iterations=20).sigma)
    assert expected[0] * 0.9 <= sigma <= expected[0] * (1 + 1e-5)


def scalar_tensor(value):
    return ops.convert_to_tensor(np.float32(value))


@pytest.mark.parametrize("kind", KINDS)
def test_the_algebra_of_every_operator(rng, kernel, kind):
    one = make_operators(kernel)[kind]
    two = make_operators(rng.standard_normal(kernel.shape).astype("float32"))[kind]
    a, b = (ops.convert_to_numpy(operator.to_matrix()) for operator in (one, two))
    skip = linalg.identity_operator(one.input_shape)
    block = skip - scalar_tensor(0.5) * (one + 2 * two).T @ two
    expected = np.eye(a.shape[1]) - 0.5 * (a + 2 * b).T @ b
    assert block.shape == expected.shape
    matrix = ops.convert_to_numpy(block.to_matrix())
    np.testing.assert_allclose(matrix, expected, rtol=1e-4, atol=1e-4)
    x = rng.standard_normal((3, *(block.input_shape[1:] or block.input_shape)))
    found = ops.convert_to_numpy(block @ x).reshape(3, -1)
    np.testing.assert_allclose(found, x.reshape(3, -1) @ expected.T, atol=1e-3)
    values = svds(block.to_scipy(), k=2, return_singular_vectors=False)
    expected = np.linalg.svd(expected, compute_uv=False)[:2]
    np.testing.assert_allclose(np.sort(values)[::-1], expected, rtol=1e-4)


def test_structured_operators(rng):
    weights = rng.standard_normal((1, 3, 4)).astype("float32")
    matrix = rng.standard_normal((4, 2)).astype("float32")
    repeated = linalg.repeated_operator(linalg.dense_operator(matrix), (3,))
    operator = repeated @ linalg.diagonal_operator(weights)
    expected = np.kron(np.eye(3), matrix.T) @ np.diag(weights.ravel())
    for found, wanted in ((operator, expected), (operator.T, expected.T)):
        actual = ops.convert_to_numpy(found.to_matrix())
        np.testing.assert_allclose(actual, wanted, atol=1e-6)


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="computes in float32 by default"
)
def test_float64_stays(rng):
    """`keras.ops.matmul` narrows it to float32 on torch."""
    a, b = rng.standard_normal((2, 5, 5))
    x = rng.standard_normal(5)
    one, two = linalg.dense_operator(a), linalg.dense_operator(b)
    skip = linalg.identity_operator((5,), "float64")
    for operator, matrix in (
        (one, a.T),
        (one @ two, a.T @ b.T),
        (skip - 0.3 * one, np.eye(5) - 0.3 * a.T),
    ):
        for found, wanted in ((operator, matrix), (operator.T, matrix.T)):
            image = ops.convert_to_numpy(found @ x)
            np.testing.assert_allclose(image, wanted @ x, rtol=1e-12)
            stack = ops.convert_to_numpy(found @ np.stack([x, x]))
            np.testing.assert_allclose(stack[1], wanted @ x, rtol=1e-12)
            actual = ops.convert_to_numpy(found.to_matrix())
            np.testing.assert_allclose(actual, wanted, rtol=1e-12, atol=1e-14)


def test_spectrum_of_extreme_operators(kernel):
    norm = linalg.operator_singular_values(make_operators(kernel)["strided"], 1)[0]
    for scale in (1e-30, 1e30):
        scaled = make_operators(kernel * np.float32(scale))["strided"]
        value = linalg.operator_singular_values(scaled, 1)[0]
        assert value == pytest.approx(scale * norm, rel=1e-5)
    zero = make_operators(0 * kernel)["strided"]
    assert np.all(linalg.operator_singular_values(zero) == 0)


def gradient(function, x):
    """The gradient of a scalar function, as a NumPy array."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        x = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x)
        return tape.gradient(value, x).numpy()
    if keras.backend.backend() == "jax":
        import jax

        return np.asarray(jax.grad(function)(x))
    import torch

    x = torch.tensor(x, requires_grad=True)
    function(x).backward()
    return x.grad.numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_operators_are_differentiable_in_the_kernel(rng, kernel, kind):
    operator = make_operators(kernel)[kind]
    x = rng.standard_normal(operator.input_shape).astype("float32")
    y = rng.standard_normal(operator.output_shape).astype("float32")
    x, y = ops.convert_to_tensor(x), ops.convert_to_tensor(y)

    def forward(k):
        return ops.sum(y * make_operators(k)[kind].matvec(x))

    def backward(k):
        return ops.sum(x * make_operators(k)[kind].adjoint(y))

    # <y, A x> is linear in the kernel, so its gradient is known from its values.
    direction = rng.standard_normal(kernel.shape).astype("float32")
    expected = float(forward(ops.convert_to_tensor(direction)))
    for function in (forward, backward):
        slope = np.vdot(gradient(function, kernel), direction)
        assert slope == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_gradients_through_products(rng, kernel):
    """By the scalar and by the kernel, of <y, (1 + c C'C) x>."""
    x, y = rng.standard_normal((2, 2, 6, 5, 2)).astype("float32")

    def block(kernel, scalar):
        operator = linalg.convolution_operator(kernel, (6, 5), padding="same")
        skip = linalg.identity_operator(operator.input_shape)
        return skip + scalar * (operator.T @ operator)

    def product(kernel, scalar):
        return ops.sum(ops.convert_to_tensor(y) * (block(kernel, scalar) @ x))

    square = float(product(kernel, 1.0)) - float(product(kernel, 0.0))
    slope = gradient(lambda scalar: product(kernel, scalar), np.float32(0.7))
    assert slope == pytest.approx(square, rel=1e-4)
    # Quadratic in the kernel: Euler's relation.
    slope = np.vdot(gradient(lambda k: product(k, 1.0), kernel), kernel)
    assert slope == pytest.approx(2 * square, rel=1e-3)


@pytest.mark.parametrize("kind", ["convolution", "depthwise", "transposed"])
@pytest.mark.parametrize("p", [1, 2, np.inf])
def test_certificates(kernel, kind, p):
    make = {
        "convolution": linalg.convolution_operator,
        "depthwise": linalg.depthwise_convolution_operator,
        "transposed": linalg.transposed_convolution_operator,
    }[kind]
    matrix = ops.convert_to_numpy(make(kernel, (7, 7), 1, "same").to_matrix())
    exact = np.linalg.norm(matrix.astype("float64"), p)
    bound = float(linalg.induced_norm(kernel, p, kind))
    assert exact * (1 - 1e-6) <= bound <= exact * (1.2 if p == 2 else 1 + 1e-6)
    for scale in (0.0, 1e-36, 1e36):
        scaled = float(linalg.induced_norm(kernel * np.float32(scale), p, kind))
        assert scaled == pytest.approx(bound * scale, rel=1e-4)
    broken = kernel.copy()
    broken[0, 1, 0, 1] = np.nan
    assert np.isnan(float(linalg.induced_norm(broken, p, kind)))


def test_bounds_have_gradients(kernel):
    """Euler's relation: what is homogeneous has the slope itself along itself."""
    for function in (
        linalg.convolution_norm_bound,
        linalg.unfolding_norm_bound,
        linalg.frobenius_norm,
    ):
        small = kernel * np.float32(1e-30)
        slope = np.vdot(gradient(function, small), small)
        assert slope == pytest.approx(float(function(small)), rel=1e-3)
        assert np.all(np.isfinite(gradient(function, 0 * kernel)))


def test_circular_spectrum_and_unfoldings(kernel):
    values = linalg.circular_convolution_singular_values(kernel, (6, 4), 2)
    norm = linalg.circular_convolution_norm(kernel, (6, 4), 2)
    assert norm == pytest.approx(values[0], rel=1e-9)
    unstrided = linalg.circular_convolution_norm(kernel, (32, 32))
    bound = float(linalg.convolution_norm_bound(kernel))
    assert unstrided <= bound <= 1.01 * unstrided
    assert float(linalg.unfolding_norm_bound(kernel)) >= unstrided * (1 - 1e-6)


def test_extreme_matrices(kernel):
    matrix = kernel.reshape(9, 8)
    exact = np.linalg.svd(matrix.astype("float64"), compute_uv=False)
    np.testing.assert_allclose(
        ops.convert_to_numpy(linalg.singular_values(matrix)), exact, rtol=1e-4
    )
    for scale in (1e-30, 1e30):
        scaled = matrix * np.float32(scale)
        frobenius = float(linalg.frobenius_norm(scaled))
        assert frobenius == pytest.approx(scale * np.linalg.norm(exact), rel=1e-5)
        rank = float(linalg.stable_rank(scaled))
        assert rank == pytest.approx(np.sum((exact / exact[0]) ** 2), rel=1e-5)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_singular_values_of_what_is_not_finite_are_nan(rng, broken):
    matrix = rng.standard_normal((4, 3)).astype("float32")
    matrix[1, 2] = broken
    assert np.isnan(ops.convert_to_numpy(linalg.singular_values(matrix))).all()
    assert np.isnan(float(linalg.spectral_norm(matrix)))


@pytest.mark.skipif(
    keras.backend.backend() == "tensorflow",
    reason="no forward mode of custom gradients",
)
def test_the_norm_in_forward_mode(rng):
    """sigma(W + t D) - sigma(W) is t v' D u, and the same for <u, v' W>."""
    kernel, change = rng.standard_normal((2, 5, 4))
    rows = rng.standard_normal((3, 5))
    left, (sigma, *_), right = np.linalg.svd(kernel)
    v, u = left[:, 0], right[0]

    def value(kernel):
        return linalg.turning_singular_value(sigma, u, v, kernel)

    def norm(kernel):
        product, image = linalg.turning_product(v, kernel, rows)
        return ops.sum(product) + linalg.turning_norm(u, image, kernel)

    if keras.backend.backend() == "jax":
        from jax import jvp
    else:
        from torch.func import jvp

    dtype = "float32" if keras.backend.backend() == "jax" else "float64"
    rows = ops.convert_to_tensor(rows, dtype)
    tensors = [(ops.convert_to_tensor(each, dtype),) for each in (kernel, change)]
    expected = v @ change @ u
    assert float(jvp(value, *tensors)[1]) == pytest.approx(expected, rel=1e-4)
    of_product = ops.convert_to_numpy(rows @ tensors[1][0]).sum()
    found = float(jvp(norm, *tensors)[1]) - of_product
    assert found == pytest.approx(expected, rel=1e-4)
