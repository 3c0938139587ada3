"""Norms as PyTorch evaluates them: negative ones, and those found as they are asked."""

import numpy as np
import pytest
import torch

from keras_spectral import convert
from keras_spectral.layers import SpectralNormalization, StableRankNormalization
from tests.convert import peers
from tests.convert.test_spectral_state import (
    CASES,
    PYTORCHS,
    forward,
    images,
    keras_model,
    torch_module,
)


def doubled(kind, flavour, seed=0):
    """Return a network in float64, the vectors too."""
    return peers.normalized(torch_module(kind, seed).double(), flavour).double()


def untrained(kind, flavour):
    """Return a network whose u' W v is negative, as a random start often has it."""
    for seed in range(20):
        network = doubled(kind, flavour, seed)
        if flavour == "parametrizations.spectral_norm":
            # It iterates when it is made, so the weight is another's: minus its own.
            with torch.no_grad():
                network.layer.parametrizations.weight.original.neg_()
            return network
        layer = network.layer
        u, v = (
            getattr(getattr(layer, "module", layer), f"weight_{name}") for name in "uv"
        )
        name = "weight_bar" if flavour == "weight_bar" else "weight_orig"
        weight = getattr(getattr(layer, "module", layer), name).detach()
        axis = int(kind == "transposed")
        if u @ weight.transpose(0, axis).reshape(len(u), -1) @ v < 0:
            return network
    raise AssertionError("no seed gives a negative estimate")


# What stores v; in `weight_bar` nothing reads it.
STORES_V = [case for case in CASES if case[0] in (*PYTORCHS, "weight_bar")]


@pytest.mark.parametrize(("flavour", "kind"), STORES_V)
def test_a_negative_estimate_evaluates_as_in_pytorch(flavour, kind, float64, rng):
    state = untrained(kind, flavour).state_dict()
    state = {key: value.clone() for key, value in state.items()}
    network = untrained(kind, flavour).eval()
    network.load_state_dict(state)
    x = images(kind, rng, "float64")
    with torch.no_grad():
        expected = forward(network, x).numpy()
    for normalize in (SpectralNormalization, lambda layer: layer):
        model = convert.from_torch(state, keras_model(kind, normalize))
        error = np.abs(model(x) - expected).max() / np.abs(expected).max()
        assert error <= 1e-10
        notes = convert.provenance(model)["notes"]
        (note,) = [n for n in notes if "negative, or more than 10 % off" in n]
        assert "never trained, in layer (-" in note


@pytest.mark.parametrize("options", [{"method": "exact"}, {"norm": "operator"}])
def test_a_layer_that_takes_no_vectors_tells_the_sign(options):
    state = untrained("convolution", "utils.spectral_norm").state_dict()
    model = keras_model(
        "convolution", lambda layer: SpectralNormalization(layer, **options)
    )
    convert.from_torch(state, model)
    notes = convert.provenance(model)["notes"]
    assert any("anew, and has the sign of W" in note for note in notes)


# What stores no v, and evaluates by one more iteration.
STORES_U = [case for case in CASES if case[0] in ("mimicry", "BigGAN")]


@pytest.mark.parametrize("steps", [0, 1, 4])
@pytest.mark.parametrize(("flavour", "kind"), STORES_U)
def test_evaluation_is_one_more_iteration(flavour, kind, steps, float64, rng):
    network = doubled(kind, flavour)
    for _ in range(steps):
        forward(network, images(kind, rng, "float64"))
    network.eval()
    x = images(kind, rng, "float64")
    with torch.no_grad():
        expected = forward(network, x).numpy()
    for normalize in (SpectralNormalization, lambda layer: layer):
        model = convert.from_torch(network.state_dict(), keras_model(kind, normalize))
        error = np.abs(model(x) - expected).max() / np.abs(expected).max()
        assert error <= 1e-10
    # A capped stable rank needs u and v of length one.
    model = convert.from_torch(
        network.state_dict(),
        keras_model(kind, lambda layer: StableRankNormalization(layer, 0.5)),
    )
    vectors = model.layers[-1].norm_states[0]
    for vector in (vectors.u, vectors.v):
        assert np.linalg.norm(vector) == pytest.approx(1, rel=1e-6)
