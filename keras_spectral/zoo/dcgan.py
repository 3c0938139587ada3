"""DCGAN: plain convolutions, for 32, 48, 64 and 128 pixels."""

import keras
from keras import layers

from keras_spectral.layers import ConditionalBatchNormalization, SVDConv2D
from keras_spectral.validation import check_integer
from keras_spectral.zoo.blocks import at_least_float32, normalizer


def dcgan_generator(
    filters=(512, 256, 128, 64),
    latent: int = 100,
    channels: int = 3,
    name: str | None = None,
    classes: int | None = None,
    start: int = 4,
) -> keras.Model:
    """Build DCGAN's generator: transposed convolutions of 4x4, each doubling the image.

    `filters=(512, 256, 128, 64)` is PyTorch's example for 64 pixels (3,576,704
    parameters); `(512, 256, 128)` is for 32 pixels, our reading of the low-rank paper,
    which prints no generator.

    Args:
        filters: Tuple of integers, one a layer before the last.
        latent: Integer, numbers of a latent vector.
        channels: Integer, channels of the images.
        name: String, the model's name.
        classes: Integer number of labels, each with its own scale and offset of batch
            normalization, but for the last one; `None` for an unconditional generator.
            No paper's: as `resnet_generator` has them.
        start: Integer >= 1, side of the first image and of the first kernel.

    Returns:
        A functional `keras.Model` from latents (latent,), with classes also labels (),
        to images in [-1, 1] of start * 2**len(filters) pixels.

    Raises:
        ValueError: If `start` is no integer of at least 1.

    Example:
    >>> dcgan_generator((64, 32, 16)).output_shape
    (None, 32, 32, 3)

    Source: [radford2016]; [garg2019], section 5.1; the module names of PyTorch's
    example.
    """
    check_integer("start", start, least=1)
    check_filters(filters)
    latents = keras.Input((latent,), name="latents")
    labels = None if classes is None else keras.Input((), dtype="int32", name="labels")
    x = layers.Reshape((1, 1, latent), name="pixel")(latents)
    for index, wide in enumerate((*filters, channels)):
        # PyTorch numbers the modules of a sequence: a convolution is every third.
        x = layers.Conv2DTranspose(
            wide,
            start if index == 0 else 4,
            strides=1 if index == 0 else 2,
            padding="valid" if index == 0 else "same",
            use_bias=False,
            kernel_initializer=_normal(),
            name=f"main-{3 * index}",
        )(x)
        if index < len(filters):
            path = f"main-{3 * index + 1}"
            if labels is None or index == len(filters) - 1:
                layer = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=path)
                x = layer(x)
            else:
                layer = ConditionalBatchNormalization(classes, 0.9, 1e-5, name=path)
                x = layer([x, labels])
            x = layers.ReLU(name=f"main-{3 * index + 2}")(x)
    images = layers.Activation("tanh", dtype=at_least_float32(), name="images")(x)
    inputs = latents if labels is None else [latents, labels]
    return keras.Model(inputs, images, name=name or "dcgan_generator")


