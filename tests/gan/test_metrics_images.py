"""Images as metrics take them: eight bits, and three ways to resize them."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_spectral.gan import metrics

ROW = np.array([0, 10, 20, 30])
LONGER = np.arange(0, 81, 10)


@pytest.mark.parametrize(
    ("row", "method", "expected"),
    [
        (ROW, "tensorflow1", (0, 6.6667, 13.3333, 20, 26.6667, 30)),
        (ROW, "half_pixel", (0, 5, 11.6667, 18.3333, 25, 30)),
        (LONGER, "tensorflow1", (0, 22.5, 45, 67.5)),
        (LONGER, "half_pixel", (6.25, 28.75, 51.25, 73.75)),
        (LONGER, "clean", (6.78811, 28.28093, 51.71907, 73.21189)),
    ],
)
@pytest.mark.parametrize("axis", [1, 2])
def test_the_vectors(row, method, expected, axis):
    images = np.expand_dims(row, tuple({0, 1, 2, 3} - {axis}))
    size = (len(expected), 1) if axis == 1 else (1, len(expected))
    found = metrics.resized(images, size, method)
    assert found.shape == (1, *size, 1)
    np.testing.assert_allclose(found.ravel(), expected, atol=6e-5)


@pytest.mark.parametrize("before", [(32, 32), (28, 45), (300, 40)])
def test_the_tools_own_resizes(before, rng):
    images = rng.integers(0, 256, (2, *before, 3), "uint8")
    size = (59, 51)
    theirs = tf.compat.v1.image.resize_bilinear(tf.cast(images, "float32"), size)
    ours = metrics.resized(images, size, "tensorflow1")
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    theirs = tf.image.resize(images, size)
    half_pixel = metrics.resized(images, size, "half_pixel")
    np.testing.assert_allclose(half_pixel, theirs, atol=1e-3)
    assert np.abs(half_pixel - ours).mean() > 5
    # clean-fid: each channel as an image of floats, then clipped.
    theirs = [
        [
            Image.fromarray(image[..., c].astype("float32"), mode=None).resize(
                size[::-1], Image.Resampling.BICUBIC
            )
            for c in range(3)
        ]
        for image in images
    ]
    theirs = np.clip(
        np.moveaxis(np.array([list(map(np.asarray, t)) for t in theirs]), 1, 3), 0, 255
    )
    np.testing.assert_allclose(
        metrics.resized(images, size, "clean"), theirs, atol=1e-3
    )


def test_all_pixels_come_back():
    pixels = np.arange(256, dtype="uint8").reshape(1, 16, 16, 1)
    for dtype in ("float32", "float64"):
        floats = (pixels / 127.5 - 1).astype(dtype)
        np.testing.assert_array_equal(metrics.to_uint8(floats), pixels)
    assert metrics.to_uint8(pixels) is pixels
    # Halves go up, what is rounded beyond the ends is clipped.
    floats = np.array([-1.0005, 0.0, 0.4 / 127.5, 1.0005]).reshape(1, 2, 2, 1)
    assert metrics.to_uint8(floats).ravel().tolist() == [0, 128, 128, 255]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 2, 1)), "must be .samples, height, width, channels"),
        (np.zeros((1, 2, 2, 1), int), "must be uint8, or floats"),
        (np.full((1, 2, 2, 1), 2.0), r"must be in \[-1, 1\]"),
        (np.full((1, 2, 2, 1), np.nan), r"must be in \[-1, 1\]"),
    ],
)
def test_what_is_no_image(images, message):
    with pytest.raises(ValueError, match=message):
        metrics.to_uint8(images)
