"""What stands between weighted layers: piecewise linear maps without offset."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers as kl
from keras import ops

from keras_spectral.linalg import depthwise_convolution_operator

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
    """A map x -> S(x) x, where S(x) is a matrix that is constant around x.

    Vectors are tensors (probes, batch, *shape). A record is what S(x) is made of,
    such as the slopes of a ReLU; it broadcasts over the probes.

    Args:
        output_shape: Tuple without probes and batch.
        matvec: Callable (vectors, record) to vectors.
        adjoint: Callable (vectors, record) to vectors.
        record: Callable, x to the record, `None` for a linear map.
    """

    output_shape: tuple
    matvec: Callable
    adjoint: Callable
    record: Callable | None = None


def each(function):
    """Return a function of batches as one of vectors (probes, batch, *shape)."""

    def apply(vectors, record=None):
        probes, batch, *shape = vectors.shape
        y = function(ops.reshape(vectors, (probes * batch, *shape)))
        return ops.reshape(y, (probes, batch, *y.shape[1:]))

    return apply


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
        return _rearranging(layer, shape)
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

    def apply(vectors, slopes):
        return vectors * slopes

    return Step(tuple(shape), apply, apply, lambda x: ops.where(x > 0, high, low))


def _rearranging(layer, shape):
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        channels_last(layer)
    if isinstance(layer, kl.Permute):
        order = (0, *layer.dims)
        back = tuple(int(axis) for axis in np.argsort(order))
        return Step(
            tuple(shape[axis - 1] for axis in layer.dims),
            each(lambda x: ops.transpose(x, order)),
            each(lambda y: ops.transpose(y, back)),
        )
    size = math.prod(shape)
    output = (size,)
    if isinstance(layer, kl.Reshape):
        output = tuple(layer.target_shape)
        known = -math.prod(output)
        output = tuple(size // known if n == -1 else n for n in output)
    return Step(
        output,
        each(lambda x: ops.reshape(x, (-1, *output))),
        each(lambda y: ops.reshape(y, (-1, *shape))),
    )


def _padding(layer, shape, dtype):
    height, width, channels = shape
    (top, bottom), (left, right) = layer.padding
    pads = [[0, 0], [top, bottom], [left, right], [0, 0]]
    return Step(
        (height + top + bottom, width + left + right, channels),
        each(lambda x: ops.pad(x, pads)),
        each(lambda y: y[:, top : top + height, left : left + width]),
    )


def _windows(layer, shape, dtype):
    """Return the map from an image to the entries of its windows, and which are real.

    It is a depthwise convolution with unit kernels, so its adjoint is exact.
    """
    *taps, channels = *layer.pool_size, shape[-1]
    count = math.prod(taps)
    kernel = np.eye(count, dtype=dtype).reshape(*taps, 1, count)
    kernel = np.broadcast_to(kernel, (*taps, channels, count))
    operator = depthwise_convolution_operator(
        ops.convert_to_tensor(np.ascontiguousarray(kernel)),
        shape[:2],
        strides=tuple(layer.strides),
        padding=layer.padding,
    )
    ones = ops.ones(operator.input_shape, dtype=dtype)
    # (1, 1, height, width, channels, windows' entries): 0 in the padding.
    output = (*operator.output_shape[1:3], channels)
    real = ops.reshape(operator.matvec(ones), (1, 1, *output, count))
    return operator, output, count, real


def _max_pooling(layer, shape, dtype):
    operator, output, count, real = _windows(layer, shape, dtype)
    unfold, fold = each(operator.matvec), each(operator.adjoint)

    def entries(x):
        return ops.reshape(unfold(x), (*x.shape[:2], *output, count))

    def record(x):
        lowest = ops.convert_to_tensor(-math.inf, dtype)
        seen = ops.where(real > 0, entries(x), lowest)
        return ops.one_hot(ops.argmax(seen, axis=-1), count, dtype=dtype)

    def adjoint(y, chosen):
        spread = y[..., None] * chosen
        flat = (*spread.shape[:-2], output[-1] * count)
        return fold(ops.reshape(spread, flat))

    return Step(
        output,
        lambda x, chosen: ops.sum(entries(x) * chosen, axis=-1),
        adjoint,
        record,
    )


def _average_pooling(layer, shape, dtype):
    _, output, _, real = _windows(layer, shape, dtype)
    sums = depthwise_convolution_operator(
        ops.ones((*layer.pool_size, shape[-1], 1), dtype=dtype),
        shape[:2],
        strides=tuple(layer.strides),
        padding=layer.padding,
    )
    # The mean is over the pixels of a window that are in the image.
    pixels = ops.sum(real, axis=-1)[0]
    return Step(
        output,
        each(lambda x: sums.matvec(x) / pixels),
        each(lambda y: sums.adjoint(y / pixels)),
    )


def _global_average_pooling(layer, shape, dtype):
    height, width, channels = shape
    output = (1, 1, channels) if layer.keepdims else (channels,)
    share = ops.ones((1, height, width, 1), dtype=dtype) / (height * width)

    def matvec(x):
        # `ops.mean` narrows float64 to float32 on torch.
        return ops.sum(x * share, axis=(1, 2), keepdims=layer.keepdims)

    def adjoint(y):
        return share * ops.reshape(y, (-1, 1, 1, channels))

    return Step(output, each(matvec), each(adjoint))
