"""What layers of a copy compute, wherever the backend runs."""

import math

import numpy as np
from keras import layers as kl
from keras import ops
from keras.backend import standardize_dtype

from keras_spectral.measures.lipschitz_activations import Unbounded
from keras_spectral.measures.plain_copies import TRANSPOSED, undilated

# TensorFlow interpolates in float32 whatever it is given: what its weights may lose.
INTERPOLATED = 1 + 5e-7


def exact_backend():
    """Return whether the backend computes in float64 where it is asked to."""
    return standardize_dtype(ops.zeros((), dtype="float64").dtype) == "float64"


def _rounding():
    """Return the factor of what the backend's own rounding may lose."""
    return 1.0 if exact_backend() else 1 + 1e-5


def called(layer, x, **keywords):
    """Return what a layer of a copy computes, on a CPU too.

    TensorFlow has no convolutions with channels first there, nor transposed ones with
    a dilation.
    """
    if isinstance(layer, TRANSPOSED) and max(layer.dilation_rate) > 1:
        layer = undilated(layer)
    windows = hasattr(layer, "kernel_size") or hasattr(layer, "pool_size")
    if not windows or layer.data_format != "channels_first":
        return layer(x, **keywords)
    spec = layer.input_spec
    layer.data_format, layer.input_spec = "channels_last", None
    try:
        return ops.moveaxis(layer(ops.moveaxis(x, 1, -1), **keywords), -1, 1)
    finally:
        layer.data_format, layer.input_spec = "channels_first", spec


def stepwise(layer, x):
    """Return what the linear part of a layer makes of a NumPy array."""

    def run(x):
        dtype = "float64" if exact_backend() else "float32"
        return ops.convert_to_numpy(called(layer, ops.convert_to_tensor(x, dtype)))

    bias = layer.bias if getattr(layer, "use_bias", False) else None
    if bias is not None:
        # What is subtracted must not swallow what is left. The layer is of a copy.
        kept = ops.convert_to_numpy(bias)
        bias.assign(np.zeros(bias.shape))
    try:
        offset = run(np.zeros_like(x[:1]))
        return (run(x) - offset).astype("float64") * _rounding()
    finally:
        if bias is not None:
            bias.assign(kept)


def axis_maps(layer, shape, channels):
    """Return what a layer that treats each spatial axis for itself does along it.

    Args:
        layer: A layer of a copy, whose weights sum to one.
        shape: Tuple, of one sample.
        channels: Integer, which axis of it is not spatial.

    Returns:
        Dict from axes of a sample to arrays (size, size of what comes out).

    Raises:
        Unbounded: If it mixes its axes.
    """
    maps = {}
    for axis in range(len(shape)):
        if axis == channels:
            continue
        size = shape[axis]
        # One line a batch entry, constant along the other axes: what comes out is the
        # line's own map.
        one = (*shape[:channels], 1, *shape[channels + 1 :])
        rows = []
        for some in np.array_split(np.arange(size), 1 + size * math.prod(one) // 2**22):
            lines = np.zeros((len(some), *one))
            np.moveaxis(lines, axis + 1, 1)[np.arange(len(some)), some] = 1
            images = np.moveaxis(stepwise(layer, lines), axis + 1, 1)
            images = images.reshape(len(some), images.shape[1], -1)
            if not np.allclose(images, images[:, :, :1], rtol=0, atol=1e-5):
                raise Unbounded("it mixes its axes")
            rows.append(images[:, :, 0])
        maps[axis] = np.concatenate(rows)
    return maps


def along_axes(x, maps):
    """Return samples with the maps of `axis_maps` done to them, in float64."""
    for axis, map in maps.items():
        x = np.moveaxis(np.tensordot(x, map, (axis + 1, 0)), -1, axis + 1)
    return x


def check_call(operation, keywords):
    """Refuse what a call asks for that inference of one sample does not."""
    # Resizing is told that it trains by default, and does the same.
    if not isinstance(operation, kl.Layer) or type(operation) is kl.Resizing:
        return
    if keywords.get("training") is True:
        raise Unbounded("it is called with `training=True`")
    if keywords.get("mask") is not None:
        raise Unbounded("it is called with a mask")
