"""The Inception network of FID, KID and the inception score, under PyTorch's names."""

import keras
from keras import layers


def fid_inception(
    classes: int = 1008,
    input_shape=(299, 299, 3),
    name: str | None = None,
) -> keras.Model:
    """Build the Inception network of 2015-12-05, by which GANs are judged.

    It is not that of `keras.applications` or torchvision: average pools divide by
    the pixels that are there, the pool of the last block is a maximum, and there are
    1008 logits. It has 23,850,960 trainable parameters and takes (pixel - 128) / 128.
    Weights come from `pt_inception-2015-12-05-6726825d.pth`, which pytorch-fid and
    torch-fidelity publish, by `convert.from_torch`; none are bundled.
    `gan.metrics.inception` makes features of it.

    Args:
        classes: Integer, the number of logits.
        input_shape: Tuple (height, width, channels) in pixels.
        name: String, the model's name.

    Returns:
        A functional `keras.Model` from images to logits. Its layers `"pool-1"`,
        `"pool-2"`, `"Mixed_6e"` and `"pool"` have the features of 64, 192, 768 and
        2048 dimensions.

    Example:
    >>> model = fid_inception(classes=2, input_shape=(75, 75, 3))
    >>> model.get_layer("pool").output.shape
    (None, 2048)

    Source: [szegedy2016], the network; module names of pytorch-fid.
    """
    inputs = x = keras.Input(input_shape)
    x = _convolution(x, 32, 3, "Conv2d_1a_3x3", 2, "valid")
    x = _convolution(x, 32, 3, "Conv2d_2a_3x3", padding="valid")
    x = _convolution(x, 64, 3, "Conv2d_2b_3x3")
    x = layers.MaxPooling2D(3, 2, name="pool-1")(x)
    x = _convolution(x, 80, 1, "Conv2d_3b_1x1")
    x = _convolution(x, 192, 3, "Conv2d_4a_3x3", padding="valid")
    x = layers.MaxPooling2D(3, 2, name="pool-2")(x)
    for letter, filters in zip("bcd", (32, 64, 64), strict=True):
        x = _five(x, filters, f"Mixed_5{letter}")
    x = _shrunk_to_17(x, "Mixed_6a")
    for letter, filters in zip("bcde", (128, 160, 160, 192), strict=True):
        x = _seven(x, filters, f"Mixed_6{letter}")
    x = _shrunk_to_8(x, "Mixed_7a")
    x = _wide(x, layers.AveragePooling2D, "Mixed_7b")
    x = _wide(x, layers.MaxPooling2D, "Mixed_7c")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = layers.Dense(classes, name="fc")(x)
    return keras.Model(inputs, outputs, name=name or "fid_inception")


def _convolution(x, filters, size, name, strides=1, padding="same"):
    x = layers.Conv2D(
        filters, size, strides, padding, use_bias=False, name=f"{name}-conv"
    )(x)
    x = layers.BatchNormalization(epsilon=1e-3, momentum=0.9, name=f"{name}-bn")(x)
    return layers.ReLU(name=f"{name}-relu")(x)


def _chain(x, name, *parts):
    """Convolutions one after another: (name's end, filters, size) each."""
    for end, filters, size in parts:
        x = _convolution(x, filters, size, f"{name}{end}")
    return x


def _pooled(x, filters, name, pool=layers.AveragePooling2D):
    x = pool(3, 1, "same", name=f"{name}-branch_pool-pool")(x)
    return _convolution(x, filters, 1, f"{name}-branch_pool")


def _five(x, filters, name):
    branches = [
        _convolution(x, 64, 1, f"{name}-branch1x1"),
        _chain(x, f"{name}-branch5x5", ("_1", 48, 1), ("_2", 64, 5)),
        _chain(x, f"{name}-branch3x3dbl", ("_1", 64, 1), ("_2", 96, 3), ("_3", 96, 3)),
        _pooled(x, filters, name),
    ]
    return layers.Concatenate(name=name)(branches)


def _shrunk_to_17(x, name):
    double = _chain(x, f"{name}-branch3x3dbl", ("_1", 64, 1), ("_2", 96, 3))
    branches = [
        _convolution(x, 384, 3, f"{name}-branch3x3", 2, "valid"),
        _convolution(double, 96, 3, f"{name}-branch3x3dbl_3", 2, "valid"),
        layers.MaxPooling2D(3, 2, name=f"{name}-pool")(x),
    ]
    return layers.Concatenate(name=name)(branches)


def _seven(x, filters, name):
    branches = [
        _convolution(x, 192, 1, f"{name}-branch1x1"),
        _chain(
            x,
            f"{name}-branch7x7",
            ("_1", filters, 1),
            ("_2", filters, (1, 7)),
            ("_3", 192, (7, 1)),
        ),
        _chain(
            x,
            f"{name}-branch7x7dbl",
            ("_1", filters, 1),
            ("_2", filters, (7, 1)),
            ("_3", filters, (1, 7)),
            ("_4", filters, (7, 1)),
            ("_5", 192, (1, 7)),
        ),
        _pooled(x, 192, name),
    ]
    return layers.Concatenate(name=name)(branches)


def _shrunk_to_8(x, name):
    three = _convolution(x, 192, 1, f"{name}-branch3x3_1")
    seven = _chain(
        x,
        f"{name}-branch7x7x3",
        ("_1", 192, 1),
        ("_2", 192, (1, 7)),
        ("_3", 192, (7, 1)),
    )
    branches = [
        _convolution(three, 320, 3, f"{name}-branch3x3_2", 2, "valid"),
        _convolution(seven, 192, 3, f"{name}-branch7x7x3_4", 2, "valid"),
        layers.MaxPooling2D(3, 2, name=f"{name}-pool")(x),
    ]
    return layers.Concatenate(name=name)(branches)


def _wide(x, pool, name):
    three = _convolution(x, 384, 1, f"{name}-branch3x3_1")
    double = _chain(x, f"{name}-branch3x3dbl", ("_1", 448, 1), ("_2", 384, 3))
    branches = [_convolution(x, 320, 1, f"{name}-branch1x1")]
    for stem, ends in ((three, "branch3x3_2"), (double, "branch3x3dbl_3")):
        for end, size in (("a", (1, 3)), ("b", (3, 1))):
            branches.append(_convolution(stem, 384, size, f"{name}-{ends}{end}"))
    branches.append(_pooled(x, 192, name, pool))
    return layers.Concatenate(name=name)(branches)
