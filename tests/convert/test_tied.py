"""Tied weights, integer buffers and types that are not known: real files."""

import json
import warnings

import keras
import numpy as np
import pytest
import torch
from safetensors.torch import save_file, save_model

from keras_spectral import convert
from keras_spectral.cli import checkpoints
from keras_spectral.convert import CheckpointError, weight_normalization
from keras_spectral.experiments import analyze_checkpoint


def tied():
    embed, head = torch.nn.Embedding(7, 5), torch.nn.Linear(5, 7, bias=False)
    head.weight = embed.weight
    return torch.nn.ModuleDict(
        {"embed": embed, "norm": torch.nn.LayerNorm(5)} | {"head": head}
    )


def write(kind, module, path):
    if kind == "safetensors":
        save_model(module, str(path))
    else:
        zipped = kind == "zip"
        torch.save(module.state_dict(), path, _use_new_zipfile_serialization=zipped)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_tied_weights_are_followed(kind, tmp_path):
    module, path = tied(), tmp_path / "w"
    write(kind, module, path)
    state = convert.read_checkpoint(path)
    expected = module.state_dict()
    assert state.keys() == expected.keys()
    assert state.aliases == {"head.weight": "embed.weight"}
    np.testing.assert_array_equal(state["head.weight"], expected["head.weight"].numpy())
    here = convert.StateDict(expected)
    assert here.aliases == state.aliases
    assert here.fingerprint() == state.fingerprint()
    found = analyze_checkpoint(path)
    assert [row.name for row in found] == ["embed.weight"]
    assert found.skipped["head.weight"] == "the same tensor as embed.weight"


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("form", ["utils", "parametrizations"])
def test_weight_normalization_keeps_the_ties(form, kind, tmp_path):
    module, path = tied(), tmp_path / "w"
    normalize = {
        "utils": torch.nn.utils.weight_norm,
        "parametrizations": torch.nn.utils.parametrizations.weight_norm,
    }[form]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        module["first"] = normalize(torch.nn.Linear(5, 6))
    module["second"] = module["first"]
    write(kind, module, path)
    state, paths = weight_normalization.folded(convert.read_checkpoint(path))
    assert sorted(paths) == ["first", "second"]
    assert state.aliases == {
        "head.weight": "embed.weight",
        "second.weight": "first.weight",
        "second.bias": "first.bias",
    }
    found = analyze_checkpoint(path)
    assert sorted(row.name for row in found) == ["embed.weight", "first.weight"]
    report = checkpoints.inspect(path, as_json=True).content
    assert report["trained"] == 7 * 5 + 5 + 5 + 6 * 5 + 6


def test_weight_normalization_beside_a_tensor_of_an_unknown_type(tmp_path):
    path = unknown_type(tmp_path / "w.safetensors", g="f.weight_g", v="f.weight_v")
    state, paths = weight_normalization.folded(convert.read_checkpoint(path))
    assert paths == ["f"] and state.nbytes["q"] == 3
    with pytest.raises(CheckpointError, match="holds `q` in F4"):
        state["q"]


def test_views_of_one_storage_are_not_tied(tmp_path):
    w = torch.arange(12.0).reshape(3, 4)
    state = {"w": w, "t": w.T, "flat": w.reshape(12), "head": w[:2], "tail": w[1:]}
    state |= {"empty": w[:0], "nothing": w[:0], "copy": w.clone()}
    torch.save(state, tmp_path / "w.pth")
    assert convert.read_checkpoint(tmp_path / "w.pth").aliases == {}
    assert convert.StateDict(state).aliases == {}
    arrays = {key: value.numpy() for key, value in state.items()}
    assert convert.StateDict(arrays).aliases == {}
    assert convert.StateDict({**arrays, "again": arrays["w"]}).aliases == {"again": "w"}


def test_metadata_that_ties_nothing(tmp_path):
    metadata = {"format": "pt", "a": "missing", "pt": "w", "author": "someone"}
    save_file({"pt": torch.ones(1), "w": torch.ones(2)}, tmp_path / "w", metadata)
    state = convert.read_checkpoint(tmp_path / "w")
    assert state.keys() == {"pt", "w"} and state.aliases == {} and state.notes == []


