import contextlib

import numpy as np
import pytest
from sklearn.datasets import load_digits

from keras_spectral import data


def test_digits_are_scikit_learns_in_a_fixed_split():
    digits = data.load("digits", image_size=16, channels=3)
    assert digits.x_train.shape == (1347, 16, 16, 3)
    assert digits.x_test.shape == (450, 16, 16, 3)
    assert digits.x_test.dtype == "float32" and digits.y_test.dtype == "int64"
    assert digits.x_test.min() == -1 and digits.x_test.max() == 1
    small = np.concatenate([digits.x_train, digits.x_test])[:, ::2, ::2, 0]
    original = {image.tobytes() for image in load_digits().images.astype("float32")}
    assert {((image + 1) * 8).tobytes() for image in small} == original
    # Stratified: every digit has a quarter of its images in the test part.
    counts = np.bincount(digits.y_test) / np.bincount(
        np.concatenate([digits.y_train, digits.y_test])
    )
    assert np.abs(counts - 0.25).max() < 0.01
    again = data.load("digits", image_size=16)
    np.testing.assert_array_equal(digits.x_test, again.x_test)


def test_a_file_of_ones_own(tmp_path):
    x, y = np.zeros((5, 4, 4, 1)), np.array([0, 1, 2, 1, 0], "uint8")
    np.savez(tmp_path / "mine.npz", x=x, y=y)
    loaded = data.load(str(tmp_path / "mine.npz"))
    assert loaded.name == "mine" and loaded.classes == 3
    assert loaded.x_test.shape == x.shape and loaded.x_test.dtype == "float32"
    assert len(loaded.x_train) == 0


@pytest.mark.parametrize(
    "arrays, match",
    [
        ({"images": np.zeros(3)}, "arrays `x` and `y`"),
        ({"x": np.zeros((3, 4)), "y": np.zeros(3, int)}, "`x` must have the shape"),
        ({"x": np.zeros((3, 4, 4, 1)), "y": np.zeros(2, int)}, "must have the shape"),
        ({"x": np.full((1, 2, 2, 1), np.nan), "y": np.zeros(1, int)}, "finite"),
        ({"x": np.zeros((1, 2, 2, 1)), "y": np.zeros(1)}, "`y` must hold the labels"),
    ],
)
def test_bad_arrays(arrays, match, tmp_path):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=match):
        data.load(str(tmp_path / "bad.npz"))


def test_a_damaged_file(tmp_path, rng):
    path = tmp_path / "damaged.npz"
    np.savez_compressed(path, x=rng.random((4, 4, 4, 1)), y=np.arange(4))
    whole = path.read_bytes()
    for _ in range(100):
        content = np.frombuffer(whole, "u1").copy()
        content[rng.integers(len(whole), size=3)] = rng.integers(256, size=3)
        path.write_bytes(content)
        # Some bytes, such as a time, may change without harm.
        with contextlib.suppress(ValueError):
            assert len(data.load(str(path)).x_test) == 4


def test_bad_names_and_files(tmp_path):
    with pytest.raises(ValueError, match="Did you mean 'digits'"):
        data.load("digit")
    with pytest.raises(ValueError, match="no data file"):
        data.load(str(tmp_path / "nothing.npz"))
    for content in (b"", b"hello", b"PK\x03\x04"):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(ValueError):
            data.load(str(tmp_path / "bad.npz"))
    with pytest.raises(ValueError, match="`image_size`"):
        data.load("digits", image_size=20)
    with pytest.raises(ValueError, match="`channels`"):
        data.load("digits", channels=0)
