"""A small trained-looking network, and a path."""

import keras
import pytest


@pytest.fixture
def small_network(rng):
    model = keras.Sequential(
        [
            keras.Input((60,)),
            keras.layers.Dense(50, activation="relu", name="hidden"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dropout(0.1, name="drop"),
            keras.layers.Dense(10, name="head"),
        ],
        name="net",
    )
    model.set_weights([rng.laplace(size=w.shape) ** 2 for w in model.weights])
    return model


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"