def unknown_type(path, dtype="F4", v="a", g="z", **changes):
    """Write a file with a tensor of a type that the reader does not know."""
    header = {
        v: {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "q": {"dtype": dtype, "shape": [2, 3], "data_offsets": [24, 27]},
        g: {
            "dtype": "F32",
            "shape": [1] if g == "z" else [1, 1],
            "data_offsets": [27, 31],
        },
    }
    header["q"] |= changes
    text = json.dumps(header).encode()
    values = np.arange(6, dtype="<f4").tobytes() + b"\1\2\3" + np.float32(5).tobytes()
    path.write_bytes(len(text).to_bytes(8, "little") + text + values)
    return path


def test_a_tensor_of_an_unknown_type_is_skipped_by_name(tmp_path):
    path = unknown_type(tmp_path / "w.safetensors")
    state = convert.read_checkpoint(path)
    np.testing.assert_array_equal(state["a"], np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(state["z"], [5])
    assert state.notes == ["skipped, of types unknown here: `q` (F4)"]
    assert state.shapes["q"] == (2, 3) and state.nbytes["q"] == 3
    with pytest.raises(CheckpointError, match="holds `q` in F4"):
        state["q"]
    other = convert.read_checkpoint(unknown_type(tmp_path / "v.safetensors", "F6"))
    assert other.fingerprint() != state.fingerprint()
    assert analyze_checkpoint(path).skipped["q"] == "F4, no weights"
    assert {row.status for row in convert.compare(path, path)} == {"equal"}


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "\x1b[31m"},
        {"dtype": "F" * 50},
        {"dtype": None, "shape": -1},
        {"data_offsets": [24, 23]},
        {"data_offsets": [24, 2**60]},
        {"shape": [-2]},
    ],
)
def test_odd_unknown_types(changes, tmp_path):
    with pytest.raises(CheckpointError, match="damaged|cut off") as error:
        convert.read_checkpoint(unknown_type(tmp_path / "w", **changes))
    assert str(error.value).isprintable()


def test_compiled_modules_inside_are_recognized(tmp_path):
    net = torch.nn.Sequential()
    net.layer1 = torch.compile(torch.nn.Sequential(torch.nn.Linear(3, 2)))
    net.head = torch.nn.Linear(2, 2)
    state = net.state_dict()
    assert "layer1._orig_mod.0.weight" in state
    plain = {key.replace("_orig_mod.", ""): value for key, value in state.items()}
    for prefix in ("", "module."):
        torch.save({prefix + k: v for k, v in state.items()}, tmp_path / "w.pth")
        read = convert.read_checkpoint(tmp_path / "w.pth")
        assert read.keys() == plain.keys()
        assert "`_orig_mod.` was taken out of 2 keys" in read.notes
    # Two keys of one name: nothing is taken out.
    both = {"a._orig_mod.w": torch.ones(1), "a.w": torch.zeros(1)}
    assert convert.StateDict(both).keys() == both.keys()


@pytest.mark.parametrize("kind", ["zip", "safetensors"])
def test_one_layer_is_two_tied_modules(kind, tmp_path, rng):
    embed, head = torch.nn.Embedding(7, 5), torch.nn.Linear(5, 7, bias=False)
    head.weight = embed.weight
    module = torch.nn.ModuleDict({"embed": embed, "head": head})
    write(kind, module, tmp_path / "w")
    inputs = keras.Input((3,), dtype="int32")
    layer = keras.layers.ReversibleEmbedding(7, 5, name="embed")
    model = keras.Model(inputs, layer(layer(inputs), reverse=True))
    convert.from_torch(tmp_path / "w", model)
    notes = convert.provenance(model)["notes"]
    (note,) = [note for note in notes if "in which the model has it" in note]
    assert note.startswith("head.weight is the same tensor as embed.weight")
    x = rng.integers(0, 7, (4, 3))
    with torch.no_grad():
        expected = head(embed(torch.tensor(x))).numpy()
    np.testing.assert_allclose(model(x), expected, atol=1e-6)
    module.load_state_dict(
        {k: torch.tensor(v) for k, v in convert.to_torch(model).items()}
    )
    # Equal numbers alone tie nothing.
    state = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(convert.MismatchError, match=r"Unused: head\.weight"):
        convert.from_torch(state, model)
