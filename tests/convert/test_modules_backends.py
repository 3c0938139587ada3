"""Recurrent modules, attention, PReLU and flat kernels compute what PyTorch's do."""

import keras
import numpy as np
import pytest
import torch
from keras import layers as kl

from keras_spectral import convert

pytestmark = pytest.mark.usefixtures("float64", "jax_makes_float64")

BACKEND = keras.backend.backend()


def sequences(*layers):
    return keras.Sequential([keras.Input((5, 3)), *layers])


def bidirectional(kind, **arguments):
    inner = kind(4, return_sequences=True)
    return kl.Bidirectional(inner, **arguments)


# Name -> (Keras model, PyTorch modules in turn, by name).
SEQUENCES = {
    "lstm": (
        lambda: sequences(kl.LSTM(4, return_sequences=True, name="m")),
        {"m": lambda: torch.nn.LSTM(3, 4)}),
    "gru": (
        lambda: sequences(kl.GRU(4, return_sequences=True, name="m")),
        {"m": lambda: torch.nn.GRU(3, 4)}),
    "rnn": (
        lambda: sequences(kl.SimpleRNN(4, return_sequences=True, name="m")),
        {"m": lambda: torch.nn.RNN(3, 4)}),
    "rnn with relu": (
        lambda: sequences(kl.SimpleRNN(4, "relu", return_sequences=True, name="m")),
        {"m": lambda: torch.nn.RNN(3, 4, nonlinearity="relu")}),
    "lstm without bias": (
        lambda: sequences(
            kl.LSTM(4, use_bias=False, return_sequences=True, name="m")),
        {"m": lambda: torch.nn.LSTM(3, 4, bias=False)}),
    "gru without bias": (
        lambda: sequences(kl.GRU(4, use_bias=False, return_sequences=True, name="m")),
        {"m": lambda: torch.nn.GRU(3, 4, bias=False)}),
    "a cell": (
        lambda: sequences(kl.RNN(kl.GRUCell(4), return_sequences=True, name="m")),
        {"m": lambda: torch.nn.GRU(3, 4)}),
    "stacked cells": (
        lambda: sequences(
            kl.RNN([kl.LSTMCell(4), kl.LSTMCell(4)], return_sequences=True, name="m")),
        {"m": lambda: torch.nn.LSTM(3, 4, num_layers=2)}),
    "three layers": (
        lambda: sequences(
            kl.GRU(4, return_sequences=True, name="m"),
            kl.GRU(4, return_sequences=True, name="m-l1"),
            kl.GRU(4, return_sequences=True, name="m-l2")),
        {"m": lambda: torch.nn.GRU(3, 4, num_layers=3)}),
    "bidirectional lstm": (
        lambda: sequences(bidirectional(kl.LSTM, name="m")),
        {"m": lambda: torch.nn.LSTM(3, 4, bidirectional=True)}),
    "bidirectional rnn": (
        lambda: sequences(bidirectional(kl.SimpleRNN, name="m")),
        {"m": lambda: torch.nn.RNN(3, 4, bidirectional=True)}),
    "two bidirectional grus": (
        lambda: sequences(
            bidirectional(kl.GRU, name="a-m"), bidirectional(kl.GRU, name="a-m-l1")),
        {"a-m": lambda: torch.nn.GRU(3, 4, num_layers=2, bidirectional=True)}),
    "modules named as layers": (
        # No module `a` is recurrent, so `l1` is a module's name.
        lambda: sequences(
            kl.LSTM(4, return_sequences=True, name="a-l1"),
            kl.GRU(4, return_sequences=True, name="a-l2")),
        {"a-l1": lambda: torch.nn.LSTM(3, 4), "a-l2": lambda: torch.nn.GRU(4, 4)}),
    "prelu": (
        lambda: sequences(kl.PReLU(shared_axes=[1], name="m")),
        {"m": lambda: torch.nn.PReLU(3)}),
    "one prelu": (
        lambda: sequences(kl.PReLU(shared_axes=[1, 2], name="m")),
        {"m": lambda: torch.nn.PReLU()}),
}  # fmt: skip


