"""Examples: an import against outputs that PyTorch gave."""

import numpy as np
import pytest
import torch
from keras import layers as kl
from torch import nn

from keras_spectral import convert
from keras_spectral.convert import MismatchError
from keras_spectral.layers import SpectralNormalization
from tests.convert import peers
from tests.convert.test_own_models import SHAPE, chain, forward, network, own


@pytest.fixture
def images(rng):
    return rng.standard_normal((16, *SHAPE)).astype("float32")


def test_an_example_that_agrees_is_on_the_card(images):
    theirs, model = network(), own()
    expected = forward(theirs, images)
    convert.from_torch(
        theirs.state_dict(), model, example=(images, torch.tensor(expected))
    )
    card = convert.provenance(model)
    found = card["example"]
    assert found["status"] == "passed" and found["inputs"] == 16
    assert found["equal_argmaxes"] == 1 and found["relative_error"] < 1e-5
    assert card["not_seen"] == ["preprocessing of the inputs"]


def with_default_epsilon():
    return own(epsilon=1e-3), "epsilon of the normalizations: 0.001 in bn"


def with_another_activation():
    return own(activation="tanh"), "activations"


@pytest.mark.parametrize("make", [with_default_epsilon, with_another_activation])
def test_what_an_example_refutes(make, images):
    """Each layer agrees with PyTorch's, and the network does not."""
    model, reason = make()
    theirs, before = network(), model.get_weights()
    expected = forward(theirs, images)
    convert.from_torch(theirs.state_dict(), model)
    card = convert.provenance(model)
    assert any(line.startswith(reason.split(":")[0]) for line in card["not_seen"])
    error = np.abs(model(images).numpy() - expected).max() / np.abs(expected).max()
    assert error > 1e-3
    model.set_weights(before)
    with pytest.raises(MismatchError, match="argmaxes are equal") as raised:
        convert.from_torch(theirs.state_dict(), model, example=(images, expected))
    assert reason in str(raised.value) and f"{error:.1e}" in str(raised.value)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_an_example_tells_how_pytorch_flattens(images):
    theirs, model = network(), own()
    expected = forward(theirs, images, channels_last=True)
    convert.from_torch(theirs.state_dict(), model, example=(images, expected))
    np.testing.assert_allclose(model(images), expected, atol=1e-5)
    card = convert.provenance(model)
    assert card["flattened"] == []
    assert any("flattened with channels last" in note for note in card["notes"])
    back = convert.to_torch(model)
    np.testing.assert_array_equal(back["fc1.weight"], theirs["fc1"].weight.detach())


def test_a_refused_example_leaves_wrappers_as_they_were(images):
    """Vectors that were imported before are followed on."""
    theirs = network()
    flavour = "utils.spectral_norm"
    theirs["fc1"] = peers.normalized(theirs["fc1"], flavour).layer
    theirs.eval()
    for imported in (False, True):
        model = own(dense=SpectralNormalization)
        if imported:
            convert.from_torch(theirs.state_dict(), model)
        before, outputs = model.get_weights(), model(images).numpy()
        other = network(seed=1)
        other["fc1"] = peers.normalized(other["fc1"], flavour).layer
        with pytest.raises(MismatchError):
            wrong = np.ones((16, 3))
            convert.from_torch(other.state_dict(), model, example=(images, wrong))
        for old, new in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
        np.testing.assert_array_equal(outputs, model(images))
        wrapper = model.get_layer("fc1")
        assert wrapper.method == ("power_iteration" if imported else "block")


def test_images_of_an_example_may_have_channels_first(rng):
    model = chain(kl.Conv2D(5, 2, name="conv"))
    theirs = nn.Conv2d(2, 5, 2)
    x = rng.standard_normal((2, 4, 3, 2)).astype("float32")
    with torch.no_grad():
        expected = theirs(torch.tensor(x).permute(0, 3, 1, 2))
    state = {f"conv.{k}": v for k, v in theirs.state_dict().items()}
    convert.from_torch(state, model, example=(x, expected))
    assert convert.provenance(model)["example"]["status"] == "passed"


def test_examples_of_another_shape_or_none():
    model = chain(kl.Dense(2, name="fc"), shape=(3,))
    state = {"fc.weight": np.ones((2, 3)), "fc.bias": np.ones(2)}
    x = np.ones((4, 3), "float32")
    with pytest.raises(MismatchError, match=r"shape \(4, 2\), the example's of \(4,"):
        convert.from_torch(state, model, example=(x, np.ones((4, 5))))
    with pytest.raises(MismatchError, match="the model has 1 outputs, the example 2"):
        convert.from_torch(state, model, example=(x, [np.ones(4), np.ones(4)]))
    with pytest.raises(MismatchError, match="off by nan"):
        convert.from_torch(state, model, example=(x, np.full((4, 2), np.nan)))
    for wrong in (x, (x,), "xy", (1, 2)):
        with pytest.raises(ValueError, match="`example` must"):
            convert.from_torch(state, model, example=wrong)


def test_an_empty_example_is_none():
    model = chain(kl.Conv2D(5, 2, name="conv"))
    state = {f"conv.{k}": v for k, v in nn.Conv2d(2, 5, 2).state_dict().items()}
    empty = np.zeros((0, 4, 3, 2), "float32"), np.zeros((0, 5, 3, 2), "float32")
    with pytest.raises(ValueError, match="`example` must hold a sample"):
        convert.from_torch(state, model, example=empty)


def test_images_of_an_example_that_are_cubes(rng):
    model = chain(kl.Conv2D(3, 1, name="conv"), shape=(3, 3, 2))
    theirs = nn.Conv2d(2, 3, 1)
    x = rng.standard_normal((2, 3, 3, 2)).astype("float32")
    with torch.no_grad():
        first = theirs(torch.tensor(x).permute(0, 3, 1, 2))
    state = {f"conv.{k}": v for k, v in theirs.state_dict().items()}
    for expected in (first, first.permute(0, 2, 3, 1)):
        convert.from_torch(state, model, example=(x, expected))
        assert convert.provenance(model)["example"]["status"] == "passed"
    with pytest.raises(MismatchError, match="off by"):
        convert.from_torch(state, model, example=(x, first.permute(0, 3, 1, 2)))
