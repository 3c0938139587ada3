"""Residual networks with normalization first: PreResNet, SE-PreResNet and WRN."""

import keras
from keras import layers

from keras_spectral.validation import check_choice, check_integer
from keras_spectral.zoo.blocks import Blocks, functional, units_per_stage


def cifar_preresnet(
    depth: int,
    classes: int,
    bottleneck: bool = False,
    squeeze_excitation: bool = False,
    shortcut_from="preactivation",
    final_normalization=None,
    filters=(16, 32, 64),
    normalize=None,
    input_shape=(32, 32, 3),
    name: str | None = None,
) -> keras.Model:
    """Build a pre-activated residual network: PreResNet and SE-PreResNet.

    As `cifar_resnet`, but batch normalization and ReLU stand before each convolution,
    and once more at the end. pytorchcv's SE-PreResNet has them after its first
    convolution instead of at the end.

    Projects disagree where keys and shapes do not: bearpaw's shortcut convolution reads
    the unit's input, kuangliu's network has no normalization at its end.

    Args:
        depth: Integer, 6n + 2, or 9n + 2 with bottlenecks.
        classes: Integer >= 1, the number of logits.
        bottleneck: Boolean.
        squeeze_excitation: Boolean, whether units scale their channels.
        shortcut_from: `"preactivation"` or `"input"`, what the shortcut convolution
            reads.
        final_normalization: Boolean; default: `True`, without squeeze-excitation.
        filters: Tuple of integers, one a stage, as in `cifar_resnet`. kuangliu's
            PreActResNet18 is depth 18 with `(64, 128, 256, 512)`.
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
    >>> model = cifar_preresnet(20, classes=10)
    >>> sum(int(w.numpy().size) for w in model.trainable_weights)
    272282

    Source: [he2016b]; [shin2021], appendix D; pytorchcv 0.0.67 `CIFARPreResNet`,
    `CIFARSEPreResNet`.
    """
    blocks = Blocks(normalize)
    count = units_per_stage(depth, 3 if bottleneck else 2, stages=len(filters))
    check_choice("shortcut_from", shortcut_from, ("preactivation", "input"))
    if final_normalization is None:
        final_normalization = not squeeze_excitation
    inputs = keras.Input(input_shape)
    if squeeze_excitation:
        x = blocks.block(inputs, filters[0], 3, 1, "features-init_block")
    else:
        x = blocks.convolution(inputs, filters[0], 3, 1, "features-init_block")
    for stage, width in enumerate(filters, start=1):
        for unit in range(1, count + 1):
            path = f"features-stage{stage}-unit{unit}"
            strides = 2 if unit == 1 and stage > 1 else 1
            y, shortcut = _unit(
                blocks, x, width, strides, path, bottleneck, shortcut_from
            )
            if squeeze_excitation:
                y = blocks.squeeze_excitation(y, f"{path}-se")
            x = layers.Add(name=f"{path}-add")([y, shortcut])
    if final_normalization:
        x = blocks.normalization(x, "features-post_activ-bn")
    outputs = blocks.head(x, classes)
    return functional(inputs, outputs, name=name or f"preresnet{depth}")


def cifar_wrn(
    depth: int,
    width,
    classes: int,
    shortcut_normalization=False,
    normalize=None,
    input_shape=(32, 32, 3),
    name: str | None = None,
) -> keras.Model:
    """Build a wide residual network: PreResNet with `width` times the filters.

    The stable-rank paper's WRN-28-10 on CIFAR-100 has 36,539,124 parameters, which is
    this network with `shortcut_normalization=True`; without it has 36,536,884.

    Args:
        depth: Integer, 6n + 4.
        width: Integer >= 1.
        classes: Integer >= 1, the number of logits.
        shortcut_normalization: Boolean, whether batch normalization follows the
            shortcut's convolution.
        normalize: Callable, layer to layer, applied to every layer with a kernel,
            such as `functools.partial(ks.layers.SpectralNormalization, bound=2.0)`;
            `None` for plain layers.
        input_shape: Tuple (height, width, channels) in pixels.
        name: String, the model's name.

    Returns:
        A functional `keras.Model` from images to logits.

    Raises:
        ValueError: If `depth` is no such number, or `width` or `classes` is below 1.

    Example:
    >>> model = cifar_wrn(10, 2, classes=10)
    >>> tuple(model.get_layer("output").kernel.shape)
    (128, 10)

    Source: [zagoruyko2016]; [sanyal2020], appendix D; pytorchcv 0.0.67 `CIFARWRN`.
    """
    check_integer("width", width, least=1)
    blocks = Blocks(normalize)
    count = units_per_stage(depth, 2, others=4)
    inputs = keras.Input(input_shape)
    x = blocks.convolution(inputs, 16, 3, 1, "features-init_block")
    for stage, filters in enumerate((16 * width, 32 * width, 64 * width), start=1):
        for unit in range(1, count + 1):
            path = f"features-stage{stage}-unit{unit}"
            strides = 2 if unit == 1 and stage > 1 else 1
            y, shortcut = _unit(blocks, x, filters, strides, path)
            if shortcut_normalization and shortcut is not x:
                shortcut = blocks.normalization(
                    shortcut, f"{path}-identity_bn", activation=False
                )
            x = layers.Add(name=f"{path}-add")([y, shortcut])
    x = blocks.normalization(x, "features-post_activ-bn")
    outputs = blocks.head(x, classes)
    return functional(inputs, outputs, name=name or f"wrn{depth}_{width}")


def _unit(
    blocks, x, filters, strides, path, bottleneck=False, shortcut_from="preactivation"
):
    """Return what is to be added: the convolutions' output and the shortcut."""
    first = 1 if bottleneck else strides
    size = 1 if bottleneck else 3
    y, activated = blocks.preactivated(x, filters, size, first, f"{path}-body-conv1")
    second = strides if bottleneck else 1
    y, _ = blocks.preactivated(y, filters, 3, second, f"{path}-body-conv2")
    if bottleneck:
        filters = 4 * filters
        y, _ = blocks.preactivated(y, filters, 1, 1, f"{path}-body-conv3")
    if strides == 1 and x.shape[-1] == filters:
        return y, x
    source = activated if shortcut_from == "preactivation" else x
    return y, blocks.convolution(source, filters, 1, strides, f"{path}-identity_conv")
