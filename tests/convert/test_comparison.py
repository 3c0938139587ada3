"""`compare` and `keras-spectral verify`, of any two files that `analyze` reads."""

import itertools
import json

import keras
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from keras_spectral import cli, convert
from keras_spectral.convert import CheckpointError
from tests.convert.test_shards import write

kl = keras.layers


def verify(*arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(["verify", *map(str, arguments)])
    return stop.value.code


def statuses(first, second, **arguments):
    return {row.name: row.status for row in convert.compare(first, second, **arguments)}


@pytest.fixture
def files(tmp_path):
    """One network in every container; of Keras' files names are the paths in them."""
    model = keras.Sequential(
        [
            keras.Input((3,)),
            kl.Dense(4, name="a"),
            kl.Dropout(0.5, seed=1),
            kl.Dense(2, name="b"),
        ]
    )
    model.compile("adam", "mse")
    model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    state = {k: torch.tensor(v) for k, v in convert.to_torch(model).items()}
    model.save(tmp_path / "w.keras")
    model.save_weights(tmp_path / "w.weights.h5")
    torch.save(state, tmp_path / "w.pth")
    save_file(state, tmp_path / "w.safetensors")
    np.savez(tmp_path / "w.npz", **{k: v.numpy() for k, v in state.items()})
    write(
        tmp_path / "shards", places={k: n % 2 for n, k in enumerate(state)}, state=state
    )
    write(tmp_path / "bins", "bin", {k: n // 2 for n, k in enumerate(state)}, state)
    return {path.name: path for path in tmp_path.iterdir()}


def test_every_pair_that_analyze_reads(files):
    for first, second in itertools.product(files, repeat=2):
        pair = {first, second}
        # Keras' weights alone do not tell the classes of layers.
        if "w.weights.h5" not in pair or pair <= {"w.weights.h5", "w.keras"}:
            found = statuses(files[first], files[second])
            assert len(found) == 4 and set(found.values()) == {"equal"}, (first, second)
        else:
            with pytest.raises(CheckpointError, match="Save the model as .keras"):
                convert.compare(files[first], files[second])


def test_pairs_on_the_command_line(files, capfd):
    for first, second in [
        ("w.npz", "shards"),
        ("w.keras", "w.weights.h5"),
        ("bins", "w.keras"),
    ]:
        assert verify(files[first], files[second]) == 0
        assert "4 of 4 tensors are equal." in capfd.readouterr().out
    assert verify(files["w.weights.h5"], files["w.pth"]) == 2
    assert capfd.readouterr().err.count("\n") == 1


def test_keras_files_that_differ(files, tmp_path):
    model = keras.models.load_model(files["w.keras"])
    model.get_layer("b").bias.assign([5.0, 6.0])
    model.save_weights(tmp_path / "changed.weights.h5")
    found = statuses(files["w.keras"], tmp_path / "changed.weights.h5")
    assert [k for k, v in found.items() if v != "equal"] == ["layers/dense_1/vars/1"]


def test_models_with_layers_that_pytorch_has_no_form_of(tmp_path):
    layers = [kl.LSTM(4), kl.RMSNormalization(), kl.Dense(2)]
    model = keras.Sequential([keras.Input((5, 3)), *layers])
    model.save(tmp_path / "a.keras")
    model.layers[1].set_weights([np.full(4, 3.0)])
    model.save(tmp_path / "b.keras")
    assert set(statuses(tmp_path / "a.keras", tmp_path / "a.keras").values()) == {
        "equal"
    }
    found = statuses(tmp_path / "a.keras", tmp_path / "b.keras")
    assert [k for k, v in found.items() if v != "equal"] == [
        "layers/rms_normalization/vars/0"
    ]


def test_integers_are_compared_exactly(tmp_path, capfd):
    state = {"w": torch.ones(2), "position_ids": torch.arange(5)}
    state |= {"mask": torch.tensor([True, False]), "z": torch.ones(2) * 1j}
    torch.save(state, tmp_path / "a.pth")
    assert verify(tmp_path / "a.pth", tmp_path / "a.pth") == 0
    state |= {"position_ids": torch.arange(5) + 1, "w": state["w"] + 1e-3}
    state |= {"mask": torch.tensor([True, True]), "z": state["z"] + 1e-9}
    torch.save(state, tmp_path / "b.pth")
    capfd.readouterr()
    more = ["--tolerance", "10", "--json"]
    assert verify(tmp_path / "a.pth", tmp_path / "b.pth", *more) == 1
    rows = json.loads(capfd.readouterr().out)["tensors"]
    assert {row["name"]: row["status"] for row in rows} == {
        "mask": "different",
        "position_ids": "different",
        "w": "equal",
        "z": "different",
    }
    error = {row["name"]: row["relative_error"] for row in rows}
    assert error["position_ids"] == 0.25 and error["mask"] == 1


def test_weight_normalization_is_compared_folded(tmp_path):
    layer = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(3, 2))
    torch.save(layer.state_dict(), tmp_path / "a.pth")
    plain = {"weight": layer.weight.detach(), "bias": layer.bias.detach()}
    torch.save(plain, tmp_path / "b.pth")
    found = convert.compare(tmp_path / "a.pth", tmp_path / "b.pth", 1e-6)
    assert {row.name: row.status for row in found} == dict.fromkeys(plain, "equal")


@pytest.mark.parametrize(
    "tolerance", [-1, -1e-9, float("nan"), float("inf"), "1", True]
)
def test_a_tolerance_that_is_none(tolerance, tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="`tolerance` must be a finite number >= 0"):
        convert.compare(tmp_path / "a.pth", tmp_path / "a.pth", tolerance)
