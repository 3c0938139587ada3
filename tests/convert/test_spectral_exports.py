"""Plain exports and other models of what was imported with PyTorch's u and v."""

import keras
import numpy as np
import pytest
import torch

import keras_spectral as ks
from keras_spectral import compression, convert
from keras_spectral.layers import SpectralNormalization, StableRankNormalization
from tests.convert import peers
from tests.convert.test_spectral_state import (
    KINDS,
    PYTORCHS,
    forward,
    images,
    keras_model,
    torch_module,
    turned,
)


def imported(kind, flavour, rng, negative, normalize=SpectralNormalization):
    """Return PyTorch's module after training of its vectors, and our model of it."""
    network = peers.normalized(torch_module(kind), flavour)
    for _ in range(300):
        forward(network, images(kind, rng))
    state = turned(network, flavour) if negative else network.state_dict()
    return network.eval(), convert.from_torch(state, keras_model(kind, normalize))


def kernel_norm(layer):
    slot = ks.models.slots.kernel_slots(layer)[0]
    matrix = slot.view.flatten(np.asarray(slot.value, "float64"))
    return np.linalg.norm(matrix, 2)


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("flavour", PYTORCHS)
@pytest.mark.parametrize("kind", KINDS)
def test_plain_exports_compute_what_pytorch_does(
    kind, flavour, negative, rng, tmp_path
):
    """With vectors that have converged: the same outputs, also of a negative u' W v."""
    network, model = imported(kind, flavour, rng, negative)
    x = images(kind, rng)
    with torch.no_grad():
        expected = forward(network, x).numpy()
    plain = ks.unwrap(model)
    np.testing.assert_allclose(plain(x), expected, atol=2e-6)
    assert kernel_norm(plain.layers[-1]) == pytest.approx(1, rel=1e-6)
    other = torch_module(kind, seed=1)
    state = convert.to_torch(model)
    other.load_state_dict(
        {k.removeprefix("layer."): torch.tensor(v) for k, v in state.items()}
    )
    holder = torch.nn.Module()
    holder.layer = other
    with torch.no_grad():
        np.testing.assert_allclose(forward(holder, x).numpy(), expected, atol=2e-6)
    compression.save_compressed(model, tmp_path / "model.safetensors")
    loaded = compression.load_compressed(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded(x), plain(x))
    # A file of Keras goes on with the vectors, and so with the sign.
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(ks.unwrap(again)(x), plain(x))
    # Its own vectors are the layer's choice, and give the kernel's own sign.
    layer = model.layers[-1]
    layer.restart_power_iteration()
    np.testing.assert_allclose(ks.unwrap(model)(x), model(x), atol=2e-6)
    raw = np.asarray(layer.slots[0].variable)
    assert (np.asarray(ks.unwrap(model).layers[-1].get_weights()[0]) * raw).sum() > 0


@pytest.mark.parametrize("ratio", [0.3, 0.9])
def test_a_capped_import_keeps_its_sign(rng, ratio):
    def normalize(layer):
        return StableRankNormalization(layer, ratio, bound=0.7)

    flavour = "utils.spectral_norm"
    for negative in (False, True):
        _, model = imported("convolution", flavour, rng, negative, normalize)
        x = images("convolution", rng)
        np.testing.assert_allclose(ks.unwrap(model)(x), model(x), atol=2e-6)


@pytest.mark.parametrize("flavour", PYTORCHS)
def test_zeros_of_a_turned_import_are_stored_as_zeros(rng, flavour, tmp_path):
    network = peers.normalized(torch_module("linear"), flavour)
    model = convert.from_torch(turned(network, flavour), keras_model("linear"))
    kernel = model.layers[0].kernel.numpy()
    kernel[::2] = 0
    model.layers[0].kernel.assign(kernel)
    rows = compression.save_compressed(model, tmp_path / "model.safetensors")
    assert rows[0].kept == (kernel != 0).mean()


SIZES = {"linear": (200, 100), "convolution": (8, 32), "small": (7, 5)}


def sized(kind):
    """Return a PyTorch layer, a maker of our model, and its input for PyTorch."""
    torch.manual_seed(0)
    inputs, outputs = SIZES[kind]
    if kind == "convolution":
        module = torch.nn.Conv2d(inputs, outputs, 3, padding=1)
        make = lambda: keras.layers.Conv2D(outputs, 3, padding="same", name="layer")  # noqa: E731
        shape = (6, 5, inputs)
    else:
        module, shape = torch.nn.Linear(inputs, outputs), (inputs,)
        make = lambda: keras.layers.Dense(outputs, name="layer")  # noqa: E731
    return module, lambda: keras.Sequential(
        [keras.Input(shape), SpectralNormalization(make())]
    )


@pytest.mark.parametrize("trained", [0, 3])
@pytest.mark.parametrize("flavour", PYTORCHS)
@pytest.mark.parametrize("kind", SIZES)
def test_the_weights_of_an_import_start_a_block(kind, flavour, trained, rng):
    """The vectors of an import may be poor; a block is not, before it trains and then.

    The norm was 1.039 for the linear layer and an import that was never trained.
    """
    module, make = sized(kind)
    network = peers.normalized(module, flavour)
    model = make()
    shape = model.input_shape[1:]
    for _ in range(trained):
        forward(network, rng.standard_normal((2, *shape)).astype("float32"))
    convert.from_torch(network.state_dict(), model)
    block = make()
    block.set_weights(model.get_weights())
    layer = block.layers[-1]

    def effective(training=False):
        matrix = layer.transform(layer.matrix(0), 0, training)
        return np.linalg.norm(np.asarray(matrix, "float64"), 2)

    assert effective() == pytest.approx(1, rel=1e-4)
    x = rng.standard_normal((4, *shape)).astype("float32")
    expected = ks.unwrap(block)(x)
    np.testing.assert_allclose(block(x), expected, atol=1e-3)
    assert effective(training=True) == pytest.approx(1, rel=1e-4)
    assert effective() == pytest.approx(1, rel=1e-4)
    # A second import does no worse; while it trains, by one vector, its kernel turns.
    convert.from_torch(network.state_dict(), model)
    block.set_weights(model.get_weights())
    assert effective() == pytest.approx(1, rel=1e-4)
    target = rng.standard_normal(block.output_shape[1:])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    for _ in range(20):
        model.train_on_batch(x, np.stack([target] * 4))
    block.set_weights(model.get_weights())
    assert effective() == pytest.approx(1, rel=1e-3)
    assert effective(training=True) == pytest.approx(1, rel=1e-4)
