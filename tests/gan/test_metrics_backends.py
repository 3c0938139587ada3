"""Features of any Keras model, on every backend."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_spectral.gan import metrics


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            layers.Conv2D(5, 3, name="convolution"),
            layers.BatchNormalization(name="normalization"),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(4, name="dense"),
        ]
    )


def by_hand(model, inputs):
    """The convolution of the model, and what its dense layer makes of it, in NumPy."""
    kernel, bias = map(
        keras.ops.convert_to_numpy, model.get_layer("convolution").weights
    )
    windows = np.lib.stride_tricks.sliding_window_view(inputs, (3, 3), axis=(1, 2))
    maps = np.einsum("nyxchw,hwcf->nyxf", windows, kernel) + bias
    dense = map(keras.ops.convert_to_numpy, model.get_layer("dense").weights)
    kernel, bias = dense
    flat = maps.reshape(len(maps), -1) / np.sqrt(1 + 1e-3)
    return maps.mean(axis=(1, 2)), flat @ kernel + bias


@pytest.mark.parametrize(
    ("scaling", "scaled"),
    [
        ("symmetric", lambda p: p / 127.5 - 1),
        ("centered", lambda p: (p - 128) / 128),
        ("unit", lambda p: p / 255),
        ("pixels", lambda p: p),
    ],
)
def test_features_of_a_model_are_what_it_computes(model, scaling, scaled, rng):
    images = rng.integers(0, 256, (7, 6, 6, 3), "uint8")
    inner, outer = by_hand(model, scaled(images.astype("float64")))
    arguments = dict(scaling=scaling, batch_size=3)
    features = metrics.Features(model, "small", **arguments)
    scale = np.abs(outer).max()
    np.testing.assert_allclose(features(images), outer, atol=1e-5 * scale)
    assert features.name == f"small, no resize, {scaling}"
    if scaling != "symmetric":
        return
    at = metrics.Features(model, "small", layer="convolution", **arguments)
    np.testing.assert_allclose(at(images), inner, atol=1e-5)
    assert at.name == "small, layer 'convolution', no resize, symmetric"
    # Floats are pixels first: what a screen does not show counts for nothing.
    nearby = (images / 127.5 - 1 + rng.uniform(-3e-3, 3e-3, images.shape)).clip(-1, 1)
    np.testing.assert_array_equal(at(nearby), at(images))
    # A stream of batches, and its moments.
    stream = [images[:5], (images[5:], np.zeros(2))]
    np.testing.assert_allclose(at(iter(stream)), at(images), atol=1e-6)
    found = at.statistics(iter(stream))
    np.testing.assert_allclose(found.covariance, np.cov(inner.T), atol=1e-5)
    assert (found.count, found.provenance["features"]) == (7, at.name)
    # The weights of now, not those of when it was made.
    dense = model.get_layer("dense")
    before = features(images)
    dense.bias.assign(dense.bias + 1)
    np.testing.assert_allclose(features(images), before + 1, atol=1e-4)
    dense.bias.assign(dense.bias - 1)


def test_images_are_brought_to_the_model(model, rng):
    grey = rng.integers(0, 256, (2, 4, 5, 1), "uint8")
    features = metrics.Features(model, "small", resize="tensorflow1")
    resized = metrics.resized(np.repeat(grey, 3, axis=3), (6, 6), "tensorflow1")
    _, expected = by_hand(model, resized / 127.5 - 1)
    np.testing.assert_allclose(features(grey), expected, atol=1e-4)
    assert features.name == "small, TF1 resize, symmetric"
    with pytest.raises(ValueError, match="`resize` brings them"):
        metrics.Features(model, "small")(grey)
    with pytest.raises(ValueError, match=r"must be \(6, 6, 3\)"):
        features(np.zeros((1, 4, 4, 2), "uint8"))


def test_what_is_no_model_of_features(model):
    with pytest.raises(ValueError, match="It has 'convolution', 'normalization'"):
        metrics.Features(model, "small", layer="conv")
    with pytest.raises(ValueError, match="one image input"):
        metrics.Features(keras.Sequential([layers.Dense(1)]), "unbuilt")
    with pytest.raises(ValueError, match="needs a model with a size"):
        sizeless = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(1, 1)])
        metrics.Features(sizeless, "small", resize="clean")
    with pytest.raises(ValueError, match="`model` must be `zoo.fid_inception"):
        metrics.inception(model)


def test_mixed_precision_gives_float32(rng):
    images = rng.integers(0, 256, (3, 4, 4, 3), "uint8")
    dense = layers.Dense(2, dtype="mixed_bfloat16")
    model = keras.Sequential([keras.Input((4, 4, 3)), layers.Flatten(), dense])
    found = metrics.Features(model, "half")(images)
    kernel, bias = map(keras.ops.convert_to_numpy, dense.weights)
    expected = (images / 127.5 - 1).reshape(3, -1) @ kernel + bias
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=0.05)
