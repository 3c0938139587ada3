"""The papers' GANs: a generator and a discriminator in one model."""

import functools

from keras_spectral.gan import GAN
from keras_spectral.layers import SpectralNormalization, StableRankNormalization
from keras_spectral.regularizers import DOptimal
from keras_spectral.zoo.dcgan import dcgan_discriminator, dcgan_generator
from keras_spectral.zoo.resnet_gan import resnet_discriminator, resnet_generator


def srn_resnet_gan(
    resolution: int = 32,
    classes: int | None = None,
    stable_rank_ratio: float = 0.7,
    width: int | None = None,
    generator_width: int | None = None,
    channels: int = 3,
    discriminator_steps: int = 5,
    name: str = "srn_resnet_gan",
) -> GAN:
    """Build the stable-rank paper's GAN: stable rank normalization in every layer of D.

    Args:
        resolution: 32, 48, 64 or 128 pixels.
        classes: Integer number of labels; `None` for an unconditional GAN.
        stable_rank_ratio: Float in (0, 1], the paper's c: each layer's stable rank is
            at most c times the smaller side of its flattened kernel, at least 1.
        width: Integer, filters of the discriminator's last block; default: the paper's.
        generator_width: Integer, filters of the generator's first block; likewise.
        channels: Integer, channels of the images.
        discriminator_steps: Integer, discriminator updates a generator update.
        name: String, the model's name.

    Returns:
        A `keras_spectral.gan.GAN` with the hinge loss.

    Example:
    >>> gan = srn_resnet_gan(width=16, generator_width=16)
    >>> gan.discriminator.get_layer("block2-c1").stable_rank_ratio
    0.7

    Source: [sanyal2020], section 5.3 and appendix E.
    """
    normalize = functools.partial(
        StableRankNormalization, stable_rank_ratio=stable_rank_ratio
    )
    return _resnet_gan(
        normalize, resolution, classes, width, generator_width, channels,
        discriminator_steps, name,
    )  # fmt: skip


def sn_resnet_gan(
    resolution: int = 32,
    classes: int | None = None,
    width: int | None = None,
    generator_width: int | None = None,
    channels: int = 3,
    discriminator_steps: int = 5,
    name: str = "sn_resnet_gan",
) -> GAN:
    """Build SNGAN: spectral normalization in every layer of the discriminator.

    Args:
        resolution: 32, 48, 64 or 128 pixels.
        classes: Integer number of labels; `None` for an unconditional GAN.
        width: Integer, filters of the discriminator's last block; default: the paper's.
        generator_width: Integer, filters of the generator's first block; likewise.
        channels: Integer, channels of the images.
        discriminator_steps: Integer, discriminator updates a generator update.
        name: String, the model's name.

    Returns:
        A `keras_spectral.gan.GAN` with the hinge loss.

    Example:
    >>> sn_resnet_gan(width=16, generator_width=16).discriminator_steps
    5

    Source: [sanyal2020], appendix E.1; [miyato2018].
    """
    return _resnet_gan(
        SpectralNormalization, resolution, classes, width, generator_width, channels,
        discriminator_steps, name,
    )  # fmt: skip


def _resnet_gan(
    normalize, resolution, classes, width, generator_width, channels, steps, name
):
    return GAN(
        resnet_generator(resolution, classes, generator_width, channels=channels),
        resnet_discriminator(resolution, classes, normalize, width, channels),
        objective="hinge",
        discriminator_steps=steps,
        classes=classes,
        name=name,
    )


def low_rank_dcgan(
    rank_ratio: float = 0.5,
    orthogonal_factor: float = 1.0,
    d_optimal_factor: float = 0.25,
    filters=(128, 256, 512),
    channels: int = 3,
    name: str = "low_rank_dcgan",
) -> GAN:
    """Build the low-rank paper's DCGAN: every kernel of the discriminator factored.

    The objective is the paper's D-rank-k: Goodfellow's loss, plus lambda times the
    factors' distance from orthogonality, plus gamma times the D-optimal regularizer.

    Args:
        rank_ratio: Float in (0, 1], the paper's S.
        orthogonal_factor: Float >= 0, the paper's lambda, 1 to 100 there.
        d_optimal_factor: Float >= 0, the paper's gamma, 0.25 to 5 there.
        filters: Tuple of integers of the discriminator; the generator mirrors it.
        channels: Integer, channels of the images.
        name: String, the model's name.

    Returns:
        A `keras_spectral.gan.GAN` for images of 4 * 2**len(filters) pixels.

    Example:
    >>> low_rank_dcgan(filters=(8, 16, 32)).generator.output_shape
    (None, 32, 32, 3)

    Source: [garg2019], sections 3 and 5.1.
    """
    discriminator = dcgan_discriminator(
        filters,
        batch_normalization=False,
        rank_ratio=rank_ratio,
        channels=channels,
        orthogonal_factor=orthogonal_factor,
        spectrum_regularizer=DOptimal(d_optimal_factor) if d_optimal_factor else None,
    )
    generator = dcgan_generator(tuple(reversed(filters)), channels=channels)
    return GAN(
        generator, discriminator, objective="logistic", discriminator_steps=1, name=name
    )
