"""How each kind of Keras layer holds what a PyTorch module holds.

One rule a layer kind, both ways, and none for any architecture: the key of a layer is
its name with a dot for each dash. Of a recurrent module with several layers, `rnn`, the
first is the Keras layer `rnn`, the others are `rnn-l1`, `rnn-l2` and so on.
"""

from typing import NamedTuple

import keras
import numpy as np
from keras import layers as kl

from keras_spectral.layers import ConditionalBatchNormalization
from keras_spectral.models.keras_internals import GATE
from keras_spectral.models.layouts import CONVOLUTION, FLAT, SAME, Layout
from keras_spectral.models.slots import has_kernels, kernel_slots
from keras_spectral.models.weights import leaf_layers


class Holder(NamedTuple):
    """A variable that holds a tensor, or some of it.

    Args:
        owner: The layer that has the variable, perhaps inside of the model's.
        attribute: String, the owner's attribute.
        layout: `Layout` of the tensor, or of that part of it.
        kernel: String, what `kernel_slots` calls it, or `None` if it is no kernel.
    """

    owner: keras.layers.Layer
    attribute: str
    layout: Layout
    kernel: str | None = None

    @property
    def variable(self):
        """The `keras.Variable`."""
        return getattr(self.owner, self.attribute)

    @property
    def torch_shape(self):
        """Shape of what it holds, in PyTorch."""
        return self.layout.to_torch(np.empty(self.variable.shape, "bool")).shape


class Slot(NamedTuple):
    """One tensor of a PyTorch module, and the variables that hold it in Keras.

    Args:
        key: String, PyTorch's key.
        layer: The layer that owns the variables.
        wrapper: The normalizing wrapper around it, or `None`.
        holders: Tuple of `Holder`. Of several each holds some rows of the tensor, one
            below the other.
        shape: Tuple, the tensor's own shape if it is another one than `torch_shape`,
            see `fits`.
    """

    key: str
    layer: keras.layers.Layer
    wrapper: keras.layers.Layer | None
    holders: tuple
    shape: tuple | None = None

    @property
    def variable(self):
        """The `keras.Variable`, of several the first."""
        return self.holders[0].variable

    @property
    def torch_shape(self):
        """Shape of the tensor in the PyTorch module of the layer's kind."""
        first, *others = (holder.torch_shape for holder in self.holders)
        if not others:
            return first
        return (first[0] + sum(shape[0] for shape in others), *first[1:])

    def fits(self, shape):
        """Whether the layer can take a tensor of a shape.

        A convolution's may have axes of length 1 more or fewer: a (k, 1) kernel fits
        a `Conv1D`, a (1, 1) kernel a `Dense`, and `nn.Linear` a (1, 1) `Conv2D`.
        """
        own = self.torch_shape
        if shape == own:
            return True
        return (
            self.holders[0].kernel is not None
            and len(shape) != len(own)
            and shape[:2] == own[:2]
            and _longer_than_1(shape[2:]) == _longer_than_1(own[2:])
        )

    def to_keras(self, tensor):
        """Return what each holder has of a tensor, a list of arrays."""
        if len(self.holders) == 1:
            parts = [tensor]
        else:
            rows = np.cumsum([holder.torch_shape[0] for holder in self.holders])
            parts = np.split(tensor, rows[:-1])
        return [
            holder.layout.to_keras(part, tuple(holder.variable.shape))
            for holder, part in zip(self.holders, parts, strict=True)
        ]

    def to_torch(self, values):
        """Return the tensor that arrays make, one a holder."""
        parts = [
            holder.layout.to_torch(value)
            for holder, value in zip(self.holders, values, strict=True)
        ]
        tensor = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return tensor if self.shape is None else tensor.reshape(self.shape)


def _longer_than_1(shape):
    return [size for size in shape if size != 1]


class _Row(NamedTuple):
    suffix: str
    attribute: str
    layout: Layout = SAME
    # Of a layer inside.
    owner: keras.layers.Layer | None = None
    kernel: str | None = None


