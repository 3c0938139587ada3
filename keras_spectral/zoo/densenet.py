"""Densely connected networks for 32x32 images, plain, with bottlenecks and masked."""

import keras
from keras import layers

from keras_spectral.validation import check_integer
from keras_spectral.zoo.blocks import Blocks, functional, units_per_stage


def cifar_densenet(
    depth: int,
    growth_rate: int,
    classes: int,
    bottleneck: bool = False,
    expand_ratio=1,
    normalize=None,
    input_shape=(32, 32, 3),
    name: str | None = None,
) -> keras.Model:
    """Build a densely connected network: DenseNet, DenseNet-BC and X-DenseNet.

    Each unit appends `growth_rate` channels to what it reads. Between the three stages
    a 1x1 convolution halves the channels and average pooling halves the image. With
    `expand_ratio=2` the units' convolutions are X-Convs (`MaskedConv2D`): each filter
    sees a random half of its inputs.

    The stable-rank paper's DenseNet-100 on CIFAR-100 (800,032 parameters) is
    `cifar_densenet(100, 12, 100, bottleneck=True)`.

    Args:
        depth: Integer, 3n + 4, or 6n + 4 with bottlenecks.
        growth_rate: Integer >= 1, channels a unit.
        classes: Integer >= 1, the number of logits.
        bottleneck: Boolean, whether a 1x1 convolution to 4 growth rates comes first.
        expand_ratio: Integer >= 1, how many times sparser the units' kernels are.
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
    >>> model = cifar_densenet(40, 12, classes=10, bottleneck=True)
    >>> sum(int(w.numpy().size) for w in model.trainable_weights)
    176122

    Source: [huang2017]; [sanyal2020], appendix D; [shin2021], appendix D; pytorchcv
    0.0.67 `CIFARDenseNet`, `CIFARXDenseNet`.
    """
    check_integer("growth_rate", growth_rate, least=1)
    check_integer("expand_ratio", expand_ratio, least=1)
    blocks = Blocks(normalize)
    count = units_per_stage(depth, 2 if bottleneck else 1, others=4)
    inputs = keras.Input(input_shape)
    x = blocks.convolution(inputs, 2 * growth_rate, 3, 1, "features-init_block")
    for stage in (1, 2, 3):
        if stage > 1:
            path = f"features-stage{stage}-trans{stage}"
            x, _ = blocks.preactivated(x, x.shape[-1] // 2, 1, 1, f"{path}-conv")
            x = layers.AveragePooling2D(2, name=f"{path}-pool")(x)
        for unit in range(1, count + 1):
            path = f"features-stage{stage}-unit{unit}"
            y, names = x, [(growth_rate, 3, "conv")]
            if bottleneck:
                names = [(4 * growth_rate, 1, "conv1"), (growth_rate, 3, "conv2")]
            for filters, size, part in names:
                y, _ = blocks.preactivated(
                    y, filters, size, 1, f"{path}-{part}", expand_ratio=expand_ratio
                )
            x = layers.Concatenate(name=f"{path}-concat")([x, y])
    x = blocks.normalization(x, "features-post_activ-bn")
    outputs = blocks.head(x, classes)
    default = f"densenet{depth}_k{growth_rate}"
    return functional(inputs, outputs, name=name or default)
