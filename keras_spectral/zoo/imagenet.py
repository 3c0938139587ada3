"""VGG and AlexNet for ImageNet, under torchvision's names."""

import keras
from keras import layers

from keras_spectral.validation import check_integer
from keras_spectral.zoo.blocks import Blocks
from keras_spectral.zoo.vgg import check_depth, vgg_features


def imagenet_vgg(
    depth: int,
    classes: int = 1000,
    batch_normalization: bool = False,
    use_bias: bool = True,
    normalize=None,
    input_shape=(224, 224, 3),
    name: str | None = None,
) -> keras.Model:
    """Build VGG for large images: five stages of convolutions, three dense layers.

    VGG19 has 143,667,240 parameters, with batch normalization 143,678,248, and without
    the convolutions' biases then 143,672,744.

    Args:
        depth: 11, 13, 16 or 19.
        classes: Integer >= 1, the number of logits.
        batch_normalization: Boolean.
        use_bias: Boolean, of the convolutions.
        normalize: Callable, layer to layer, applied to every layer with a kernel;
            `None` for plain layers.
        input_shape: Tuple (height, width, channels) in pixels.
        name: String, the model's name.

    Returns:
        A functional `keras.Model` from images to logits.

    Raises:
        ValueError: If `depth` is another number or `classes` is below 1.

    Example:
    >>> model = imagenet_vgg(11, classes=2, input_shape=(32, 32, 3))
    >>> tuple(model.get_layer("classifier-0").kernel.shape)
    (512, 4096)

    Source: [simonyan2015]; torchvision's module names.
    """
    check_depth(depth)
    check_integer("classes", classes, least=1)
    blocks = Blocks(normalize, use_bias=use_bias)
    inputs = keras.Input(input_shape)
    x = vgg_features(blocks, inputs, depth, batch_normalization)
    x = blocks.flatten(x)
    for number in (0, 3):
        x = blocks.dense(x, 4096, f"classifier-{number}")
        x = layers.ReLU(name=f"classifier-{number + 1}")(x)
        x = layers.Dropout(0.5, name=f"classifier-{number + 2}")(x)
    outputs = blocks.dense(x, classes, "classifier-6")
    return keras.Model(inputs, outputs, name=name or f"vgg{depth}")


def imagenet_alexnet(
    classes: int = 1000,
    normalize=None,
    input_shape=(224, 224, 3),
    name: str | None = None,
) -> keras.Model:
    """Build AlexNet for large images, as torchvision has it (one column, no LRN).

    It has 61,100,840 parameters.

    Args:
        classes: Integer >= 1, the number of logits.
        normalize: Callable, layer to layer, applied to every layer with a kernel;
            `None` for plain layers.
        input_shape: Tuple (height, width, channels) in pixels.
        name: String, the model's name.

    Returns:
        A functional `keras.Model` from images to logits.

    Raises:
        ValueError: If `classes` is below 1.

    Example:
    >>> model = imagenet_alexnet(classes=2, input_shape=(64, 64, 3))
    >>> model.output_shape
    (None, 2)

    Source: [krizhevsky2014]; torchvision's module names.
    """
    check_integer("classes", classes, least=1)
    blocks = Blocks(normalize, use_bias=True)
    inputs = x = keras.Input(input_shape)
    for number, filters, size, strides, padding, pool in (
        (0, 64, 11, 4, 2, True),
        (3, 192, 5, 1, 2, True),
        (6, 384, 3, 1, 1, False),
        (8, 256, 3, 1, 1, False),
        (10, 256, 3, 1, 1, True),
    ):
        x = blocks.convolution(x, filters, size, strides, f"features-{number}", padding)
        x = layers.ReLU(name=f"features-{number + 1}")(x)
        if pool:
            x = layers.MaxPooling2D(3, 2, name=f"features-{number + 2}")(x)
    x = blocks.flatten(x)
    for number in (1, 4):
        x = layers.Dropout(0.5, name=f"classifier-{number - 1}")(x)
        x = blocks.dense(x, 4096, f"classifier-{number}")
        x = layers.ReLU(name=f"classifier-{number + 1}")(x)
    outputs = blocks.dense(x, classes, "classifier-6")
    return keras.Model(inputs, outputs, name=name or "alexnet")