def state_of(modules, seed=0):
    """Return PyTorch's state dict; all of it is random, in the modules too."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, module in modules.items():
        module.double().eval()
        for key, value in module.state_dict().items():
            value.normal_(std=0.5, generator=generator)
            state[f"{name.replace('-', '.')}.{key}"] = value
    return state


def load(modules, state):
    """Load a state dict of ours into PyTorch's modules."""
    whole = torch.nn.Module()
    for name, module in modules.items():
        inner = whole
        *parents, last = name.split("-")
        for parent in parents:
            if not hasattr(inner, parent):
                inner.add_module(parent, torch.nn.Module())
            inner = getattr(inner, parent)
        inner.add_module(last, module)
    tensors = {key: torch.tensor(value) for key, value in state.items()}
    whole.load_state_dict(tensors, strict=True)


def torchs(modules, x):
    """Return what PyTorch's modules make of (batch, time, features)."""
    y = torch.tensor(x)
    for module in modules.values():
        if isinstance(module, torch.nn.RNNBase):
            y = module(y.transpose(0, 1))[0].transpose(0, 1)
        else:
            y = module(y.transpose(1, 2)).transpose(1, 2)
    return y


def agree(ours, theirs, narrowed=()):
    """Compare with PyTorch, up to what Keras narrows to float32 itself.

    On torch its `matmul` does, on JAX `tanh` and `dot_product_attention`.
    """
    ours, theirs = keras.ops.convert_to_numpy(ours), theirs.detach().numpy()
    tolerance = 1e-6 if BACKEND in ("torch", *narrowed) else 1e-10
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


def certified(model, layers=1):
    certificate = convert.provenance(model)["verification"]
    assert certificate["status"] == "passed" and certificate["scope"] == "layers"
    assert certificate["layers"] == layers


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequences(name, rng):
    build, modules = SEQUENCES[name]
    modules = {path: module() for path, module in modules.items()}
    narrowed = () if name == "rnn with relu" or "prelu" in name else ("jax",)
    if BACKEND == "jax" and name in ("rnn", "bidirectional rnn"):
        # Its loop in Keras takes no state that comes back narrower.
        keras.config.set_dtype_policy("float32")
        keras.config.set_floatx("float32")
    state = state_of(modules)
    model = convert.from_torch(state, build())
    certified(model, len(model.layers))
    x = rng.standard_normal((2, 5, 3))
    agree(model(x), torchs(modules, x), narrowed)

    back = convert.to_torch(model)
    assert back.keys() == state.keys()
    for key, value in state.items():
        if "bias" not in key or "gru" in name:
            value = value.numpy().astype(back[key].dtype)
            np.testing.assert_array_equal(back[key], value)
    # Once the second bias is zero nothing changes any more.
    again = convert.to_torch(convert.from_torch(back, build()))
    for key, value in back.items():
        np.testing.assert_array_equal(again[key], value)
    load(modules, back)
    agree(model(x), torchs(modules, x), narrowed)


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_two_biases_are_one_in_keras(kind):
    module = torch.nn.LSTM(3, 4)
    if kind == "RNN":
        module = torch.nn.RNN(3, 4, nonlinearity="relu")
    layer = {"LSTM": kl.LSTM(4, name="m"), "RNN": kl.SimpleRNN(4, "relu", name="m")}
    state = state_of({"m": module})
    model = convert.from_torch(state, sequences(layer[kind]))
    total = (module.bias_ih_l0 + module.bias_hh_l0).detach().numpy()
    back = convert.to_torch(model)
    np.testing.assert_array_equal(back["m.bias_ih_l0"], total)
    np.testing.assert_array_equal(back["m.bias_hh_l0"], np.zeros(len(total)))
    (note,) = (n for n in convert.provenance(model)["notes"] if "bias" in n)
    assert note.startswith("m.bias_hh_l0 was added")


