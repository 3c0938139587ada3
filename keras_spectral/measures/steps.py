"""What stands between weighted layers: piecewise linear maps without offset."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers as kl
from keras import ops

from keras_spectral.linalg import (
    LinearOperator,
    depthwise_convolution_operator,
    diagonal_operator,
    repeated_operator,
)

# What inference leaves as it is.
IDENTITIES = (
    kl.Dropout,
    kl.SpatialDropout1D,
    kl.SpatialDropout2D,
    kl.AlphaDropout,
    kl.GaussianDropout,
    kl.GaussianNoise,
    kl.ActivityRegularization,
    kl.Identity,
)


@dataclass(frozen=True)
class Step:
    """A map x -> S(x) x, where S(x) is a linear operator that is constant around x.

    Args:
        at: Callable, points (1, batch, *shape) to the `LinearOperator` S(x) on tensors
            of that shape.
        output_shape: Tuple without the batch.
        linear: Boolean, whether S is the same at all points.
    """

    at: Callable
    output_shape: tuple
    linear: bool = False

    def __call__(self, x):
        """Return S(x) x for several batches, (k, batch, *shape)."""
        points = ops.reshape(x, (1, -1, *x.shape[2:]))
        return ops.reshape(self.at(points) @ points, (*x.shape[:2], *self.output_shape))


def _linear(operator):
    """Return the step of an operator from (1, *shape)."""
    return Step(
        at=lambda x: repeated_operator(operator, (x.shape[1],)),
        output_shape=operator.output_shape[1:],
        linear=True,
    )


def _linear_map(matvec, adjoint, shape, output_shape, dtype):
    """Return the step of a linear map of batches, given with its adjoint."""
    shapes = (1, *shape), (1, *output_shape)
    return _linear(LinearOperator(matvec, adjoint, *shapes, dtype))


def channels_last(layer):
    """Raise a ValueError unless a layer's images have their channels last."""
    if layer.data_format != "channels_last":
        raise ValueError(
            '`model` must have `data_format="channels_last"`. Received: '
            f"'{layer.name}' with data_format={layer.data_format!r}."
        )


def step_of(layer, shape, dtype):
    """Return the step that a layer without weights takes.

    Args:
        layer: A `keras.layers.Layer`.
        shape: Tuple, of its input without the batch.
        dtype: String, of the vectors.

    Returns:
        A `Step`.

    Raises:
        ValueError: If the layer is of another kind.
    """
    if isinstance(layer, kl.Activation):
        return activation_step(layer.name, layer.activation, shape, dtype)
    if isinstance(layer, kl.ReLU):
        if layer.max_value is not None or layer.threshold:
            raise _refusal(layer, "a ReLU with a `max_value` or `threshold`")
        return _sloped(float(layer.negative_slope), shape, dtype)
    if isinstance(layer, kl.LeakyReLU):
        return _sloped(float(layer.negative_slope), shape, dtype)
    if isinstance(layer, (kl.Flatten, kl.Reshape, kl.Permute)):
        return _rearranging(layer, tuple(shape), dtype)
    rules = (
        (kl.ZeroPadding2D, _padding),
        (kl.MaxPooling2D, _max_pooling),
        (kl.AveragePooling2D, _average_pooling),
        (kl.GlobalAveragePooling2D, _global_average_pooling),
    )
    for kind, rule in rules:
        if isinstance(layer, kind):
            channels_last(layer)
            return rule(layer, tuple(shape), dtype)
    raise _refusal(layer, f"a {type(layer).__name__}")


def _refusal(layer, what):
    return ValueError(
        "`model` must have between its Dense and Conv2D layers only ReLU, LeakyReLU, "
        "Flatten, Reshape, Permute, ZeroPadding2D, MaxPooling2D, AveragePooling2D, "
        "GlobalAveragePooling2D, and layers without effect at inference. Received: "
        f"'{layer.name}', {what}."
    )


def activation_step(name, activation, shape, dtype):
    """Return the step of an activation function; `name` is its layer's."""
    slopes = {
        keras.activations.linear: 1.0,
        keras.activations.relu: 0.0,
        keras.activations.leaky_relu: 0.2,
    }
    # Functions only: other callables may not be hashable.
    slope = slopes.get(activation) if hasattr(activation, "__name__") else None
    if slope is None:
        raise ValueError(
            "`model` must have activations that are piecewise linear, without offset: "
            "'relu', 'leaky_relu' or 'linear', but for the last layer's. Received: "
            f"'{name}' with activation={getattr(activation, '__name__', activation)!r}."
        )
    return _sloped(slope, shape, dtype)


