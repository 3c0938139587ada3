"""The papers' GANs: a generator and a discriminator in one model."""

import functools

from keras_spectral.gan import GAN, GradientPenalty
from keras_spectral.layers import SpectralNormalization, StableRankNormalization
from keras_spectral.regularizers import DOptimal, Orthonormal
from keras_spectral.validation import check_choice, check_not_negative
from keras_spectral.zoo.dcgan import (
    check_filters,
    dcgan_discriminator,
    dcgan_generator,
)
from keras_spectral.zoo.resnet_gan_networks import (
    resnet_discriminator,
    resnet_generator,
)

# Resolution -> filters of DCGAN's discriminator: the low-rank paper's for 32 pixels,
# PyTorch's example for 64, and theirs continued.
_DCGAN_FILTERS = {
    32: (128, 256, 512),
    48: (128, 256, 512),
    64: (64, 128, 256, 512),
    128: (64, 128, 256, 512, 1024),
}


def resnet_gan(
    resolution: int = 32,
    classes: int | None = None,
    normalize=None,
    width: int | None = None,
    generator_width: int | None = None,
    channels: int = 3,
    discriminator_steps: int = 5,
    objective="hinge",
    gradient_penalty: float = 0.0,
    orthonormal_factor: float = 0.0,
    ema_momentum: float | None = None,
    upsampling: str = "nearest",
    epsilon: float = 2e-5,
    shortcut_from: str = "input",
    seed: int | None = None,
    name: str = "resnet_gan",
) -> GAN:
    """Build SNGAN's networks with any normalizer in the discriminator, or with none.

    The other builders of residual GANs are this one with the papers' arguments.
    Kernels begin as the authors' do, see `resnet_discriminator`.

    Args:
        resolution: 32, 48, 64 or 128 pixels.
        classes: Integer number of labels; `None` for an unconditional GAN. With them
            batch normalization of the generator has a scale and an offset for each,
            and the discriminator projects features on a label's embedding.
        normalize: Callable, layer to layer, applied to every layer of the discriminator
            with a kernel; `None` for plain layers.
        width: Integer, filters of the discriminator's last block; default: the paper's.
        generator_width: Integer, filters of the generator's first block; likewise.
        channels: Integer, channels of the images.
        discriminator_steps: Integer, discriminator updates a generator update.
        objective: As `keras_spectral.gan.GAN` takes it.
        gradient_penalty: Float >= 0, the factor of
            `keras_spectral.gan.GradientPenalty`; 0 for none.
        orthonormal_factor: Float >= 0, the factor of
            `keras_spectral.regularizers.Orthonormal` on every kernel of the
            discriminator; 0 for none.
        ema_momentum: As `keras_spectral.gan.GAN` takes it.
        upsampling: `"nearest"` (the authors') or `"bilinear"` (mimicry's).
        epsilon: Float > 0, of batch normalization: 2e-5 (the authors') or 1e-5
            (mimicry's).
        shortcut_from: `"input"` (the authors') or `"relu"` (mimicry's), see
            `resnet_discriminator`.
        seed: Integer of the latents and labels; `None` draws one.
        name: String, the model's name.

    Returns:
        A `keras_spectral.gan.GAN`.

    Raises:
        ValueError: If the resolution is another one, or a number is out of range.

    Example:
    >>> gan = resnet_gan(width=16, generator_width=16)
    >>> gan.discriminator.get_layer("block2-c1").__class__.__name__
    'Conv2D'

    Source: [sanyal2020], section 5.3 and appendix E; [miyato2018], tables 4 to 6.
    """
    check_not_negative("gradient_penalty", gradient_penalty)
    check_not_negative("orthonormal_factor", orthonormal_factor)
    regularizer = Orthonormal(orthonormal_factor) if orthonormal_factor else None
    return GAN(
        resnet_generator(
            resolution,
            classes,
            generator_width,
            channels=channels,
            upsampling=upsampling,
            epsilon=epsilon,
        ),
        resnet_discriminator(
            resolution,
            classes,
            normalize,
            width,
            channels,
            shortcut_from=shortcut_from,
            kernel_regularizer=regularizer,
        ),
        objective=objective,
        discriminator_steps=discriminator_steps,
        classes=classes,
        seed=seed,
        penalty=GradientPenalty(gradient_penalty) if gradient_penalty else None,
        ema_momentum=ema_momentum,
        name=name,
    )


