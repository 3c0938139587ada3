"""Prefixes that are taken off, parts that are taken, and keys that are left out."""

import keras
import numpy as np
import pytest
import torch

from keras_spectral import convert
from keras_spectral.convert import CheckpointError, MismatchError
from tests.convert.reference import random_network, relative_error, torch_logits

FC = {
    "fc.weight": torch.arange(6.0).reshape(2, 3),
    "fc.bias": torch.tensor([1.0, -1.0]),
}


def under(prefix, state):
    return {prefix + key: value for key, value in state.items()}


def network(name="fc"):
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name=name)])


def holds(model, layer=0):
    kernel, bias = model.layers[layer].get_weights()
    same = np.array_equal(kernel, FC["fc.weight"].T)
    return same and np.array_equal(bias, FC["fc.bias"])


def notes(model):
    return convert.provenance(model)["notes"]


@pytest.mark.parametrize(
    "prefix",
    ["model.", "net.", "backbone.", "model.net.", "module.model.", "net.module."],
)
@pytest.mark.parametrize("spectral", [False, True])
def test_what_held_the_network_is_taken_off(prefix, spectral, tmp_path):
    state = FC
    if spectral:
        layer = torch.nn.Linear(3, 2)
        layer.load_state_dict({k.removeprefix("fc."): v for k, v in FC.items()})
        holder = torch.nn.ModuleDict({"fc": torch.nn.utils.spectral_norm(layer)})
        state = holder.state_dict()
    torch.save(under(prefix, state), tmp_path / "w.pth")
    model = convert.from_torch(tmp_path / "w.pth", network())
    assert holds(model) != spectral
    assert any("so that they fit the model" in note for note in notes(model))


def test_a_registered_network_in_a_trainer(rng):
    reference = random_network("resnet20_cifar10")
    state = under("net.", reference.state_dict())
    model = convert.from_torch(state, "resnet20_cifar10")
    x = rng.standard_normal((2, 32, 32, 3)).astype("float32")
    assert relative_error(model.predict(x), torch_logits(reference, x)) < 1e-4
    assert convert.provenance(model)["verification"]["scope"] == "network"


@pytest.mark.parametrize(
    "name", ["model-fc", "net-model-fc", "module-fc", "backbone-fc"]
)
def test_a_network_whose_own_names_begin_so(name):
    state = under(name.removesuffix("fc").replace("-", "."), FC)
    assert holds(convert.from_torch(state, network(name)))
    assert holds(convert.from_torch(under("module.", state), network(name)))
    model = network(name)
    convert.from_torch(convert.to_torch(model), model)


def test_one_of_two_names_is_the_networks_own():
    model = convert.from_torch(under("model.net.", FC), network("net-fc"))
    assert holds(model)
    assert "the prefix `model.` was taken off every key, so" in notes(model)[0]


def test_nothing_is_taken_off_of_some_keys_only():
    with pytest.raises(MismatchError, match=r"Unused: head\.w, model\.fc\.\{bias,wei"):
        convert.from_torch({**under("model.", FC), "head.w": torch.ones(1)}, network())


@pytest.mark.parametrize("prefix", ["encoder.", "encoder", "module.encoder."])
@pytest.mark.parametrize("wrapped", ["", "module."])
def test_a_part_is_taken_by_its_prefix(prefix, wrapped, tmp_path):
    state = under("encoder.", FC) | under("encoder2.", FC) | {"head.w": torch.ones(1)}
    torch.save(under(wrapped, state), tmp_path / "w.pth")
    if prefix.startswith("module.") and not wrapped:
        with pytest.raises(CheckpointError, match="encoder, encoder2, head"):
            convert.from_torch(tmp_path / "w.pth", network(), prefix=prefix)
        return
    model = convert.from_torch(tmp_path / "w.pth", network(), prefix=prefix)
    assert holds(model)
    left = "not under `encoder.`, left out: encoder2.fc.{weight,bias}, head.w"
    assert left in notes(model)
    assert convert.provenance(model)["fingerprint"] == (
        convert.StateDict(FC).fingerprint()
    )


