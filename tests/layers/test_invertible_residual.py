import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl

from keras_spectral.layers import InvertibleResidual
from tests.layers.kinds import images
from tests.layers.reference import finite_differences


def dense(activation="elu", dtype="float64", size=5, **arguments):
    layers = [
        kl.Dense(7, activation, dtype=dtype),
        kl.Dense(6, activation, dtype=dtype),
        kl.Dense(size, dtype=dtype),
    ]
    return InvertibleResidual(layers, dtype=dtype, **arguments)


def convolution(dtype="float64", **arguments):
    layers = [
        kl.Conv2D(3, 3, padding="same", activation="softplus", dtype=dtype),
        kl.Conv2D(3, 1, dtype=dtype),
        kl.LeakyReLU(0.2, dtype=dtype),
        kl.Conv2D(2, 2, padding="same", dilation_rate=2, dtype=dtype),
    ]
    return InvertibleResidual(layers, dtype=dtype, **arguments)


CASES = {"dense": (dense, images(5)), "convolution": (convolution, images(5, 4, 2))}


def wild(layer, x, scale=3.0):
    """A block whose kernels are far above the bound, with biases."""
    layer.build((None, *x.shape[1:]))
    for weight in layer.trainable_weights:
        weight.assign(scale * np.random.standard_normal(weight.shape))
    return layer


def jacobian(function, x):
    """The full Jacobian of each sample, (batch, n, n)."""
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    size = int(np.prod(x.shape[1:]))
    return tape.batch_jacobian(y, x).numpy().reshape(len(x), size, size)


@pytest.mark.parametrize("activation", ["elu", "selu", "gelu", "silu", "sigmoid"])
def test_the_certificate_bounds_every_jacobian(activation):
    layer = wild(dense(activation), images(5))
    bound = layer.lipschitz_bound()
    assert 0 < bound <= 0.9 + 1e-12
    # Units without biases, where the slopes are largest for some of these.
    x = 4 * np.random.standard_normal((200, 5))
    norms = np.linalg.norm(jacobian(layer.branch, x), 2, axis=(1, 2))
    assert norms.max() <= bound


def test_a_linear_branch_reaches_its_bound():
    branch = [kl.Dense(5, dtype="float64")]
    layer = wild(InvertibleResidual(branch, dtype="float64"), images(5))
    norms = np.linalg.norm(jacobian(layer.branch, images(5)[:1]), 2, axis=(1, 2))
    assert norms[0] == pytest.approx(0.9, rel=1e-6) == layer.lipschitz_bound()


@pytest.mark.parametrize("case", CASES)
def test_a_branch_within_the_bound_is_left_alone(case):
    make, x = CASES[case]
    x = x.astype("float64")
    layer = wild(make(), x, scale=1e-3)
    np.testing.assert_allclose(layer(x), x + layer.function(x), rtol=1e-12)
    assert layer.lipschitz_bound() < 0.1


@pytest.mark.parametrize("case", CASES)
def test_inverse(case):
    make, x = CASES[case]
    x = x.astype("float64")
    layer = wild(make(), x)
    found = layer.inverse(layer(x), tolerance=1e-10)
    error = np.linalg.norm((found.x.numpy() - x).reshape(4, -1), axis=1)
    size = np.linalg.norm(layer(x).numpy().reshape(4, -1), axis=1)
    assert (error <= 1e-10 * size).all()
    # The certified rate holds for the measured one.
    assert 0 < found.rate <= layer.lipschitz_bound() * (1 + 1e-6)
    certified = np.log(1e-12) / np.log(layer.lipschitz_bound())
    assert 2 <= found.iterations <= certified + 5


def test_a_linear_branch_converges_at_its_rate():
    layer = InvertibleResidual([kl.Dense(3, use_bias=False, dtype="float64")])
    layer.build((None, 3))
    layer.function.layers[0].kernel.assign(0.5 * np.eye(3))
    found = layer.inverse(np.ones((1, 3)), tolerance=1e-8)
    np.testing.assert_allclose(found.x, np.full((1, 3), 1 / 1.5), rtol=1e-8)
    assert found.rate == pytest.approx(0.5, rel=1e-3)


def test_inverse_says_when_it_fails():
    layer = wild(dense(), images(5))
    y = layer(images(5))
    with pytest.raises(RuntimeError, match="max_iterations=2"):
        layer.inverse(y, tolerance=1e-12, max_iterations=2)
    with pytest.raises(RuntimeError, match="not the tolerance"):
        layer.inverse(np.full((1, 5), np.nan), max_iterations=3)
    with pytest.raises(ValueError, match="must be built"):
        dense().inverse(np.ones((1, 5)))
    with pytest.raises(ValueError, match="`tolerance`"):
        layer.inverse(y, tolerance=0)