_SCALE = (_Row("weight", "gamma"), _Row("bias", "beta"))
# Layers without kernels. A layer has not all of these.
_RULES = (
    (
        kl.BatchNormalization,
        (
            *_SCALE,
            _Row("running_mean", "moving_mean"),
            _Row("running_var", "moving_variance"),
        ),
    ),
    (
        ConditionalBatchNormalization,
        (
            _Row("embed.weight", "embeddings"),
            _Row("bn.running_mean", "moving_mean"),
            _Row("bn.running_var", "moving_variance"),
        ),
    ),
    ((kl.LayerNormalization, kl.GroupNormalization), _SCALE),
    (kl.PReLU, (_Row("weight", "alpha", FLAT),)),
)
SUPPORTED = (
    "Dense, Conv1D/2D/3D and their transposes, DepthwiseConv1D/2D, Embedding, "
    "SimpleRNN, LSTM, GRU and their Bidirectional, MultiHeadAttention, PReLU, "
    "BatchNormalization, LayerNormalization, GroupNormalization"
)


# Into it PyTorch packs the projections of queries, keys and values of one width.
_PACKED = "in_proj_weight"


def _rows(layer):
    """Return the rows that cover a layer's weights, all of them, or `None`."""
    if has_kernels(layer):
        rows = _kernel_rows(layer)
    else:
        rows = next((rows for kind, rows in _RULES if isinstance(layer, kind)), ())
    rows = [row._replace(owner=row.owner or layer) for row in rows]
    rows = [row for row in rows if getattr(row.owner, row.attribute, None) is not None]
    covered = {id(getattr(row.owner, row.attribute)) for row in rows}
    return rows if covered == {id(weight) for weight in layer.weights} else None


def _kernel_rows(layer):
    """Return the rows of kernels, which `models.kinds` knows, and of what is beside."""
    kernels, biases, masks = [], [], []
    slots = [slot for slot in kernel_slots(layer) if slot.torch]
    packed = [slot for slot in slots if slot.torch.suffix == _PACKED]
    apart = len({tuple(slot.variable.shape) for slot in packed}) > 1
    for slot in slots:
        suffix, layout, bias_layout = slot.torch
        bias = suffix.replace("weight", "bias")
        if apart and suffix == _PACKED:
            suffix = f"{slot.name[0]}_proj_weight"
        kernels.append(_Row(suffix, slot.attribute, layout, slot.owner, slot.name))
        biases.append(_Row(bias, "bias", bias_layout, slot.owner))
        masks.append(_Row("mask", "mask", CONVOLUTION, slot.owner))
    return kernels + biases + masks


def _obstacle(layer):
    """Return why no PyTorch module computes what a layer does, or `None`."""
    if isinstance(layer, kl.Bidirectional):
        pair = (layer.forward_layer, layer.backward_layer)
        if type(pair[0]) is not type(pair[1]):
            return "PyTorch runs one kind of cell in both directions"
        if any(hasattr(inner.cell, "cells") for inner in pair):
            return "PyTorch gives each of its layers both directions of the one before"
        return next(filter(None, map(_obstacle, pair)), None)
    if isinstance(layer, kl.RNN):
        cells = getattr(layer.cell, "cells", [layer.cell])
        return next(filter(None, map(_obstacle_of_cell, cells)), None)
    if isinstance(layer, kl.MultiHeadAttention):
        return _obstacle_of_attention(layer)
    if isinstance(layer, kl.PReLU):
        shape = layer.alpha.shape
        if max(shape[:-1], default=1) > 1 and max(shape[1:], default=1) > 1:
            return "PyTorch has one slope a channel: share the other axes"
    return None


def _obstacle_of_cell(cell):
    activations = [keras.activations.tanh]
    if isinstance(cell, kl.SimpleRNNCell):
        activations.append(keras.activations.relu)
    if getattr(cell, "reset_after", True) is False:
        return (
            "with reset_after=False the reset gate acts on the state, in PyTorch on "
            "its product with the recurrent kernel"
        )
    if (
        cell.activation not in activations
        or getattr(cell, "recurrent_activation", keras.activations.sigmoid)
        is not keras.activations.sigmoid
    ):
        return "PyTorch has no other activations than tanh, and sigmoid in gates"
    return None