def srn_resnet_gan(
    resolution: int = 32,
    classes: int | None = None,
    stable_rank_ratio: float = 0.7,
    width: int | None = None,
    generator_width: int | None = None,
    channels: int = 3,
    discriminator_steps: int = 5,
    name: str = "srn_resnet_gan",
    **kwargs,
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
        **kwargs: What else `resnet_gan` takes, such as `seed`.

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
    return resnet_gan(
        resolution, classes, normalize, width, generator_width, channels,
        discriminator_steps, name=name, **kwargs,
    )  # fmt: skip


def sn_resnet_gan(
    resolution: int = 32,
    classes: int | None = None,
    width: int | None = None,
    generator_width: int | None = None,
    channels: int = 3,
    discriminator_steps: int = 5,
    name: str = "sn_resnet_gan",
    **kwargs,
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
        **kwargs: What else `resnet_gan` takes, such as `seed`.

    Returns:
        A `keras_spectral.gan.GAN` with the hinge loss.

    Example:
    >>> sn_resnet_gan(width=16, generator_width=16).discriminator_steps
    5

    Source: [sanyal2020], appendix E.1; [miyato2018].
    """
    return resnet_gan(
        resolution, classes, SpectralNormalization, width, generator_width, channels,
        discriminator_steps, name=name, **kwargs,
    )  # fmt: skip


def wgan_gp_resnet_gan(
    resolution: int = 32,
    classes: int | None = None,
    gradient_penalty: float = 10.0,
    name: str = "wgan_gp_resnet_gan",
    **kwargs,
) -> GAN:
    """Build WGAN-GP on the stable-rank paper's networks: Wasserstein loss and penalty.

    Args:
        resolution: 32, 48, 64 or 128 pixels.
        classes: Integer number of labels; `None` for an unconditional GAN.
        gradient_penalty: Float >= 0, the paper's lambda.
        name: String, the model's name.
        **kwargs: What else `resnet_gan` takes, such as `width` and `normalize`.

    Returns:
        A `keras_spectral.gan.GAN` with the Wasserstein loss.

    Example:
    >>> wgan_gp_resnet_gan(width=16, generator_width=16).penalty.factor
    10.0

    Source: [gulrajani2017], eq. 3; [sanyal2020], appendix E.1.
    """
    return resnet_gan(
        resolution,
        classes,
        objective="wasserstein",
        gradient_penalty=gradient_penalty,
        name=name,
        **kwargs,
    )


def ortho_resnet_gan(
    resolution: int = 32,
    classes: int | None = None,
    orthonormal_factor: float = 1e-4,
    name: str = "ortho_resnet_gan",
    **kwargs,
) -> GAN:
    """Build Ortho-GAN: a penalty on D's kernels that are not orthonormal.

    Args:
        resolution: 32, 48, 64 or 128 pixels.
        classes: Integer number of labels; `None` for an unconditional GAN.
        orthonormal_factor: Float >= 0, of `keras_spectral.regularizers.Orthonormal`.
            The stable-rank paper says neither its own nor which form it took of
            [brock2017], which it cites: factor and squared form are [brock2019]'s.
        name: String, the model's name.
        **kwargs: What else `resnet_gan` takes, such as `width` and `normalize`.

    Returns:
        A `keras_spectral.gan.GAN` with the hinge loss.

    Example:
    >>> gan = ortho_resnet_gan(width=16, generator_width=16)
    >>> len(gan.discriminator.losses)
    11

    Source: [sanyal2020], section 5, as of [brock2017]; [brock2019], eq. 2.
    """
    return resnet_gan(
        resolution, classes, orthonormal_factor=orthonormal_factor, name=name, **kwargs
    )


def low_rank_dcgan(
    rank_ratio: float | None = 0.5,
    orthogonal_factor: float = 1.0,
    d_optimal_factor: float = 0.25,
    filters=None,
    channels: int = 3,
    name: str = "low_rank_dcgan",
    resolution: int | None = None,
    classes: int | None = None,
    normalize=None,
    discriminator_steps: int = 1,
    seed: int | None = None,
) -> GAN:
    """Build the low-rank paper's DCGAN: every kernel of the discriminator factored.

    The objective is the paper's D-rank-k: Goodfellow's loss, plus lambda times the
    factors' distance from orthogonality, plus gamma times the D-optimal regularizer.
    The paper has 32 pixels and no labels; other sizes and labels are ours.

    Args:
        rank_ratio: Float in (0, 1], the paper's S; `None` for plain kernels.
        orthogonal_factor: Float >= 0, the paper's lambda, 1 to 100 there.
        d_optimal_factor: Float >= 0, the paper's gamma, 0.25 to 5 there.
        filters: Tuple of integers of the discriminator; the generator mirrors it.
            Default: (128, 256, 512) for 32 and 48 pixels, (64, 128, 256, 512) for 64,
            and another 1024 for 128.
        channels: Integer, channels of the images.
        name: String, the model's name.
        resolution: 32, 48, 64 or 128 pixels; default 4 * 2**len(filters), or 32.
        classes: Integer number of labels; `None` for an unconditional GAN.
        normalize: Callable, layer to layer, applied to every layer of the discriminator
            with a kernel. Factored kernels are one of their own: `rank_ratio` must be
            `None`.
        discriminator_steps: Integer, discriminator updates a generator update.
        seed: Integer of the latents and labels; `None` draws one.

    Returns:
        A `keras_spectral.gan.GAN`.

    Raises:
        ValueError: If the resolution is another one, or does not fit the filters, or
            there are both factors and a normalizer.

    Example:
    >>> low_rank_dcgan(filters=(8, 16, 32)).generator.output_shape
    (None, 32, 32, 3)
    >>> low_rank_dcgan(resolution=48, filters=(8, 16, 32)).generator.output_shape
    (None, 48, 48, 3)

    Source: [garg2019], sections 3 and 5.1.
    """
    if rank_ratio is not None and normalize is not None:
        raise ValueError(
            "`normalize` needs plain kernels. Received: normalize="
            f"{normalize!r}, rank_ratio={rank_ratio}. Pass rank_ratio=None."
        )
    if filters is not None:
        check_filters(filters)
    if resolution is None:
        resolution = 32 if filters is None else 4 * 2 ** len(filters)
    else:
        check_choice("resolution", resolution, tuple(_DCGAN_FILTERS))
    filters = _DCGAN_FILTERS[resolution] if filters is None else tuple(filters)
    start, left = divmod(resolution, 2 ** len(filters))
    if left or start < 2:
        raise ValueError(
            f"`filters` must halve {resolution} pixels once each, down to 2 or more. "
            f"Received: filters={filters}"
        )
    more = {"channels": channels, "classes": classes, "start": start}
    discriminator = dcgan_discriminator(
        filters,
        batch_normalization=False,
        rank_ratio=rank_ratio,
        normalize=normalize,
        orthogonal_factor=orthogonal_factor,
        spectrum_regularizer=DOptimal(d_optimal_factor) if d_optimal_factor else None,
        **more,
    )
    return GAN(
        dcgan_generator(tuple(reversed(filters)), **more),
        discriminator,
        objective="logistic",
        discriminator_steps=discriminator_steps,
        classes=classes,
        seed=seed,
        name=name,
    )
