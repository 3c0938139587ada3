"""Residual generators and discriminators for 32, 48, 64 and 128 pixels (SNGAN)."""

import math

import keras
from keras import layers, ops

from keras_spectral.layers import ConditionalBatchNormalization
from keras_spectral.validation import check_choice, check_integer, check_positive
from keras_spectral.zoo.blocks import at_least_float32, normalizer

# Resolution -> smallest image, and filters as multiples of the widest or thinnest.
_GENERATORS = {
    32: (4, 256, (1, 1, 1, 1)),
    48: (6, 512, (1, 1 / 2, 1 / 4, 1 / 8)),
    64: (4, 1024, (1, 1 / 2, 1 / 4, 1 / 8, 1 / 16)),
    128: (4, 1024, (1, 1, 1 / 2, 1 / 4, 1 / 8, 1 / 16)),
}
# Resolution -> filters of the last block, (multiple, halves the image) of each block,
# number of the last dense layer's name.
_DISCRIMINATORS = {
    32: (128, ((1, True), (1, True), (1, False), (1, False)), 5),
    48: (1024, ((1 / 16, True), (1 / 8, True), (1 / 4, True), (1 / 2, True),
                (1, False)), 5),
    64: (1024, ((1 / 16, True), (1 / 8, True), (1 / 4, True), (1 / 2, True),
                (1, True)), 6),
    128: (1024, ((1 / 16, True), (1 / 8, True), (1 / 4, True), (1 / 2, True),
                 (1, True), (1, False)), 7),
}  # fmt: skip


@keras.saving.register_keras_serializable(package="keras_spectral")
class BilinearUpsampling2D(keras.layers.Layer):
    """Double an image's size by bilinear interpolation, in the input's precision.

    It is PyTorch's `interpolate(scale_factor=2, mode="bilinear")`. Keras' own computes
    in float32 whatever it is given.

    Example:
    >>> import numpy as np
    >>> images = BilinearUpsampling2D()(np.array([[[[0.0], [4.0]]]]))
    >>> ops.convert_to_numpy(images)[0, 0, :, 0].tolist()
    [0.0, 1.0, 3.0, 4.0]
    """

    def call(self, inputs):
        return _doubled(_doubled(inputs, 1), 2)

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        return (batch, 2 * height, 2 * width, channels)


def _doubled(x, axis):
    """Return weights 3/4 and 1/4 of each pixel and its neighbours, in turns."""
    size = x.shape[axis]
    index = ops.arange(size)
    before = ops.take(x, ops.maximum(index - 1, 0), axis=axis)
    after = ops.take(x, ops.minimum(index + 1, size - 1), axis=axis)
    pairs = ops.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis + 1)
    shape = (-1, *x.shape[1:axis], 2 * size, *x.shape[axis + 1 :])
    return ops.reshape(pairs, shape)


def _glorot(gain=1.0):
    """Glorot's uniform initialization, with PyTorch's gain."""
    return keras.initializers.VarianceScaling(gain**2, "fan_avg", "uniform")


def _convolution(
    x, filters, size, name, gain=1.0, normalize=lambda layer: layer, regularizer=None
):
    layer = layers.Conv2D(
        filters,
        size,
        padding="same",
        kernel_initializer=_glorot(gain),
        kernel_regularizer=regularizer,
        name=name,
    )
    return normalize(layer)(x)


