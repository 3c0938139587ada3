"""Residual networks for 32x32 images, with squeeze-excitation too."""

import keras
from keras import layers

from keras_spectral.zoo.blocks import Blocks, functional, units_per_stage


def cifar_resnet(
    depth: int,
    classes: int,
    bottleneck: bool = False,
    squeeze_excitation: bool = False,
    filters=(16, 32, 64),
    normalize=None,
    input_shape=(32, 32, 3),
    name: str | None = None,
) -> keras.Model:
    """Build a residual network for small images: ResNet and SE-ResNet.

    A 3x3 convolution, three stages of units with 16, 32 and 64 filters, global average
    pooling and one dense layer. A unit is two 3x3 convolutions (depth 6n + 2), or a
    bottleneck of 1x1, 3x3 and 1x1 with four times the filters at its end (9n + 2); its
    shortcut is a convolution where shapes change.

    The stable-rank paper prints 1,973,236 parameters for its ResNet-110 on CIFAR-100;
    no ResNet-110 has them. This one has 1,736,564.

    Args:
        depth: Integer, 6n + 2, or 9n + 2 with bottlenecks.
        classes: Integer >= 1, the number of logits.
        bottleneck: Boolean.
        squeeze_excitation: Boolean, whether units scale their channels.
        filters: Tuple of integers, one a stage; the depth counts 2 layers a unit (3
            with bottlenecks) in each, and 2 more. kuangliu's ResNet18 is depth 18 with
            `(64, 128, 256, 512)`.
        normalize: Callable, layer to layer, applied to every layer with a kernel,
            such as `functools.partial(ks.layers.SpectralNormalization, bound=2.0)`;
            `None` for plain layers.
        input_shape: Tuple (height, width, channels) in pixels.
        name: String, the model's name.

    Returns:
        A functional `keras.Model` from images to logits.

    Raises:
        ValueError: If `depth` is no such number or `classes` is below 1.

    Example:
    >>> model = cifar_resnet(20, classes=10)
    >>> sum(int(w.numpy().size) for w in model.trainable_weights)
    272474

    Source: [he2016], section 4.2; [hu2018]; [shin2021], appendix D; pytorchcv 0.0.67
    `CIFARResNet`, `CIFARSEResNet`.
    """
    blocks = Blocks(normalize)
    count = units_per_stage(depth, 3 if bottleneck else 2, stages=len(filters))
    inputs = keras.Input(input_shape)
    x = blocks.block(inputs, filters[0], 3, 1, "features-init_block")
    for stage, width in enumerate(filters, start=1):
        for unit in range(1, count + 1):
            strides = 2 if unit == 1 and stage > 1 else 1
            path = f"features-stage{stage}-unit{unit}"
            x = _unit(blocks, x, width, strides, path, bottleneck, squeeze_excitation)
    outputs = blocks.head(x, classes)
    return functional(inputs, outputs, name=name or f"resnet{depth}")


def _unit(blocks, x, filters, strides, path, bottleneck, squeeze_excitation):
    """Convolutions, each with its normalization, added to the shortcut, ReLU."""
    if bottleneck:
        y = blocks.block(x, filters, 1, 1, f"{path}-body-conv1")
        y = blocks.block(y, filters, 3, strides, f"{path}-body-conv2")
        filters = 4 * filters
        y = blocks.block(y, filters, 1, 1, f"{path}-body-conv3", activation=False)
    else:
        y = blocks.block(x, filters, 3, strides, f"{path}-body-conv1")
        y = blocks.block(y, filters, 3, 1, f"{path}-body-conv2", activation=False)
    if squeeze_excitation:
        y = blocks.squeeze_excitation(y, f"{path}-se")
    if strides != 1 or x.shape[-1] != filters:
        x = blocks.block(
            x, filters, 1, strides, f"{path}-identity_conv", activation=False
        )
    y = layers.Add(name=f"{path}-add")([y, x])
    return layers.ReLU(name=f"{path}-activ")(y)