@pytest.mark.parametrize("case", CASES)
def test_log_determinant_against_the_full_jacobian(case):
    make, x = CASES[case]
    x = x.astype("float64")
    layer = wild(make(bound=0.6), x)
    exact = np.linalg.slogdet(jacobian(layer, x))[1]
    terms = 20
    seeds = keras.random.SeedGenerator(1)
    estimate = tf.function(
        lambda x: layer.log_determinant(x, power_terms=terms, seed=seeds)
    )
    draws = np.array([estimate(x).numpy() for _ in range(100)])
    truncation = layer.truncation_error(terms, int(np.prod(x.shape[1:])))
    assert truncation < 1e-3
    error = draws.std(axis=0, ddof=1) / np.sqrt(len(draws))
    assert (np.abs(draws.mean(axis=0) - exact) < 4.5 * error + truncation).all()
    assert (error < 0.2).all()


def test_log_determinant_of_a_diagonal_branch_is_exact():
    """One probe suffices: v'Dv is the trace for a diagonal D."""
    layer = InvertibleResidual([kl.Dense(3, use_bias=False, dtype="float64")])
    layer.build((None, 3))
    diagonal = np.array([0.5, -0.25, 0.1])
    layer.function.layers[0].kernel.assign(np.diag(diagonal))
    estimate = layer.log_determinant(np.ones((2, 3)), power_terms=3).numpy()
    series = sum((-1) ** (k + 1) * (diagonal**k).sum() / k for k in (1, 2, 3))
    np.testing.assert_allclose(estimate, series, rtol=1e-12)
    exact = np.log1p(diagonal).sum()
    assert abs(series - exact) <= layer.truncation_error(3, 3)


@pytest.mark.parametrize("case", CASES)
def test_gradient_against_finite_differences(case):
    """Of the output and the log-determinant, through the certificate."""
    make, x = CASES[case]
    x = x[:1].astype("float64")
    layer = wild(make(), x, scale=1.0)
    (slot, _), *_ = layer._weighted
    kernel = slot.variable.numpy()

    @tf.function
    def value():
        determinant = layer.log_determinant(x, power_terms=3, seed=1)
        return tf.reduce_sum(layer(x) ** 2) + tf.reduce_sum(determinant)

    def value_at(array):
        slot.variable.assign(array)
        return float(value())

    with tf.GradientTape() as tape:
        total = value()
    gradient = tape.gradient(total, slot.variable.value).numpy()
    expected = finite_differences(value_at, kernel)
    np.testing.assert_allclose(gradient, expected, atol=1e-6 * np.abs(expected).max())
    assert np.abs(expected).max() > 1e-3


def test_zero_kernels_have_finite_gradients():
    layer = InvertibleResidual(
        [kl.Conv2D(3, 3, padding="same", activation="elu"), kl.Conv2D(2, 1)]
    )
    layer.build((None, 4, 4, 2))
    layer.function.layers[1].kernel.assign(np.zeros((1, 1, 3, 2)))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(images(4, 4, 2)) ** 2)
    for gradient in tape.gradient(total, layer.trainable_variables):
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("jit", [False, True])
def test_fit_save_and_load(jit, tmp_path):
    # XLA is slow to compile Gram iterations: one block is enough there.
    blocks = [dense("elu", "mixed_bfloat16", size=2, name="second")]
    if not jit:
        blocks.append(convolution("float32", name="first"))
    model = keras.Sequential([keras.Input((5, 4, 2)), *blocks, kl.Flatten()])
    x = images(5, 4, 2)
    model.compile(keras.optimizers.Adam(0.02), "mse", jit_compile=jit)
    target = 2 * x.reshape(4, -1)
    loss = model.fit(x, target, epochs=10, verbose=0).history["loss"]
    assert loss[-1] < loss[0]
    for block in blocks:
        assert block.lipschitz_bound() <= 0.9
        assert block(x).dtype == "float32"
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    last = loaded.layers[len(blocks) - 1]
    if not jit:
        np.testing.assert_allclose(last.inverse(last(x)).x, x, atol=1e-3)


class Custom(kl.Layer):
    pass


@pytest.mark.parametrize(
    "layers, match",
    [
        ([kl.BatchNormalization(name="norm")], "'norm'"),
        ([kl.Dropout(0.5, name="drop")], "'drop'"),
        ([Custom(name="custom")], "'custom'"),
        ([kl.Conv2D(2, 3, strides=2, padding="same", name="strided")], "'strided'"),
        ([kl.Dense(5, "softmax", name="soft")], "softmax"),
        ([kl.Activation(tf.sin, name="sine")], "'sine'"),
        ([kl.Conv2DTranspose(2, 3, name="up")], "'up'"),
        (kl.Dense(5), "`function`"),
    ],
)
def test_branches_that_cannot_be_bounded(layers, match):
    with pytest.raises(ValueError, match=match):
        InvertibleResidual(layers)


def test_shapes_and_bounds_are_checked():
    with pytest.raises(ValueError, match="keep the shape"):
        InvertibleResidual([kl.Dense(4)]).build((None, 5))
    with pytest.raises(ValueError, match="keep the shape"):
        InvertibleResidual([kl.Conv2D(2, 3)]).build((None, 5, 5, 2))
    for bound in (0, 1, 1.5):
        with pytest.raises(ValueError, match="`bound`"):
            dense(bound=bound)
