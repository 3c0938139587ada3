import numpy as np
import pytest

from keras_spectral.data import crop_and_flip


def by_hand(image, padding):
    """Every outcome that an image may have."""
    height, width, _ = image.shape
    around = (padding, padding)
    padded = np.pad(image, (around, around, (0, 0)))
    for top in range(2 * padding + 1):
        for left in range(2 * padding + 1):
            crop = padded[top : top + height, left : left + width]
            yield crop.tobytes()
            yield crop[:, ::-1].tobytes()


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_every_crop_comes_equally_often_and_nothing_else(dtype, rng):
    image = rng.integers(1, 256, size=(5, 7, 2)).astype(dtype)
    count, padding = 18 * 400, 1
    found = crop_and_flip(np.repeat(image[None], count, 0), seed=5, padding=padding)
    assert found.dtype == dtype
    expected = dict.fromkeys(by_hand(image, padding), 0)
    assert len(expected) == 18
    for outcome in found:
        expected[outcome.tobytes()] += 1
    # Chi-squared with 17 degrees of freedom: 40.8 has probability 1e-3.
    assert sum((n - 400) ** 2 / 400 for n in expected.values()) < 40.8


def test_the_outcome_is_a_function_of_the_seed(rng):
    images = rng.integers(256, size=(50, 8, 8, 3)).astype("uint8")
    before = images.copy()
    one = crop_and_flip(images, seed=(1, 2, 3))
    np.testing.assert_array_equal(one, crop_and_flip(images, seed=(1, 2, 3)))
    assert (one != crop_and_flip(images, seed=(1, 2, 4))).any()
    np.testing.assert_array_equal(images, before)
    still = crop_and_flip(images, seed=0, padding=0, flip=False)
    np.testing.assert_array_equal(still, images)
    mirrored = crop_and_flip(images, seed=0, padding=0)
    for new, old in zip(mirrored, images, strict=True):
        assert (new == old).all() or (new == old[:, ::-1]).all()


def test_bad_images():
    with pytest.raises(ValueError, match="`images` must have the shape"):
        crop_and_flip(np.zeros((4, 4, 1)), seed=0)
    with pytest.raises(ValueError, match="`padding`"):
        crop_and_flip(np.zeros((1, 4, 4, 1)), seed=0, padding=-1)
