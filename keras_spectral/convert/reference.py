"""The papers' networks in float64, without Keras and our layers.

An import is compared with these. They read a state dict in PyTorch's layout, images
are (batch, channels, height, width), and a network's structure is read off its keys: no
code is shared with `zoo` or with the rules of conversion.
"""

import re

import numpy as np


def relu(x):
    """Return max(x, 0)."""
    return np.maximum(x, 0)


class Tape:
    """A forward pass that keeps the output of every module by its path.

    Args:
        keys: Iterable of the state dict's keys.
        tensor: Callable from key to float64 array.
        ops: `reference_layers.NumpyLayers` or `TorchLayers`.
    """

    def __init__(self, keys, tensor, ops):
        self.keys, self._tensor, self._ops = set(keys), tensor, ops
        self.outputs = {}

    def has(self, path):
        """Whether a module has a weight."""
        return f"{path}.weight" in self.keys

    def _get(self, path, name):
        key = f"{path}.{name}"
        return self._tensor(key) if key in self.keys else None

    def keep(self, path, value):
        """Remember a module's output."""
        self.outputs[path] = value
        return value

    def convolution(self, path, x, stride=1, padding=None):
        """A convolution, padded to its input's size if nothing else is said."""
        weight, mask = self._get(path, "weight"), self._get(path, "mask")
        if mask is not None:
            weight = weight * mask
        if padding is None:
            padding = weight.shape[2] // 2
        groups = x.shape[1] // weight.shape[1]
        bias = self._get(path, "bias")
        return self.keep(
            path, self._ops.convolution(x, weight, bias, stride, padding, groups)
        )

    def transposed(self, path, x, stride, padding):
        """A transposed convolution."""
        weight, bias = self._get(path, "weight"), self._get(path, "bias")
        return self.keep(
            path, self._ops.transposed_convolution(x, weight, bias, stride, padding)
        )

    def linear(self, path, x):
        """A dense layer on (batch, features)."""
        y = x @ self._get(path, "weight").T
        bias = self._get(path, "bias")
        return self.keep(path, y if bias is None else y + bias)

    def normalization(self, path, x, epsilon=1e-5):
        """Batch normalization by its running statistics."""
        shape = (-1,) + (1,) * (x.ndim - 2)
        mean, variance, weight, bias = (
            None if array is None else array.reshape(shape)
            for array in (
                self._get(path, name)
                for name in ("running_mean", "running_var", "weight", "bias")
            )
        )
        y = (x - mean) / np.sqrt(variance + epsilon)
        y = y if weight is None else y * weight
        return self.keep(path, y if bias is None else y + bias)

    def conditional_normalization(self, path, x, labels, epsilon=1e-5):
        """Batch normalization with a row of scales and offsets for each label."""
        mean, variance = (
            self._get(path, f"bn.{name}")[:, None, None]
            for name in ("running_mean", "running_var")
        )
        rows = self._get(path, "embed.weight")[labels][:, :, None, None]
        scale, offset = np.split(rows, 2, 1)
        y = (x - mean) / np.sqrt(variance + epsilon)
        return self.keep(path, y * scale + offset)

    def embedding(self, path, labels):
        """Rows of a table."""
        return self.keep(path, self._get(path, "weight")[labels])

    def shape(self, key):
        """A tensor's shape in PyTorch."""
        return self._tensor(key).shape

    def max_pool(self, x, size=2, stride=2):
        """Maximum over windows."""
        return self._ops.max_pool(x, size, stride)

    def units(self, prefix="features"):
        """Yield (stage, path, whether it is the stage's first), in order."""
        pattern = re.compile(re.escape(prefix) + r"\.stage(\d+)\.unit(\d+)\.")
        found = {
            tuple(map(int, match.groups()))
            for match in map(pattern.match, self.keys)
            if match
        }
        for stage, unit in sorted(found):
            yield stage, f"{prefix}.stage{stage}.unit{unit}", unit == 1


