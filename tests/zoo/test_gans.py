"""The papers' GANs: counts, and each trains one step."""

import numpy as np
import pytest

from keras_spectral import zoo
from keras_spectral.gan import GradientPenalty, Wasserstein
from keras_spectral.gan.objectives import objective_of
from keras_spectral.layers import SpectralNormalization, StableRankNormalization
from keras_spectral.regularizers import Orthonormal
from tests.zoo.test_gan_networks import count

SMALL = {"width": 16, "generator_width": 16, "discriminator_steps": 1}


def test_builders_set_what_the_papers_say():
    wgan, ortho = zoo.wgan_gp_resnet_gan(**SMALL), zoo.ortho_resnet_gan(**SMALL)
    plain, srn = zoo.resnet_gan(**SMALL), zoo.srn_resnet_gan(**SMALL)
    assert isinstance(objective_of(wgan.objective), Wasserstein)
    assert isinstance(wgan.penalty, GradientPenalty)
    assert (wgan.penalty.factor, wgan.penalty.target) == (10.0, 1.0)
    assert plain.penalty is None and not plain.discriminator.losses
    # By hand: ||G - I||^2 of each kernel's smaller side, times 1e-4.
    expected = 0.0
    for weight in ortho.discriminator.trainable_weights:
        if weight.ndim > 1:
            matrix = np.reshape(np.asarray(weight), (-1, weight.shape[-1]))
            matrix = matrix.astype("float64")
            short = min(matrix.shape)
            gram = matrix.T @ matrix if short == matrix.shape[1] else matrix @ matrix.T
            expected += 1e-4 * np.sum((gram - np.eye(short)) ** 2)
    found = sum(float(x) for x in ortho.discriminator.losses)
    assert found == pytest.approx(expected, rel=1e-5)
    kinds = {
        type(layer) for layer in srn.discriminator.layers if layer.trainable_weights
    }
    assert kinds == {StableRankNormalization}


@pytest.mark.parametrize(
    "build", [zoo.wgan_gp_resnet_gan, zoo.ortho_resnet_gan], ids=["wgan", "ortho"]
)
def test_one_step(build, rng):
    gan = build(classes=2, normalize=SpectralNormalization, **SMALL)
    gan.compile(run_eagerly=True)
    before = [np.asarray(x) for x in gan.discriminator.trainable_weights]
    images = rng.uniform(-1, 1, (2, 32, 32, 3)).astype("float32")
    history = gan.fit(images, np.array([0, 1]), verbose=0).history
    assert all(np.isfinite(values).all() for values in history.values())
    after = gan.discriminator.trainable_weights
    # Biases of the last layer alone have no gradient under the Wasserstein loss.
    moved = [np.any(x != np.asarray(y)) for x, y in zip(before, after, strict=True)]
    assert sum(moved) >= len(moved) - 1


@pytest.mark.parametrize("resolution", [32, 48, 64, 128])
@pytest.mark.parametrize("classes", [None, 3])
def test_low_rank_dcgan_of_each_size(resolution, classes):
    filters = (4,) * {32: 3, 48: 3, 64: 4, 128: 5}[resolution]
    gan = zoo.low_rank_dcgan(resolution=resolution, filters=filters, classes=classes)
    assert gan.generator.output_shape == (None, resolution, resolution, 3)
    assert len(gan.discriminator.inputs) == (1 if classes is None else 2)
    assert gan.generate(2, seed=0).shape == (2, resolution, resolution, 3)


def test_low_rank_dcgan_has_the_counts_of_the_papers_files():
    gans = [zoo.low_rank_dcgan(ratio) for ratio in (1.0, 0.5)]
    assert [count(gan.discriminator) for gan in gans] == [2_967_479, 1_488_287]
    # The paper prints 11 and 6 MB.
    assert [round(4 * count(g.discriminator) / 2**20) for g in gans] == [11, 6]


def test_low_rank_dcgan_refuses():
    with pytest.raises(ValueError, match="needs plain kernels"):
        zoo.low_rank_dcgan(normalize=SpectralNormalization)
    with pytest.raises(ValueError, match="must halve 32 pixels"):
        zoo.low_rank_dcgan(filters=(4,) * 5, resolution=32)
    gan = zoo.low_rank_dcgan(None, normalize=SpectralNormalization, filters=(4, 4, 4))
    kinds = {type(x) for x in gan.discriminator.layers if x.trainable_weights}
    assert kinds == {SpectralNormalization}
    assert Orthonormal.__name__ not in str(gan.discriminator.get_config())


def test_kernels_of_dcgan_begin_with_numbers_of_their_own():
    gan = zoo.low_rank_dcgan(None, filters=(4, 8, 16))
    for network in (gan.generator, gan.discriminator):
        firsts = [
            np.ravel(weight)[:8].tobytes()
            for weight in network.trainable_weights
            if len(weight.shape) == 4
        ]
        assert len(set(firsts)) == len(firsts) == 4