def dcgan_discriminator(
    filters=(64, 128, 256, 512),
    batch_normalization=True,
    rank_ratio=None,
    normalize=None,
    channels: int = 3,
    orthogonal_factor=0.0,
    spectrum_regularizer=None,
    name: str | None = None,
    classes: int | None = None,
    start: int = 4,
) -> keras.Model:
    """Build DCGAN's discriminator: convolutions of 4x4, each halving the image.

    `filters=(64, 128, 256, 512)` is PyTorch's example for 64 pixels, without its
    sigmoid. `(128, 256, 512)` without batch normalization, but with biases, is the one
    network for 32 pixels whose file sizes fit those that the low-rank paper prints:
    2,636,673 parameters plain, 2,967,479, 2,227,883, 1,488,287 and 748,691 with
    `rank_ratio` 1, 0.75, 0.5 and 0.25.

    Args:
        filters: Tuple of integers, one a layer before the last.
        batch_normalization: Boolean, from the second layer to the last but one; without
            it convolutions have a bias.
        rank_ratio: Float in (0, 1], the paper's S, for factored kernels; `None` for
            plain ones.
        normalize: Callable, layer to layer, applied to every convolution.
        channels: Integer, channels of the images.
        orthogonal_factor: Float >= 0, the paper's lambda, for factored kernels.
        spectrum_regularizer: Regularizer of the singular values, such as
            `keras_spectral.regularizers.DOptimal`, for factored kernels.
        name: String, the model's name.
        classes: Integer number of labels; `None` for an unconditional discriminator.
            With them it is a projection discriminator ([miyato2018b]): the embedding of
            a label times the last features, summed over pixels, is added.
        start: Integer >= 1, side of the last features and of the last kernel.

    Returns:
        A functional `keras.Model` from images of start * 2**len(filters) pixels, with
        classes also labels (), to logits.

    Raises:
        ValueError: If `start` or `classes` is no integer of at least 1, or `rank_ratio`
            or `orthogonal_factor` out of range.

    Example:
    >>> model = dcgan_discriminator((128, 256, 512), False, rank_ratio=0.5)
    >>> sum(int(w.numpy().size) for w in model.trainable_weights)
    1488287

    Source: [radford2016]; [garg2019], sections 3 and 5.1.
    """
    normalize = normalizer(normalize)
    check_filters(filters)

    def kind(*arguments, **settings):
        if rank_ratio is None:
            initializer = _normal()
            return layers.Conv2D(*arguments, kernel_initializer=initializer, **settings)
        return SVDConv2D(
            *arguments,
            rank_ratio=rank_ratio,
            orthogonal_factor=orthogonal_factor,
            spectrum_regularizer=spectrum_regularizer,
            **settings,
        )

    check_integer("start", start, least=1)
    size = start * 2 ** len(filters)
    images = x = keras.Input((size, size, channels), name="images")
    features, number = images, 0
    for index, wide in enumerate((*filters, 1)):
        last = index == len(filters)
        features = x
        if not last:
            x = layers.ZeroPadding2D(1, name=f"main-{number}-pad")(x)
        convolution = kind(
            wide,
            start if last else 4,
            strides=1 if last else 2,
            use_bias=not batch_normalization,
            name=f"main-{number}",
        )
        x = normalize(convolution)(x)
        number += 1
        if batch_normalization and 0 < index < len(filters):
            x = layers.BatchNormalization(
                momentum=0.9, epsilon=1e-5, name=f"main-{number}"
            )(x)
            number += 1
        if not last:
            x = layers.LeakyReLU(0.2, name=f"main-{number}")(x)
            number += 1
    logits = layers.Flatten(name="logits")(x)
    if classes is None:
        return keras.Model(images, logits, name=name or "dcgan_discriminator")
    check_integer("classes", classes, least=1)
    labels = keras.Input((), dtype="int32", name="labels")
    pooled = layers.GlobalAveragePooling2D(name="mean")(features)
    pooled = layers.Rescaling(start * start, name="sum")(pooled)
    table = layers.Embedding(
        classes,
        features.shape[-1],
        embeddings_initializer=_normal(),
        name="l_y",
    )
    projection = layers.Dot(1, name="projection")([normalize(table)(labels), pooled])
    logits = layers.Add(name="sum_y")([logits, projection])
    return keras.Model([images, labels], logits, name=name or "dcgan_discriminator")


def check_filters(filters):
    """Raise a ValueError unless filters are integers, at least one of them.

    Args:
        filters: What was passed, one for each layer.
    """
    if not isinstance(filters, (tuple, list)) or not filters:
        raise ValueError(
            "`filters` must be a tuple of integers, one for each layer. Received: "
            f"filters={filters!r}"
        )
    for wide in filters:
        check_integer("filters", wide, least=1)


def _normal():
    # One for each layer: an initializer begins with the same numbers each time.
    return keras.initializers.RandomNormal(0.0, 0.02)
