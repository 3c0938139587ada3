import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from keras_spectral.linalg import (
    convolution_norm_bound,
    convolution_operator,
    frobenius_norm,
    induced_norm,
    singular_values,
    spectral_norm,
    stable_rank,
)


def unrolled(kernel, size, strides=1, padding="same"):
    """The convolution as a matrix, column by column from impulses."""
    operator = convolution_operator(kernel, size, strides, padding)
    entries = int(np.prod(operator.input_shape))
    columns = [
        ops.convert_to_numpy(operator.matvec(ops.convert_to_tensor(x))).ravel()
        for x in np.eye(entries).reshape(entries, *operator.input_shape)
    ]
    return np.array(columns).T


def circular_norm(kernel, points=128):
    transform = np.fft.fft2(kernel, (points, points), axes=(0, 1))
    return np.linalg.norm(transform, 2, axis=(2, 3)).max()


def test_exact_norms_against_numpy(rng):
    matrix = rng.standard_normal((5, 7))
    assert float(spectral_norm(matrix)) == pytest.approx(np.linalg.norm(matrix, 2))
    assert float(frobenius_norm(matrix)) == pytest.approx(np.linalg.norm(matrix))
    half = ops.cast(matrix, "bfloat16")
    expected = np.linalg.norm(ops.convert_to_numpy(ops.cast(half, "float64")), 2)
    assert float(spectral_norm(half)) == pytest.approx(expected, rel=1e-5)


@given(seed=st.integers(0, 2**31), scale=st.floats(1e-6, 1e6))
@settings(max_examples=20, deadline=None)
def test_stable_rank_is_invariant(seed, scale):
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((4, 6))
    rotation, _ = np.linalg.qr(rng.standard_normal((4, 4)))
    value = float(stable_rank(matrix))
    assert 1 <= value <= 4
    assert float(stable_rank(scale * rotation @ matrix)) == pytest.approx(value)


@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_dense_norm_is_exact(rng, p):
    kernel = rng.standard_normal((5, 3))
    assert float(induced_norm(kernel, p)) == pytest.approx(np.linalg.norm(kernel.T, p))


@pytest.mark.parametrize("p", [1, 2, math.inf])
@pytest.mark.parametrize(
    "shape, size, strides, padding",
    [
        ((3, 3, 2, 3), (7, 6), 1, "same"),
        ((3, 3, 3, 2), (8, 8), 1, "valid"),
        ((3, 3, 2, 3), (7, 7), 2, "same"),
        ((4, 2, 1, 2), (6, 9), 1, "same"),
        ((1, 1, 4, 3), (4, 4), 1, "same"),
        ((5, 5, 1, 1), (5, 6), 1, "same"),
    ],
)
def test_convolution_norm_is_a_bound(rng, shape, size, strides, padding, p):
    for kernel in (rng.standard_normal(shape), np.ones(shape)):
        exact = np.linalg.norm(unrolled(kernel, size, strides, padding), p)
        assert float(induced_norm(kernel, p, "convolution")) >= exact * (1 - 1e-12)


@pytest.mark.parametrize(
    "shape", [(3, 3, 4, 8), (3, 3, 8, 4), (4, 4, 3, 3), (7, 1, 2, 2), (1, 1, 5, 5)]
)
def test_convolution_bound_is_within_one_percent_of_the_circular_norm(rng, shape):
    kernels = [rng.standard_normal(shape), np.ones(shape), np.zeros(shape)]
    kernels[2][0, 0, 0, 0] = 1
    for kernel in kernels:
        ratio = float(convolution_norm_bound(kernel)) / circular_norm(kernel)
        assert 1 <= ratio * (1 + 1e-12) and ratio <= 1.01


@pytest.mark.parametrize("p", [1, math.inf])
def test_one_and_infinity_norms_are_reached_on_a_large_image(rng, p):
    kernel = rng.standard_normal((3, 3, 2, 2))
    exact = np.linalg.norm(unrolled(kernel, (6, 6)), p)
    assert float(induced_norm(kernel, p, "convolution")) == pytest.approx(exact)


@pytest.mark.parametrize("scale", [1e-18, 1e18])
def test_bound_does_not_overflow(rng, scale):
    kernel = rng.standard_normal((3, 3, 2, 2)).astype("float32")
    expected = float(convolution_norm_bound(kernel)) * scale
    scaled = float(convolution_norm_bound((kernel * scale).astype("float32")))
    assert scaled == pytest.approx(expected, rel=1e-4)


def test_zero_kernel():
    assert float(convolution_norm_bound(np.zeros((3, 3, 2, 2)))) == 0
    assert math.isnan(float(stable_rank(np.zeros((3, 3)))))


def test_singular_values_against_numpy(rng):
    matrix = rng.standard_normal((5, 7))
    np.testing.assert_allclose(
        singular_values(matrix), np.linalg.svd(matrix, compute_uv=False), rtol=1e-12
    )


@pytest.mark.parametrize("scale", [1e-36, 1e-25, 1e25, 1e37])
def test_norms_of_extreme_float32_matrices(rng, scale):
    matrix = rng.uniform(-1, 1, (4, 6))
    scaled = (scale * matrix).astype("float32")
    values = np.linalg.svd(matrix, compute_uv=False)
    expected = np.linalg.norm(matrix)
    assert float(frobenius_norm(scaled)) == pytest.approx(scale * expected, rel=1e-5)
    assert float(spectral_norm(scaled)) == pytest.approx(scale * values[0], rel=1e-5)
    assert float(stable_rank(scaled)) == pytest.approx(
        (expected / values[0]) ** 2, rel=1e-5
    )


def test_stable_rank_where_the_norm_leaves_float32(rng):
    matrix = rng.uniform(-1, 1, (8, 8))
    values = np.linalg.svd(matrix, compute_uv=False)
    scaled = (3e38 * matrix).astype("float32")
    assert float(frobenius_norm(scaled)) == math.inf
    assert float(stable_rank(scaled)) == pytest.approx(
        np.sum((values / values[0]) ** 2), rel=1e-5
    )


def test_frobenius_norm_of_zero_and_of_what_is_not_finite():
    zero = tf.zeros((3, 2))
    with tf.GradientTape() as tape:
        tape.watch(zero)
        norm = frobenius_norm(zero)
    assert float(norm) == 0
    assert np.all(tape.gradient(norm, zero) == 0)
    assert math.isnan(float(frobenius_norm([1.0, math.nan])))
    assert float(frobenius_norm([1.0, math.inf])) == math.inf


def test_gradient_of_the_frobenius_norm(rng):
    weight = tf.constant(1e-25 * rng.standard_normal((3, 2)), "float32")
    with tf.GradientTape() as tape:
        tape.watch(weight)
        norm = frobenius_norm(weight)
    exact = np.float64(weight)
    np.testing.assert_allclose(
        tape.gradient(norm, weight), exact / np.linalg.norm(exact), rtol=1e-5
    )
