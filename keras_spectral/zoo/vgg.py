"""VGG and AlexNet for 32x32 images, as the stable-rank paper trained them."""

import keras
from keras import layers

from keras_spectral.validation import check_choice, check_integer
from keras_spectral.zoo.blocks import Blocks

# Convolutions between poolings, and filters.
_STAGES = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
_FILTERS = (64, 128, 256, 512, 512)


def cifar_vgg(
    depth: int,
    classes: int,
    batch_normalization: bool = True,
    normalize=None,
    input_shape=(32, 32, 3),
    name: str | None = None,
) -> keras.Model:
    """Build VGG for small images: five stages of 3x3 convolutions, one dense layer.

    The stable-rank paper prints 20,548,392 parameters for VGG19 on CIFAR-100: that is
    this network with 1000 outputs. With 100 it has 20,086,692.

    Args:
        depth: 11, 13, 16 or 19.
        classes: Integer >= 1, the number of logits.
        batch_normalization: Boolean.
        normalize: Callable, layer to layer, applied to every layer with a kernel,
            such as `functools.partial(ks.layers.SpectralNormalization, bound=2.0)`;
            `None` for plain layers.
        input_shape: Tuple (height, width, channels) in pixels.
        name: String, the model's name.

    Returns:
        A functional `keras.Model` from images to logits.

    Raises:
        ValueError: If `depth` is another number or `classes` is below 1.

    Example:
    >>> model = cifar_vgg(11, classes=10)
    >>> model.layers[-1].name
    'classifier'

    Source: [simonyan2015]; [sanyal2020], appendix D.
    """
    check_depth(depth)
    check_integer("classes", classes, least=1)
    blocks = Blocks(normalize, use_bias=True)
    inputs = keras.Input(input_shape)
    x = vgg_features(blocks, inputs, depth, batch_normalization)
    outputs = blocks.dense(blocks.flatten(x), classes, "classifier")
    return keras.Model(inputs, outputs, name=name or f"vgg{depth}")


def check_depth(depth):
    """Raise a ValueError unless VGG has that depth."""
    check_choice("depth", depth, tuple(_STAGES))


def vgg_features(blocks, x, depth, batch_normalization):
    """Return what VGG's convolutions make of images."""
    # PyTorch numbers the modules of a sequence, those without weights too.
    number = 0
    for filters, count in zip(_FILTERS, _STAGES[depth], strict=True):
        for _ in range(count):
            x = blocks.convolution(x, filters, 3, 1, f"features-{number}")
            if batch_normalization:
                x = blocks.normalization(x, f"features-{number + 1}")
                number += 3
            else:
                x = layers.ReLU(name=f"features-{number + 1}")(x)
                number += 2
        x = layers.MaxPooling2D(2, name=f"features-{number}-pool")(x)
        number += 1
    return x


def cifar_alexnet(
    classes: int, normalize=None, input_shape=(32, 32, 3), name: str | None = None
) -> keras.Model:
    """Build AlexNet for small images: five convolutions, one dense layer.

    The stable-rank paper prints 4,965,092 parameters on CIFAR-100, which counts the
    convolutions (2,469,696) twice; the network has 2,495,396.

    Args:
        classes: Integer >= 1, the number of logits.
        normalize: Callable, layer to layer, applied to every layer with a kernel,
            such as `functools.partial(ks.layers.SpectralNormalization, bound=2.0)`;
            `None` for plain layers.
        input_shape: Tuple (height, width, channels) in pixels.
        name: String, the model's name.

    Returns:
        A functional `keras.Model` from images to logits.

    Raises:
        ValueError: If `classes` is below 1.

    Example:
    >>> model = cifar_alexnet(classes=100)
    >>> sum(int(w.numpy().size) for w in model.trainable_weights)
    2495396

    Source: [krizhevsky2012]; [sanyal2020], appendix D.
    """
    check_integer("classes", classes, least=1)
    blocks = Blocks(normalize, use_bias=True)
    inputs = x = keras.Input(input_shape)
    for number, filters, size, strides, pool in (
        (0, 64, 11, 4, True),
        (3, 192, 5, 1, True),
        (6, 384, 3, 1, False),
        (8, 256, 3, 1, False),
        (10, 256, 3, 1, True),
    ):
        x = blocks.convolution(x, filters, size, strides, f"features-{number}")
        x = layers.ReLU(name=f"features-{number + 1}")(x)
        if pool:
            x = layers.MaxPooling2D(2, name=f"features-{number + 2}")(x)
    outputs = blocks.dense(blocks.flatten(x), classes, "classifier")
    return keras.Model(inputs, outputs, name=name or "alexnet")
