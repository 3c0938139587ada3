"""What Keras tests of its own `SpectralNormalization`, asked of ours."""

import keras
import numpy as np
import pytest
from keras import layers as kl

from keras_spectral.layers import SpectralNormalization
from tests.layers.kinds import attention, images, numpy, tokens
from tests.layers.layer_checks import check_config, count, revived

# Layers and inputs of Keras' tests: the last is a dense layer on more than one axis.
LAYERS = {
    "dense": (lambda: kl.Dense(2), images(8)),
    "embedding": (lambda: kl.Embedding(10, 4), tokens()),
    "conv2d": (lambda: kl.Conv2D(3, 2, strides=2), images(5, 4, 2)),
    "dense on images": (lambda: kl.Dense(3), images(4, 5, 2)),
}
parametrized = pytest.mark.parametrize("kind", LAYERS)


def make(kind, **arguments):
    layer, inputs = LAYERS[kind]
    return SpectralNormalization(layer(), **arguments), inputs


def norm(kernel):
    kernel = numpy(kernel)
    return np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), 2)


@pytest.mark.parametrize("power_iterations", [0, -1, 1.5])
def test_power_iterations_must_be_positive(power_iterations):
    with pytest.raises(ValueError, match="power_iterations"):
        SpectralNormalization(kl.Dense(2), power_iterations=power_iterations)


@pytest.mark.parametrize(
    "layer", [kl.ReLU(), kl.Reshape((2,)), kl.LayerNormalization()]
)
def test_a_layer_must_have_a_kernel(layer):
    with pytest.raises(ValueError, match="`layer` must be one of"):
        SpectralNormalization(layer)


@pytest.mark.parametrize("layer", [None, "dense", kl.Dense])
def test_it_must_be_a_layer(layer):
    with pytest.raises((ValueError, TypeError), match="layer"):
        SpectralNormalization(layer)


@parametrized
def test_the_norm_is_one_after_training_calls(kind):
    layer, inputs = make(kind, power_iterations=5)
    layer.build(inputs.shape)
    layer.kernel.assign(7 * numpy(layer.kernel))
    before = numpy(layer.kernel)
    for _ in range(20):
        layer(inputs, training=True)
    assert norm(layer.effective_kernel()) == pytest.approx(1, abs=1e-3)
    # Keras' layer assigns the kernel; ours leaves it to the optimizer.
    np.testing.assert_array_equal(numpy(layer.kernel), before)


@parametrized
def test_the_outputs_are_those_of_the_normalized_kernel(kind):
    layer, inputs = make(kind, power_iterations=5)
    for _ in range(20):
        layer(inputs, training=True)
    plain = LAYERS[kind][0]()
    plain.build(inputs.shape)
    kernel = numpy(layer.kernel)
    weights = [kernel / norm(kernel), *layer.layer.get_weights()[1:]]
    plain.set_weights(weights)
    np.testing.assert_allclose(numpy(layer(inputs)), numpy(plain(inputs)), atol=1e-3)


@parametrized
def test_inference_changes_no_state(kind):
    layer, inputs = make(kind)
    layer(inputs)
    before = layer.get_weights()
    first = numpy(layer(inputs, training=False))
    np.testing.assert_array_equal(numpy(layer(inputs)), first)
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    layer(inputs, training=True)
    changed = [
        not np.array_equal(old, new)
        for old, new in zip(before, layer.get_weights(), strict=True)
    ]
    # The number of updates comes last; vectors of a factored kernel were exact before.
    assert changed[-1] and not any(changed[: len(layer.trainable_weights)])


def test_a_kernel_of_zeros_stays_one():
    layer = SpectralNormalization(kl.Dense(3, kernel_initializer="zeros"))
    for training in (True, False):
        np.testing.assert_array_equal(numpy(layer(images(4), training=training)), 0)


@parametrized
def test_from_the_config(kind):
    layer, inputs = make(kind, power_iterations=5, name="named")
    again = SpectralNormalization.from_config(layer.get_config())
    assert again.power_iterations == 5 and again.name == "named"
    assert type(again.layer) is type(layer.layer)
    assert again.layer.get_config() == layer.layer.get_config()
    assert again(inputs).shape == layer(inputs).shape


@parametrized
def test_end_to_end(kind, tmp_path):
    """Trained, saved with its optimizer, loaded, and trained on."""
    layer, inputs = make(kind)
    model = keras.Sequential(
        [layer, kl.GlobalAveragePooling1D()][: 1 + (kind == "embedding")]
    )
    targets = np.ones(model(inputs).shape)
    model.compile("adam", "mse")
    model.fit(inputs, targets, verbose=0, epochs=2)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(numpy(again(inputs)), numpy(model(inputs)), atol=1e-6)
    for ours in (model, again):
        ours.fit(inputs, targets, verbose=0)
    np.testing.assert_allclose(numpy(again(inputs)), numpy(model(inputs)), atol=1e-5)


def test_weights_file(tmp_path):
    layer, inputs = make("dense")
    model = keras.Sequential([layer])
    model(inputs, training=True)
    model.save_weights(tmp_path / "model.weights.h5")
    again = keras.Sequential([make("dense")[0]])
    again.build(inputs.shape)
    again.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_allclose(numpy(again(inputs)), numpy(model(inputs)), atol=1e-6)


def test_attention():
    """It takes several inputs, so Keras' layer test does not fit it."""
    check_config(lambda: SpectralNormalization(attention()))
    layer = SpectralNormalization(attention())
    revived(layer)
    assert layer.get_build_config() is None
    query, value = images(5, 6), images(3, 7)
    outputs = layer(query, value)
    # u, v, updates and the following left vectors of each kernel.
    assert count(layer) == (8, 12, 0, 0)
    again = revived(layer)
    again.set_weights(layer.get_weights())
    np.testing.assert_allclose(numpy(again(query, value)), numpy(outputs), atol=1e-6)
    inputs = [keras.Input((5, 6)), keras.Input((3, 7))]
    model = keras.Model(inputs, SpectralNormalization(attention())(*inputs))
    again = keras.models.model_from_json(model.to_json())
    assert again.to_json() == model.to_json()
    assert count(again) == count(model)
