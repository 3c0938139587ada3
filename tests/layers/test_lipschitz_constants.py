import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl

from keras_spectral.layers.lipschitz_constants import ACTIVATIONS, lipschitz_constant

POINTS = np.linspace(-30, 30, 600_001)


def steepest(function):
    """The largest slope of a chord of length 1e-4."""
    values = np.asarray(function(tf.constant(POINTS)))
    return np.abs(np.diff(values) / np.diff(POINTS)).max()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_have_their_constant(name):
    slope = steepest(keras.activations.get(name))
    assert slope * (1 - 1e-9) <= ACTIVATIONS[name] <= slope * 1.02
    assert lipschitz_constant(kl.Activation(name)) == ACTIVATIONS[name]


@pytest.mark.parametrize(
    "layer",
    [
        kl.ReLU(max_value=3.0, negative_slope=1.7, dtype="float64"),
        kl.LeakyReLU(2.0, dtype="float64"),
        kl.LeakyReLU(0.3, dtype="float64"),
        kl.ELU(1.5, dtype="float64"),
    ],
)
def test_activation_layers_have_their_constant(layer):
    slope = steepest(layer)
    # A chord of an exponential is below its steepest tangent.
    assert slope - 1e-9 <= lipschitz_constant(layer) <= slope * (1 + 1e-4)
