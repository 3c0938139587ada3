"""Each layer alone, on a small random input, against the reference.

One row a kind of layer, and what has no row is reported as unchecked.
"""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
from keras import layers as kl

from keras_spectral.convert.reference_modules import PAIRS
from keras_spectral.layers import ConditionalBatchNormalization
from keras_spectral.models.copying import in_dtype

# Above, entries of the kernel are compared.
_LARGEST_LAYER = 10_000_000


class LayerCheck(NamedTuple):
    """How one kind of layer is compared.

    Args:
        kinds: Class of layers, or tuple of them.
        compute: Callable (layer, input shape, get, ops) to (inputs, outputs) of a small
            random batch by PyTorch's rules, both in our layout; `None` where PyTorch
            has no such layer. `get` gives an array in PyTorch's layout by the end of
            its key, `ops` the functions of `reference_layers`. Inputs that are a tuple
            are several arguments of the layer's call.
        changes: Dict of the layer's config for the comparison, where it has the key.
    """

    kinds: type | tuple
    compute: Callable
    changes: dict


def compare_layer(path, layer, tensor, ops, order=None, wrapper=None):
    """Return (ours, theirs) of a layer on a small random input, or `None`.

    Args:
        path: String, the layer's in the state dict.
        layer: A built `keras.layers.Layer`.
        tensor: Callable from key to array, in PyTorch's layout.
        ops: `reference_layers.NumpyLayers` or `TorchLayers`.
        order: Integer array, where PyTorch has the features that the layer reads; see
            `flattening`.
        wrapper: The wrapper around the layer, if what it computes is compared.
    """

    def get(suffix):
        return np.asarray(tensor(f"{path}.{suffix}"), "float64")

    for kind, pair in PAIRS:
        if isinstance(layer, kind):
            # Keras' tanh makes float32 of float64 on JAX, where no loop allows that.
            jax = keras.backend.backend() == "jax"
            single = jax and keras.config.floatx() != "float64"
            dtype = "float32" if single else "float64"
            return pair(layer, in_dtype(layer.get_config(), dtype), get)
    check = next((row for row in CHECKS if isinstance(layer, row.kinds)), None)
    twin = None if check is None else _twin(layer, wrapper, check.changes)
    if twin is None:
        return None
    inner = twin if wrapper is None else twin.layer
    found = check.compute(inner, _input_shape(inner), get, ops)
    if found is None:
        return None
    inputs, theirs = found
    if order is not None:
        inputs = inputs[..., order]
        theirs = theirs if isinstance(layer, kl.Dense) else theirs[..., order]
    try:
        call = _compiled(twin) if _is_dilated_transpose(inner) else twin
        ours = call(*inputs) if isinstance(inputs, tuple) else call(inputs)
    # A stranger's layer may need other arguments.
    except Exception:
        return None
    return keras.ops.convert_to_numpy(ours), theirs


def is_large(layer):
    """Whether a layer is a dense one that is compared by entries."""
    return isinstance(layer, kl.Dense) and layer.count_params() > _LARGEST_LAYER


def compare_entries(layer, weight, order=None, count=10_000):
    """Return random entries of a dense kernel and of PyTorch's weight.

    Args:
        layer: A built `keras.layers.Dense`.
        weight: Array (outputs, inputs).
        order: See `compare_layer`.
        count: Integer, how many.
    """
    rng = np.random.default_rng(0)
    rows, columns = (rng.integers(0, n, count) for n in layer.kernel.shape)
    ours = keras.ops.convert_to_numpy(layer.kernel)[rows, columns]
    theirs = weight[columns, rows if order is None else order[rows]].astype(ours.dtype)
    return ours.astype("float64"), theirs.astype("float64")


def _twin(layer, wrapper, changes):
    """Return a copy in float64 with its channels last, or `None`."""
    outer = wrapper or layer
    # A stranger's layer may not know its own config.
    try:
        config = in_dtype(outer.get_config(), "float64")
        inner = config if wrapper is None else config["layer"]["config"]
        inner |= {key: value for key, value in changes.items() if key in inner}
        twin = type(outer).from_config(config)
        twin.build(_channels_last(layer))
        twin.set_weights([np.asarray(w, "float64") for w in outer.get_weights()])
    except Exception:
        return None
    return twin


def _is_dilated_transpose(layer):
    transposed = (kl.Conv1DTranspose, kl.Conv2DTranspose, kl.Conv3DTranspose)
    return isinstance(layer, transposed) and max(layer.dilation_rate) > 1


def _compiled(layer):
    """Return what computes a layer where TensorFlow's own functions do not.

    It has no dilated transposed convolution in float64 on CPUs; XLA has.
    """
    if keras.backend.backend() != "tensorflow":
        return layer
    import tensorflow as tf

    return tf.function(layer, jit_compile=True)


def _input_shape(layer):
    return layer.get_build_config()["input_shape"]


def _channels_last(layer):
    shape, axis = _input_shape(layer), getattr(layer, "axis", None)
    if getattr(layer, "data_format", None) == "channels_first":
        axis = 1
    if not isinstance(axis, int) or axis in (-1, len(shape) - 1):
        return shape
    return (*shape[:axis], *shape[axis + 1 :], shape[axis])


