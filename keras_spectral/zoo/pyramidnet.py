"""Pyramidal residual networks for 32x32 images."""

import keras
from keras import layers, ops

from keras_spectral.validation import check_integer
from keras_spectral.zoo.blocks import Blocks, functional, units_per_stage


@keras.saving.register_keras_serializable(package="keras_spectral")
class ZeroChannels(keras.layers.Layer):
    """Append channels of zeros.

    Args:
        channels: Integer >= 0, how many.
        **kwargs: What a `keras.layers.Layer` takes.

    Example:
    >>> import numpy as np
    >>> ZeroChannels(2)(np.ones((1, 4, 4, 3))).shape[-1]
    5
    """

    def __init__(self, channels, **kwargs):
        super().__init__(**kwargs)
        self.channels = channels

    def call(self, inputs):
        return ops.pad(inputs, [[0, 0], [0, 0], [0, 0], [0, self.channels]])

    def lipschitz_constant(self):
        """Return 1: zeros beside numbers change no distance."""
        return 1.0

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], input_shape[-1] + self.channels)

    def get_config(self):
        return {**super().get_config(), "channels": self.channels}


def cifar_pyramidnet(
    depth: int,
    alpha,
    classes: int,
    bottleneck: bool = False,
    normalize=None,
    input_shape=(32, 32, 3),
    name: str | None = None,
) -> keras.Model:
    """Build a pyramidal residual network, whose width grows in every unit.

    After unit j of N a unit has round(16 + j alpha / N) filters, four times as many at
    the end of a bottleneck. Shortcuts have no weights: average pooling where the image
    shrinks, and zeros for the channels that are new.

    Args:
        depth: Integer, 6n + 2, or 9n + 2 with bottlenecks.
        alpha: Integer >= 1, how many filters are added over the whole network.
        classes: Integer >= 1, the number of logits.
        bottleneck: Boolean.
        normalize: Callable, layer to layer, applied to every layer with a kernel,
            such as `functools.partial(ks.layers.SpectralNormalization, bound=2.0)`;
            `None` for plain layers.
        input_shape: Tuple (height, width, channels) in pixels.
        name: String, the model's name.

    Returns:
        A functional `keras.Model` from images to logits.

    Raises:
        ValueError: If `depth` is no such number, or another integer is below 1.

    Example:
    >>> model = cifar_pyramidnet(20, 48, classes=10)
    >>> tuple(model.get_layer("output").kernel.shape)
    (64, 10)

    Source: [han2017]; [shin2021], appendix D; pytorchcv 0.0.67 `CIFARPyramidNet`.
    """
    check_integer("alpha", alpha, least=1)
    blocks = Blocks(normalize)
    count = units_per_stage(depth, 3 if bottleneck else 2)
    inputs = keras.Input(input_shape)
    x = blocks.block(inputs, 16, 3, 1, "features-init_block", activation=False)
    width = 16.0
    for stage in (1, 2, 3):
        for unit in range(1, count + 1):
            # A sum of floats, as in the peer: the rounding must agree.
            width += alpha / (3 * count)
            path = f"features-stage{stage}-unit{unit}"
            strides = 2 if unit == 1 and stage > 1 else 1
            x = _unit(blocks, x, round(width), strides, path, bottleneck)
    x = blocks.normalization(x, "features-post_activ-bn")
    outputs = blocks.head(x, classes)
    default = f"pyramidnet{depth}_a{alpha}"
    return functional(inputs, outputs, name=name or default)


def _unit(blocks, x, filters, strides, path, bottleneck):
    """Normalizations around the convolutions, no ReLU at either end."""
    path_to = f"{path}-body-conv"
    if bottleneck:
        sizes = [(filters, 1, 1), (filters, 3, strides), (4 * filters, 1, 1)]
    else:
        sizes = [(filters, 3, strides), (filters, 3, 1)]
    y = x
    for number, (width, size, stride) in enumerate(sizes, start=1):
        y, _ = blocks.preactivated(
            y, width, size, stride, f"{path_to}{number}", activation=number > 1
        )
    y = blocks.normalization(y, f"{path}-bn", activation=False)
    if strides != 1:
        # On an odd edge it averages what is there, as `ceil_mode` does.
        x = layers.AveragePooling2D(2, padding="same", name=f"{path}-identity_pool")(x)
    more = y.shape[-1] - x.shape[-1]
    if more:
        x = ZeroChannels(more, name=f"{path}-identity_zeros")(x)
    return layers.Add(name=f"{path}-add")([y, x])