def average_pool(x, size=2):
    """Return means of windows side by side; an odd edge counts what is there."""
    *_, height, width = x.shape
    pad = ((0, 0), (0, 0), (0, -height % size), (0, -width % size))
    total, ones = np.pad(x, pad), np.pad(np.ones_like(x[:1, :1]), pad)

    def summed(a):
        shape = (*a.shape[:2], a.shape[2] // size, size, a.shape[3] // size, size)
        return a.reshape(shape).sum((3, 5))

    return summed(total) / summed(ones)


def _squeeze_excitation(tape, path, x):
    pooled = x.mean((2, 3), keepdims=True)
    squeezed = relu(tape.convolution(f"{path}.se.conv1", pooled))
    # tanh, since the exponential of a large number overflows.
    return x * (1 + np.tanh(tape.convolution(f"{path}.se.conv2", squeezed) / 2)) / 2


def _head(tape, x):
    return tape.linear("output", x.mean((2, 3)))


def _unit_convolutions(tape, path):
    count = 3 if tape.has(f"{path}.body.conv3.conv") else 2
    # A bottleneck strides in its 3x3 convolution, a basic unit in its first.
    return range(1, count + 1), 2 if count == 3 else 1


def residual(tape, x, **_):
    """ResNet and SE-ResNet: normalization after each convolution."""

    def block(path, x, stride=1):
        x = tape.convolution(f"{path}.conv", x, stride)
        return tape.normalization(f"{path}.bn", x)

    x = relu(block("features.init_block", x))
    for stage, path, first in tape.units():
        stride = 2 if first and stage > 1 else 1
        numbers, strided = _unit_convolutions(tape, path)
        y = x
        for n in numbers:
            y = block(f"{path}.body.conv{n}", y, stride if n == strided else 1)
            y = relu(y) if n < numbers[-1] else y
        if tape.has(f"{path}.se.conv1"):
            y = _squeeze_excitation(tape, path, y)
        if tape.has(f"{path}.identity_conv.conv"):
            x = block(f"{path}.identity_conv", x, stride)
        x = relu(x + y)
    return _head(tape, x)


def preactivated(tape, x, shortcut_from="preactivation", **_):
    """PreResNet, WRN and SE-PreResNet: normalization before each convolution."""
    if tape.has("features.init_block"):
        x = tape.convolution("features.init_block", x)
    else:
        x = tape.convolution("features.init_block.conv", x)
        x = relu(tape.normalization("features.init_block.bn", x))
    for stage, path, first in tape.units():
        stride = 2 if first and stage > 1 else 1
        numbers, strided = _unit_convolutions(tape, path)
        y = activated = x
        for n in numbers:
            y = relu(tape.normalization(f"{path}.body.conv{n}.bn", y))
            activated = y if n == 1 else activated
            y = tape.convolution(
                f"{path}.body.conv{n}.conv", y, stride if n == strided else 1
            )
        if tape.has(f"{path}.se.conv1"):
            y = _squeeze_excitation(tape, path, y)
        if tape.has(f"{path}.identity_conv"):
            x = activated if shortcut_from == "preactivation" else x
            x = tape.convolution(f"{path}.identity_conv", x, stride)
        x = x + y
    if tape.has("features.post_activ.bn"):
        x = relu(tape.normalization("features.post_activ.bn", x))
    return _head(tape, x)


def dense(tape, x, **_):
    """DenseNet, with and without bottlenecks, and X-DenseNet by its masks."""
    x = tape.convolution("features.init_block", x)

    def block(path, x):
        x = relu(tape.normalization(f"{path}.bn", x))
        return tape.convolution(f"{path}.conv", x)

    for stage, path, first in tape.units():
        transition = f"features.stage{stage}.trans{stage}.conv"
        if first and tape.has(f"{transition}.conv"):
            x = average_pool(block(transition, x))
        names = ["conv1", "conv2"] if tape.has(f"{path}.conv1.conv") else ["conv"]
        y = x
        for name in names:
            y = block(f"{path}.{name}", y)
        x = np.concatenate([x, y], 1)
    return _head(tape, relu(tape.normalization("features.post_activ.bn", x)))


def pyramidal(tape, x, **_):
    """PyramidNet: widths that grow in every unit, shortcuts padded with zeros."""
    x = tape.convolution("features.init_block.conv", x)
    x = tape.normalization("features.init_block.bn", x)
    for stage, path, first in tape.units():
        stride = 2 if first and stage > 1 else 1
        numbers, strided = _unit_convolutions(tape, path)
        y = x
        for n in numbers:
            y = tape.normalization(f"{path}.body.conv{n}.bn", y)
            y = relu(y) if n > 1 else y
            y = tape.convolution(
                f"{path}.body.conv{n}.conv", y, stride if n == strided else 1
            )
        y = tape.normalization(f"{path}.bn", y)
        x = average_pool(x) if stride == 2 else x
        more = y.shape[1] - x.shape[1]
        x = y + np.pad(x, ((0, 0), (0, more), (0, 0), (0, 0)))
    return _head(tape, relu(tape.normalization("features.post_activ.bn", x)))


def sequential(tape, x, **_):
    """VGG and AlexNet of bearpaw: `features.N` and one `classifier`.

    Numbers count the modules between, so a gap that is one too wide is a pool.
    """
    numbers = sorted(
        int(key.split(".")[1]) for key in tape.keys if key.startswith("features.")
    )
    numbers = sorted(set(numbers))
    shapes = {n: tape.shape(f"features.{n}.weight") for n in numbers}
    convolutions = [n for n in numbers if len(shapes[n]) == 4]
    for n, following in zip(convolutions, [*convolutions[1:], None], strict=True):
        large = shapes[n][2] == 11
        x = tape.convolution(f"features.{n}", x, stride=4 if large else 1)
        gap = 2
        if n + 1 in numbers:
            x = tape.normalization(f"features.{n + 1}", x)
            gap = 3
        x = relu(x)
        if following is None or following - n > gap:
            x = tape.max_pool(x)
    return tape.linear("classifier", x.reshape(len(x), -1))
