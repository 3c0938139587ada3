"""What must hold on TensorFlow, JAX and torch alike."""

import functools

import numpy as np
import pytest

from keras_spectral import zoo
from keras_spectral.layers import SpectralNormalization

FAMILIES = {
    "resnet": functools.partial(zoo.cifar_resnet, 8),
    "seresnet bn": functools.partial(
        zoo.cifar_resnet, 11, bottleneck=True, squeeze_excitation=True
    ),
    "preresnet": functools.partial(zoo.cifar_preresnet, 8),
    "wrn": functools.partial(zoo.cifar_wrn, 10, 1),
    "densenet": functools.partial(zoo.cifar_densenet, 7, 4),
    "xdensenet": functools.partial(
        zoo.cifar_densenet, 10, 4, bottleneck=True, expand_ratio=2
    ),
    "pyramidnet": functools.partial(zoo.cifar_pyramidnet, 8, 9),
    "alexnet": zoo.cifar_alexnet,
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("normalize", [None, SpectralNormalization])
def test_build_and_predict(family, normalize, rng):
    model = FAMILIES[family](classes=3, normalize=normalize)
    logits = model.predict(rng.standard_normal((2, 32, 32, 3)), verbose=0)
    assert logits.shape == (2, 3) and np.isfinite(logits).all()


@pytest.mark.parametrize("classes", [None, 3])
def test_gans_generate_everywhere(classes):
    gan = zoo.srn_resnet_gan(width=8, generator_width=8, classes=classes)
    images = gan.generate(4, seed=0)
    assert images.shape == (4, 32, 32, 3) and np.abs(images).max() <= 1
    # Latents do not depend on the backend.
    np.testing.assert_allclose(gan.generate(2, seed=0), images[:2], atol=1e-5)
