"""In which order a layer reads an image that was flattened before it.

An image's channels come last here and first in PyTorch, so `Flatten` gives the same
numbers in another order, and the layer that reads them needs its kernel's rows in ours.
Networks of the zoo move their channels to the front before, as PyTorch has them.
"""

import math

import keras
import numpy as np
from keras import layers as kl

from keras_spectral.models.keras_internals import functional_graph
from keras_spectral.models.layouts import Layout
from keras_spectral.models.weights import leaf_layers

# What is known of a tensor, beside `None` (the numbers are where PyTorch has them) and
# an integer array (our feature i is PyTorch's feature order[i]).
_IMAGE = "image"  # Channels last, where PyTorch's are first.
_LOST = "lost"

# Names of layers and of operations that treat each number, or each row, by itself.
_FEATURE_WISE = {
    "Activation", "ActivityRegularization", "AlphaDropout", "Dropout", "ELU", "Elu",
    "GaussianDropout", "GaussianNoise", "Gelu", "Identity", "LeakyReLU", "LeakyRelu",
    "ReLU", "Relu", "Relu6", "Rescaling", "Selu", "Sigmoid", "Silu", "Softmax",
    "Softplus", "Tanh",
}  # fmt: skip
_MERGING = {"Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract"}
_RESIZING = {"Cropping1D", "UpSampling1D"}
# Layers whose weights go by the features that they read.
_READING = {"Dense", "BatchNormalization", "LayerNormalization"}


def flattened_orders(model):
    """Return the layers that read flattened images, and in which order.

    Args:
        model: A built `keras.Model`.

    Returns:
        Tuple (dict from path to an integer array: feature i of the layer is PyTorch's
        feature order[i]; list of paths of layers whose order cannot be told).

    Example:
    >>> layers = [keras.Input((1, 2, 3)), kl.Flatten(), kl.Dense(1, name="fc")]
    >>> flattened_orders(keras.Sequential(layers))
    ({'fc': array([0, 2, 4, 1, 3, 5])}, [])
    """
    follower = _Follower()
    follower.follow(model)
    lost = [path for path in follower.lost if path not in follower.orders]
    return follower.orders, lost


def reordered(targets, orders):
    """Return slots that give the layers in `orders` their rows in our order.

    Args:
        targets: Dict from key to `rules.Slot`.
        orders: Dict, see `flattened_orders`.
    """
    return {key: _reordered(key, slot, orders) for key, slot in targets.items()}


def _reordered(key, slot, orders):
    path, _, leaf = key.rpartition(".")
    order = orders.get(path)
    # A dense layer's outputs are where PyTorch has them.
    if order is None or (leaf == "bias" and isinstance(slot.layer, kl.Dense)):
        return slot
    back = np.argsort(order)
    (holder,) = slot.holders
    to_keras, to_torch = holder.layout
    layout = Layout(
        lambda array, shape: to_keras(array, shape)[order],
        lambda array: to_torch(array[back]),
    )
    return slot._replace(holders=(holder._replace(layout=layout),))


