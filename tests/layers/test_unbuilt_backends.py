"""Models that are built by their first batch, maybe while a function is traced."""

import keras
import numpy as np
import pytest
from keras import layers as kl

from keras_spectral.layers import SpectralNormalization, StableRankNormalization
from tests.layers.kinds import images, numpy


def norm(layer):
    kernel = numpy(layer.effective_kernel()).astype("float64")
    return np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), 2)


@keras.saving.register_keras_serializable(package="tests")
class Discriminator(keras.Model):
    """Layers that know their input's shape when they are called."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.convolution = SpectralNormalization(kl.Conv2D(4, 3, activation="relu"))
        self.flatten = kl.Flatten()
        self.head = StableRankNormalization(kl.Dense(3), stable_rank_ratio=0.5)

    def call(self, inputs, training=None):
        x = self.convolution(inputs, training=training)
        return self.head(self.flatten(x), training=training)

    @property
    def wrappers(self):
        return [self.convolution, self.head]


@pytest.mark.parametrize(
    "arguments", [{}, {"block_size": 1}, {"method": "power_iteration"}]
)
def test_a_sequential_model_without_an_input(arguments):
    layer = SpectralNormalization(kl.Dense(6), **arguments)
    model = keras.Sequential([layer])
    model.compile("sgd", "mse")
    # Unbuilt, it has no build config: Keras would build it with none.
    assert layer.get_build_config() is None
    model.fit(images(7), np.ones((4, 6)), verbose=0)
    assert int(layer.norm_states[0].updates) == 1
    model.fit(images(7), np.ones((4, 6)), epochs=9, verbose=0)
    assert int(layer.norm_states[0].updates) == 10
    # One vector still follows; the block is where it should be.
    one = layer.method == "power_iteration"
    assert norm(layer) == pytest.approx(1, rel=0.05 if one else 1e-3)


def test_a_subclassed_model(tmp_path):
    model = Discriminator()
    model.compile(keras.optimizers.SGD(0.01), "mse")
    x = images(6, 6, 2)
    model.fit(x, np.ones((4, 3)), batch_size=2, epochs=3, verbose=0)
    for layer in model.wrappers:
        assert int(layer.norm_states[0].updates) == 6
        assert norm(layer) == pytest.approx(1, rel=1e-3)
    outputs = model.predict(x, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again.predict(x, verbose=0), outputs, atol=1e-6)
    model.save_weights(tmp_path / "model.weights.h5")
    again = Discriminator()
    again(x)
    again.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_allclose(numpy(again(x)), outputs, atol=1e-6)


def test_the_first_call_finds_the_vectors():
    model = Discriminator()
    model(images(6, 6, 2))
    for layer in model.wrappers:
        assert norm(layer) == pytest.approx(1, rel=1e-5)
        assert int(layer.norm_states[0].updates) == 0


@pytest.mark.parametrize("training", [False, True])
def test_first_called_inside_a_compiled_function(training):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf.function is TensorFlow's; JAX and torch trace no unbuilt layer")
    import tensorflow as tf

    model = Discriminator()
    x = tf.constant(images(6, 6, 2))

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model(x, training=training) ** 2)
        return loss, tape.gradient(loss, [w.value for w in model.trainable_variables])

    for calls in range(1, 4):
        loss, gradients = step()
        assert np.isfinite(loss)
        assert all(np.isfinite(gradient).all() for gradient in gradients)
        for layer in model.wrappers:
            assert norm(layer) == pytest.approx(1, rel=1e-3)
            # Minus one: the vectors are found in the call, which stores none.
            expected = (calls,) if training else (-1, 0)
            assert int(layer.norm_states[0].updates) in expected
