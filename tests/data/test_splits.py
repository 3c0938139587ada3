import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_spectral import data
from keras_spectral.data import Data, Split


def made(labels):
    """A data set whose images are their own numbers."""
    labels = np.asarray(labels)
    images = np.arange(len(labels), dtype="uint8").reshape(-1, 1, 1, 1)
    names = tuple("abcdefgh"[: labels.max() + 1])
    return Data(
        "made", Split(images, labels), Split(images[:1], labels[:1]), names, "-"
    )


LABELS = st.lists(st.integers(0, 5), min_size=2, max_size=200)


@given(LABELS, st.data(), st.integers(0, 9))
def test_subsets_are_nested_balanced_and_paired(labels, draw, seed):
    whole = made(labels)
    larger = draw.draw(st.integers(1, len(labels)))
    smaller = draw.draw(st.integers(1, larger))
    large, small = (whole.subset(count, seed).train for count in (larger, smaller))
    np.testing.assert_array_equal(large.images[:smaller], small.images)
    rows = large.images.ravel()
    assert len(set(rows)) == larger
    np.testing.assert_array_equal(large.labels, np.asarray(labels)[rows])
    # A class has one image less than another only where the other has no more.
    counts, all_of_it = (np.bincount(x, minlength=6) for x in (large.labels, labels))
    short = counts < all_of_it
    assert not short.any() or counts.max() - counts[short].min() <= 1


@given(LABELS, st.data())
def test_what_is_held_out_is_apart(labels, draw):
    whole = made(labels)
    count = draw.draw(st.integers(1, len(labels) - 1))
    held = whole.hold_out(count)
    assert len(held.test) == count
    both = np.concatenate([held.train.images, held.test.images]).ravel()
    assert sorted(both) == list(range(len(labels)))


def test_random_labels_are_uniform_and_say_nothing():
    digits = data.load("digits")
    drawn = digits.random_labels(seed=3)
    labels = drawn.train.labels
    counts = np.bincount(labels, minlength=10)
    # Chi-squared with nine degrees of freedom: 27.9 has probability 1e-3.
    expected = len(labels) / 10
    assert ((counts - expected) ** 2 / expected).sum() < 27.9
    agree = (labels == digits.train.labels).mean()
    assert abs(agree - 0.1) < 4 * np.sqrt(0.09 / len(labels))
    assert drawn.test is digits.test
    again = digits.random_labels(seed=3).train.labels
    np.testing.assert_array_equal(labels, again)
    assert (digits.random_labels(seed=4).train.labels != labels).any()
    assert drawn.steps == ("random labels, seed 3",)


def test_bad_counts_and_seeds():
    digits = data.load("digits")
    for count in 0, 1348, 2.5:
        with pytest.raises(ValueError, match="`count`"):
            digits.subset(count)
    with pytest.raises(ValueError, match="`count` must be at most 1346"):
        digits.hold_out(1347)
    with pytest.raises(ValueError, match="`seed`"):
        digits.random_labels(-1)


def test_inputs_of_every_pixel_value():
    pixels = np.arange(256, dtype="uint8").reshape(-1, 1, 1, 1)
    found = Split(pixels, np.zeros(256, int)).inputs().ravel()
    np.testing.assert_allclose(found, np.linspace(-1, 1, 256), atol=1e-7)
    assert found[0] == -1 and found[-1] == 1
