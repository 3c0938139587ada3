"""The papers' GANs in float64, read off a state dict as in `reference`."""

import numpy as np

from keras_spectral.convert.reference import average_pool, relu

# Resolution -> blocks of a discriminator that halve the image, from the first one on.
_HALVING_BLOCKS = {32: 2, 48: 4, 64: 5, 128: 5}


def _doubled(x, upsampling):
    if upsampling == "nearest":
        return x.repeat(2, 2).repeat(2, 3)
    # Pixel i of 2n lies at (i + 1/2) / 2 - 1/2 of n; outside, the edge goes on.
    for axis in (2, 3):
        size = x.shape[axis]
        place = np.clip((np.arange(2 * size) + 0.5) / 2 - 0.5, 0, size - 1)
        left = np.floor(place).astype(int)
        right = np.minimum(left + 1, size - 1)
        share = (place - left).reshape((-1, 1) if axis == 2 else (-1,))
        x = x.take(left, axis) * (1 - share) + x.take(right, axis) * share
    return x


def resnet_generator(tape, z, labels=None, upsampling="nearest", epsilon=2e-5, **_):
    """SNGAN's generator: blocks that double the image, a normalization, tanh."""

    def activated(path, x):
        if labels is None or tape.has(path):
            return relu(tape.normalization(path, x, epsilon))
        return relu(tape.conditional_normalization(path, x, labels, epsilon))

    x = tape.linear("l1", z)
    channels = tape.shape("block2.c1.weight")[1]
    side = round((x.shape[1] / channels) ** 0.5)
    x = x.reshape(len(x), channels, side, side)
    number = 2
    while tape.has(f"block{number}.c1"):
        path = f"block{number}"
        y = _doubled(activated(f"{path}.b1", x), upsampling)
        y = activated(f"{path}.b2", tape.convolution(f"{path}.c1", y))
        y = tape.convolution(f"{path}.c2", y)
        x = y + tape.convolution(f"{path}.c_sc", _doubled(x, upsampling))
        number += 1
    # The last normalization has no labels.
    x = relu(tape.normalization(f"b{number}", x, epsilon))
    return np.tanh(tape.convolution(f"c{number}", x))


def resnet_discriminator(
    tape, x, labels=None, resolution=32, shortcut_from="input", **_
):
    """SNGAN's discriminator, with labels the projection discriminator."""
    number = 1
    while tape.has(f"block{number}.c1"):
        path, first = f"block{number}", number == 1
        halves = number <= _HALVING_BLOCKS[resolution]
        y = x if first else relu(x)
        if shortcut_from == "relu":
            x = y
        y = relu(tape.convolution(f"{path}.c1", y))
        y = tape.convolution(f"{path}.c2", y)
        y = average_pool(y) if halves else y
        if tape.has(f"{path}.c_sc"):
            x = average_pool(x) if first else x
            x = tape.convolution(f"{path}.c_sc", x)
        x = average_pool(x) if halves and not first else x
        x = x + y
        number += 1
    x = relu(x).sum((2, 3))
    # mimicry counts the last layer on from its blocks, but for 48 pixels.
    last = next(n for n in (number, number - 1) if tape.has(f"l{n}"))
    logits = tape.linear(f"l{last}", x)
    if labels is not None:
        projection = (tape.embedding("l_y", labels) * x).sum(1, keepdims=True)
        logits = logits + projection
    return logits


def dcgan_generator(tape, z, **_):
    """DCGAN's generator: transposed convolutions, every third module of a sequence."""
    x, number = z[:, :, None, None], 0
    while tape.has(f"main.{number}"):
        stride, padding = (1, 0) if number == 0 else (2, 1)
        x = tape.transposed(f"main.{number}", x, stride, padding)
        if tape.has(f"main.{number + 1}"):
            x = relu(tape.normalization(f"main.{number + 1}", x))
        number += 3
    return np.tanh(x)


def dcgan_discriminator(tape, x, **_):
    """DCGAN's discriminator, without its sigmoid."""
    numbers = sorted({int(key.split(".")[1]) for key in tape.keys})
    convolutions = [n for n in numbers if len(tape.shape(f"main.{n}.weight")) == 4]
    for number in convolutions:
        if number == convolutions[-1]:
            x = tape.convolution(f"main.{number}", x, padding=0)
            break
        x = tape.convolution(f"main.{number}", x, stride=2, padding=1)
        if number + 1 in numbers:
            x = tape.normalization(f"main.{number + 1}", x)
        # TensorFlow keeps the slope 0.2 in float32 only.
        x = np.where(x > 0, x, float(np.float32(0.2)) * x)
    return x.reshape(len(x), -1)
