"""The methods beyond plain SN: exact, optimal, Algorithm 1, Theorem 1, operators."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl

from keras_spectral.layers import (
    OptimalSpectralNormalization,
    SpectralNormalization,
    StableRankNormalization,
)
from keras_spectral.linalg import project_stable_rank
from tests.layers.kinds import KINDS, images
from tests.layers.reference import finite_differences, sn_gradient, stable_rank
from tests.layers.test_spectral_normalization import converge, kernel_gradient


def built(wrap, layer=None, shape=(None, 6), **arguments):
    layer = wrap(layer or kl.Dense(5, dtype="float64"), **arguments)
    layer.build(shape)
    return layer


def test_exact_gradient_is_that_of_the_svd_formula(rng):
    for inner, shape in [
        (kl.Dense(5, dtype="float64"), (None, 6)),
        (kl.Dense(9, dtype="float64"), (None, 4)),
        (kl.Conv2D(4, 3, dtype="float64"), (None, 5, 5, 2)),
    ]:
        layer = built(SpectralNormalization, inner, shape, method="exact")
        cotangent = rng.standard_normal(layer.kernel.shape)
        expected = sn_gradient(layer.kernel.numpy(), cotangent)
        np.testing.assert_allclose(
            kernel_gradient(layer, cotangent), expected, atol=1e-12
        )
        assert layer.non_trainable_weights == []


@pytest.mark.parametrize("shape", [(512, 700), (300, 40), (64, 512)])
def test_exact_norm_in_float32_within_its_promise(rng, shape):
    layer = built(
        SpectralNormalization,
        kl.Dense(shape[1]),
        (None, shape[0]),
        method="exact",
    )
    layer.kernel.assign(rng.standard_normal(shape))
    norm = np.linalg.norm(layer.effective_kernel().numpy().astype("float64"), 2)
    assert norm == pytest.approx(1, abs=1e-4)


def test_exact_is_refused_for_large_kernels():
    with pytest.raises(ValueError, match="at most 512"):
        built(SpectralNormalization, kl.Dense(600), (None, 600), method="exact")


def test_dense_output_and_gradients_are_those_of_the_effective_kernel(rng):
    """The second path of Dense, that never forms the kernel, against the first."""
    x, c = rng.standard_normal((7, 3, 6)), rng.standard_normal((7, 3, 5))
    for wrap in (
        SpectralNormalization,
        functools.partial(SpectralNormalization, clip=True, bound=0.3),
        functools.partial(StableRankNormalization, stable_rank_ratio=0.4),
        functools.partial(SpectralNormalization, method="exact"),
    ):
        inner = kl.Dense(5, activation="tanh", dtype="float64")
        layer = built(wrap, inner, (None, 3, 6))
        layer(x, training=True)
        gradients = []
        for function in (
            lambda x, layer=layer: layer(x),
            lambda x, layer=layer, inner=inner: tf.tanh(
                tf.matmul(x, layer.effective_kernel()) + inner.bias
            ),
        ):
            variables = [inner.kernel.value, inner.bias.value]
            inputs = tf.constant(x)
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                outputs = function(inputs)
                total = tf.reduce_sum(outputs * c)
            gradients.append([outputs, *tape.gradient(total, [*variables, inputs])])
        for fast, formed in zip(*gradients, strict=True):
            np.testing.assert_allclose(fast, formed, atol=1e-12)


def test_second_order_gradients_pass_through_the_dense_path(rng):
    """As a gradient penalty needs them."""
    layer = built(SpectralNormalization, kl.Dense(1, dtype="float64"))
    x = tf.constant(rng.standard_normal((4, 6)))
    kernel = layer.kernel.numpy()
    weights = rng.standard_normal(6)

    def penalty():
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x) ** 2
        return tf.reduce_sum(tape.gradient(outputs, x) * weights)

    with tf.GradientTape() as tape:
        value = penalty()
    gradient = tape.gradient(value, layer.kernel.value).numpy()
    assert np.abs(gradient).max() > 1e-3

    # One output: the exact normalization is the division by the length.
    def formula(kernel):
        w = kernel[:, 0] / np.linalg.norm(kernel)
        return (2 * (x.numpy() @ w)[:, None] * w * weights).sum()

    converge(layer, 30)
    expected = finite_differences(formula, kernel)
    with tf.GradientTape() as tape:
        value = penalty()
    gradient = tape.gradient(value, layer.kernel.value).numpy()
    np.testing.assert_allclose(gradient, expected, atol=1e-7)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 2.0])
@pytest.mark.parametrize("equal", [False, True])
def test_gradient_of_optimal_normalization_is_exact(rng, share, equal):
    """Against differences of NumPy's clipping, also where singular values coincide."""
    kernel = rng.standard_normal((6, 5))
    u, s, vt = np.linalg.svd(kernel, full_matrices=False)
    if equal:
        s[1] = s[0]
        kernel = (u * s) @ vt
    bound = share * s[0]
    layer = built(OptimalSpectralNormalization, bound=bound)
    layer.kernel.assign(kernel)
    cotangent = rng.standard_normal(kernel.shape)

    def clipped(weight):
        u, s, vt = np.linalg.svd(weight, full_matrices=False)
        return (u * np.minimum(s, bound)) @ vt

    expected = finite_differences(lambda w: (clipped(w) * cotangent).sum(), kernel)
    np.testing.assert_allclose(kernel_gradient(layer, cotangent), expected, atol=1e-7)
    np.testing.assert_allclose(layer.effective_kernel(), clipped(kernel), atol=1e-12)


