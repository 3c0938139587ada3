"""Statistics say whose they are, and what is not is refused."""

import json

import keras
import numpy as np
import pytest

from keras_spectral.gan.metrics import (
    Features,
    Statistics,
    neural_divergence,
    score_images,
)
from keras_spectral.gan.metrics.images import to_uint8
from tests.test_cli import run

LAYERS = keras.layers


def network(seed, channels=1):
    keras.utils.set_random_seed(seed)
    layers = [LAYERS.Flatten(), LAYERS.Dense(3)]
    return keras.Sequential([keras.Input((4, 4, channels)), *layers])


@pytest.fixture
def images(rng):
    return rng.uniform(-1, 1, (12, 4, 4, 1)).astype("float32")


def test_another_network_of_the_same_name_is_refused(images):
    first, second = (Features(network(seed), "net") for seed in (0, 1))
    reference = first.statistics(images, keep_features=True)
    assert len(score_images(images, reference, first, ["frechet"])) == 1
    with pytest.raises(ValueError, match="same network.*'net.*whose weights differ"):
        score_images(images, reference, second, ["frechet"])
    with pytest.raises(ValueError, match="one network.*whose weights differ"):
        reference.merge(second.statistics(images))


def test_what_was_empty_takes_the_provenance(images, tmp_path):
    replica = Features(network(0), "net").statistics(images)
    merged = Statistics().merge(replica)
    assert merged.provenance == replica.provenance
    other = Statistics(provenance={"features": "another"}).update(np.eye(3))
    with pytest.raises(ValueError, match="same features"):
        merged.merge(other)
    # Of features of unknown origin the first that is known counts.
    mixed = Statistics.of(np.eye(3)).merge(replica)
    assert mixed.provenance["features"] == replica.provenance["features"]


def test_features_without_their_card_are_read(rng, tmp_path):
    features = rng.normal(size=(20, 3))
    Statistics.of(features, keep_features=True).save(tmp_path / "s.npz")
    (tmp_path / "s.npz.json").unlink()
    loaded = Statistics.load(tmp_path / "s.npz")
    assert loaded.count == 20
    np.testing.assert_array_equal(loaded.features, features)
    np.testing.assert_allclose(loaded.covariance, np.cov(features.T))


def test_a_divergence_sees_all_classes_of_a_gan():
    """Labels in turns would begin anew in each call, and so never reach the last."""

    class Sampler:
        classes = 100
        seen = set()

        def generate(self, count, labels=None, seed=None):
            labels = np.arange(count) % self.classes if labels is None else labels
            self.seen.update(labels.tolist())
            return np.broadcast_to(labels[:, None, None, None], (count, 8, 8, 1)) / 100

    sampler = Sampler()
    real = np.zeros((16, 8, 8, 1), "uint8")
    neural_divergence(
        sampler.generate, real, steps=30, batch_size=8, evaluation_samples=512
    )
    assert len(sampler.seen) > 90


def test_bfloat16_images_are_read():
    import ml_dtypes

    images = np.array([-1.0, 0.0, 1.0], ml_dtypes.bfloat16).reshape(1, 1, 3, 1)
    assert to_uint8(images).ravel().tolist() == [0, 128, 255]


def test_a_reference_of_other_images_is_refused(tmp_path, capfd, rng):
    from keras_spectral import zoo

    zoo.sn_resnet_gan(width=4, generator_width=4, channels=1).save(
        tmp_path / "gan.keras"
    )
    keras.Sequential(
        [keras.Input((32, 32, 1)), LAYERS.AveragePooling2D(8), LAYERS.Flatten()]
    ).save(tmp_path / "net.keras")
    # Sorted by class, as the images of a folder are.
    pixels = rng.uniform(-1, 1, (40, 32, 32, 1)).astype("float32")
    sides = {"x_train": pixels, "y_train": np.arange(40) // 20}
    sides |= {"x_test": pixels[::4], "y_test": np.arange(10) % 2}
    np.savez(tmp_path / "mine.npz", **sides)
    words = ["evaluate-gan", tmp_path / "gan.keras", "--data", tmp_path / "mine.npz"]
    words += ["--features", tmp_path / "net.keras", "--metrics", "frechet", "--samples"]
    words += ["20", "--reference", tmp_path / "r.npz", "--reference-samples"]
    assert run(*words, "20") == 0
    card = json.loads((tmp_path / "r.npz.json").read_text())
    chosen = np.linspace(0, 39, 20).astype(int)
    mean = Statistics.load(tmp_path / "r.npz").mean
    averages = pixels[chosen].reshape(20, 4, 8, 4, 8).mean((0, 2, 4)).ravel()
    # Features are of eight bits.
    np.testing.assert_allclose(mean, averages, atol=1 / 255)
    assert card["count"] == 20
    assert run(*words, "20") == 0
    capfd.readouterr()
    assert run(*words, "30") == 2
    assert "`--reference` must be statistics of the images" in capfd.readouterr().err
