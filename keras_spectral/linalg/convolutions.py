"""Convolutions in one, two and three dimensions as linear maps."""

import math

from keras import ops
from keras.backend import standardize_dtype

from keras_spectral.linalg.operators import LinearOperator, float_tensor

_PADDINGS = {1: ("valid", "same", "causal"), 2: ("valid", "same"), 3: ("valid", "same")}


def _per_axis(value, rank, name):
    """Return `value` as one positive integer an axis."""
    values = (value,) * rank if isinstance(value, int) else tuple(value)
    if len(values) != rank or any(not isinstance(v, int) or v < 1 for v in values):
        raise ValueError(
            f"`{name}` must be a positive integer or {rank} of them, one a spatial "
            f"axis. Received: {name}={value}"
        )
    return values


def _spatial_rank(kernel):
    rank = len(kernel.shape) - 2
    if rank not in _PADDINGS:
        raise ValueError(
            "`kernel` must have one to three spatial axes and two of channels, as "
            "(height, width, inputs, filters). Received: "
            f"kernel.shape={tuple(kernel.shape)}"
        )
    return rank


def _image(input_size, rank, default_channels):
    """Return (spatial sizes, channels) of `input_size`."""
    input_size = tuple(input_size)
    if len(input_size) not in (rank, rank + 1):
        raise ValueError(
            f"`input_size` must have {rank} numbers, or {rank + 1} with the "
            f"channels. Received: input_size={input_size}"
        )
    size = _per_axis(input_size[:rank], rank, "input_size")
    return size, (input_size[rank] if len(input_size) > rank else default_channels)


def _check_geometry(padding, paddings, strides, dilation):
    if padding not in paddings:
        raise ValueError(
            f"`padding` must be one of {paddings} here. Received: padding={padding!r}"
        )
    if max(strides) > 1 and max(dilation) > 1:
        raise ValueError(
            "`strides` and `dilation_rate` cannot both exceed 1, as in "
            f"`keras.layers.Conv2D`. Received: strides={strides}, "
            f"dilation_rate={dilation}"
        )