def resnet_generator(
    resolution: int = 32,
    classes: int | None = None,
    width: int | None = None,
    latent: int = 128,
    channels: int = 3,
    upsampling="nearest",
    epsilon=2e-5,
    name: str | None = None,
) -> keras.Model:
    """Build SNGAN's generator: residual blocks that each double the image.

    Kernels begin as the authors' do: Glorot's uniform law, times sqrt(2) for the 3x3
    convolutions of blocks; scales of batch normalization with 1, offsets with 0.

    Parameters: 4,276,739 for 32 pixels, 4,878,083 for 48, 12,220,675 for 64 and
    32,150,787 for 128; with classes, batch normalization has a scale and an offset for
    each, but for the last one.

    Args:
        resolution: 32, 48, 64 or 128 pixels.
        classes: Integer number of labels; `None` for an unconditional generator.
        width: Integer, filters of the widest block; default: the paper's 256, 512, 1024
            and 1024.
        latent: Integer, numbers of a latent vector.
        channels: Integer, channels of the images.
        upsampling: `"nearest"` (the authors') or `"bilinear"` (mimicry's).
        epsilon: Float > 0, of batch normalization: 2e-5 (the authors') or 1e-5
            (mimicry's).
        name: String, the model's name.

    Returns:
        A functional `keras.Model` from latents (latent,), with classes also labels (),
        to images (resolution, resolution, channels) in [-1, 1].

    Raises:
        ValueError: If the resolution is another one, or a number is out of range.

    Example:
    >>> generator = resnet_generator(32, width=16)
    >>> generator.output_shape
    (None, 32, 32, 3)

    Source: [sanyal2020], section 5.3 and appendix E; [miyato2018], tables 4 to 6;
    mimicry's module names.
    """
    check_choice("resolution", resolution, tuple(_GENERATORS))
    check_choice("upsampling", upsampling, ("nearest", "bilinear"))
    check_positive("epsilon", epsilon)
    check_integer("channels", channels, least=1)
    start, default, multiples = _GENERATORS[resolution]
    filters = _filters(default if width is None else width, multiples)
    latents = keras.Input((latent,), name="latents")
    labels = None if classes is None else keras.Input((), dtype="int32", name="labels")

    def normalization(x, path, conditional=True):
        if labels is None or not conditional:
            layer = layers.BatchNormalization(momentum=0.9, epsilon=epsilon, name=path)
            x = layer(x)
        else:
            layer = ConditionalBatchNormalization(classes, 0.9, epsilon, name=path)
            x = layer([x, labels])
        return layers.ReLU(name=f"{path}-activ")(x)

    def upsampled(x, path):
        if upsampling == "nearest":
            return layers.UpSampling2D(2, name=path)(x)
        return BilinearUpsampling2D(name=path)(x)

    x = layers.Dense(
        start * start * filters[0], kernel_initializer=_glorot(), name="l1"
    )(latents)
    # Channels first, so that the dense layer's rows are PyTorch's.
    x = layers.Reshape((filters[0], start, start), name="l1-reshape")(x)
    x = layers.Permute((2, 3, 1), name="l1-permute")(x)
    number = 1
    for number, wide in enumerate(filters[1:], start=2):
        path = f"block{number}"
        y = normalization(x, f"{path}-b1")
        y = upsampled(y, f"{path}-up")
        y = _convolution(y, wide, 3, f"{path}-c1", math.sqrt(2))
        y = normalization(y, f"{path}-b2")
        y = _convolution(y, wide, 3, f"{path}-c2", math.sqrt(2))
        x = _convolution(upsampled(x, f"{path}-up_sc"), wide, 1, f"{path}-c_sc")
        x = layers.Add(name=f"{path}-add")([y, x])
    x = normalization(x, f"b{number + 1}", conditional=False)
    x = _convolution(x, channels, 3, f"c{number + 1}")
    # In float32, so that images are not rounded under a mixed policy.
    images = layers.Activation("tanh", dtype=at_least_float32(), name="images")(x)
    inputs = latents if labels is None else [latents, labels]
    return keras.Model(inputs, images, name=name or f"resnet_generator{resolution}")


