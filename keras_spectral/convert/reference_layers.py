"""PyTorch's layers in float64, without Keras: by PyTorch itself, or by NumPy's sums.

Arrays are in PyTorch's layout: images (batch, channels, *size).
"""

import numpy as np


def _each_axis(value, count):
    return (value,) * count if isinstance(value, int) else tuple(value)


class NumpyLayers:
    """Convolutions and the rest as sums of products.

    Images have one to three axes behind batch and channels. `stride`, `padding` and
    `dilation` are integers, or one for each of them.
    """

    library = "NumPy"

    @staticmethod
    def convolution(x, weight, bias, stride, padding, groups=1, dilation=1):
        """Cross-correlation with symmetric zero padding."""
        count = weight.ndim - 2
        stride, padding, dilation = (
            _each_axis(value, count) for value in (stride, padding, dilation)
        )
        size = [
            d * (n - 1) + 1 for d, n in zip(dilation, weight.shape[2:], strict=True)
        ]
        x = np.pad(x, ((0, 0), (0, 0), *((n, n) for n in padding)))
        axes = tuple(range(2, 2 + count))
        windows = np.lib.stride_tricks.sliding_window_view(x, size, axes)
        steps = (slice(None, None, n) for n in (*stride, *dilation))
        windows = windows[:, :, *steps]
        taps = (1, *range(2 + count, 2 + 2 * count))
        results = [
            np.tensordot(part, kernel, (taps, (1, *axes)))
            for part, kernel in zip(
                np.split(windows, groups, 1), np.split(weight, groups), strict=True
            )
        ]
        y = np.concatenate(results, -1)
        return np.moveaxis(y if bias is None else y + bias, -1, 1)

    @staticmethod
    def transposed_convolution(
        x, weight, bias, stride, padding, dilation=1, output_padding=0
    ):
        """Adjoint of a cross-correlation: every pixel paints its kernel."""
        count = weight.ndim - 2
        stride, padding, dilation, more = (
            _each_axis(n, count) for n in (stride, padding, dilation, output_padding)
        )
        size = [
            (n - 1) * s + d * (k - 1) + 1 + m
            for n, s, d, k, m in zip(
                x.shape[2:], stride, dilation, weight.shape[2:], more, strict=True
            )
        ]
        y = np.zeros((len(x), weight.shape[1], *size))
        for tap in np.ndindex(*weight.shape[2:]):
            starts = [d * t for d, t in zip(dilation, tap, strict=True)]
            places = (
                slice(start, start + s * n, s)
                for start, s, n in zip(starts, stride, x.shape[2:], strict=True)
            )
            painted = np.einsum("bc...,co->bo...", x, weight[:, :, *tap])
            y[:, :, *places] += painted
        y = y[:, :, *(slice(n, -n or None) for n in padding)]
        return y if bias is None else y + bias.reshape(-1, *[1] * count)

    @staticmethod
    def group_normalization(x, groups, weight, bias, epsilon):
        """Numbers of a group of channels, to mean 0 and variance 1."""
        parts = x.reshape(len(x), groups, -1)
        parts = parts - parts.mean(-1, keepdims=True)
        parts /= np.sqrt((parts**2).mean(-1, keepdims=True) + epsilon)
        y = parts.reshape(x.shape)
        ones = (-1, *[1] * (x.ndim - 2))
        y = y if weight is None else y * weight.reshape(ones)
        return y if bias is None else y + bias.reshape(ones)

    @staticmethod
    def layer_normalization(x, weight, bias, epsilon):
        """Each row of the last axis, to mean 0 and variance 1."""
        y = x - x.mean(-1, keepdims=True)
        y /= np.sqrt((y**2).mean(-1, keepdims=True) + epsilon)
        y = y if weight is None else y * weight
        return y if bias is None else y + bias

    @staticmethod
    def max_pool(x, size, stride):
        """Maximum over windows, without padding."""
        windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), (2, 3))
        return windows[:, :, ::stride, ::stride].max((4, 5))


class TorchLayers:
    """The same by PyTorch's own kernels, faster and nobody's rewrite."""

    library = "PyTorch"

    def __init__(self):
        import torch

        self._torch = torch

    def _tensor(self, array):
        if array is None:
            return None
        return self._torch.from_numpy(np.ascontiguousarray(array))

    def _call(self, name, *arrays, **settings):
        function = getattr(self._torch.nn.functional, name)
        return function(*map(self._tensor, arrays), **settings).numpy()

    def convolution(self, x, weight, bias, stride, padding, groups=1, dilation=1):
        """`torch.nn.functional.conv1d`, `conv2d` or `conv3d`."""
        settings = {"stride": stride, "padding": padding, "dilation": dilation}
        name = f"conv{weight.ndim - 2}d"
        return self._call(name, x, weight, bias, groups=groups, **settings)

    def transposed_convolution(
        self, x, weight, bias, stride, padding, dilation=1, output_padding=0
    ):
        """`torch.nn.functional.conv_transpose1d`, `2d` or `3d`."""
        settings = {"stride": stride, "padding": padding, "dilation": dilation}
        name = f"conv_transpose{weight.ndim - 2}d"
        return self._call(
            name, x, weight, bias, output_padding=output_padding, **settings
        )

    def group_normalization(self, x, groups, weight, bias, epsilon):
        """`torch.nn.functional.group_norm`."""
        weight, bias = self._tensor(weight), self._tensor(bias)
        settings = {"weight": weight, "bias": bias, "eps": epsilon}
        return self._call("group_norm", x, num_groups=groups, **settings)

    def layer_normalization(self, x, weight, bias, epsilon):
        """`torch.nn.functional.layer_norm`."""
        weight, bias = self._tensor(weight), self._tensor(bias)
        settings = {"weight": weight, "bias": bias, "eps": epsilon}
        shape = x.shape[-1:]
        return self._call("layer_norm", x, normalized_shape=shape, **settings)

    def max_pool(self, x, size, stride):
        """`torch.nn.functional.max_pool2d`."""
        pool = self._torch.nn.functional.max_pool2d
        return pool(self._tensor(x), size, stride).numpy()


def layers():
    """Return PyTorch's layers where it is installed, NumPy's otherwise."""
    try:
        return TorchLayers()
    except ImportError:
        return NumpyLayers()