class _Follower:
    """A walk from a model's inputs to its outputs."""

    def __init__(self):
        self.orders, self.lost = {}, {}

    def follow(self, model, given=None):
        """Return what is known of a model's outputs, or `None` without a graph."""
        graph = functional_graph(model)
        if graph is None:
            layers = list(leaf_layers(model))
            if any(hasattr(layer, "data_format") for layer in layers):
                dense = (lay for lay in layers if _classes(_inner(lay)) & {"Dense"})
                self.lost |= {_path(layer): True for layer in dense}
            return None
        inputs, calls, outputs = graph
        known = given or [_of_input(len(tensor.shape)) for tensor in inputs]
        known = dict(zip(map(id, inputs), known, strict=True))
        for call in calls:
            read = [(known.get(id(t)), t.shape) for t in call.input_tensors]
            made = self._outputs(call.operation, read, call.outputs)
            known |= zip(map(id, call.outputs), made, strict=True)
        return [known.get(id(tensor)) for tensor in outputs]

    def _outputs(self, operation, read, outputs):
        if isinstance(operation, keras.Model):
            made = self.follow(operation, [tag for tag, _ in read])
            if made is not None:
                return made
        return [self._output(operation, read, tensor.shape) for tensor in outputs]

    def _output(self, operation, read, output_shape):
        layer, (tag, shape) = _inner(operation), read[0]
        kinds = _classes(layer)
        if kinds & {"Flatten", "Reshape"}:
            return _reshaped(layer, tag, shape, output_shape)
        if kinds & {"Permute", "Transpose"}:
            return _permuted(layer, tag, shape)
        if kinds & {"Concatenate"}:
            return _concatenated(read)
        if kinds & _READING and len(shape) == 2:
            return self._read(_path(operation), kinds, tag)
        if getattr(layer, "data_format", None) is not None:
            return self._spatial(_path(operation), layer, tag, shape, output_shape)
        tags = [tag for tag, _ in read]
        if kinds & (_FEATURE_WISE | _MERGING | _RESIZING):
            return tag if all(_equal(tag, other) for other in tags) else _LOST
        if all(tag is None for tag in tags):
            return None
        # What keeps the shape treats each number by itself, most likely.
        same = output_shape == shape and all(_equal(_IMAGE, tag) for tag in tags)
        return _IMAGE if same else _LOST

    def _read(self, path, kinds, tag):
        if isinstance(tag, np.ndarray):
            # A layer that is used twice may read two orders.
            if not _equal(self.orders.setdefault(path, tag), tag):
                del self.orders[path]
                tag = _LOST
        elif path in self.orders:
            del self.orders[path]
            tag = _LOST
        if _equal(tag, _LOST):
            self.lost[path] = True
        return None if kinds & {"Dense"} else tag

    def _spatial(self, path, layer, tag, shape, output_shape):
        last = layer.data_format == "channels_last"
        if layer.weights:
            if last and tag is None and len(shape) > 3:
                # Numbers were made an image, whose channels are first in PyTorch.
                self.lost[path] = True
            return _IMAGE if last else None
        # Pools over the whole image leave the channels.
        return tag if len(output_shape) == len(shape) else None


def _inner(operation):
    repeated = isinstance(operation, (kl.TimeDistributed, kl.Bidirectional))
    wrapped = isinstance(operation, kl.Wrapper) and not repeated
    return operation.layer if wrapped else operation


def _path(layer):
    return layer.name.replace("-", ".")


def _classes(operation):
    """Return the names of Keras' classes that an operation is of."""
    return {
        known.__name__
        for known in type(operation).__mro__
        if known.__module__.split(".")[0] == "keras"
    }


def _equal(tag, other):
    if isinstance(tag, np.ndarray) and isinstance(other, np.ndarray):
        return np.array_equal(tag, other)
    return tag is other


def _of_input(rank):
    last = keras.config.image_data_format() == "channels_last"
    return _IMAGE if last and rank > 3 else None


def _reshaped(layer, tag, shape, output_shape):
    if len(output_shape) == 2:
        first = getattr(layer, "data_format", None) == "channels_first"
        if first and len(shape) > 2:
            # Keras moves such channels to the end before it flattens.
            shape = (shape[0], *shape[2:], shape[1])
            tag = _IMAGE if tag is None else _LOST
        return _flattened(shape[1:]) if _equal(tag, _IMAGE) else tag
    if tag is not None:
        return tag if output_shape == shape else _LOST
    # One channel is first and last, and so are the channels of one pixel.
    *pixels, channels = output_shape[1:]
    return _IMAGE if len(pixels) > 1 and 1 in (channels, math.prod(pixels)) else None


def _flattened(shape):
    if None in shape:
        return _LOST
    first = np.arange(math.prod(shape)).reshape(shape[-1], *shape[:-1])
    order = np.moveaxis(first, 0, -1).ravel()
    return None if np.array_equal(order, np.arange(order.size)) else order


def _permuted(layer, tag, shape):
    count = len(shape) - 1
    dims = layer.dims if hasattr(layer, "dims") else (layer.axes or ())[1:]
    dims, axes = tuple(dims), tuple(range(1, count + 1))
    if dims == axes:
        return tag
    if _equal(tag, _IMAGE):
        return None if dims == (count, *axes[:-1]) else _LOST
    if tag is None and count > 2 and dims == (*axes[1:], 1):
        return _IMAGE
    return tag


def _concatenated(read):
    tags = [tag for tag, _ in read]
    if all(tag is None for tag in tags):
        return None
    if any(len(shape) > 2 for _, shape in read):
        return _IMAGE if all(_equal(tag, _IMAGE) for tag in tags) else _LOST
    parts, start = [], 0
    for tag, (_, width) in read:
        if _equal(tag, _LOST):
            return _LOST
        parts.append(start + (np.arange(width) if tag is None else tag))
        start += width
    return np.concatenate(parts)