def _obstacle_of_attention(layer):
    if getattr(layer, GATE, None) is not None:
        return "PyTorch has no use_gate=True"
    query, value, output = (
        tuple(part.kernel.shape)
        for part in (layer.query_dense, layer.value_dense, layer.output_dense)
    )
    width, heads, size = query
    if (
        width != heads * size
        or value[1:] != query[1:]
        or output != (heads, size, width)
    ):
        return (
            "in PyTorch num_heads * key_dim and num_heads * value_dim are the width of "
            f"queries and outputs, here {width}"
        )
    return None


def _modules(model):
    """Yield (module path with dashes, its layer's number, inner layer, wrapper)."""
    found = []
    # A layer that is called in several nested models is one.
    for layer in {id(layer): layer for layer in leaf_layers(model)}.values():
        if layer.weights:
            wrapped = isinstance(layer, kl.Wrapper)
            found.append((layer.layer, layer) if wrapped else (layer, None))
    names = [(wrapper or layer).name for layer, wrapper in found]
    # PyTorch's recurrent modules have no modules inside: `rnn-l1` beside `rnn` is none.
    recurrent = {
        name
        for name, (layer, _) in zip(names, found, strict=True)
        if isinstance(layer, (kl.RNN, kl.Bidirectional))
    }
    for name, (layer, wrapper) in zip(names, found, strict=True):
        module, _, number = name.rpartition("-l")
        if name in recurrent and module in recurrent and number.isdecimal():
            yield module, int(number), layer, wrapper
        else:
            yield name, 0, layer, wrapper


def weighted_layers(model):
    """Yield (module, inner layer, wrapper or None) of every layer with weights.

    The module is the layer's name, but for further layers of a recurrent one.

    Example:
    >>> model = keras.Sequential([keras.Input((3,)), kl.Dense(2, name="fc")])
    >>> [(name, type(layer).__name__) for name, layer, _ in weighted_layers(model)]
    [('fc', 'Dense')]
    """
    for module, _, layer, wrapper in _modules(model):
        yield module, layer, wrapper


def slots(model):
    """Return {key: `Slot`} of every weight of a model.

    Raises:
        ValueError: If the model is not built, has layers of a kind without a rule or
            that compute what no PyTorch module does, or two layers of one name.
    """
    if not model.built:
        raise ValueError(
            "`model` must be built, so that its weights exist. Received: "
            f"model={model.name}. Call it on a batch first."
        )
    found, unknown = {}, []
    for module, number, layer, wrapper in _modules(model):
        obstacle, rows = _obstacle(layer), _rows(layer)
        if obstacle or rows is None:
            kind = type(layer).__name__
            name = (wrapper or layer).name
            unknown.append(f"{name} ({kind}{f': {obstacle}' if obstacle else ''})")
            continue
        for suffix, holders in _by_tensor(rows):
            if number:
                suffix = suffix.replace("_l0", f"_l{number}")
            key = f"{module.replace('-', '.')}.{suffix}"
            if key in found:
                raise ValueError(
                    f"`model` has two layers for the key `{key}`. Give every layer "
                    "a name of its own."
                )
            found[key] = Slot(key, layer, wrapper, holders)
    if unknown:
        raise ValueError(
            f"`model` must hold weights in these layers only: {SUPPORTED}. Received: "
            f"{', '.join(unknown)}, for which there is no rule."
        )
    return found


def _by_tensor(rows):
    """Return pairs of a suffix and a tuple of `Holder`."""
    tensors = {}
    for suffix, attribute, layout, owner, kernel in rows:
        holder = Holder(owner, attribute, layout, kernel)
        tensors.setdefault(suffix, []).append(holder)
    return [(suffix, tuple(holders)) for suffix, holders in tensors.items()]
