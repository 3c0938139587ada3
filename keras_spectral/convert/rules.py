"""How each kind of Keras layer holds what a PyTorch module holds.

One rule a layer kind, both ways, and none for any architecture: the key of a layer is
its name with a dot for each dash.
"""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
from keras import layers as kl

from keras_spectral.layers import ConditionalBatchNormalization, MaskedConv2D
from keras_spectral.models.weights import leaf_layers


def _identity(array):
    return array


def _convolution_to_keras(array):
    """(out, in, *size) to (*size, in, out); of a transpose (in, out, *size)."""
    return array.transpose(*range(2, array.ndim), 1, 0)


def _convolution_to_torch(array):
    return array.transpose(array.ndim - 1, array.ndim - 2, *range(array.ndim - 2))


def _depthwise_to_torch(array):
    """(*size, channels, multiplier) to (channels * multiplier, 1, *size)."""
    size = array.shape[:-2]
    moved = array.transpose(array.ndim - 2, array.ndim - 1, *range(array.ndim - 2))
    return moved.reshape(-1, 1, *size)


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
    to_keras: Callable = lambda array, shape: array
    to_torch: Callable = _identity


_BIAS = _Row("bias", "bias")
_DENSE = _Row("weight", "kernel", lambda array, _: array.T, np.transpose)
_CONVOLUTION = _Row(
    "weight",
    "kernel",
    lambda array, _: _convolution_to_keras(array),
    _convolution_to_torch,
)
_DEPTHWISE = _Row(
    "weight",
    "kernel",
    lambda array, shape: np.moveaxis(
        array.reshape(shape[-2], shape[-1], *shape[:-2]), (0, 1), (-2, -1)
    ),
    _depthwise_to_torch,
)
_SCALE = (_Row("weight", "gamma"), _Row("bias", "beta"))

# The first kind that fits counts, so subclasses stand before their base.
_RULES = [
    (
        MaskedConv2D,
        (_CONVOLUTION, _BIAS, _CONVOLUTION._replace(suffix="mask", attribute="mask")),
    ),
    ((kl.Conv1D, kl.Conv2D, kl.Conv3D), (_CONVOLUTION, _BIAS)),
    (
        (kl.Conv1DTranspose, kl.Conv2DTranspose, kl.Conv3DTranspose),
        (_CONVOLUTION, _BIAS),
    ),
    ((kl.DepthwiseConv1D, kl.DepthwiseConv2D), (_DEPTHWISE, _BIAS)),
    (kl.Dense, (_DENSE, _BIAS)),
    (kl.Embedding, (_Row("weight", "embeddings"),)),
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
]
SUPPORTED = (
    "Dense, Conv1D/2D/3D and their transposes, DepthwiseConv1D/2D, Embedding, "
    "BatchNormalization, LayerNormalization, GroupNormalization"
)


def _rows(layer):
    """Return the rows that cover a layer's weights, all of them, or `None`."""
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
            found[key] = Slot(
                key, layer, wrapper, row.attribute, row.to_keras, row.to_torch
            )
    if unknown:
        raise ValueError(
            f"`model` must hold weights in these layers only: {SUPPORTED}. Received: "
            f"{', '.join(unknown)}, for which there is no rule."
        )
    return found