def resnet_discriminator(
    resolution: int = 32,
    classes: int | None = None,
    normalize=None,
    width: int | None = None,
    channels: int = 3,
    shortcut_from="input",
    use_bias=True,
    kernel_regularizer=None,
    name: str | None = None,
) -> keras.Model:
    """Build SNGAN's discriminator: residual blocks, a sum over pixels, one number.

    Parameters: 1,053,825 for 32 pixels, 10,141,441 for 48 and 64, 29,017,857 for 128.
    With classes it is the projection discriminator: a label's embedding times the
    features is added. Kernels and embeddings begin as the authors' do: Glorot's uniform
    law, times sqrt(2) for the 3x3 convolutions.

    Args:
        resolution: 32, 48, 64 or 128 pixels.
        classes: Integer number of labels; `None` for an unconditional discriminator.
        normalize: Callable, layer to layer, applied to every layer with a kernel, such
            as `keras_spectral.layers.SpectralNormalization`; `None` for plain layers.
        width: Integer, filters of the last block; default: the paper's 128 for 32
            pixels, else 1024.
        channels: Integer, channels of the images.
        shortcut_from: `"input"` (the authors') or `"relu"`: what a block's shortcut
            reads. mimicry's ReLU works in place and so reaches the shortcut.
        use_bias: Boolean, of the last dense layer; the authors' has none.
        kernel_regularizer: Regularizer of every kernel, such as
            `keras_spectral.regularizers.Orthonormal`; `None` for none.
        name: String, the model's name.

    Returns:
        A functional `keras.Model` from images, with classes also labels (), to logits
        (1,).

    Raises:
        ValueError: If the resolution is another one, or an integer is below 1.

    Example:
    >>> discriminator = resnet_discriminator(32, width=16)
    >>> discriminator.output_shape
    (None, 1)

    Source: [sanyal2020], section 5.3 and appendix E; [miyato2018], tables 4 to 6;
    [miyato2018b]; mimicry's module names.
    """
    check_choice("resolution", resolution, tuple(_DISCRIMINATORS))
    check_choice("shortcut_from", shortcut_from, ("input", "relu"))
    check_integer("channels", channels, least=1)
    normalize = normalizer(normalize)
    default, blocks, last = _DISCRIMINATORS[resolution]
    filters = _filters(
        default if width is None else width, [multiple for multiple, _ in blocks]
    )
    images = keras.Input((resolution, resolution, channels), name="images")
    labels = None if classes is None else keras.Input((), dtype="int32", name="labels")

    def convolution(x, wide, size, path, gain=1.0):
        return _convolution(x, wide, size, path, gain, normalize, kernel_regularizer)

    def halved(x, path):
        return layers.AveragePooling2D(2, name=path)(x)

    x = images
    for number, (wide, (_, halves)) in enumerate(
        zip(filters, blocks, strict=True), start=1
    ):
        path, narrow = f"block{number}", x.shape[-1]
        first = number == 1
        y = x if first else layers.ReLU(name=f"{path}-activ1")(x)
        if shortcut_from == "relu":
            x = y
        y = convolution(y, wide if first else narrow, 3, f"{path}-c1", math.sqrt(2))
        y = layers.ReLU(name=f"{path}-activ2")(y)
        y = convolution(y, wide, 3, f"{path}-c2", math.sqrt(2))
        y = halved(y, f"{path}-pool") if halves else y
        if halves or narrow != wide:
            # A mean of pixels and a sum over channels can change places; the mean
            # first is cheaper where the image has few channels.
            x = halved(x, f"{path}-pool_sc") if first else x
            x = convolution(x, wide, 1, f"{path}-c_sc")
            x = halved(x, f"{path}-pool_sc") if halves and not first else x
        x = layers.Add(name=f"{path}-add")([y, x])
    x = layers.ReLU(name="activ")(x)
    pixels = x.shape[1] * x.shape[2]
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    x = layers.Rescaling(pixels, name="sum")(x)

    def dense(units, path, bias):
        layer = layers.Dense(
            units,
            use_bias=bias,
            kernel_initializer=_glorot(),
            kernel_regularizer=kernel_regularizer,
            name=path,
        )
        return normalize(layer)

    logits = dense(1, f"l{last}", use_bias)(x)
    if labels is not None:
        check_integer("classes", classes, least=1)
        table = layers.Embedding(
            classes,
            x.shape[-1],
            embeddings_initializer=_glorot(),
            embeddings_regularizer=kernel_regularizer,
            name="l_y",
        )
        projection = layers.Dot(1, name="projection")([normalize(table)(labels), x])
        logits = layers.Add(name="sum_y")([logits, projection])
    logits = layers.Activation("linear", dtype=at_least_float32(), name="logits")(
        logits
    )
    inputs = images if labels is None else [images, labels]
    return keras.Model(inputs, logits, name=name or f"resnet_discriminator{resolution}")


def _filters(width, multiples):
    check_integer("width", width, least=round(1 / min(multiples)))
    return [round(width * multiple) for multiple in multiples]
