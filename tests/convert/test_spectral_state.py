"""Spectral normalization from five PyTorch dialects: the next steps are PyTorch's."""

import keras
import numpy as np
import pytest
import torch

from keras_spectral import convert
from keras_spectral.convert import CheckpointError
from keras_spectral.layers import SpectralNormalization
from tests.convert import peers

STEPS = 5


def torch_module(kind, seed=0):
    torch.manual_seed(seed)
    return {
        "linear": lambda: torch.nn.Linear(7, 5),
        "convolution": lambda: torch.nn.Conv2d(3, 8, 3, padding=1),
        "grouped": lambda: torch.nn.Conv2d(4, 6, 3, padding=1, groups=2),
        "transposed": lambda: torch.nn.ConvTranspose2d(3, 6, 4, stride=2, padding=1),
        "embedding": lambda: torch.nn.Embedding(9, 4),
    }[kind]()


def keras_model(kind, normalize=SpectralNormalization):
    kl = keras.layers
    layer, shape = {
        "linear": (lambda: kl.Dense(5, name="layer"), (7,)),
        "convolution": (
            lambda: kl.Conv2D(8, 3, padding="same", name="layer"),
            (6, 5, 3),
        ),
        "grouped": (
            lambda: kl.Conv2D(6, 3, padding="same", groups=2, name="layer"),
            (6, 5, 4),
        ),
        "transposed": (
            lambda: kl.Conv2DTranspose(6, 4, 2, padding="same", name="layer"),
            (6, 5, 3),
        ),
        "embedding": (lambda: kl.Embedding(9, 4, name="layer"), ()),
    }[kind]
    dtype = "int32" if kind == "embedding" else None
    return keras.Sequential([keras.Input(shape, dtype=dtype), normalize(layer())])


def images(kind, rng):
    if kind == "embedding":
        return rng.integers(0, 9, 4)
    shape = {"linear": (4, 7), "grouped": (4, 6, 5, 4)}.get(kind, (4, 6, 5, 3))
    return rng.standard_normal(shape).astype("float32")


def forward(network, x):
    x = torch.tensor(x)
    y = network.layer(x.permute(0, 3, 1, 2) if x.ndim == 4 else x)
    return y.permute(0, 2, 3, 1) if y.ndim == 4 else y


def train(network, model, rng, kind, steps=STEPS):
    """Take SGD steps of mean square on both; return the largest difference."""
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    model.compile(keras.optimizers.SGD(0.1), lambda y, p: keras.ops.mean(p**2))
    worst = 0.0
    for _ in range(steps):
        x = images(kind, rng)
        optimizer.zero_grad()
        y = forward(network, x)
        (y**2).mean().backward()
        optimizer.step()
        loss = model.train_on_batch(x, np.zeros(y.shape, "float32"))
        theirs = float((y**2).mean())
        worst = max(worst, abs(float(loss) - theirs) / theirs)
    return worst


KINDS = ["linear", "convolution", "grouped", "transposed", "embedding"]
# The authors' own layers have no transposed convolution.
CASES = [
    (flavour, kind)
    for flavour in peers.FLAVOURS
    for kind in KINDS
    if flavour.startswith(("utils", "parametrizations")) or kind != "transposed"
]


@pytest.mark.parametrize(("flavour", "kind"), CASES)
def test_training_goes_on_as_in_pytorch(flavour, kind, rng, tmp_path):
    network = peers.normalized(torch_module(kind), flavour)
    # A state that training has moved.
    for _ in range(3):
        forward(network, images(kind, rng))
    torch.save(network.state_dict(), tmp_path / "w.pth")
    model = convert.from_torch(tmp_path / "w.pth", keras_model(kind))
    assert convert.provenance(model)["spectral_normalization"] == {"layer": flavour}
    assert train(network.train(), model, rng, kind) <= 1e-6
    # The vectors themselves, and the weights: the whole state is PyTorch's.
    exported = convert.to_torch(model, spectral_normalization=flavour)
    theirs = network.state_dict()
    assert exported.keys() == theirs.keys()
    for key, value in theirs.items():
        if key.endswith(("sn_sigma", "sv0")):
            continue  # Nothing reads it, and it is of the step before.
        assert exported[key].shape == tuple(value.shape)
        np.testing.assert_allclose(exported[key], value.numpy(), rtol=0, atol=2e-6)


