"""What metrics cannot judge is refused, not judged by accident."""

import keras
import numpy as np
import pytest

from keras_spectral.gan import metrics
from keras_spectral.gan.metrics import Statistics

X = np.random.default_rng(0).normal(size=(12, 3))
IMAGES = np.zeros((6, 4, 4, 1), "float32")


def of_network(name):
    return Statistics(provenance={"features": name}).update(X)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (X + 1j, "`generated` must hold real numbers.*complex128"),
        (X.astype(str), "`generated` must hold real numbers.*<U"),
        ("features.npz", "`generated` must hold real numbers.*<U12"),
        (Statistics.of(X), "`generated` must hold real numbers.*Statistics"),
    ],
)
def test_features_are_real_numbers(given, match):
    with pytest.raises(ValueError, match=match):
        metrics.frechet_distance_infinity(given, X)


def test_statistics_of_two_networks_are_not_mixed():
    for mixed in (metrics.frechet_distance, Statistics.merge):
        with pytest.raises(ValueError, match="same features.*'one' and of 'other'"):
            mixed(of_network("one"), of_network("other"))
    assert metrics.frechet_distance(of_network("one"), of_network("one")) < 1e-12
    assert metrics.frechet_distance(of_network("one"), Statistics.of(X)) < 1e-12
    assert of_network("one").merge(of_network("one")).count == 24


def test_features_are_no_statistics_to_merge():
    with pytest.raises(ValueError, match="`other` must be Statistics.*ndarray"):
        Statistics.of(X).merge(X)


@pytest.mark.parametrize(
    ("mean", "covariance", "match"),
    [
        (X.mean(0), np.triu(np.cov(X.T)), "no covariance: it must be symmetric"),
        (X.mean(0), -np.cov(X.T), "no covariance"),
        (X.mean(0), np.cov(X.T) + 1j, "`sigma` must hold real numbers.*complex128"),
        (np.empty(0), np.empty((0, 0)), r"shapes are \(0,\) and \(0, 0\)"),
    ],
)
def test_files_whose_numbers_are_no_moments(mean, covariance, match, tmp_path):
    np.savez(tmp_path / "wrong.npz", mu=mean, sigma=covariance)
    with pytest.raises(ValueError, match=match):
        Statistics.load(tmp_path / "wrong.npz")


def test_moments_in_single_precision_are_read(tmp_path):
    covariance = np.cov(X.T).astype("float32")
    covariance[0, 1] *= 1 + 1e-6
    np.savez(tmp_path / "single.npz", mu=X.mean(0).astype("float32"), sigma=covariance)
    assert metrics.frechet_distance(X, Statistics.load(tmp_path / "single.npz")) < 1e-6


def test_what_is_no_model_and_no_images():
    with pytest.raises(ValueError, match="`model` must be a built.*None"):
        metrics.Features(None, "nothing")
    grey = keras.Sequential(
        [keras.Input((4, 4, 1)), keras.layers.GlobalAveragePooling2D()]
    )
    for given in ("images.npz", None, 3):
        with pytest.raises(ValueError, match="`images` must be an array of images"):
            metrics.Features(grey, "grey")(given)
    with pytest.raises(ValueError, match="`discriminator` must be.*gan.discriminator"):
        metrics.discriminator_slopes(keras.Model(), IMAGES, IMAGES)


def test_images_of_a_generator_that_has_diverged():
    with pytest.raises(ValueError, match="nan to nan. A generator that has diverged"):
        metrics.to_uint8(IMAGES * np.nan)


@pytest.mark.parametrize(
    ("images", "size", "match"),
    [
        (IMAGES[0], (2, 2), r"`images` must be.*\(4, 4, 1\)"),
        (IMAGES, 2, r"`size` must be \(height, width\)"),
        (IMAGES, (0, 2), "`size` must be an integer >= 1"),
    ],
)
def test_sizes_that_are_none(images, size, match):
    with pytest.raises(ValueError, match=match):
        metrics.resized(images, size, "clean")


def test_a_sampler_that_makes_too_few():
    with pytest.raises(ValueError, match="as many images as it is asked for, 16"):
        metrics.neural_divergence(
            lambda count, seed: IMAGES[:1],
            IMAGES,
            steps=1,
            batch_size=4,
            evaluation_samples=4,
        )