# Heads of 4, whose root is exact: TensorFlow rounds 1 / sqrt(3) to float32 in Keras.
ATTENTION = {
    "packed": ((8, 8, 8), {}),
    "packed without bias": ((8, 8, 8), {"bias": False}),
    "apart": ((8, 5, 3), {}),
    "one apart": ((8, 8, 3), {}),
    "apart without bias": ((8, 5, 8), {"bias": False}),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_attention(name, rng):
    (width, keys, values), bias = ATTENTION[name]
    module = torch.nn.MultiheadAttention(
        width, 2, kdim=keys, vdim=values, batch_first=True, **bias
    )
    state = state_of({"a-m": module})
    widths = (width, values, keys)
    inputs = [keras.Input((n, w)) for n, w in zip((4, 5, 5), widths, strict=True)]
    layer = kl.MultiHeadAttention(
        2, width // 2, use_bias=bias.get("bias", True), name="a-m"
    )
    model = convert.from_torch(state, keras.Model(inputs, layer(*inputs)))
    certified(model)
    query, value, key = (rng.standard_normal((2, *i.shape[1:])) for i in inputs)
    agree(
        model([query, value, key]),
        module(*(torch.tensor(x) for x in (query, key, value)))[0],
        narrowed=("jax",),
    )
    back = convert.to_torch(model)
    assert back.keys() == state.keys()
    for key, value in state.items():
        np.testing.assert_array_equal(back[key], value.numpy())


# Name -> (Keras layer, its input, PyTorch's module, its input from ours, and back).
FLAT = {
    "(k, 1) convolution": (
        lambda: kl.Conv1D(4, 3, dilation_rate=2, name="m"), (9, 2),
        lambda: torch.nn.Conv2d(2, 4, (3, 1), dilation=(2, 1)),
        lambda x: x.transpose(1, 2)[..., None], lambda y: y[..., 0].transpose(1, 2)),
    "(1, k) convolution": (
        lambda: kl.Conv1D(4, 3, strides=2, groups=2, name="m"), (9, 2),
        lambda: torch.nn.Conv2d(2, 4, (1, 3), stride=2, groups=2),
        lambda x: x.transpose(1, 2)[:, :, None], lambda y: y[:, :, 0].transpose(1, 2)),
    "depthwise (k, 1)": (
        lambda: kl.DepthwiseConv1D(3, depth_multiplier=2, name="m"), (9, 2),
        lambda: torch.nn.Conv2d(2, 4, (3, 1), groups=2),
        lambda x: x.transpose(1, 2)[..., None], lambda y: y[..., 0].transpose(1, 2)),
    "(1, 1) convolution": (
        lambda: kl.Dense(4, name="m"), (9, 2), lambda: torch.nn.Conv2d(2, 4, 1),
        lambda x: x.transpose(1, 2)[..., None], lambda y: y[..., 0].transpose(1, 2)),
    "linear": (
        lambda: kl.Conv2D(4, 1, name="m"), (3, 4, 2), lambda: torch.nn.Linear(2, 4),
        lambda x: x, lambda y: y),
    "same rank": (
        lambda: kl.Conv1D(4, 3, name="m"), (9, 2), lambda: torch.nn.Conv1d(2, 4, 3),
        lambda x: x.transpose(1, 2), lambda y: y.transpose(1, 2)),
}  # fmt: skip


@pytest.mark.parametrize("name", FLAT)
def test_flat_kernels(name, rng, tmp_path):
    layer, shape, module, there, back = FLAT[name]
    module = module()
    state = state_of({"m": module})
    model = keras.Sequential([keras.Input(shape), layer()])
    model = convert.from_torch(state, model)
    if "depthwise" not in name:
        certified(model)
    x = rng.standard_normal((2, *shape))
    agree(model(x), back(module(there(torch.tensor(x)))))
    # The card remembers the shape, in a file too.
    convert.save_model(model, tmp_path / "model.keras")
    for known in (model, convert.load_model(tmp_path / "model.keras")):
        exported = convert.to_torch(known)
        for key, value in state.items():
            np.testing.assert_array_equal(exported[key], value.numpy())
