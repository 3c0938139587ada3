"""Recurrent modules, attention and PReLU: what is refused, and what is caught."""

import keras
import numpy as np
import pytest
import torch
from keras import layers as kl

from keras_spectral import convert
from keras_spectral.convert import MismatchError, rules
from keras_spectral.layers import SpectralNormalization
from keras_spectral.models import layouts
from tests.convert.test_verification import changed_rows


def sequences(*layers, shape=(5, 3)):
    return keras.Sequential([keras.Input(shape), *layers])


def attention(width=6, heads=2, key_dim=3, **arguments):
    inputs = keras.Input((4, width))
    layer = kl.MultiHeadAttention(heads, key_dim, name="m", **arguments)
    return keras.Model(inputs, layer(inputs, inputs))


def state_of(module):
    return {f"m.{key}": value for key, value in module.state_dict().items()}


def both(forward, backward):
    return kl.Bidirectional(forward, backward_layer=backward, name="m")


REFUSED = {
    "reset gate before the product": (
        lambda: sequences(kl.GRU(4, reset_after=False, name="m")), "reset_after=False"),
    "activation": (lambda: sequences(kl.LSTM(4, "relu", name="m")), "tanh"),
    "gates": (
        lambda: sequences(kl.GRU(4, recurrent_activation="hard_sigmoid", name="m")),
        "sigmoid in gates"),
    "one direction's activation": (
        lambda: sequences(
            both(kl.LSTM(4), kl.LSTM(4, activation="elu", go_backwards=True))), "tanh"),
    "two kinds": (
        lambda: sequences(both(kl.LSTM(4), kl.GRU(4, go_backwards=True))),
        "one kind of cell"),
    "stacks in both directions": (
        lambda: sequences(
            kl.Bidirectional(kl.RNN([kl.LSTMCell(4), kl.LSTMCell(4)]), name="m")),
        "both directions"),
    "gate": (lambda: attention(use_gate=True), "use_gate"),
    "values of another size": (lambda: attention(value_dim=4), "here 6"),
    "keys of another size": (lambda: attention(key_dim=4), "here 6"),
    "outputs of another size": (lambda: attention(output_shape=4), "here 6"),
    "a slope everywhere": (lambda: sequences(kl.PReLU(name="m")), "a channel"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_module_computes_is_refused(name):
    build, reason = REFUSED[name]
    model = build()
    for convert_it in (
        lambda: convert.from_torch({}, model),
        lambda: convert.to_torch(model),
    ):
        with pytest.raises(ValueError, match=rf"m \(\w+: .*{reason}.*no rule"):
            convert_it()


def as_layout(layout):
    return lambda row: row._replace(layout=layout)


def forget_first(array, shape):
    units = len(array) // 4
    return np.concatenate(
        [array[units : 2 * units], array[:units], array[2 * units :]]
    ).T


def heads_last(array, shape):
    inputs, heads, size = shape
    return array.T.reshape(inputs, size, heads).swapaxes(1, 2)


MISTAKES = {
    "gates of a GRU as they are": (
        kl.GRU(4, name="m"), torch.nn.GRU(3, 4),
        {"weight_ih_l0": as_layout(layouts.DENSE)}),
    "gates of a recurrent bias as they are": (
        kl.GRU(4, name="m"), torch.nn.GRU(3, 4),
        {"bias_hh_l0": as_layout(layouts.GATES_RECURRENT._replace(
            to_keras=lambda a, shape: np.stack([np.zeros_like(a), a])))}),
    "biases of a GRU exchanged": (
        kl.GRU(4, name="m"), torch.nn.GRU(3, 4),
        {"bias_ih_l0": as_layout(layouts.GATES_RECURRENT),
         "bias_hh_l0": as_layout(layouts.GATES_INPUT)}),
    "second bias lost": (
        kl.LSTM(4, name="m"), torch.nn.LSTM(3, 4),
        {"bias_hh_l0": as_layout(layouts.ADDED._replace(
            to_keras=lambda a, shape: np.zeros_like(a)))}),
    "gates of an LSTM in another order": (
        kl.LSTM(4, name="m"), torch.nn.LSTM(3, 4),
        {"weight_hh_l0": as_layout(layouts.DENSE._replace(
            to_keras=forget_first))}),
    "square recurrent kernel not transposed": (
        kl.SimpleRNN(4, name="m"), torch.nn.RNN(3, 4),
        {"weight_hh_l0": as_layout(layouts.SAME)}),
    "directions exchanged": (
        kl.Bidirectional(kl.LSTM(3), name="m"),
        torch.nn.LSTM(3, 3, bidirectional=True),
        {end: lambda row, other=other: row._replace(suffix=other)
         for end, other in (("weight_hh_l0", "weight_hh_l0_reverse"),
                            ("weight_hh_l0_reverse", "weight_hh_l0"))}),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_caught(name, monkeypatch):
    layer, module, changes = MISTAKES[name]
    changed_rows(monkeypatch, type(layer), **changes)
    layer = type(layer).from_config(layer.get_config())
    with pytest.raises(MismatchError, match="layer `m` is off by"):
        convert.from_torch(state_of(module), sequences(layer))


@pytest.mark.parametrize("mistake", ["queries and keys exchanged", "heads last"])
def test_mistakes_of_attention_are_caught(mistake, monkeypatch):
    right = rules._kernel_rows

    def wrong(layer):
        query, key, *rest = right(layer)
        if mistake == "queries and keys exchanged":
            return [key, query, *rest]
        layout = query.layout._replace(to_keras=heads_last)
        return [query._replace(layout=layout), key, *rest]

    monkeypatch.setattr(rules, "_kernel_rows", wrong)
    module = torch.nn.MultiheadAttention(6, 2)
    with pytest.raises(MismatchError, match="layer `m` is off by"):
        convert.from_torch(state_of(module), attention())


def test_right_heads_of_three_are_certified():
    # TensorFlow rounds 1 / sqrt(3) to float32; that is no mistake of a conversion.
    module = torch.nn.MultiheadAttention(6, 2)
    model = convert.from_torch(state_of(module), attention())
    assert convert.provenance(model)["verification"]["relative_error"] < 1e-13


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_rounded_biases_are_no_mistake(kind, dtype):
    layer = {"LSTM": kl.LSTM, "GRU": kl.GRU, "RNN": kl.SimpleRNN}[kind]
    module = getattr(torch.nn, kind)(3, 40).double()
    # No orthogonal matrix in bfloat16.
    layer = layer(40, recurrent_initializer="zeros", dtype=dtype, name="m")
    model = convert.from_torch(state_of(module), sequences(layer))
    assert convert.provenance(model)["verification"]["layers"] == 1


def test_layers_that_return_more_are_certified():
    inputs = keras.Input((5, 3), batch_size=2)
    layers = [
        kl.LSTM(4, return_state=True, name="m"),
        kl.Bidirectional(kl.GRU(4, return_state=True), merge_mode=None, name="n"),
        kl.GRU(4, go_backwards=True, stateful=True, name="o"),
    ]
    model = keras.Model(inputs, [layer(inputs) for layer in layers])
    modules = (
        torch.nn.LSTM(3, 4),
        torch.nn.GRU(3, 4, bidirectional=True),
        torch.nn.GRU(3, 4),
    )
    state = {
        f"{name}.{key}": value
        for name, module in zip("mno", modules, strict=True)
        for key, value in module.state_dict().items()
    }
    convert.from_torch(state, model)
    card = convert.provenance(model)
    assert card["verification"]["layers"] == 3
    # Which PyTorch's GRU does not, unless its input is turned around.
    assert any("that o reads backwards" in line for line in card["not_seen"])


def test_every_tensor_and_every_weight_is_used_once():
    packed = torch.nn.MultiheadAttention(6, 2)
    state = state_of(packed)
    with pytest.raises(MismatchError, match=r"m.bias_{k,v}|m.{bias_k,bias_v}"):
        biased = torch.nn.MultiheadAttention(6, 2, add_bias_kv=True)
        convert.from_torch(state_of(biased), attention())
    with pytest.raises(MismatchError, match=r"Missing: m.in_proj_bias"):
        lost = {key: value for key, value in state.items() if "in_proj_b" not in key}
        convert.from_torch(lost, attention())
    with pytest.raises(MismatchError, match=r"m.in_proj_weight \(12, 6\), not \(18, 6"):
        state["m.in_proj_weight"] = state["m.in_proj_weight"][:12]
        convert.from_torch(state, attention())
    with pytest.raises(MismatchError, match="Unused: m.{.*weight_hh_l1"):
        module = torch.nn.LSTM(3, 4, num_layers=2)
        convert.from_torch(state_of(module), sequences(kl.LSTM(4, name="m")))


def test_flat_kernels_keep_their_direction():
    model = sequences(kl.Conv2D(4, (3, 1), name="m"), shape=(9, 9, 2))
    module = torch.nn.Conv2d(2, 4, (1, 3))
    with pytest.raises(MismatchError, match="another shape"):
        convert.from_torch(state_of(module), model)


@pytest.mark.parametrize("name", ["lstm", "attention"])
def test_wrapped_kernels_leave_with_norm_1(name, rng):
    inputs = keras.Input((5, 8))
    if name == "lstm":
        module = torch.nn.LSTM(8, 8, batch_first=True)
        wrapper = SpectralNormalization(kl.LSTM(8, return_sequences=True, name="m"))
        model = keras.Model(inputs, wrapper(inputs))
    else:
        module = torch.nn.MultiheadAttention(8, 2, batch_first=True)
        wrapper = SpectralNormalization(kl.MultiHeadAttention(2, 4, name="m"))
        model = keras.Model(inputs, wrapper(inputs, inputs))
    module.load_state_dict({k: 3 * v + 0.1 for k, v in module.state_dict().items()})
    convert.from_torch(state_of(module), model)
    state = convert.to_torch(model)
    for key in [key for key in state if "weight" in key]:
        # PyTorch's packed tensor is three kernels.
        for part in np.split(state[key], 3 if "in_proj" in key else 1):
            assert np.linalg.norm(part, 2) == pytest.approx(1, abs=1e-5)
    module.load_state_dict(
        {key.removeprefix("m."): torch.tensor(value) for key, value in state.items()}
    )
    x = rng.standard_normal((2, 5, 8)).astype("float32")
    y = module(*[torch.tensor(x)] * (1 if name == "lstm" else 3))[0]
    np.testing.assert_allclose(model(x), y.detach().numpy(), atol=1e-2)


def test_a_channels_first_line_is_certified():
    layer = kl.Conv1D(4, 3, 2, data_format="channels_first", name="m")
    model = sequences(layer, shape=(2, 9))
    convert.from_torch(state_of(torch.nn.Conv1d(2, 4, 3)), model)
    assert convert.provenance(model)["verification"]["layers"] == 1


def test_a_layer_in_a_model_and_a_nested_one_is_one(rng):
    fc = kl.Dense(4, name="fc")
    inside = keras.Input((4,))
    inner = keras.Model(inside, keras.ops.tanh(fc(inside)), name="inner")
    inputs = keras.Input((4,))
    outputs = kl.Dense(2, name="head")(inner(fc(inputs)))
    model = keras.Model(inputs, [outputs, inner(inputs)])
    theirs = torch.nn.ModuleDict(
        {"fc": torch.nn.Linear(4, 4), "head": torch.nn.Linear(4, 2)}
    )
    convert.from_torch(theirs.state_dict(), model)
    found = convert.provenance(model)["verification"]
    assert found["status"] == "passed" and found["layers"] == 2
    x = rng.standard_normal((3, 4)).astype("float32")
    with torch.no_grad():
        y = theirs["fc"](torch.tensor(x))
        expected = theirs["head"](torch.tanh(theirs["fc"](y))), torch.tanh(y)
    for ours, wanted in zip(model(x), expected, strict=True):
        np.testing.assert_allclose(ours, wanted, atol=1e-6)
    exported = convert.to_torch(model)
    theirs.load_state_dict({k: torch.tensor(v) for k, v in exported.items()})


def test_one_slope_for_all_is_told_how(rng):
    """PyTorch's default, for which Keras shares all axes."""
    theirs = torch.nn.PReLU()
    with pytest.raises(MismatchError, match=r"PReLU\(shared_axes=\[1, 2, 3\]\)"):
        layer = kl.PReLU(shared_axes=[1, 2], name="m")
        convert.from_torch(state_of(theirs), sequences(layer, shape=(4, 5, 3)))
    model = sequences(kl.PReLU(shared_axes=[1, 2, 3], name="m"), shape=(4, 5, 3))
    convert.from_torch(state_of(theirs), model)
    x = rng.standard_normal((2, 4, 5, 3)).astype("float32")
    np.testing.assert_allclose(model(x), theirs(torch.tensor(x)).detach(), atol=1e-6)
    assert convert.to_torch(model)["m.weight"].shape == (1,)
