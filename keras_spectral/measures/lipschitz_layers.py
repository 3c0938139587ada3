"""What each layer does to distances: a linear step, a constant, or no bound."""

import math
from collections.abc import Callable

import keras
import numpy as np
from keras import layers as kl
from keras import ops

from keras_spectral.layers import (
    ConditionalBatchNormalization,
    InvertibleResidual,
    LipschitzBatchNormalization,
    MaskedConv2D,
)
from keras_spectral.layers.lipschitz_constants import KERNEL_KINDS
from keras_spectral.measures.kernel_certificates import Kernel, matrix_norm
from keras_spectral.measures.layer_calls import (
    INTERPOLATED,
    along_axes,
    axis_maps,
    stepwise,
)
from keras_spectral.measures.linear_maps import Step, norm_product
from keras_spectral.measures.lipschitz_activations import (
    Nonlinearity,
    Unbounded,
    activation_of,
)
from keras_spectral.measures.lipschitz_maxima import GLOBAL, POOLINGS
from keras_spectral.measures.lipschitz_slopes import (
    grouped_near,
    leaky,
    normalized_near,
    piecewise,
)
from keras_spectral.models.slots import check_plain, kernel_slots

# They change nothing in inference, or only where numbers stand.
_IDENTITIES = (
    kl.ActivityRegularization,
    kl.AlphaDropout,
    kl.Cropping1D,
    kl.Cropping2D,
    kl.Cropping3D,
    kl.Dropout,
    kl.Flatten,
    kl.GaussianDropout,
    kl.GaussianNoise,
    kl.Identity,
    kl.Permute,
    kl.Reshape,
    kl.SpatialDropout1D,
    kl.SpatialDropout2D,
    kl.SpatialDropout3D,
    kl.ZeroPadding1D,
    kl.ZeroPadding2D,
    kl.ZeroPadding3D,
)
_AVERAGES = (kl.AveragePooling1D, kl.AveragePooling2D, kl.AveragePooling3D)
_GLOBAL_AVERAGES = (
    kl.GlobalAveragePooling1D,
    kl.GlobalAveragePooling2D,
    kl.GlobalAveragePooling3D,
)
_SEPARABLE = (kl.SeparableConv1D, kl.SeparableConv2D)
_UPSAMPLINGS = (kl.UpSampling1D, kl.UpSampling2D, kl.UpSampling3D)
# Layers that no number bounds, and what to do.
_REFUSED = {
    "MultiHeadAttention": "dot-product attention is not Lipschitz: its slope grows "
    "with the square of its inputs",
    "GroupQueryAttention": "dot-product attention is not Lipschitz: its slope grows "
    "with the square of its inputs",
    "Attention": "dot-product attention is not Lipschitz",
    "AdditiveAttention": "its weights multiply its values: not Lipschitz",
    "UnitNormalization": "it is not Lipschitz at zero",
    "Multiply": "the product of two branches is not Lipschitz",
    "Dot": "the product of two branches is not Lipschitz",
    "Lambda": "any function can be in it; write a layer with `lipschitz_constant`",
    "Embedding": "token numbers have no distance; take the model after it",
    "LSTM": "its gates multiply: not Lipschitz",
    "GRU": "its gates multiply: not Lipschitz",
}


def behaviour(layer, shape, output_shape):
    """Return what a layer with one input does to distances.

    Args:
        layer: A built `keras.layers.Layer` in float64, its activation aside.
        shape: Tuple, of one sample.
        output_shape: Tuple.

    Returns:
        A `Step` or a `Nonlinearity`.

    Raises:
        Unbounded: If there is no bound, or none is known.
    """
    for kinds, function in _KINDS:
        # Exact types: a subclass may compute anything.
        if type(layer) in kinds:
            return function(layer, tuple(shape), tuple(output_shape))
    told = getattr(layer, "lipschitz_constant", None)
    if callable(told):
        constant = float(told())
        if not 0 <= constant < math.inf:
            raise Unbounded(f"its `lipschitz_constant()` is {constant}")
        return Nonlinearity(constant)
    reason = _REFUSED.get(type(layer).__name__)
    raise Unbounded(
        reason
        or f"a {type(layer).__name__} is not known here; give it a method "
        "`lipschitz_constant()`"
    )


def split_activation(layer):
    """Return a layer's activation, and take it off the layer.

    Args:
        layer: A layer of a copy, which computes without activation from now on.

    Returns:
        `None` for a layer without one, or with a linear one.
    """
    activation = getattr(layer, "activation", None)
    if type(layer) not in _WITH_ACTIVATION or activation is None:
        return None
    layer.activation = keras.activations.linear
    return None if activation is keras.activations.linear else activation


