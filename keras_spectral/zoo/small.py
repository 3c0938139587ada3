"""A network of four convolutions, for experiments of minutes."""

import keras

from keras_spectral.validation import check_integer
from keras_spectral.zoo.blocks import Blocks, functional

# Filters and strides.
_CONVOLUTIONS = ((32, 2), (32, 1), (64, 2), (64, 1))


def small_convnet(
    classes: int, normalize=None, input_shape=(28, 28, 1), name: str | None = None
) -> keras.Model:
    """Build four 3x3 convolutions and two dense layers, with batch normalization.

    The convolutions have 32, 32, 64 and 64 filters, the first and the third stride 2;
    128 units and the logits follow, and batch normalization and ReLU each layer but the
    last. It is no paper's network: recipes train it in minutes on one core.

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
    >>> model = small_convnet(classes=10, input_shape=(8, 8, 1))
    >>> sum(int(w.numpy().size) for w in model.trainable_weights)
    99626
    """
    check_integer("classes", classes, least=1)
    blocks = Blocks(normalize)
    inputs = keras.Input(input_shape)
    x = inputs
    for number, (filters, strides) in enumerate(_CONVOLUTIONS):
        x = blocks.block(x, filters, 3, strides, f"features-{number}")
    x = blocks.dense(blocks.flatten(x), 128, "hidden")
    x = blocks.normalization(x, "hidden_bn")
    return functional(inputs, blocks.dense(x, classes, "output"), name or "small")