def _axis_geometry(size, taps, stride, dilation, padding):
    """Return (outputs, pad before, pad after) along one spatial axis."""
    extent = (taps - 1) * dilation + 1
    if padding == "causal":
        return -(-size // stride), extent - 1, 0
    if padding == "same":
        outputs = -(-size // stride)
        total = max((outputs - 1) * stride + extent - size, 0)
        return outputs, total // 2, total - total // 2
    if size < extent:
        raise ValueError(
            "`input_size` must be at least the extent of the kernel for "
            f"padding='valid', here {extent}. Received: an axis of size {size}"
        )
    return (size - extent) // stride + 1, 0, 0


def _padded(x, pads):
    return ops.pad(x, [[0, 0], *([low, high] for low, high in pads), [0, 0]])


def _conv(x, kernel, strides, dilation):
    geometry = dict(
        strides=strides,
        padding="valid",
        data_format="channels_last",
        dilation_rate=dilation,
    )
    *taps, inputs, filters = kernel.shape
    groups = x.shape[-1] // inputs
    if groups == 1:
        return ops.conv(x, kernel, **geometry)
    # On TensorFlow Keras compiles a grouped convolution anew at each eager call. A
    # depthwise one is an operation of its own, with one or two axes and one stride.
    alike = len(taps) < 3 and len(set(strides)) == 1
    if alike and inputs == 1:
        kernel = ops.reshape(kernel, (*taps, groups, filters // groups))
        return ops.depthwise_conv(x, kernel, **geometry)
    if alike and filters == groups:
        # Its adjoint: each tap for itself, then the sum over a group's inputs.
        kernel = ops.swapaxes(kernel, -2, -1)
        kernel = ops.reshape(kernel, (*taps, groups * inputs, 1))
        y = ops.depthwise_conv(x, kernel, **geometry)
        return ops.sum(ops.reshape(y, (*y.shape[:-1], groups, inputs)), axis=-1)
    parts = zip(
        ops.split(x, groups, axis=-1), ops.split(kernel, groups, axis=-1), strict=True
    )
    return ops.concatenate([ops.conv(*part, **geometry) for part in parts], axis=-1)


def _stuffed(y, strides):
    """Return `y` with strides - 1 zeros between its pixels."""
    for axis, stride in enumerate(strides, start=1):
        if stride == 1:
            continue
        # One axis at a time: some backends pad at most six.
        shape = tuple(y.shape)
        size = shape[axis]
        y = ops.reshape(y, (math.prod(shape[:axis]), size, 1, -1))
        y = ops.pad(y, [[0, 0], [0, 0], [0, stride - 1], [0, 0]])
        y = ops.reshape(y, (math.prod(shape[:axis]), size * stride, -1))
        kept = (size - 1) * stride + 1
        y = ops.reshape(y[:, :kept], (*shape[:axis], kept, *shape[axis + 1 :]))
    return y


def convolution_operator(
    kernel, input_size, strides=1, padding="valid", dilation_rate=1
) -> LinearOperator:
    """Return a convolution, without bias, as a linear map.

    The geometry is that of `keras.layers.Conv1D`, `Conv2D` and `Conv3D`: zero
    padding, any stride and dilation, and groups where the kernel has fewer
    inputs than the image has channels. The adjoint is exact for every size, also
    where `keras.ops.conv_transpose` gives another shape (odd sizes with a
    stride).

    Args:
        kernel: Float tensor (*spatial, inputs / groups, filters), such as
            (height, width, inputs, filters).
        input_size: Tuple (*spatial) or, with groups, (*spatial, channels): the
            image in pixels.
        strides: Integer, or one a spatial axis.
        padding: `"valid"`, `"same"` or, in one dimension, `"causal"`.
        dilation_rate: Integer, or one a spatial axis.

    Returns:
        A `LinearOperator` from (1, *spatial, channels) to
        (1, *output spatial, filters).

    Raises:
        ValueError: On a kernel, size or padding that makes no convolution.

    Example:
    >>> import numpy as np
    >>> kernel = np.ones((3, 3, 1, 1))
    >>> operator = convolution_operator(kernel, (5, 5), strides=2, padding="same")
    >>> operator.output_shape
    (1, 3, 3, 1)
    """
    kernel = float_tensor(kernel)
    rank = _spatial_rank(kernel)
    strides = _per_axis(strides, rank, "strides")
    dilation = _per_axis(dilation_rate, rank, "dilation_rate")
    _check_geometry(padding, _PADDINGS[rank], strides, dilation)
    *taps, inputs, filters = kernel.shape
    size, channels = _image(input_size, rank, inputs)
    if channels % inputs or filters % (channels // inputs):
        raise ValueError(
            "The channels of `input_size` must be a multiple of the kernel's "
            "inputs, and the filters a multiple of the groups. Received: "
            f"input_size={tuple(input_size)}, kernel.shape={tuple(kernel.shape)}"
        )
    groups = channels // inputs
    axes = [
        _axis_geometry(*axis, padding)
        for axis in zip(size, taps, strides, dilation, strict=True)
    ]
    outputs = tuple(axis[0] for axis in axes)

    def matvec(x):
        x = _padded(x, [axis[1:] for axis in axes])
        return _conv(x, kernel, strides, dilation)

    # The adjoint is a convolution of the zero-stuffed output with the flipped
    # kernel whose inputs and filters are exchanged within each group.
    spatial = tuple(range(rank))
    flipped = ops.reshape(
        ops.flip(kernel, axis=spatial), (*taps, inputs, groups, filters // groups)
    )
    flipped = ops.reshape(
        ops.transpose(flipped, (*spatial, rank + 2, rank + 1, rank)),
        (*taps, filters // groups, groups * inputs),
    )
    pads = [
        ((t - 1) * d - before, n - ((out - 1) * s + 1) + before)
        for t, d, s, n, (out, before, _) in zip(
            taps, dilation, strides, size, axes, strict=True
        )
    ]

    def adjoint(y):
        y = _padded(_stuffed(y, strides), pads)
        return _conv(y, flipped, (1,) * rank, dilation)

    return LinearOperator(
        matvec=matvec,
        adjoint=adjoint,
        input_shape=(1, *size, channels),
        output_shape=(1, *outputs, filters),
        dtype=standardize_dtype(kernel.dtype),
    )


def depthwise_convolution_operator(
    kernel, input_size, strides=1, padding="valid", dilation_rate=1
) -> LinearOperator:
    """Return a depthwise convolution, without bias, as a linear map.

    The geometry is that of `keras.layers.DepthwiseConv1D` and `DepthwiseConv2D`.

    Args:
        kernel: Float tensor (*spatial, inputs, depth multiplier).
        input_size: Tuple (*spatial) or (*spatial, inputs), in pixels.
        strides: Integer, or one a spatial axis.
        padding: `"valid"` or `"same"`.
        dilation_rate: Integer, or one a spatial axis.

    Returns:
        A `LinearOperator` from (1, *spatial, inputs) to
        (1, *output spatial, inputs * depth multiplier).

    Raises:
        ValueError: See `convolution_operator`.

    Example:
    >>> import numpy as np
    >>> operator = depthwise_convolution_operator(np.ones((3, 3, 4, 2)), (5, 5))
    >>> operator.output_shape
    (1, 3, 3, 8)
    """
    kernel = float_tensor(kernel)
    rank = _spatial_rank(kernel)
    *taps, inputs, multiplier = kernel.shape
    size, _ = _image(input_size, rank, inputs)
    # Every channel is a group of its own.
    grouped = ops.reshape(kernel, (*taps, 1, inputs * multiplier))
    return convolution_operator(
        grouped, (*size, inputs), strides, padding, dilation_rate
    )


def transposed_convolution_operator(
    kernel,
    input_size,
    strides=1,
    padding="valid",
    output_padding=None,
    dilation_rate=1,
) -> LinearOperator:
    """Return a transposed convolution, without bias, as a linear map.

    The geometry is that of `keras.layers.Conv1DTranspose`, `Conv2DTranspose` and
    `Conv3DTranspose`. It is the adjoint of a convolution whose images have this
    one's output size.

    Args:
        kernel: Float tensor (*spatial, filters, inputs).
        input_size: Tuple (*spatial) or (*spatial, inputs), in pixels.
        strides: Integer, or one a spatial axis.
        padding: `"valid"` or `"same"`.
        output_padding: Integer, one a spatial axis, or `None` for Keras' own
            output size.
        dilation_rate: Integer, or one a spatial axis.

    Returns:
        A `LinearOperator` from (1, *spatial, inputs) to
        (1, *output spatial, filters).

    Raises:
        ValueError: See `convolution_operator`.

    Example:
    >>> import numpy as np
    >>> operator = transposed_convolution_operator(np.ones((3, 3, 2, 4)), (5, 5), 2)
    >>> operator.output_shape
    (1, 11, 11, 2)
    """
    kernel = float_tensor(kernel)
    rank = _spatial_rank(kernel)
    strides = _per_axis(strides, rank, "strides")
    dilation = _per_axis(dilation_rate, rank, "dilation_rate")
    _check_geometry(padding, _PADDINGS[2], strides, dilation)
    *taps, filters, inputs = kernel.shape
    size, _ = _image(input_size, rank, inputs)
    extra = _output_padding(output_padding, strides)
    outputs = tuple(
        _transposed_size(*axis, padding)
        for axis in zip(size, taps, strides, dilation, extra, strict=True)
    )
    # What a convolution of the output back to the input pads with. A larger
    # output than it needs has rows that no pixel of the input reaches.
    forward = [
        _axis_geometry(out, t, s, d, padding)
        for out, t, s, d in zip(outputs, taps, strides, dilation, strict=True)
    ]
    if any(axis[0] < n for axis, n in zip(forward, size, strict=True)):
        # TensorFlow refuses it, and other backends disagree on what is cut off.
        raise ValueError(
            "`output_padding` must be at least 1 for an even kernel with "
            "padding='same', or the output is too small for the last pixels. "
            f"Received: output_padding={output_padding}, "
            f"kernel.shape={tuple(kernel.shape)}"
        )
    kept = [slice(n) for n in size]

    def adjoint(y):
        x = _conv(_padded(y, [axis[1:] for axis in forward]), kernel, strides, dilation)
        return x[(slice(None), *kept)]

    spatial = tuple(range(rank))
    flipped = ops.transpose(ops.flip(kernel, axis=spatial), (*spatial, rank + 1, rank))

    def matvec(x):
        x = _conv(
            _padded(
                _stuffed(x, strides),
                [((t - 1) * d,) * 2 for t, d in zip(taps, dilation, strict=True)],
            ),
            flipped,
            (1,) * rank,
            dilation,
        )
        # Cut or fill to the size that Keras gives.
        window, fill = [], []
        for out, full, (_, before, _) in zip(
            outputs, x.shape[1:-1], forward, strict=True
        ):
            window.append(slice(before, min(before + out, full)))
            fill.append((0, max(before + out - full, 0)))
        return _padded(x[(slice(None), *window)], fill)

    return LinearOperator(
        matvec=matvec,
        adjoint=adjoint,
        input_shape=(1, *size, inputs),
        output_shape=(1, *outputs, filters),
        dtype=standardize_dtype(kernel.dtype),
    )


def _output_padding(value, strides):
    """Return `value` as `None` or an integer below the stride for each axis."""
    rank = len(strides)
    values = (value,) * rank if value is None or isinstance(value, int) else value
    valid = isinstance(values, (tuple, list)) and len(values) == rank
    # Keras takes one below the stride, as the rows beyond it get nothing.
    if not valid or any(
        v is not None and not (isinstance(v, int) and 0 <= v < s)
        for v, s in zip(values, strides, strict=True)
    ):
        raise ValueError(
            f"`output_padding` must be `None`, an integer or {rank} of them, each at "
            f"least 0 and below its stride. Received: output_padding={value}, "
            f"strides={strides}"
        )
    return values


def _transposed_size(size, taps, stride, dilation, output_padding, padding):
    """Return the output size of Keras' transposed convolution along one axis."""
    extent = (taps - 1) * dilation + 1
    if output_padding is None:
        grown = 0 if padding == "same" else max(extent - stride, 0)
        return size * stride + grown
    full = (size - 1) * stride + extent + output_padding
    return full - 2 * (extent // 2) if padding == "same" else full
