"""How each kind of Keras layer holds what a PyTorch module holds.

One rule a layer kind, both ways, and none for any architecture: the key of a layer is
its name with a dot for each dash.
"""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
from keras import layers as kl

from keras_spectral.layers import ConditionalBatchNormalization
from keras_spectral.models.layouts import CONVOLUTION, SAME, Layout
from keras_spectral.models.slots import has_kernels, kernel_slots
from keras_spectral.models.weights import leaf_layers


class Slot(NamedTuple):
    """One tensor of a PyTorch module, and the variable that holds it in Keras.

    Args:
        key: String, PyTorch's key.
        layer: The layer that owns the variable.
        wrapper: The normalizing wrapper around it, or `None`.
        attribute: String, the layer's attribute.
        to_keras: Callable from array and the variable's shape to array.
        to_torch: Callable from array to array.
    """

    key: str
    layer: keras.layers.Layer
    wrapper: keras.layers.Layer | None
    attribute: str
    to_keras: Callable
    to_torch: Callable

    @property
    def variable(self):
        """The `keras.Variable`."""
        return getattr(self.layer, self.attribute)

    @property
    def torch_shape(self):
        """Shape of the tensor in PyTorch."""
        return self.to_torch(np.empty(self.variable.shape, "bool")).shape


class _Row(NamedTuple):
    suffix: str
    attribute: str
    layout: Layout = SAME


# Beside the kernels, which `models.kinds` knows. A layer has not all of them.
_BESIDE = (_Row("bias", "bias"), _Row("mask", "mask", CONVOLUTION))
_SCALE = (_Row("weight", "gamma"), _Row("bias", "beta"))
# Layers without kernels.
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
)
SUPPORTED = (
    "Dense, Conv1D/2D/3D and their transposes, DepthwiseConv1D/2D, Embedding, "
    "BatchNormalization, LayerNormalization, GroupNormalization"
)


def _rows(layer):
    """Return the rows that cover a layer's weights, all of them, or `None`."""
    if has_kernels(layer):
        kernels = [slot for slot in kernel_slots(layer) if slot.owner is layer]
        rows = [
            _Row(slot.torch[0], slot.attribute, slot.torch[1])
            for slot in kernels
            if slot.torch
        ]
        rows += _BESIDE
    else:
        rows = next((rows for kind, rows in _RULES if isinstance(layer, kind)), ())
    rows = [row for row in rows if getattr(layer, row.attribute, None) is not None]
    covered = {id(getattr(layer, row.attribute)) for row in rows}
    return rows if covered == {id(weight) for weight in layer.weights} else None


def weighted_layers(model):
    """Yield (name, inner layer, wrapper or None) of every layer with weights.

    Example:
    >>> model = keras.Sequential([keras.Input((3,)), kl.Dense(2, name="fc")])
    >>> [(name, type(layer).__name__) for name, layer, _ in weighted_layers(model)]
    [('fc', 'Dense')]
    """
    for layer in leaf_layers(model):
        if not layer.weights:
            continue
        if isinstance(layer, kl.Wrapper):
            yield layer.name, layer.layer, layer
        else:
            yield layer.name, layer, None


def slots(model):
    """Return {key: `Slot`} of every weight of a model.

    Raises:
        ValueError: If the model is not built, has layers of a kind without a rule, or
            two layers of one name.
    """
    if not model.built:
        raise ValueError(
            "`model` must be built, so that its weights exist. Received: "
            f"model={model.name}. Call it on a batch first."
        )
    found, unknown = {}, []
    for name, layer, wrapper in weighted_layers(model):
        rows = _rows(layer)
        if rows is None:
            unknown.append(f"{name} ({type(layer).__name__})")
            continue
        for row in rows:
            key = f"{name.replace('-', '.')}.{row.suffix}"
            if key in found:
                raise ValueError(
                    f"`model` has two layers for the key `{key}`. Give every layer "
                    "a name of its own."
                )
            found[key] = Slot(key, layer, wrapper, row.attribute, *row.layout)
    if unknown:
        raise ValueError(
            f"`model` must hold weights in these layers only: {SUPPORTED}. Received: "
            f"{', '.join(unknown)}, for which there is no rule."
        )
    return found