@pytest.mark.parametrize("norm", ["reshaped", "operator"])
@pytest.mark.parametrize("preserved", [0, 1, 2, 4])
def test_preserved_singular_values(rng, preserved, norm):
    """Algorithm 1 and Theorem 1, scaled to the bound."""
    layer = built(
        StableRankNormalization,
        kl.Conv2D(8, 2, dtype="float64"),
        (None, 5, 5, 3),
        stable_rank_ratio=0.3,
        preserved=preserved,
        bound=2.0,
        norm=norm,
    )
    converge(layer, 600)
    effective = layer.effective_kernel().numpy()
    matrix = layer.kernel.numpy().reshape(-1, 8)
    expected = keras.ops.convert_to_numpy(
        project_stable_rank(matrix.T, 0.3 * 8, preserved)[0]
    ).T
    ratio = effective.reshape(-1, 8) / expected
    np.testing.assert_allclose(ratio, ratio.flat[0], rtol=1e-6)
    assert stable_rank(effective) == pytest.approx(0.3 * 8, rel=1e-6)
    if norm == "reshaped":
        bounded = np.linalg.norm(effective.reshape(-1, 8), 2)
        assert bounded == pytest.approx(2, rel=1e-6)
    else:
        operator = layer.slots[0].operator(effective, (5, 5, 3))
        bounded = np.linalg.norm(operator.to_matrix(), 2)
        # For k = 1 the cap follows the bound, and lowers the norm.
        limit = 2 * (1 + 1e-6)
        assert bounded <= limit and (preserved == 1 or bounded > limit * 0.999)


@pytest.mark.parametrize(
    "kind",
    [
        "conv1d",
        "conv2d in groups",
        "conv3d",
        "conv1d transpose",
        "conv2d transpose",
        "depthwise conv1d",
        "depthwise conv2d",
        "convolution in time",
    ],
)
def test_operator_norm_of_every_convolution(kind):
    make, x = KINDS[kind]
    layer = SpectralNormalization(make(dtype="float64"), norm="operator")
    layer.build(x.shape)
    converge(layer, 500)
    (slot,) = layer.slots
    shape = x.shape[2:] if kind == "convolution in time" else x.shape[1:]
    operator = slot.operator(layer.effective_kernel(), shape)
    norm = np.linalg.norm(operator.to_matrix(), 2)
    # An estimate from below, so the norm is a little above.
    assert norm == pytest.approx(1, rel=1e-3)