def _random(*shape):
    return np.random.default_rng(0).standard_normal(shape)


def _batch(shape):
    """Return 4 inputs of 3 pixels on each axis."""
    return _random(4, *[3] * (len(shape) - 2), shape[-1])


def _optional(get, **variables):
    """Return the arrays of the variables that a layer has, else `None`."""
    return [
        None if variable is None else get(suffix)
        for suffix, variable in variables.items()
    ]


def _dense(layer, shape, get, ops):
    x = _random(4, *(n or 3 for n in shape[1:-1]), shape[-1])
    y = x @ get("weight").T
    return x, y if layer.bias is None else y + get("bias")


def _embedding(layer, shape, get, ops):
    x = np.arange(min(layer.input_dim, 64))
    return x, get("weight")[x]


def _batch_normalization(layer, shape, get, ops):
    x = _batch(shape)
    y = (x - get("running_mean")) / np.sqrt(get("running_var") + layer.epsilon)
    y = y if layer.gamma is None else y * get("weight")
    return x, y if layer.beta is None else y + get("bias")


def _conditional_normalization(layer, shape, get, ops):
    x, labels = _batch(shape[0]), np.arange(4) % layer.classes
    mean, variance = get("bn.running_mean"), get("bn.running_var")
    y = (x - mean) / np.sqrt(variance + layer.epsilon)
    rows = get("embed.weight")[labels].reshape(4, *[1] * (x.ndim - 2), -1)
    scale, offset = np.split(rows, 2, -1)
    return ([x, labels],), y * scale + offset


def _layer_normalization(layer, shape, get, ops):
    last = layer.axis in (-1, [-1], len(shape) - 1, [len(shape) - 1])
    # PyTorch's takes the last axes, and has no other of several.
    if not last or getattr(layer, "rms_scaling", False):
        return None
    x = _batch(shape)
    weight, bias = _optional(get, weight=layer.gamma, bias=layer.beta)
    return x, ops.layer_normalization(x, weight, bias, layer.epsilon)


def _group_normalization(layer, shape, get, ops):
    x = _batch(shape)
    weight, bias = _optional(get, weight=layer.gamma, bias=layer.beta)
    y = ops.group_normalization(
        np.moveaxis(x, -1, 1), layer.groups, weight, bias, layer.epsilon
    )
    return x, np.moveaxis(y, 1, -1)


def _image(layer, channels):
    size = (
        dilation * (taps - 1) + 1 + 2 * stride
        for dilation, taps, stride in zip(
            layer.dilation_rate, layer.kernel_size, layer.strides, strict=True
        )
    )
    return _random(2, *size, channels)


def _convolution(layer, shape, get, ops):
    x, mask = _image(layer, shape[-1]), getattr(layer, "mask", None)
    weight = get("weight") if mask is None else get("weight") * get("mask")
    (bias,) = _optional(get, bias=layer.bias)
    groups = shape[-1] // weight.shape[1]
    y = ops.convolution(
        np.moveaxis(x, -1, 1), weight, bias, layer.strides, 0, groups,
        layer.dilation_rate,
    )  # fmt: skip
    return x, np.moveaxis(y, 1, -1)


def _transposed(layer, shape, get, ops):
    x = _image(layer, shape[-1])
    (bias,) = _optional(get, bias=layer.bias)
    # Where a kernel is smaller than its stride, Keras adds the rest of the stride.
    more = layer.output_padding or tuple(
        max(0, stride - taps)
        for stride, taps in zip(layer.strides, layer.kernel_size, strict=True)
    )
    y = ops.transposed_convolution(
        np.moveaxis(x, -1, 1), get("weight"), bias, layer.strides, 0,
        layer.dilation_rate, more,
    )  # fmt: skip
    return x, np.moveaxis(y, 1, -1)


# What is the network's business: padding, activations and where the channels are.
_LINEAR = {"activation": "linear"}
_PLAIN = {
    "activation": "linear",
    "padding": "valid",
    "data_format": "channels_last",
}
_LAST_AXIS = {"axis": -1}

CHECKS = (
    LayerCheck(kl.Dense, _dense, _LINEAR),
    LayerCheck(kl.Embedding, _embedding, {}),
    LayerCheck(kl.BatchNormalization, _batch_normalization, _LAST_AXIS),
    LayerCheck(ConditionalBatchNormalization, _conditional_normalization, {}),
    LayerCheck(kl.LayerNormalization, _layer_normalization, {}),
    LayerCheck(kl.GroupNormalization, _group_normalization, _LAST_AXIS),
    LayerCheck(
        (kl.Conv1D, kl.Conv2D, kl.Conv3D, kl.DepthwiseConv1D, kl.DepthwiseConv2D),
        _convolution,
        _PLAIN,
    ),
    LayerCheck(
        (kl.Conv1DTranspose, kl.Conv2DTranspose, kl.Conv3DTranspose),
        _transposed,
        _PLAIN,
    ),
)
