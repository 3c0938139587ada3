"""A small convolutional network that trains in minutes on a CPU."""

import keras

from keras_spectral.validation import check_integer
from keras_spectral.zoo.blocks import Blocks, functional


def small_convnet(
    classes: int = 10, input_shape=(28, 28, 1), normalize=None, name: str | None = None
) -> keras.Model:
    """Build three convolutions of 32, 32 and 64 filters and two dense layers.

    The third convolution has stride 2. Batch normalization and ReLU come after each
    layer but the last.

    Args:
        classes: Integer >= 1, the number of logits.
        input_shape: Tuple (height, width, channels) in pixels.
        normalize: Callable, layer to layer, applied to every layer with a kernel;
            `None` for plain layers.
        name: String, the model's name.

    Returns:
        A functional `keras.Model` from images to logits.

    Raises:
        ValueError: If `classes` is below 1.

    Example:
    >>> small_convnet(classes=10, input_shape=(8, 8, 1)).output_shape
    (None, 10)
    """
    check_integer("classes", classes, least=1)
    blocks = Blocks(normalize)
    inputs = x = keras.Input(input_shape)
    for number, (filters, strides) in enumerate(((32, 1), (32, 1), (64, 2)), 1):
        x = blocks.block(x, filters, 3, strides, f"features-{number}")
    x = blocks.dense(blocks.flatten(x), 128, "hidden-fc")
    x = blocks.normalization(x, "hidden-bn")
    outputs = blocks.dense(x, classes, "output")
    return functional(inputs, outputs, name or "small_convnet")
