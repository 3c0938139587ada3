"""What must hold on TensorFlow, JAX and torch alike."""

import keras
import numpy as np
import pytest
import torch

from keras_spectral import convert
from keras_spectral.layers import SpectralNormalization
from tests.convert.layer_pairs import NAMES_1D, PAIRS, outputs, pair
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


@pytest.mark.parametrize("name", PAIRS)
def test_layers_of_every_kind(name, rng):
    model, module, state = pair(name)
    x = rng.standard_normal((2, *model.input_shape[1:])).astype("float32")
    expected = outputs(module, x, name in NAMES_1D)
    convert.from_torch(state, model, example=(x, expected))
    card = convert.provenance(model)
    assert card["verification"]["status"] == card["example"]["status"] == "passed"


def test_a_flattened_image(rng):
    layers = [keras.Input((4, 3, 2)), keras.layers.Conv2D(3, 2, name="conv")]
    layers += [keras.layers.Flatten(), keras.layers.Dense(5, name="fc")]
    model = keras.Sequential(layers)
    network = torch.nn.Sequential()
    network.conv, network.flatten = torch.nn.Conv2d(2, 3, 2), torch.nn.Flatten()
    network.fc = torch.nn.Linear(18, 5)
    x = rng.standard_normal((4, 4, 3, 2)).astype("float32")
    with torch.no_grad():
        expected = network(torch.tensor(x).permute(0, 3, 1, 2))
    state = network.state_dict()
    convert.from_torch(state, model, example=(x, expected))
    assert convert.provenance(model)["flattened"] == ["fc"]
    for key, value in convert.to_torch(model).items():
        np.testing.assert_array_equal(value, state[key].numpy())
    with pytest.raises(convert.MismatchError, match="off by"):
        convert.from_torch(state, model, example=(x, 2 * expected))


def test_a_wrapped_layer_is_compared_by_what_it_computes(rng):
    module = torch.nn.utils.spectral_norm(torch.nn.Conv2d(2, 3, 2))
    x = rng.standard_normal((4, 4, 3, 2)).astype("float32")
    images = torch.tensor(x).permute(0, 3, 1, 2)
    module(images)
    state = {f"conv.{key}": value for key, value in module.state_dict().items()}
    with torch.no_grad():
        expected = module.eval()(images)
    layer = SpectralNormalization(keras.layers.Conv2D(3, 2, name="conv"))
    model = keras.Sequential([keras.Input((4, 3, 2)), layer])
    convert.from_torch(state, model, example=(x, expected))
    assert convert.provenance(model)["verification"]["status"] == "passed"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(convert.MismatchError):
        patch.setattr(SpectralNormalization, "load_vectors", lambda *_: None)
        convert.from_torch(state, model)