def _kernel_layer(layer, shape, output_shape):
    check_plain(layer)
    kind = KERNEL_KINDS.get(type(layer), "convolution")
    if kind == "dense":
        (slot,) = kernel_slots(layer)
        array = np.asarray(ops.convert_to_numpy(slot.value), "float64")
        kernel = Kernel(array, "dense", keeps_size=array.shape[0] == array.shape[1])
        return Step(lambda x: x @ array, output_shape, None, kernel=kernel, folds=True)
    (slot,) = kernel_slots(layer)
    # The mask of a masked convolution is in its value.
    kernel = Kernel(
        np.asarray(ops.convert_to_numpy(slot.value), "float64"),
        kind,
        keeps_size=kind == "convolution"
        and max((*layer.strides, *layer.dilation_rate)) == 1
        and layer.padding == "same"
        and layer.groups == 1
        and layer.data_format == "channels_last",
        groups=layer.groups if kind == "convolution" else 1,
    )
    if getattr(layer, "padding", "valid") not in ("valid", "same", "causal"):
        raise Unbounded(f"padding={layer.padding!r} is not known here")
    return Step(
        lambda x: stepwise(layer, x),
        output_shape,
        None,
        kernel=kernel,
        folds=layer.data_format == "channels_last",
        ceiling=getattr(layer, "norm_ceiling", math.inf),
    )


def _einsum(layer, shape, output_shape):
    check_plain(layer)
    (slot,) = kernel_slots(layer)
    matrix = np.asarray(ops.convert_to_numpy(slot.view.flatten(slot.value)), "float64")
    kernel = np.asarray(ops.convert_to_numpy(slot.value), "float64")
    return Step(
        lambda x: np.einsum(layer.equation, x, kernel),
        output_shape,
        matrix_norm(matrix),
        "exact",
    )


def _separable(layer, shape, output_shape):
    check_plain(layer)
    slots = kernel_slots(layer)
    arrays = [np.asarray(ops.convert_to_numpy(s.value), "float64") for s in slots]
    depthwise = Kernel(arrays[0], "depthwise").norm()[0]
    pointwise = Kernel(arrays[1].reshape(arrays[1].shape[-2:]), "dense").norm()[0]
    norm = norm_product(depthwise, pointwise)
    return Step(lambda x: stepwise(layer, x), output_shape, norm, "certified")


def _normalization_scale(layer):
    variance = _array(layer.moving_variance) + layer.epsilon
    if not (variance > 0).all():
        raise Unbounded("it divides by a variance of zero; give it an `epsilon`")
    return 1 / np.sqrt(variance)


def _batch_normalization(layer, shape, output_shape):
    gamma = 1.0 if layer.gamma is None else _array(layer.gamma)
    return _scaling(_normalization_scale(layer) * gamma, layer.axis, shape)


def _lipschitz_batch_normalization(layer, shape, output_shape):
    inner = layer.layer
    scale = _normalization_scale(inner)
    return _scaling(scale * _array(layer.effective_gamma()), inner.axis, shape)


def _scaling(scale, axis, shape):
    """Return the step that scales each channel of an axis that counts the batch."""
    axis = axis[0] if isinstance(axis, (list, tuple)) else axis
    at = axis - 1 if axis > 0 else axis + len(shape)
    form = [1] * len(shape)
    form[at] = -1
    return Step(
        lambda x: x * scale.reshape(form),
        shape,
        float(np.abs(scale).max()),
        "exact",
        scale=scale if at == len(shape) - 1 else None,
        one_sign=True,
    )


def _constant_scale(layer, shape, output_shape):
    return _elementwise(np.broadcast_to(_array(layer.scale), shape))


def _normalization(layer, shape, output_shape):
    deviation = np.maximum(np.sqrt(_array(layer.variance)), keras.config.epsilon())
    scale = 1 / deviation if not layer.invert else deviation
    return _elementwise(np.broadcast_to(scale[0], shape))


def _elementwise(scale):
    bound = float(np.abs(scale).max())
    return Step(lambda x: x * scale, scale.shape, bound, "exact", one_sign=True)


def _run(layer, output_shape, norm, one_sign=True):
    """Return the step of a layer without weights that computes it itself."""
    return Step(
        lambda x: stepwise(layer, x), output_shape, norm, "exact", one_sign=one_sign
    )


def _global_average(layer, shape, output_shape):
    pixels = math.prod(shape) // shape[_channel_axis(layer, shape)]
    return _run(layer, output_shape, 1 / math.sqrt(pixels))


def _by_axes(layer, shape, output_shape):
    """Return the step of a layer that treats each spatial axis for itself."""
    maps = axis_maps(layer, shape, _channel_axis(layer, shape))
    norm = math.prod(matrix_norm(map.T) for map in maps.values())
    method = getattr(layer, "interpolation", "nearest")
    if method == "nearest":
        return _run(layer, output_shape, norm)
    return Step(
        lambda x: along_axes(x, maps) * INTERPOLATED,
        output_shape,
        norm * INTERPOLATED,
        "exact",
        one_sign=method == "bilinear",
    )


def _channel_axis(layer, shape):
    first = getattr(layer, "data_format", None) == "channels_first"
    return 0 if first else len(shape) - 1


def _maximum(layer, shape, output_shape):
    windows = [
        min(math.ceil(size / stride), count)
        for size, stride, count in zip(
            layer.pool_size, layer.strides, _spatial(layer, output_shape), strict=True
        )
    ]
    return Nonlinearity(math.sqrt(math.prod(windows)))


