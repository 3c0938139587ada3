"""The bound on every backend: never below what was computed in NumPy."""

import keras
import numpy as np
import pytest
from keras import layers as kl
from keras import ops

from keras_spectral.measures import lipschitz_bound


def network():
    x = keras.Input((8, 8, 3))
    y = kl.Conv2D(4, 3, padding="same", activation="relu")(x)
    y = kl.BatchNormalization()(kl.Conv2D(4, 3, padding="same")(y))
    y = kl.ReLU()(kl.Add()([y, kl.DepthwiseConv2D(3, padding="same")(y)]))
    y = kl.AveragePooling2D(3, 1, padding="same")(kl.MaxPooling2D(3, 2)(y))
    model = keras.Model(x, kl.Dense(5)(kl.Flatten()(y)))
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.standard_normal(weight.shape) / 3)
    return model


@pytest.mark.parametrize("method", ["product", "merged"])
def test_no_pair_exceeds_it(method):
    model = network()
    bound = lipschitz_bound(model, method=method).bound
    # The same on every backend: the certificates are of the kernels alone.
    expected = {"product": 97.41996, "merged": 12.35068}[method]
    assert bound == pytest.approx(expected, rel=1e-4)
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((2, 200, 8, 8, 3)).astype("float32")
    moved = ops.convert_to_numpy(model(x)) - ops.convert_to_numpy(model(y))
    distance = np.linalg.norm((x - y).reshape(200, -1), axis=1)
    assert (np.linalg.norm(moved, axis=1) / distance).max() <= bound


@pytest.mark.parametrize(
    "layer",
    [
        kl.Conv2D(4, 3, strides=2, padding="same"),
        kl.AveragePooling2D(3, padding="same"),
    ],
    ids=["convolution", "pooling"],
)
def test_a_linear_layer_has_its_norm(layer):
    model = keras.Sequential([keras.Input((8, 8, 2)), layer])
    eye = np.eye(128, dtype="float32").reshape(128, 8, 8, 2)
    matrix = ops.convert_to_numpy(model(eye)).reshape(128, -1)
    norm = np.linalg.norm(matrix.astype("float64"), 2)
    bound = lipschitz_bound(model, method="merged").bound
    assert norm * (1 - 1e-5) <= bound <= norm * (1 + 1e-4)


def test_no_pair_of_a_ball_exceeds_its_bound():
    model = network()
    rng = np.random.default_rng(1)
    center = rng.standard_normal((1, 8, 8, 3))
    found = lipschitz_bound(model, center, method="local", input_radius=0.05)
    assert found.bounds.shape == (1,)
    assert found.bound <= lipschitz_bound(model, method="merged").bound * 1.01
    moves = rng.standard_normal((2, 200, 8, 8, 3))
    moves *= 0.05 / np.linalg.norm(moves.reshape(2, 200, -1), axis=2)[..., *[None] * 3]
    x, y = (center + moves).astype("float32")
    moved = ops.convert_to_numpy(model(x)) - ops.convert_to_numpy(model(y))
    distance = np.linalg.norm((x - y).reshape(200, -1), axis=1)
    ratio = (np.linalg.norm(moved, axis=1) / distance).max()
    assert 0.03 * found.bound < ratio <= found.bound * (1 + 1e-4)
