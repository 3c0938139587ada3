"""PyTorch's recurrent modules, attention, PReLU and Conv1d in float64, by NumPy.

Each function compares one Keras layer with the PyTorch module whose tensors `get` has.
"""

import re

import keras
import numpy as np

from keras_spectral.convert.files.records import numpy_dtype

_WHOLE = {"return_sequences": True, "return_state": False, "stateful": False}


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _outputs(layer, config, inputs):
    """Return what a copy of a layer with another config makes of inputs."""
    twin = type(layer).from_config(config)
    twin(*inputs)
    twin.set_weights([np.asarray(w, "float64") for w in layer.get_weights()])
    return keras.ops.convert_to_numpy(twin(*inputs))


def _random(*shape):
    return np.random.default_rng(0).standard_normal(shape)


def _lstm(gates, products, state, activation):
    i, f, g, o = np.split(gates + products, 4, axis=-1)
    c = _sigmoid(f) * state[1] + _sigmoid(i) * activation(g)
    return _sigmoid(o) * activation(c), c


def _gru(gates, products, state, activation):
    (r, z, n), (r_h, z_h, n_h) = (np.split(a, 3, axis=-1) for a in (gates, products))
    z = _sigmoid(z + z_h)
    n = activation(n + _sigmoid(r + r_h) * n_h)
    h = (1 - z) * n + z * state[0]
    return h, h


def _plain(gates, products, state, activation):
    h = activation(gates + products)
    return h, h


_STEPS = {
    keras.layers.LSTMCell: _lstm,
    keras.layers.GRUCell: _gru,
    keras.layers.SimpleRNNCell: _plain,
}


def _run(cell, x, get, end):
    """Return the outputs of one layer and direction, (time, batch, units)."""
    step = next(step for kind, step in _STEPS.items() if isinstance(cell, kind))
    relu = cell.activation is keras.activations.relu
    inner, recurrent = get(f"weight_ih{end}"), get(f"weight_hh{end}")
    bias = np.zeros((2, 1))
    if cell.bias is not None:
        bias = np.stack([get(f"bias_ih{end}"), get(f"bias_hh{end}")])
        if cell.bias.ndim == 1:
            # Keras has the sum, in numbers of the model's dtype.
            bias = bias.astype(numpy_dtype(str(cell.bias.dtype))).sum(0)
            bias = np.stack([bias.astype("float64"), np.zeros(bias.shape)])
    state = (np.zeros((x.shape[1], recurrent.shape[1])),) * 2
    outputs = []
    for now in x:
        gates = now @ inner.T + bias[0]
        products = state[0] @ recurrent.T + bias[1]
        activation = (lambda x: np.maximum(x, 0)) if relu else np.tanh
        state = step(gates, products, state, activation)
        outputs.append(state[0])
    return np.stack(outputs)


def _first(layer, get):
    """Return which of a module's layers the first of a Keras layer is."""
    number = re.search(r"-l([0-9]+)$", layer.name)
    if number is None:
        return 0
    try:
        get(f"weight_ih_l{int(number.group(1))}")
    except KeyError:
        # A module of that name.
        return 0
    return int(number.group(1))


def _recurrent(layer, config, get):
    cells = getattr(layer.cell, "cells", [layer.cell])
    x = _random(4, 2, cells[0].kernel.shape[0])
    ours = _outputs(
        layer, {**config, **_WHOLE, "go_backwards": False}, [x.swapaxes(0, 1)]
    )
    first = _first(layer, get)
    for number, cell in enumerate(cells, start=first):
        x = _run(cell, x, get, f"_l{number}")
    return ours, x.swapaxes(0, 1)


def _bidirectional(layer, config, get):
    config = {**config, "merge_mode": "concat"}
    for name, backwards in (("layer", False), ("backward_layer", True)):
        if config.get(name):
            changed = {**_WHOLE, "go_backwards": backwards}
            inner = {**config[name]["config"], **changed}
            config[name] = {**config[name], "config": inner}
    cells = layer.forward_layer.cell, layer.backward_layer.cell
    x = _random(4, 2, cells[0].kernel.shape[0])
    ours = _outputs(layer, config, [x.swapaxes(0, 1)])
    end = f"_l{_first(layer, get)}"
    forward = _run(cells[0], x, get, end)
    backward = _run(cells[1], x[::-1], get, f"{end}_reverse")[::-1]
    return ours, np.concatenate([forward, backward], -1).swapaxes(0, 1)


def _attention(layer, config, get):
    try:
        weights = np.split(get("in_proj_weight"), 3)
    except KeyError:
        weights = [get(f"{name}_proj_weight") for name in "qkv"]
    biases = [0.0] * 3
    if layer.use_bias:
        biases = np.split(get("in_proj_bias"), 3)
    query, key, value = (
        _random(2, length, weight.shape[1])
        for length, weight in zip((3, 4, 4), weights, strict=True)
    )
    plain = {"attention_axes": None, "sliding_window": None}
    ours = _outputs(layer, {**config, **plain}, [query, value, key])
    q, k, v = (
        (x @ weight.T + bias).reshape(*x.shape[:2], layer.num_heads, -1)
        for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
    )
    # As Keras has it: TensorFlow casts a Python number by way of float32.
    scale = float(keras.ops.cast(1 / np.sqrt(q.shape[-1]).item(), "float64"))
    scores = np.einsum("bqhd,bkhd->bhqk", q, k) * scale
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    scores /= scores.sum(-1, keepdims=True)
    y = np.einsum("bhqk,bkhd->bqhd", scores, v).reshape(*query.shape)
    y = y @ get("out_proj.weight").T
    return ours, y + get("out_proj.bias") if layer.use_bias else y


def _prelu(layer, config, get):
    shape = tuple(layer.alpha.shape)
    shared = {axis % (len(shape) + 1) for axis in layer.shared_axes or ()}
    sizes = [3 if axis in shared else n for axis, n in enumerate(shape, start=1)]
    x, slope = _random(2, *sizes), get("weight").reshape(shape)
    return _outputs(layer, config, [x]), np.where(x > 0, x, slope * x)


PAIRS = (
    (keras.layers.RNN, _recurrent),
    (keras.layers.Bidirectional, _bidirectional),
    (keras.layers.MultiHeadAttention, _attention),
    (keras.layers.PReLU, _prelu),
)
