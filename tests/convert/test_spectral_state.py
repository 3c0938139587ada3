"""Spectral normalization from five PyTorch dialects: the next steps are PyTorch's."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import torch

from keras_spectral import convert
from keras_spectral.convert import CheckpointError
from keras_spectral.layers import SpectralNormalization
from keras_spectral.surgery import copy_weights
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


def images(kind, rng, dtype="float32"):
    if kind == "embedding":
        return rng.integers(0, 9, 4)
    shape = {"linear": (4, 7), "grouped": (4, 6, 5, 4)}.get(kind, (4, 6, 5, 3))
    return rng.standard_normal(shape).astype(dtype)


def forward(network, x):
    x = torch.tensor(x)
    y = network.layer(x.permute(0, 3, 1, 2) if x.ndim == 4 else x)
    return y.permute(0, 2, 3, 1) if y.ndim == 4 else y


def train(network, model, rng, kind, steps=STEPS, dtype="float32"):
    """Take SGD steps of mean square on both; return the largest difference."""
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    model.compile(keras.optimizers.SGD(0.1), lambda y, p: keras.ops.mean(p**2))
    worst = 0.0
    for _ in range(steps):
        x = images(kind, rng, dtype)
        optimizer.zero_grad()
        y = forward(network, x)
        (y**2).mean().backward()
        optimizer.step()
        loss = model.train_on_batch(x, np.zeros(y.shape, dtype))
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


PYTORCHS = ["utils.spectral_norm", "parametrizations.spectral_norm"]


@pytest.mark.parametrize("flavour", PYTORCHS)
@pytest.mark.parametrize("kind", KINDS)
def test_five_steps_are_pytorchs_in_float64(flavour, kind, float64, rng):
    network = peers.normalized(torch_module(kind).double(), flavour)
    for _ in range(3):
        forward(network, images(kind, rng, "float64"))
    model = convert.from_torch(network.state_dict(), keras_model(kind))
    assert train(network.train(), model, rng, kind, dtype="float64") <= 1e-10
    exported = convert.to_torch(model, spectral_normalization=flavour)
    for key, value in network.state_dict().items():
        np.testing.assert_allclose(exported[key], value.numpy(), rtol=0, atol=1e-10)


def turned(network, flavour):
    """Return a network's state with u turned around, so that u' W v is negative."""
    key = {
        "utils.spectral_norm": "layer.weight_u",
        "parametrizations.spectral_norm": "layer.parametrizations.weight.0._u",
    }[flavour]
    state = {k: value.clone() for k, value in network.state_dict().items()}
    state[key] = -state[key]
    network.load_state_dict(state)
    return state


@pytest.mark.parametrize("flavour", PYTORCHS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_negative_norm_is_pytorchs_until_a_restart(flavour, kind, float64, rng):
    network = peers.normalized(torch_module(kind).double(), flavour)
    forward(network, images(kind, rng, "float64"))
    state = turned(network, flavour)
    network.eval()
    x = images(kind, rng, "float64")
    with torch.no_grad():
        expected = forward(network, x).numpy()
    model = convert.from_torch(state, keras_model(kind))
    np.testing.assert_allclose(model(x), expected, rtol=0, atol=1e-12)
    # What goes out is what came in, and PyTorch computes the same with it.
    exported = convert.to_torch(model, spectral_normalization=flavour)
    other = peers.normalized(torch_module(kind, seed=1).double(), flavour)
    other.load_state_dict({k: torch.tensor(v) for k, v in exported.items()})
    with torch.no_grad():
        np.testing.assert_array_equal(forward(other.eval(), x), expected)
    layer = model.layers[-1]
    layer.restart_power_iteration()
    matrix = layer.slots[0].view.flatten(layer.effective_kernel()).numpy()
    assert np.linalg.norm(matrix, 2) == pytest.approx(1, rel=1e-5)
    raw = layer.slots[0].view.flatten(layer.slots[0].variable).numpy()
    assert (matrix * raw).sum() > 0


@pytest.mark.parametrize("flavour", PYTORCHS)
def test_an_import_into_a_model_that_has_run(flavour, rng):
    # A compiled function keeps the vectors that it was traced with.
    model = keras_model("linear")
    x = images("linear", rng)
    model.compile("sgd", "mse")
    for run in (model.predict, lambda x, **_: model.evaluate(x, x[:, :5], verbose=0)):
        run(x, verbose=0)
    model.fit(x, x[:, :5], verbose=0)
    network = peers.normalized(torch_module("linear"), flavour)
    state = turned(network, flavour)
    convert.from_torch(state, model)
    with torch.no_grad():
        expected = forward(network.eval(), x).numpy()
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-6)
    loss = model.evaluate(x, x[:, :5], verbose=0)
    assert loss == pytest.approx(np.mean((expected - x[:, :5]) ** 2), rel=1e-5)


def test_a_refused_import_leaves_the_vectors_as_they_were(rng, monkeypatch):
    model = keras_model("convolution")
    x = images("convolution", rng)
    for _ in range(3):
        model(x, training=True)
    before, outputs = model.get_weights(), model(x)
    network = peers.normalized(torch_module("convolution"), "utils.spectral_norm")
    refused = SimpleNamespace(agrees=False)
    monkeypatch.setattr(convert.verification, "verify", lambda *_: refused)
    with pytest.raises(CheckpointError):
        convert.from_torch(network.state_dict(), model)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(model(x), outputs)
    assert model.layers[0].method == "block"


@pytest.mark.parametrize("flavour", PYTORCHS)
def test_an_import_is_saved_copied_and_loaded(flavour, rng, tmp_path):
    network = peers.normalized(torch_module("convolution"), flavour)
    model = convert.from_torch(turned(network, flavour), keras_model("convolution"))
    x = images("convolution", rng)
    expected = model(x).numpy()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), expected)
    for source, target in [(model, loaded), (loaded, loaded), (model, model)]:
        source.save_weights(tmp_path / "model.weights.h5")
        target.layers[0].kernel.assign(target.layers[0].kernel * 2)
        target.load_weights(tmp_path / "model.weights.h5")
        np.testing.assert_array_equal(target(x), expected)
    copy = keras.models.clone_model(model)
    copy_weights(model, copy)
    np.testing.assert_array_equal(copy(x), expected)
    # A layer with a block does not take over a single vector.
    block = keras_model("convolution")
    copy_weights(model, block)
    kernel = block.layers[0].effective_kernel().numpy().reshape(-1, 8)
    assert np.linalg.norm(kernel, 2) == pytest.approx(1, rel=1e-5)
    assert int(block.layers[0].norm_states[0].updates) == 0


@pytest.mark.parametrize(
    ("flavour", "kind"), [case for case in CASES if case[0] in peers.FLAVOURS[:3]]
)
def test_weights_and_vectors_go_out_with_the_same_bytes(flavour, kind, rng):
    network = peers.normalized(torch_module(kind), flavour)
    for _ in range(2):
        forward(network, images(kind, rng))
    model = convert.from_torch(network.state_dict(), keras_model(kind))
    exported = convert.to_torch(model, spectral_normalization=flavour)
    for key, value in network.state_dict().items():
        assert exported[key].tobytes() == value.numpy().tobytes()


@pytest.mark.parametrize("method", ["block", "power_iteration"])
@pytest.mark.parametrize("flavour", PYTORCHS)
@pytest.mark.parametrize("kind", KINDS)
def test_pytorch_evaluates_an_export(flavour, kind, method, rng):
    model = keras_model(kind, lambda layer: SpectralNormalization(layer, method=method))
    for _ in range(3):
        model(images(kind, rng), training=True)
    exported = convert.to_torch(model, spectral_normalization=flavour)
    network = peers.normalized(torch_module(kind), flavour)
    network.load_state_dict({k: torch.tensor(v) for k, v in exported.items()})
    x = images(kind, rng)
    with torch.no_grad():
        theirs = forward(network.eval(), x).numpy()
    # A block gives its leading vectors, and computes with the best of all.
    tolerance = 2e-6 if method == "power_iteration" else 1e-4
    np.testing.assert_allclose(model(x), theirs, rtol=0, atol=tolerance)
    vectors = model.layers[-1].norm_states[0]
    stored = {np.asarray(value).tobytes() for value in (vectors.u, vectors.v)}
    assert stored & {value.tobytes() for value in exported.values()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_export_has_converged(kind, rng):
    model = keras_model(
        kind, lambda layer: SpectralNormalization(layer, 0.7, method="power_iteration")
    )
    layer = model.layers[-1]
    layer.slots[0].variable.assign(
        rng.standard_normal(layer.slots[0].variable.shape).astype("float32")
    )
    u = layer.norm_states[0].u
    u.assign(np.eye(u.shape[0])[0])
    weight = convert.to_torch(model)["layer.weight"].astype("float64")
    rows = weight.swapaxes(0, 1) if kind == "transposed" else weight
    norm = np.linalg.norm(rows.reshape(len(rows), -1), 2)
    assert norm == pytest.approx(0.7, rel=1e-6)


@pytest.mark.parametrize("flavour", PYTORCHS)
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
    (note,) = [n for n in convert.provenance(model)["notes"] if "never trained" in n]
    assert f"{sigma:.4g}" in note and f"{np.linalg.norm(weight, 2):.4g}" in note


def test_very_old_files_lack_v_and_keep_the_normalized_weight(rng):
    network = peers.normalized(torch_module("linear"), "utils.spectral_norm")
    forward(network, images("linear", rng))
    state = network.state_dict()
    del state["layer.weight_v"]
    state["layer.weight"] = state["layer.weight_orig"] / 2
    model = convert.from_torch(state, keras_model("linear"))
    assert train(network.train(), model, rng, "linear") <= 1e-6


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
