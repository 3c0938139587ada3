"""What must hold on TensorFlow, JAX and torch alike."""

import keras
import numpy as np

from keras_spectral import convert
from tests.convert.reference import random_network, torch_logits


def test_parity_and_round_trip(rng):
    network = random_network("resnet20_cifar10")
    model = convert.from_torch(network.state_dict(), "resnet20_cifar10")
    x = rng.standard_normal((2, 32, 32, 3)).astype("float32")
    expected = torch_logits(network, x)
    logits = keras.ops.convert_to_numpy(model(x))
    assert np.abs(logits - expected).max() / np.abs(expected).max() <= 1e-4
    for key, value in convert.to_torch(model).items():
        np.testing.assert_array_equal(value, network.state_dict()[key].numpy())