def _spatial(layer, shape):
    channels = _channel_axis(layer, shape)
    return [size for axis, size in enumerate(shape) if axis != channels]


def _slope(attribute):
    def constant(layer, shape, output_shape):
        slope = getattr(layer, attribute)
        slope = np.asarray(ops.convert_to_numpy(slope), "float64")
        least, largest = float(slope.min()), float(slope.max())
        if type(layer) is kl.ELU:
            least = min(least, 0.0)
        slopes = (min(least, 1.0), max(largest, 1.0))
        constant = max(1.0, float(np.abs(slope).max()))
        # `PReLU` has a slope of its own for each number.
        on = None if type(layer) is kl.ELU else leaky(slope)
        return Nonlinearity(constant, slopes, slopes_on=on)

    return constant


def _relu(layer, shape, output_shape):
    if layer.threshold:
        raise Unbounded("it jumps at its threshold; use `threshold=0`")
    found = _slope("negative_slope")(layer, shape, output_shape)
    if layer.max_value is None:
        return found
    on, top = None, float(layer.max_value)
    if not layer.negative_slope and top > 0:
        on = piecewise([0.0, top], [0.0, 1.0, 0.0])
    return found._replace(slopes_on=on)


def _layer_normalization(layer, shape, output_shape):
    if getattr(layer, "rms_scaling", False):
        raise Unbounded("with `rms_scaling` it divides by what may be zero")
    _check_epsilon(layer)
    gamma = 1.0 if layer.gamma is None else float(np.abs(_array(layer.gamma)).max())
    near = None
    if type(layer) is kl.LayerNormalization:
        near = normalized_near(layer.axis, layer.epsilon, gamma, centered=True)
    if type(layer) is kl.GroupNormalization:
        near = grouped_near(layer.axis, layer.groups, shape, layer.epsilon, gamma)
    return Nonlinearity(
        gamma / math.sqrt(layer.epsilon),
        constant_near=near,
        alert=f"'{layer.name}' has max|gamma| / sqrt(epsilon), which it attains where "
        "its inputs are constant: larger than anywhere that data lies.",
    )


def _rms_normalization(layer, shape, output_shape):
    _check_epsilon(layer)
    scale = getattr(layer, "scale", None)
    largest = 1.0 if scale is None else float(np.abs(_array(scale)).max())
    near = normalized_near(layer.axis, layer.epsilon, largest, centered=False)
    return Nonlinearity(
        largest / math.sqrt(layer.epsilon),
        constant_near=near,
        alert=f"'{layer.name}' has max|scale| / sqrt(epsilon), which it attains at "
        "zero.",
    )


def _check_epsilon(layer):
    if not layer.epsilon > 0:
        raise Unbounded("without `epsilon` it is not Lipschitz")


def _conditional(layer, shape, output_shape):
    scale = _normalization_scale(layer)
    table = _array(layer.embeddings)[:, : len(scale)]
    alert = f"The labels of '{layer.name}' are taken for fixed."
    return Nonlinearity(float(np.abs(table * scale).max()), alert=alert)


def _invertible(layer, shape, output_shape):
    # The certificate is a float32 of the layer's own rounding.
    return Nonlinearity(1 + layer.lipschitz_bound() * (1 + 1e-6))


def _array(variable):
    return np.asarray(ops.convert_to_numpy(variable), "float64")


_WITH_ACTIVATION = (*KERNEL_KINDS, MaskedConv2D, kl.EinsumDense, *_SEPARABLE)
_KINDS: list[tuple[tuple, Callable]] = [
    (tuple(KERNEL_KINDS), _kernel_layer),
    ((MaskedConv2D,), _kernel_layer),
    ((kl.EinsumDense,), _einsum),
    (_SEPARABLE, _separable),
    ((kl.BatchNormalization,), _batch_normalization),
    ((LipschitzBatchNormalization,), _lipschitz_batch_normalization),
    ((ConditionalBatchNormalization,), _conditional),
    ((InvertibleResidual,), _invertible),
    ((kl.Rescaling,), _constant_scale),
    ((kl.Normalization,), _normalization),
    (_IDENTITIES, lambda layer, _, after: _run(layer, after, 1.0)),
    ((kl.RepeatVector,), lambda layer, _, after: _run(layer, after, layer.n**0.5)),
    (_GLOBAL_AVERAGES, _global_average),
    ((*_AVERAGES, *_UPSAMPLINGS, kl.Resizing), _by_axes),
    (POOLINGS, _maximum),
    (GLOBAL, lambda *_: Nonlinearity(1.0)),
    ((kl.Softmax,), lambda *_: Nonlinearity(0.5)),
    ((kl.LeakyReLU,), _slope("negative_slope")),
    ((kl.ELU,), _slope("alpha")),
    ((kl.PReLU,), _slope("alpha")),
    ((kl.ReLU,), _relu),
    ((kl.Activation,), lambda layer, _, after: activation_of(layer.activation, after)),
    ((kl.LayerNormalization, kl.GroupNormalization), _layer_normalization),
    ((kl.RMSNormalization,), _rms_normalization),
]
