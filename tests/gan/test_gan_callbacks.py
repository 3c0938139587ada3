"""What the callbacks of a GAN write, and what they refuse; on TensorFlow."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import keras_spectral as ks
from keras_spectral.gan.callbacks import SampleGrid, SampleMetrics, sample_grid
from tests.gan.test_gan_callbacks_backends import fitted, small


def test_grids_for_tensorboard(tmp_path):
    folder = tmp_path / "logs"
    grid = SampleGrid(tmp_path / "made", count=2, tensorboard=folder)
    fitted(small(), [grid], epochs=2)
    (file,) = folder.iterdir()
    events = list(tf.compat.v1.train.summary_iterator(str(file)))
    images = [
        (event.step, value.image)
        for event in events
        for value in event.summary.value
        if value.tag == "samples"
    ]
    assert [step for step, _ in images] == [0, 1]
    written = (tmp_path / "made" / "epoch_0002.png").read_bytes()
    shown = images[1][1]
    assert shown.encoded_image_string == written
    assert (shown.width, shown.height, shown.colorspace) == (134, 68, 1)


def test_colours_and_large_images_stay_as_they_are(rng):
    images = rng.integers(0, 256, (5, 70, 80, 3)).astype("uint8")
    grid = np.array(sample_grid(images / 127.5 - 1.0, 4))
    assert grid.shape == (2 * 72 + 2, 4 * 82 + 2, 3)
    np.testing.assert_array_equal(grid[74:144, 2:82], images[4])
    np.testing.assert_array_equal(np.array(sample_grid(images, 4)), grid)


def test_labels_choose_what_is_shown(tmp_path):
    gan = small(classes=3)
    labels = np.array([2, 2, 1])
    fitted(gan, [SampleGrid(tmp_path, count=3, columns=3, labels=labels)], epochs=1)
    grid = np.array(Image.open(tmp_path / "epoch_0001.png"))
    made = ks.gan.metrics.to_uint8(gan.generate(3, labels=labels, seed=0))[..., 0]
    np.testing.assert_array_equal(grid[2:66:16, 68:132:16], made[1])


def test_a_generator_that_diverged_is_shown_black(tmp_path):
    gan = small()
    gan.generator.set_weights([x * np.nan for x in gan.generator.get_weights()])
    fitted(gan, [SampleGrid(tmp_path, count=1)], epochs=1)
    assert not np.array(Image.open(tmp_path / "epoch_0001.png"))[2:66, 2:66].any()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"count": 0}, "`count` must be an integer >= 1"),
        ({"columns": 0}, "`columns` must be an integer >= 1"),
        ({"every": 0}, "`every` must be an integer >= 1"),
        ({"labels": [1, 2]}, "`labels` must be one integer, or one for each of 64"),
    ],
)
def test_grids_that_are_refused(tmp_path, arguments, match):
    with pytest.raises(ValueError, match=match):
        SampleGrid(tmp_path, **arguments)


def test_what_is_refused_before_training(tmp_path):
    gan, plain = small(), keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    file = tmp_path / "file"
    file.touch()
    plain.compile("sgd", "mse")
    for callback in (SampleGrid(tmp_path / "new"), SampleMetrics({"a": np.std})):
        with pytest.raises(ValueError, match="must be a `keras_spectral.gan.GAN`"):
            plain.fit(np.zeros((2, 2)), np.zeros(2), callbacks=[callback], verbose=0)
    with pytest.raises(OSError, match="`output` must be a folder"):
        fitted(gan, [SampleGrid(file)])
    wrong = {"labels": [0, 0, 3], "seed": 0}
    for callback in (
        SampleGrid(tmp_path / "new", count=3, **wrong),
        SampleMetrics({"a": np.std}, samples=3, **wrong),
    ):
        conditional = small(classes=3)
        with pytest.raises(ValueError, match="`labels` must hold labels from 0 to 2"):
            fitted(conditional, [callback])
        assert not conditional.generator_optimizer.iterations.numpy()
    with pytest.raises(ValueError, match="two of 'block1'"):
        fitted(gan, [ks.callbacks.SpectralLogger()])
    with pytest.raises(ValueError, match="`network` must be an attribute"):
        fitted(gan, [ks.callbacks.SpectralLogger(network="critic")])
    assert not gan.generator_optimizer.iterations.numpy()


def test_keys_of_metrics_are_not_those_of_losses():
    gan = small()
    for key in "generator_loss", "val_discriminator_loss":
        with pytest.raises(ValueError, match=f"other keys.*Received: '{key}'"):
            fitted(gan, [SampleMetrics({"mean": np.mean, key: np.std}, samples=2)])
    assert not gan.generator_optimizer.iterations.numpy()


def test_metrics_that_are_none():
    with pytest.raises(ValueError, match="`metrics` must be a dict from names"):
        SampleMetrics([np.mean])
    with pytest.raises(ValueError, match="must return a number.* of 'shape'"):
        fitted(small(), [SampleMetrics({"shape": np.shape}, samples=2)])
