"""The certificate of a wrapped layer: what it computes, not what it trains."""

import keras
import numpy as np
import pytest
import torch

from keras_spectral import convert, zoo
from keras_spectral.convert import CheckpointError, MismatchError, spectral_state
from keras_spectral.layers import SpectralNormalization, StableRankNormalization
from tests.convert import peers
from tests.convert.reference import random_network
from tests.convert.test_spectral_state import (
    CASES,
    PYTORCHS,
    forward,
    images,
    keras_model,
    torch_module,
    turned,
)


def certificate(model):
    return convert.provenance(model)["verification"]


def trained(kind, flavour, rng):
    network = peers.normalized(torch_module(kind), flavour)
    for _ in range(2):
        forward(network, images(kind, rng))
    return network


@pytest.mark.parametrize(("flavour", "kind"), CASES)
def test_a_right_import_is_checked(flavour, kind, rng):
    network = trained(kind, flavour, rng)
    model = convert.from_torch(network.state_dict(), keras_model(kind))
    found = certificate(model)
    assert found["status"] == "passed" and found["layers"] == 1
    assert found["relative_error"] < 1e-12


def no_vectors(wrapper, u, v, order):
    """What a layer did whose import left its vectors out."""


def other_sign(wrapper, u, v, order):
    LOAD(wrapper, u, -v, order)


def off(wrapper, u, v, order):
    LOAD(wrapper, u, v * (1 + 1e-6), order)


LOAD = SpectralNormalization.load_vectors


@pytest.mark.parametrize("mistake", [no_vectors, other_sign, off])
@pytest.mark.parametrize("flavour", PYTORCHS)
def test_mistakes_of_vectors_are_caught(flavour, mistake, rng, monkeypatch):
    network = trained("convolution", flavour, rng)
    state = turned(network, flavour)
    model = keras_model("convolution")
    before = model.get_weights()
    monkeypatch.setattr(SpectralNormalization, "load_vectors", mistake)
    with pytest.raises(MismatchError, match="layer `layer` is off by"):
        convert.from_torch(state, model)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_vectors_in_the_order_of_another_layout_are_caught(rng, monkeypatch):
    network = trained("convolution", PYTORCHS[0], rng)
    monkeypatch.setattr(spectral_state, "flatten_right", lambda v, *_: v)
    with pytest.raises(MismatchError, match="layer `layer` is off by"):
        convert.from_torch(network.state_dict(), keras_model("convolution"))


@pytest.mark.parametrize("flavour", PYTORCHS)
def test_a_dense_layer_behind_a_flattened_image(flavour, rng):
    module = torch.nn.Linear(3 * 4 * 5, 2)
    network = peers.normalized(module, flavour)
    x = rng.standard_normal((2, 3, 4, 5)).astype("float32")
    expected = network.layer(torch.tensor(x).flatten(1))
    kl = keras.layers
    layer = SpectralNormalization(kl.Dense(2, name="layer"))
    model = keras.Sequential([keras.Input((4, 5, 3)), kl.Flatten(), layer])
    convert.from_torch(network.state_dict(), model)
    assert certificate(model)["status"] == "passed"
    found = model(np.moveaxis(x, 1, -1))
    np.testing.assert_allclose(found, expected.detach(), atol=1e-5)


OTHERS = {
    "bound": lambda layer: SpectralNormalization(layer, 0.7),
    "clip": lambda layer: SpectralNormalization(layer, clip=True),
    "operator": lambda layer: SpectralNormalization(layer, norm="operator"),
    "exact": lambda layer: SpectralNormalization(layer, method="exact"),
    "stable rank": lambda layer: StableRankNormalization(layer, 0.5),
}


@pytest.mark.parametrize("other", OTHERS)
def test_what_computes_something_else_is_unchecked(other, rng):
    network = trained("convolution", PYTORCHS[0], rng)
    model = keras_model("convolution", OTHERS[other])
    convert.from_torch(network.state_dict(), model)
    found = certificate(model)
    assert found["status"] == "none" and found["unchecked"] == ["layer"]
    assert (found["layers"], found["layers_in_all"]) == (0, 1)
    assert "else than W / (u' W v)" in found["why_unchecked"]["layer"]


def test_a_wrapper_around_plain_weights_is_unchecked():
    state = {f"layer.{k}": v for k, v in torch_module("linear").state_dict().items()}
    model = convert.from_torch(state, keras_model("linear"))
    found = certificate(model)
    assert found["status"] == "none"
    assert "the source uses as it is" in found["why_unchecked"]["layer"]
    # Its trained weights still are compared.
    name = "resnet20_cifar10"
    state = random_network(name).state_dict()
    model = zoo.build(name, normalize=SpectralNormalization)
    found = certificate(convert.from_torch(state, model))
    assert found["scope"] == "network" and found["status"] == "partial"
    # Convolutions and the head are wrapped, normalizations are not.
    assert (found["layers"], len(found["unchecked"])) == (21, 22)


def test_a_zero_kernel_is_unchecked():
    network = peers.normalized(torch_module("linear"), PYTORCHS[0])
    state = network.state_dict()
    state["layer.weight_orig"] = torch.zeros(5, 7)
    model = convert.from_torch(state, keras_model("linear"))
    why = certificate(model)["why_unchecked"]
    assert "zero, by which PyTorch divides" in why["layer"]