@pytest.mark.parametrize("flavour", peers.FLAVOURS)
def test_state_goes_out_bit_for_bit_and_loads_strictly(flavour, rng):
    network = peers.normalized(torch_module("convolution"), flavour)
    for _ in range(3):
        forward(network, images("convolution", rng))
    model = convert.from_torch(network.state_dict(), keras_model("convolution"))
    exported = convert.to_torch(model, spectral_normalization=flavour)
    for key, value in network.state_dict().items():
        if not key.endswith(("sn_sigma", "sv0")):
            np.testing.assert_array_equal(exported[key], value.numpy())
    other = peers.normalized(torch_module("convolution", seed=1), flavour)
    state = {key: torch.tensor(value) for key, value in exported.items()}
    other.load_state_dict(state, strict=True)


@pytest.mark.parametrize(
    "flavour", ["utils.spectral_norm", "parametrizations.spectral_norm"]
)
@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_is_pytorchs_wrapped_or_plain(flavour, kind, rng):
    network = peers.normalized(torch_module(kind), flavour)
    forward(network, images(kind, rng))
    network.eval()
    x = images(kind, rng)
    with torch.no_grad():
        expected = forward(network, x).numpy()
    for normalize in (SpectralNormalization, lambda layer: layer):
        model = convert.from_torch(network.state_dict(), keras_model(kind, normalize))
        np.testing.assert_allclose(model(x), expected, rtol=1e-5, atol=1e-6)


def test_the_update_order_is_saved_with_the_model(rng, tmp_path):
    flavour = "parametrizations.spectral_norm"
    network = peers.normalized(torch_module("linear"), flavour)
    model = convert.from_torch(network.state_dict(), keras_model("linear"))
    model.save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    assert model.layers[0].update_order == "u_first"
    assert train(network.train(), model, rng, "linear") <= 1e-6


def test_vectors_that_were_never_trained_are_reported():
    torch.manual_seed(0)
    network = peers.normalized(torch_module("convolution"), "utils.spectral_norm")
    model = convert.from_torch(network.state_dict(), keras_model("convolution"))
    weight = network.layer.weight_orig.detach().numpy().reshape(8, -1)
    sigma = network.layer.weight_u.numpy() @ weight @ network.layer.weight_v.numpy()
    (note,) = [n for n in convert.provenance(model)["notes"] if "not trained" in n]
    assert f"{sigma:.4g}" in note and f"{np.linalg.norm(weight, 2):.4g}" in note


def test_very_old_files_lack_v_and_keep_the_normalized_weight(rng):
    network = peers.normalized(torch_module("linear"), "utils.spectral_norm")
    forward(network, images("linear", rng))
    state = network.state_dict()
    del state["layer.weight_v"]
    state["layer.weight"] = state["layer.weight_orig"] / 2
    model = convert.from_torch(state, keras_model("linear"))
    assert train(network.train(), model, rng, "linear") <= 1e-6


@pytest.mark.parametrize("parametrized", [False, True])
def test_weight_normalization_is_refused(parametrized):
    module = torch.nn.Linear(3, 2)
    if parametrized:
        torch.nn.utils.parametrizations.weight_norm(module)
    else:
        torch.nn.utils.weight_norm(module)
    with pytest.raises(CheckpointError, match="weight normalization.*remove"):
        convert.from_torch(module.state_dict(), keras_model("linear"))


class Doubled(torch.nn.Module):
    def forward(self, weight):
        return 2 * weight


@pytest.mark.parametrize("kind", ["orthogonal", "doubled", "vectors lost"])
def test_other_parametrizations_are_not_taken_for_it(kind):
    # Nothing but their keys looks like it: the kernel is no quotient by a norm.
    module = torch.nn.Linear(7, 5)
    if kind == "orthogonal":
        torch.nn.utils.parametrizations.orthogonal(module, use_trivialization=False)
    elif kind == "doubled":
        torch.nn.utils.parametrize.register_parametrization(module, "weight", Doubled())
    else:
        torch.nn.utils.spectral_norm(module)
    state = {f"layer.{key}": value for key, value in module.state_dict().items()}
    for vector in ("u", "v"):
        state.pop(f"layer.weight_{vector}", None)
    with pytest.raises(CheckpointError, match="another parametrization.*Remove"):
        convert.from_torch(state, keras_model("linear"))


def test_vectors_of_another_weight_are_refused():
    network = peers.normalized(torch_module("linear"), "utils.spectral_norm")
    state = {**network.state_dict(), "layer.weight_v": torch.ones(6)}
    with pytest.raises(CheckpointError, match="6 numbers, for a weight of 7 columns"):
        convert.from_torch(state, keras_model("linear"))


def test_an_operator_norm_has_no_such_state(rng):
    network = peers.normalized(torch_module("convolution"), "utils.spectral_norm")
    model = keras_model(
        "convolution", lambda layer: SpectralNormalization(layer, norm="operator")
    )
    convert.from_torch(network.state_dict(), model)
    notes = convert.provenance(model)["notes"]
    assert "layer estimates its singular vectors anew" in notes