def _sloped(slope, shape, dtype):
    low = ops.convert_to_tensor(slope, dtype)
    high = ops.convert_to_tensor(1.0, dtype)
    return Step(lambda x: diagonal_operator(ops.where(x > 0, high, low)), tuple(shape))


def _rearranging(layer, shape, dtype):
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        channels_last(layer)
    if isinstance(layer, kl.Permute):
        order = (0, *layer.dims)
        back = tuple(int(axis) for axis in np.argsort(order))
        return _linear_map(
            lambda x: ops.transpose(x, order),
            lambda y: ops.transpose(y, back),
            shape,
            tuple(shape[axis - 1] for axis in layer.dims),
            dtype,
        )
    size = math.prod(shape)
    output = (size,)
    if isinstance(layer, kl.Reshape):
        output = tuple(layer.target_shape)
        known = -math.prod(output)
        output = tuple(size // known if n == -1 else n for n in output)
    return _linear_map(
        lambda x: ops.reshape(x, (-1, *output)),
        lambda y: ops.reshape(y, (-1, *shape)),
        shape,
        output,
        dtype,
    )


def _padding(layer, shape, dtype):
    height, width, channels = shape
    (top, bottom), (left, right) = layer.padding
    pads = [[0, 0], [top, bottom], [left, right], [0, 0]]
    return _linear_map(
        lambda x: ops.pad(x, pads),
        lambda y: y[:, top : top + height, left : left + width],
        shape,
        (height + top + bottom, width + left + right, channels),
        dtype,
    )


def _pooling_operator(layer, kernel, shape, dtype):
    return depthwise_convolution_operator(
        ops.convert_to_tensor(np.ascontiguousarray(kernel), dtype),
        shape[:2],
        strides=tuple(layer.strides),
        padding=layer.padding,
    )


def _max_pooling(layer, shape, dtype):
    *taps, channels = *layer.pool_size, shape[-1]
    count = math.prod(taps)
    # A depthwise convolution with unit kernels gives the entries of all windows.
    kernel = np.eye(count).reshape(*taps, 1, count)
    kernel = np.broadcast_to(kernel, (*taps, channels, count))
    windows = _pooling_operator(layer, kernel, shape, dtype)
    output = (*windows.output_shape[1:3], channels)
    sums = LinearOperator(
        lambda x: ops.sum(ops.reshape(x, (-1, *output, count)), axis=-1),
        lambda y: ops.repeat(y, count, axis=-1),
        windows.output_shape,
        (1, *output),
        dtype,
    )
    real = windows @ ops.ones(windows.input_shape, dtype=dtype)
    lowest = ops.convert_to_tensor(-math.inf, dtype)

    def at(x):
        batch = (x.shape[1],)
        entries = repeated_operator(windows, batch)
        # Nothing in the padding is a maximum.
        seen = ops.where(real > 0, entries @ x, lowest)
        largest = ops.argmax(ops.reshape(seen, (*batch, *output, count)), axis=-1)
        chosen = ops.one_hot(largest, count, dtype=dtype)
        chosen = diagonal_operator(ops.reshape(chosen, entries.output_shape))
        return repeated_operator(sums, batch) @ chosen @ entries

    return Step(at, output)


def _average_pooling(layer, shape, dtype):
    ones = np.ones((*layer.pool_size, shape[-1], 1))
    sums = _pooling_operator(layer, ones, shape, dtype)
    # The mean is over the pixels of a window that are in the image.
    pixels = sums @ ops.ones(sums.input_shape, dtype=dtype)
    return _linear(diagonal_operator(1 / pixels) @ sums)


def _global_average_pooling(layer, shape, dtype):
    height, width, channels = shape
    output = (1, 1, channels) if layer.keepdims else (channels,)
    share = ops.ones((1, height, width, 1), dtype=dtype) / (height * width)
    return _linear_map(
        # `ops.mean` narrows float64 to float32 on torch.
        lambda x: ops.sum(x * share, axis=(1, 2), keepdims=layer.keepdims),
        lambda y: share * ops.reshape(y, (-1, 1, 1, channels)),
        shape,
        output,
        dtype,
    )
