"""Kernels as linear operators: a map and its adjoint, with their shapes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from keras import ops


@dataclass(frozen=True)
class LinearOperator:
    """A linear map A with its adjoint A'.

    Args:
        matvec: Callable, a tensor of `input_shape` to one of `output_shape`.
        adjoint: Callable, a tensor of `output_shape` to one of `input_shape`,
            such that <A x, y> = <x, A' y> for all x and y.
        input_shape: Tuple of integers, the shape of x.
        output_shape: Tuple of integers, the shape of A x.
    """

    matvec: Callable[[Any], Any]
    adjoint: Callable[[Any], Any]
    input_shape: tuple
    output_shape: tuple


def reshaped_matrix(kernel):
    """Return a kernel as the matrix that the GAN papers normalize.

    Args:
        kernel: Float tensor with the output channels on the last axis: a dense
            kernel (inputs, units) or a convolution kernel
            (height, width, inputs, filters).

    Returns:
        Tensor of shape (outputs, all other entries): W in y = W x.

    Example:
    >>> import numpy as np
    >>> reshaped_matrix(np.zeros((3, 3, 8, 16))).shape
    TensorShape([16, 72])

    Source: Miyato et al. 2018 as used by stable rank normalization, section 4.
    """
    kernel = ops.convert_to_tensor(kernel)
    return ops.transpose(ops.reshape(kernel, (-1, kernel.shape[-1])))


def dense_operator(kernel) -> LinearOperator:
    """Return x -> kernel' x for a kernel whose last axis is the output.

    For a dense kernel this is the layer without its bias. For a convolution
    kernel it is the reshaped kernel, whose norm does not bound the convolution.

    Args:
        kernel: Float tensor (..., outputs).

    Returns:
        A `LinearOperator` from (inputs,) to (outputs,).

    Example:
    >>> import numpy as np
    >>> operator = dense_operator(np.array([[1.0, 2.0], [3.0, 4.0]]))
    >>> ops.convert_to_numpy(operator.matvec(np.array([1.0, 1.0]))).tolist()
    [4.0, 6.0]
    """
    kernel = ops.convert_to_tensor(kernel)
    kernel = ops.reshape(kernel, (-1, kernel.shape[-1]))
    inputs, outputs = kernel.shape
    return LinearOperator(
        matvec=lambda x: ops.matmul(x, kernel),
        adjoint=lambda y: ops.matmul(kernel, y),
        input_shape=(inputs,),
        output_shape=(outputs,),
    )


def _pair(value, name):
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or any(not isinstance(v, int) or v < 1 for v in pair):
        raise ValueError(
            f"`{name}` must be a positive integer or a pair of them. "
            f"Received: {name}={value}"
        )
    return pair


def _axis_geometry(size, kernel, stride, dilation, padding):
    """Return (outputs, pad before, pad after) along one spatial axis."""
    extent = (kernel - 1) * dilation + 1
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


def conv2d_operator(
    kernel, input_size, strides=1, padding="valid", dilation_rate=1
) -> LinearOperator:
    """Return a two-dimensional convolution, without bias, as a linear map.

    The geometry is that of `keras.layers.Conv2D`: zero padding, any stride and
    dilation, and groups where the kernel has fewer inputs than the image has
    channels. The adjoint is exact for every size, also where
    `keras.ops.conv_transpose` gives another shape (odd sizes with a stride).

    Args:
        kernel: Float tensor (height, width, inputs / groups, filters).
        input_size: Tuple (height, width) or, with groups,
            (height, width, channels) of the image in pixels.
        strides: Integer or pair of integers.
        padding: `"valid"` or `"same"`.
        dilation_rate: Integer or pair of integers.

    Returns:
        A `LinearOperator` from (1, height, width, channels) to
        (1, output height, output width, filters).

    Raises:
        ValueError: On a kernel, size or padding that makes no convolution.

    Example:
    >>> import numpy as np
    >>> kernel = np.ones((3, 3, 1, 1))
    >>> operator = conv2d_operator(kernel, (5, 5), strides=2, padding="same")
    >>> operator.output_shape
    (1, 3, 3, 1)
    """
    kernel = ops.convert_to_tensor(kernel)
    if len(kernel.shape) != 4:
        raise ValueError(
            "`kernel` must have the shape (height, width, inputs, filters). "
            f"Received: kernel.shape={tuple(kernel.shape)}"
        )
    if padding not in ("valid", "same"):
        raise ValueError(
            '`padding` must be one of {"valid", "same"}. '
            f"Received: padding={padding}. Causal padding is one-dimensional."
        )
    strides = _pair(strides, "strides")
    dilation = _pair(dilation_rate, "dilation_rate")
    if max(strides) > 1 and max(dilation) > 1:
        raise ValueError(
            "`strides` and `dilation_rate` cannot both exceed 1, as in "
            f"`keras.layers.Conv2D`. Received: strides={strides}, "
            f"dilation_rate={dilation}"
        )
    taps_h, taps_w, inputs, filters = kernel.shape
    size = _pair(tuple(input_size)[:2], "input_size")
    channels = inputs if len(input_size) == 2 else input_size[2]
    if channels % inputs or filters % (channels // inputs):
        raise ValueError(
            "The channels of `input_size` must be a multiple of the kernel's "
            "inputs, and the filters a multiple of the groups. Received: "
            f"input_size={tuple(input_size)}, kernel.shape={tuple(kernel.shape)}"
        )
    groups = channels // inputs
    (out_h, top, bottom), (out_w, left, right) = (
        _axis_geometry(*axis, padding)
        for axis in zip(size, (taps_h, taps_w), strides, dilation, strict=True)
    )

    def matvec(x):
        x = ops.pad(x, [[0, 0], [top, bottom], [left, right], [0, 0]])
        return ops.conv(
            x,
            kernel,
            strides=strides,
            padding="valid",
            data_format="channels_last",
            dilation_rate=dilation,
        )

    # The adjoint is a convolution of the zero-stuffed output with the flipped
    # kernel whose inputs and filters are exchanged within each group.
    flipped = ops.reshape(
        ops.flip(kernel, axis=(0, 1)),
        (taps_h, taps_w, inputs, groups, filters // groups),
    )
    flipped = ops.reshape(
        ops.transpose(flipped, (0, 1, 4, 3, 2)),
        (taps_h, taps_w, filters // groups, groups * inputs),
    )
    low = [
        (taps - 1) * rate - before
        for taps, rate, before in zip(
            (taps_h, taps_w), dilation, (top, left), strict=True
        )
    ]
    high = [
        length - ((outputs - 1) * stride + 1) + before
        for length, outputs, stride, before in zip(
            size, (out_h, out_w), strides, (top, left), strict=True
        )
    ]

    def adjoint(y):
        y = ops.reshape(y, (1, out_h, 1, out_w, 1, filters))
        y = ops.pad(
            y,
            [[0, 0], [0, 0], [0, strides[0] - 1], [0, 0], [0, strides[1] - 1]]
            + [[0, 0]],
        )
        y = ops.reshape(y, (1, out_h * strides[0], out_w * strides[1], filters))
        y = y[:, : (out_h - 1) * strides[0] + 1, : (out_w - 1) * strides[1] + 1]
        y = ops.pad(y, [[0, 0], [low[0], high[0]], [low[1], high[1]], [0, 0]])
        return ops.conv(
            y,
            flipped,
            strides=1,
            padding="valid",
            data_format="channels_last",
            dilation_rate=dilation,
        )

    return LinearOperator(
        matvec=matvec,
        adjoint=adjoint,
        input_shape=(1, *size, channels),
        output_shape=(1, out_h, out_w, filters),
    )
