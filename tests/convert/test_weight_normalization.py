"""PyTorch's weight normalization, in both its forms, is folded into plain weights."""

from contextlib import nullcontext

import keras
import numpy as np
import pytest
import torch

from keras_spectral import convert
from keras_spectral.cli import checkpoints
from keras_spectral.convert import CheckpointError
from keras_spectral.layers import SpectralNormalization
from tests.convert.peers import Holder
from tests.convert.test_spectral_state import (
    KINDS,
    forward,
    images,
    keras_model,
    torch_module,
)

FORMS = {
    "utils": torch.nn.utils.weight_norm,
    "parametrizations": torch.nn.utils.parametrizations.weight_norm,
}
ENDS = ("weight_g", "weight.original0"), ("weight_v", "weight.original1")


def network(kind, form, dim=0, dtype=torch.float32):
    """Return a weight-normalized module whose lengths are not those of v."""
    module = torch_module(kind).to(dtype)
    with pytest.warns(FutureWarning) if form == "utils" else nullcontext():
        module = FORMS[form](module, dim=dim)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, value in module.named_parameters():
            if name.endswith(ENDS[0]):
                value.copy_(torch.randn_like(value))
    return Holder(module).eval()


def part(state, which):
    """Return the key of g (0) or v (1)."""
    return next(key for key in state if key.endswith(ENDS[which]))


@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_are_pytorchs(kind, form, dim, float64, rng):
    theirs = network(kind, form, dim, torch.float64)
    x = images(kind, rng, "float64")
    with torch.no_grad():
        expected = forward(theirs, x).numpy()
        weight = theirs.layer.weight.numpy()
    model = convert.from_torch(
        theirs.state_dict(), keras_model(kind, lambda layer: layer)
    )
    np.testing.assert_allclose(model(x), expected, rtol=0, atol=1e-13)
    card = convert.provenance(model)
    (note,) = [n for n in card["notes"] if "weight normalization" in n]
    assert "of layer was folded" in note and "`to_torch`" in note
    assert card["verification"]["status"] == "passed"
    assert card["fingerprint"] == convert.StateDict(theirs.state_dict()).fingerprint()
    exported = convert.to_torch(model)
    np.testing.assert_allclose(exported["layer.weight"], weight, rtol=0, atol=1e-15)
    # A plain module takes it.
    Holder(torch_module(kind).double()).load_state_dict(
        {key: torch.tensor(value) for key, value in exported.items()}
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_files_in_float32(form, suffix, rng, tmp_path):
    theirs = network("convolution", form)
    path = tmp_path / f"w.{suffix}"
    if suffix == "pth":
        torch.save(theirs.state_dict(), path)
    else:
        from safetensors.torch import save_file

        save_file(theirs.state_dict(), path)
    x = images("convolution", rng)
    with torch.no_grad():
        expected = forward(theirs, x).numpy()
    # In a wrapper it is the trained kernel.
    model = convert.from_torch(path, keras_model("convolution"))
    assert isinstance(model.layers[-1], SpectralNormalization)
    weight = convert.to_torch(model)["layer.weight"].reshape(8, -1)
    assert np.linalg.norm(weight, 2) == pytest.approx(1, rel=1e-6)
    model = convert.from_torch(path, keras_model("convolution", lambda layer: layer))
    np.testing.assert_allclose(model(x), expected, rtol=0, atol=2e-6)
    # It is compared with what it was imported as, and told by `inspect`.
    convert.save_model(model, tmp_path / "model.keras")
    rows = convert.compare(path, tmp_path / "model.keras", tolerance=1e-6)
    assert {row.status for row in rows} == {"equal"}


def test_inspect_tells_it(tmp_path):
    torch.save(network("linear", "utils").state_dict(), tmp_path / "w.pth")
    report = checkpoints.inspect(tmp_path / "w.pth", as_json=True).content
    assert report["notes"] == ["weight normalization of layer"]
    assert (report["numbers"], report["trained"]) == (5 * 7 + 5 + 5, 5 * 7 + 5)


@pytest.mark.parametrize("form", FORMS)
def test_parts_that_make_no_weight_are_refused(form):
    model = keras_model("linear", lambda layer: layer)
    before = model.get_weights()
    state = network("linear", form).state_dict()
    g, v = part(state, 0), part(state, 1)
    broken = {
        "without `": {k: value for k, value in state.items() if k != v},
        "no weight normalization": {**state, g: torch.ones(5, 7)},
        "length zero": {**state, v: torch.zeros(5, 7)},
        f"NaN.*`{g}`": {**state, g: torch.full((5, 1), torch.nan)},
    }
    for message, parts in broken.items():
        with pytest.raises(CheckpointError, match=f"The state dict.*{message}"):
            convert.from_torch(parts, model)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("form", FORMS)
def test_a_weight_of_another_name(form, rng):
    lstm = torch.nn.LSTM(3, 4, batch_first=True)
    with pytest.warns(FutureWarning) if form == "utils" else nullcontext():
        FORMS[form](lstm, name="weight_hh_l0")
    x = rng.standard_normal((2, 5, 3)).astype("float32")
    with torch.no_grad():
        expected = lstm(torch.tensor(x))[0].numpy()
    layer = keras.layers.LSTM(4, return_sequences=True, name="layer")
    model = keras.Sequential([keras.Input((5, 3)), layer])
    convert.from_torch(Holder(lstm).state_dict(), model)
    np.testing.assert_allclose(model(x), expected, atol=1e-6)
    notes = convert.provenance(model)["notes"]
    assert any("of layer.weight_hh_l0 was folded" in note for note in notes)