@pytest.mark.parametrize(
    "outer", [keras.layers.TimeDistributed, keras.layers.SpectralNormalization]
)
def test_other_wrappers_receive_the_normalized_weight(outer, rng):
    network = trained("linear", PYTORCHS[0], rng).eval()
    x = rng.standard_normal((2, 3, 7)).astype("float32")
    layer = outer(keras.layers.Dense(5), name="layer")
    model = keras.Sequential([keras.Input((3, 7)), layer])
    convert.from_torch(network.state_dict(), model)
    with torch.no_grad():
        expected = network.layer(torch.tensor(x)).numpy()
    np.testing.assert_allclose(model(x), expected, atol=1e-6)
    status = "passed" if outer is keras.layers.TimeDistributed else "none"
    assert certificate(model)["status"] == status


@pytest.mark.parametrize("method", ["matrix_exp", "cayley", "householder"])
def test_an_orthogonal_weight_is_refused_for_its_own_reason(method):
    module = torch.nn.Linear(7, 5)
    torch.nn.utils.parametrizations.orthogonal(module, orthogonal_map=method)
    state = {f"layer.{key}": value for key, value in module.state_dict().items()}
    for normalize in (SpectralNormalization, lambda layer: layer):
        with pytest.raises(CheckpointError, match="orthogonal: .*which map") as error:
            convert.from_torch(state, keras_model("linear", normalize))
        assert "remove_parametrizations, and save" in str(error.value)
        assert "spectral" not in str(error.value)


NORMALIZE = {
    "remove_spectral_norm": torch.nn.utils.spectral_norm,
    "remove_parametrizations": torch.nn.utils.parametrizations.spectral_norm,
}


AXES = {
    "linear": (torch.nn.Linear, (7, 5), 1, (7,)),
    "square": (torch.nn.Linear, (12, 12), 1, (12,)),
    "convolution": (torch.nn.Conv2d, (3, 8, 3), 1, (3, 6, 6)),
    "transposed": (torch.nn.ConvTranspose2d, (3, 6, 4), 0, (3, 6, 6)),
    "square transposed": (torch.nn.ConvTranspose2d, (6, 6, 4), 0, (6, 6, 6)),
}


@pytest.mark.parametrize("remove", NORMALIZE)
@pytest.mark.parametrize("name", AXES)
def test_another_axis_is_refused_by_its_name(name, remove):
    kind, sizes, dim, shape = AXES[name]
    torch.manual_seed(0)
    module = NORMALIZE[remove](kind(*sizes), n_power_iterations=100, dim=dim)
    module(torch.ones(2, *shape))
    state = {f"layer.{key}": value for key, value in module.state_dict().items()}
    kl = keras.layers
    ours = {"Linear": kl.Dense, "Conv2d": kl.Conv2D}
    layer = ours.get(kind.__name__, kl.Conv2DTranspose)(*sizes[1:], name="layer")
    model = keras.Sequential([keras.Input((*shape[1:], shape[0])), layer])
    with pytest.raises(CheckpointError, match=rf"spectral_norm\(dim={dim}\)") as error:
        convert.from_torch(state, model)
    assert remove in str(error.value) and "save again" in str(error.value)


@pytest.mark.parametrize("flavour", PYTORCHS)
@pytest.mark.parametrize("count", [1, 2])
def test_depthwise_kernels(count, flavour, rng):
    kind = {1: torch.nn.Conv1d, 2: torch.nn.Conv2d}[count]
    network = peers.normalized(kind(3, 6, 3, groups=3), flavour)
    x = rng.standard_normal((2, 3, *[5] * count)).astype("float32")
    network.layer(torch.tensor(x))
    state = {key: value.clone() for key, value in network.state_dict().items()}
    with torch.no_grad():
        expected = np.moveaxis(network.eval().layer(torch.tensor(x)).numpy(), 1, -1)
    ours = {1: keras.layers.DepthwiseConv1D, 2: keras.layers.DepthwiseConv2D}[count]
    layer = SpectralNormalization(ours(3, depth_multiplier=2, name="layer"))
    model = keras.Sequential([keras.Input((*[5] * count, 3)), layer])
    convert.from_torch(state, model)
    np.testing.assert_allclose(model(np.moveaxis(x, 1, -1)), expected, atol=1e-6)
    assert certificate(model)["status"] == "passed"
    exported = convert.to_torch(model, spectral_normalization=flavour)
    for key, value in state.items():
        np.testing.assert_array_equal(exported[key], value.numpy())


def test_a_wrapped_layer_that_knows_no_config_is_unchecked(rng):
    class Forgetful(keras.layers.Dense):
        def get_config(self):
            raise NotImplementedError

    network = trained("linear", PYTORCHS[0], rng)
    layer = SpectralNormalization(Forgetful(5, name="layer"))
    model = keras.Sequential([keras.Input((7,)), layer])
    convert.from_torch(network.state_dict(), model)
    why = certificate(model)["why_unchecked"]
    assert why == {"layer": "there is no check of a Forgetful as it is here"}