def test_separable_kernels_are_bounded_one_by_one():
    inner = kl.SeparableConv2D(5, 3, dtype="float64")
    layer = SpectralNormalization(inner, norm="operator", power_iterations=50)
    layer(images(6, 6, 3).astype("float64"), training=True)
    impulses = np.eye(108).reshape(108, 6, 6, 3)
    answers = layer(impulses).numpy().reshape(108, -1)
    assert np.linalg.norm(answers, 2) <= 1 + 1e-3


def test_unknown_image_sizes_are_refused_with_what_to_pass():
    with pytest.raises(ValueError, match="`input_size="):
        built(SpectralNormalization, kl.Conv1D(2, 3), (None, None, 2), norm="operator")
    with pytest.raises(ValueError, match="must have 1 numbers"):
        built(
            SpectralNormalization,
            kl.Conv1D(2, 3),
            (None, None, 2),
            norm="operator",
            input_size=(4, 4),
        )


METHODS = {
    "sn": SpectralNormalization,
    "exact": functools.partial(SpectralNormalization, method="exact"),
    "clip": functools.partial(SpectralNormalization, clip=True),
    "srn": functools.partial(StableRankNormalization, stable_rank_ratio=0.5),
    "theorem 1": functools.partial(
        StableRankNormalization, stable_rank_ratio=0.5, preserved=0
    ),
    "optimal": OptimalSpectralNormalization,
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-15, 1e15, 1e30])
def test_extreme_scales_are_finite_with_finite_gradients(rng, method, scale):
    kernel = rng.standard_normal((6, 5)).astype("float32")
    for inner, shape in [(kl.Dense(5), (6,)), (kl.Conv1D(5, 1), (3, 6))]:
        tiny = {} if method == "optimal" else {"epsilon": 1e-37}
        layer = METHODS[method](inner, **tiny)
        layer.build((None, *shape))
        layer.kernel.assign((kernel * np.float32(scale)).reshape(layer.kernel.shape))
        x = images(*shape)
        with tf.GradientTape() as tape:
            outputs = layer(x, training=True)
            total = tf.reduce_sum(outputs)
        gradient = tape.gradient(total, layer.kernel.value)
        assert np.isfinite(outputs).all()
        norm = np.linalg.norm(layer.effective_kernel().numpy().reshape(6, 5), 2)
        if method in ("clip", "optimal"):
            assert norm <= 1.05
        elif scale >= 1e-30:
            assert norm == pytest.approx(1, rel=0.05)
        # The gradient of 1 / norm takes the square of the norm.
        if scale >= 1e-15:
            assert np.isfinite(gradient).all()


@pytest.mark.parametrize("method", METHODS)
def test_zero_rank_one_and_nan_kernels(rng, method):
    one = np.outer(rng.standard_normal(6), rng.standard_normal(5)).astype("float32")
    for kernel in (np.zeros((6, 5), "float32"), one):
        layer = METHODS[method](kl.Dense(5, use_bias=False))
        layer.build((None, 6))
        layer.kernel.assign(kernel)
        with tf.GradientTape() as tape:
            outputs = layer(images(6), training=True)
            total = tf.reduce_sum(outputs**2)
        gradient = tape.gradient(total, layer.kernel.value)
        assert np.isfinite(gradient).all() and np.isfinite(outputs).all()
        effective = layer.effective_kernel().numpy()
        if not kernel.any():
            np.testing.assert_array_equal(effective, kernel)
        else:
            # Nothing to clip or cap: the kernel over its norm, or as it is.
            cosine = (effective * one).sum() / np.linalg.norm(one)
            assert cosine == pytest.approx(np.linalg.norm(effective), rel=1e-5)
    layer.kernel.assign(np.full((6, 5), np.nan))
    assert np.isnan(layer(images(6), training=True)).all()
    layer.kernel.assign(one)
    for _ in range(3):
        assert np.isfinite(layer(images(6), training=True)).all()
