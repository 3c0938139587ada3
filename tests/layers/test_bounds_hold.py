"""The norms that the wrappers promise, in the trainings where they were missed."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl

import keras_spectral as ks
from keras_spectral.layers import SpectralNormalization, StableRankNormalization
from tests.layers.reference import stable_rank
from tests.layers.test_spectral_normalization import exact_operator_norm


def norm(kernel):
    matrix = np.asarray(kernel, "float64").reshape(-1, kernel.shape[-1])
    return np.linalg.norm(matrix, 2)


def wrappers(model):
    return [layer for layer in model.layers if hasattr(layer, "norm_states")]


def in_training(layer):
    """Return the kernel that the next training step computes with; state stays."""
    weights = layer.get_weights()
    kernel = layer.transform(layer.matrix(0), 0, advance=True).numpy()
    layer.set_weights(weights)
    return kernel


def errors(model):
    """Return the largest relative errors: in training, and in inference."""
    layers = wrappers(model)
    kernels = zip(
        *[(in_training(x), x.effective_kernel()) for x in layers], strict=True
    )
    return [
        max(abs(norm(k) / x.bound - 1) for k, x in zip(row, layers, strict=True))
        for row in kernels
    ]


class Watch(keras.callbacks.Callback):
    """Calls a function of the model before chosen steps, and after each epoch."""

    def __init__(self, function, every=15):
        super().__init__()
        self.function, self.every = function, every

    def on_train_batch_begin(self, batch, logs=None):
        if batch % self.every == 0:
            self.function(self.model)

    def on_epoch_end(self, epoch, logs=None):
        self.function(self.model)


def classify(model, optimizer, x, y, **arguments):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss)
    return model.fit(x, y, verbose=0, **arguments)


@pytest.fixture(scope="module")
def digits():
    train = ks.data.load("digits").train
    return train.inputs(), train.labels


def test_the_first_example_of_the_readme(digits):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            StableRankNormalization(
                kl.Conv2D(32, 3, strides=2, activation="relu"), stable_rank_ratio=0.3
            ),
            kl.Flatten(),
            SpectralNormalization(kl.Dense(10), bound=3.0),
        ]
    )
    classify(model, keras.optimizers.Adam(0.003), *digits, epochs=5)
    convolution, head = wrappers(model)
    assert norm(head.effective_kernel()) == pytest.approx(3, abs=1e-3)
    assert norm(convolution.effective_kernel()) == pytest.approx(1, abs=1e-3)
    target = convolution.stable_rank()
    assert stable_rank(convolution.effective_kernel()) <= target * (1 + 1e-3)


def perceptron(wrap=SpectralNormalization, **arguments):
    def block(units):
        dense = wrap(kl.Dense(units, use_bias=False), **arguments)
        return [dense, kl.BatchNormalization(), kl.ReLU()]

    head = wrap(kl.Dense(10), **arguments)
    return keras.Sequential(
        [keras.Input((8, 8, 1)), kl.Flatten(), *block(128), *block(128), head]
    )


@pytest.mark.parametrize("method, tolerance", [("block", 1e-3), ("exact", 1e-5)])
def test_a_perceptron_at_each_step_and_epoch(digits, method, tolerance):
    found = []
    watch = Watch(lambda model: found.append(errors(model)))
    model = perceptron(method=method)
    optimizer = keras.optimizers.SGD(0.05)
    classify(model, optimizer, *digits, epochs=4, callbacks=[watch])
    training, inference = np.max(found, axis=0)
    assert training <= tolerance
    assert inference <= tolerance


def test_stable_rank_is_never_above_its_target(digits):
    found = []

    def look(model):
        for layer in wrappers(model):
            for kernel in (in_training(layer), layer.effective_kernel()):
                found.append(stable_rank(kernel) / layer.stable_rank())

    model = perceptron(StableRankNormalization, stable_rank_ratio=0.3)
    optimizer = keras.optimizers.SGD(0.05)
    classify(model, optimizer, *digits, epochs=2, callbacks=[Watch(look)])
    assert max(found) <= 1 + 1e-3


def test_folds_from_the_same_weights_are_the_same(digits):
    """The state goes with the weights, so nothing is left over from a fold."""
    model = perceptron()
    start = model.get_weights()
    results = []
    for _ in range(2):
        model.set_weights(start)
        optimizer = keras.optimizers.SGD(0.05)
        classify(model, optimizer, *digits, epochs=2, shuffle=False)
        results.append(model.get_weights())
        assert errors(model)[1] <= 1e-3
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("width", [32, 64, 128])
def test_memorizing_one_batch(width):
    """Kernels move fastest where the training starts."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((32, 784)).astype("float32")
    y = rng.integers(0, 10, 32)
    hidden = [
        SpectralNormalization(kl.Dense(width, activation="relu"), bound=1.2)
        for _ in range(3)
    ]
    head = SpectralNormalization(kl.Dense(10), bound=3.0)
    model = keras.Sequential([keras.Input((784,)), *hidden, head])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss)
    found = {}
    for step in range(1, 101):
        looks = step in (1, 2, 3, 5, 8, 12, 16, 20) or step >= 60 and step % 5 == 0
        training = errors(model)[0] if looks else None
        model.train_on_batch(x, y)
        if looks:
            found[step] = max(training, errors(model)[1])
    assert found[1] <= 2e-2
    assert max(error for step, error in found.items() if step <= 20) <= 5e-2
    assert max(error for step, error in found.items() if step >= 60) <= 1e-3


@pytest.mark.parametrize("shape", [(6, 4), (64, 512), (700, 600)])
@pytest.mark.parametrize("wrap", [SpectralNormalization, StableRankNormalization])
def test_assigned_kernels_after_a_restart(rng, shape, wrap):
    arguments = {} if wrap is SpectralNormalization else {"stable_rank_ratio": 0.3}
    layer = wrap(kl.Dense(shape[1]), bound=2.0, **arguments)
    layer.build((None, shape[0]))
    layer.kernel.assign(3 * rng.standard_normal(shape))
    layer.restart_power_iteration()
    for kernel in (layer.effective_kernel(), in_training(layer)):
        assert norm(kernel) == pytest.approx(2, rel=1e-3)
    assert norm(layer.converged_kernel()) == pytest.approx(2, rel=1e-6)


def test_the_operator_norm_of_a_small_convolution(rng):
    x = rng.standard_normal((64, 5, 5, 2)).astype("float32")
    y = rng.integers(0, 3, 64)
    layer = SpectralNormalization(kl.Conv2D(2, 3), norm="operator")
    model = keras.Sequential([keras.Input((5, 5, 2)), layer, kl.Flatten(), kl.Dense(3)])
    found = []

    def look(model):
        found.append(exact_operator_norm(layer, layer.effective_kernel()))

    optimizer = keras.optimizers.Adam(0.01)
    watch = Watch(look, every=1)
    classify(model, optimizer, x, y, batch_size=8, epochs=4, callbacks=[watch])
    assert np.abs(np.array(found) - 1).max() <= 1e-2
    exact = exact_operator_norm(layer, tf.constant(layer.converged_kernel()))
    assert exact == pytest.approx(1, rel=1e-4)