@pytest.mark.parametrize(
    "prefix, pattern",
    [
        ("model.", "model.head.*"),
        ("model.", "head.*"),
        ("", "head.*"),
        ("module.", "module.head.*"),
        ("module.model.", "head.?eight"),
    ],
)
def test_keys_are_left_out_on_purpose(prefix, pattern):
    state = under(prefix, {**FC, "head.weight": torch.ones(2)})
    with pytest.raises(MismatchError, match=r"`prefix` .*`ignore` .*Unused: head\.w"):
        convert.from_torch(state, network())
    model = convert.from_torch(state, network(), ignore=[pattern])
    assert holds(model)
    assert any(n.startswith("ignored: ") and "head.weight" in n for n in notes(model))


def test_an_integer_buffer_and_an_unknown_type_are_left_out(tmp_path):
    from tests.convert.test_tied import unknown_type

    state = {**FC, "position_ids": torch.arange(5)}
    assert holds(convert.from_torch(state, network(), ignore=["position_ids"]))
    path = unknown_type(tmp_path / "w.safetensors")
    norm = keras.layers.LayerNormalization(name="n", center=False)
    model = keras.Sequential([keras.Input((2, 3)), norm])
    with pytest.raises(MismatchError, match="Unused: a, q, z"):
        convert.from_torch(path, model)


def test_what_is_ignored_in_the_model_stays_as_it_is():
    layers = [keras.Input((3,)), keras.layers.Dense(2, name="fc")]
    model = keras.Sequential([*layers, keras.layers.Dense(5, name="head")])
    before = model.layers[1].get_weights()
    other = under("head.", {"weight": torch.ones(1000, 2), "bias": torch.ones(1000)})
    for state in ({**FC, **other}, FC):
        convert.from_torch(state, model, ignore=["head.*"])
        assert holds(model)
        for old, new in zip(before, model.layers[1].get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
        assert "the model keeps its own head.{bias,weight}" in notes(model)
    found = convert.provenance(model)["verification"]
    assert found["status"] == "partial" and found["unchecked"] == ["head"]
    assert (found["layers"], found["layers_in_all"]) == (1, 2)
    assert "own head.weight, head.bias" in found["why_unchecked"]["head"]


def test_one_own_weight_leaves_a_layer_unchecked():
    model = network()
    convert.from_torch(FC, model, ignore=["fc.bias"])
    found = convert.provenance(model)["verification"]
    assert found["status"] == "none" and found["unchecked"] == ["fc"]


def test_the_head_of_a_registered_network_stays():
    state = random_network("resnet20_cifar100").state_dict()
    # In bearpaw's names, by which the pattern goes too.
    source = convert.from_torch(state, "resnet20_cifar100")
    state = convert.to_torch(source, dialect="bearpaw")
    model = convert.from_torch(state, "resnet20_cifar10", ignore=["fc.*"])
    card = convert.provenance(model)
    assert card["verification"]["scope"] == "network"
    assert "ignored: fc.{weight,bias}" in card["notes"]
    assert "the model keeps its own output.{bias,weight}" in card["notes"]
    assert card["verification"]["status"] == "partial"
    assert card["verification"]["unchecked"] == ["output"]
    assert card["verification"]["layers"] == 21 + 21


@pytest.mark.parametrize(
    "arguments, match",
    [
        ({"ignore": "head.*"}, "`ignore` must be a list.*Received: ignore='head"),
        ({"ignore": [3]}, "`ignore` must be a list"),
        ({"ignore": ["fc.*", "haed.*"]}, "'haed.*', which match none"),
        ({"ignore": ["*"]}, "nothing left for.*`ignore` leaves all"),
        ({"prefix": 3}, "`prefix` must be a string"),
        ({"prefix": "decoder."}, "no keys under `prefix`.*'decoder.'.*with: fc"),
    ],
)
def test_wrong_arguments(arguments, match):
    model = network()
    before = model.get_weights()
    with pytest.raises(ValueError, match=match):
        convert.from_torch(FC, model, **arguments)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
