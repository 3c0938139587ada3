import contextlib
import dataclasses
import gzip
import hashlib
import pathlib
import shutil
import struct
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from keras_spectral import data
from keras_spectral.data import loading


def test_digits_are_scikit_learns_in_a_fixed_split():
    digits = data.load("digits", image_size=16, channels=3)
    assert digits.train.images.shape == (1347, 16, 16, 3)
    assert digits.test.images.shape == (450, 16, 16, 3)
    assert digits.test.images.dtype == "uint8" and digits.test.labels.dtype == "int64"
    inputs = digits.test.inputs()
    assert inputs.dtype == "float32" and inputs.min() == -1 and inputs.max() == 1
    small = np.concatenate([digits.train.images, digits.test.images])[:, ::2, ::2, 0]
    original = {image.tobytes() for image in load_digits().images.astype("uint8")}
    assert {image.tobytes() for image in small} == original
    # Stratified: every digit has a quarter of its images in the test split.
    counts = np.bincount(digits.test.labels) / np.bincount(
        np.concatenate([digits.train.labels, digits.test.labels])
    )
    assert np.abs(counts - 0.25).max() < 0.01
    again = data.load("digits", image_size=16)
    np.testing.assert_array_equal(digits.test.images[..., :1], again.test.images)
    assert digits.steps == ("pixels repeated to 16x16", "3 equal channels")


def test_a_file_of_ones_own(tmp_path):
    x, y = np.zeros((5, 4, 4, 1)), np.array([0, 1, 2, 1, 0], "uint8")
    np.savez(tmp_path / "mine.npz", x=x, y=y)
    loaded = data.load(str(tmp_path / "mine.npz"))
    assert loaded.name == "mine" and loaded.classes == 3
    assert loaded.test.inputs().shape == x.shape
    assert loaded.test.inputs().dtype == "float32"
    assert len(loaded.train) == 0
    np.savez(tmp_path / "two.npz", x_train=x + 1, y_train=y, x_test=x, y_test=y[::-1])
    loaded = data.load(tmp_path / "two.npz")
    assert loaded.train.inputs().min() == 1 and loaded.test.inputs().max() == 0
    assert loaded.test.labels.tolist() == [0, 1, 2, 1, 0]


@pytest.mark.parametrize(
    "arrays, match",
    [
        ({"images": np.zeros(3)}, "arrays `x` and `y`"),
        ({"x": np.zeros((3, 4)), "y": np.zeros(3, int)}, "`x` must have the shape"),
        ({"x": np.zeros((3, 4, 4, 1)), "y": np.zeros(2, int)}, "must have the shape"),
        ({"x": np.full((1, 2, 2, 1), np.nan), "y": np.zeros(1, int)}, "finite"),
        ({"x": np.zeros((1, 2, 2, 1)), "y": np.zeros(1)}, "`y` must hold the labels"),
        ({"x": np.full((1, 2, 2, 1), 1e300), "y": np.zeros(1, int)}, "finite in float"),
        ({"x": np.zeros((1, 0, 2, 1)), "y": np.zeros(1, int)}, "must have the shape"),
        ({"x": np.zeros((1, 2, 2, 1)), "y": [2**63 + 5]}, "`y` must hold the labels"),
        ({"x": np.zeros((1, 2, 2, 1)), "y": [10**6]}, "below 1,000,000"),
    ],
)
def test_bad_arrays(arrays, match, tmp_path):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=match):
        data.load(str(tmp_path / "bad.npz"))


def test_what_is_no_array_is_not_taken_for_one(tmp_path):
    with zipfile.ZipFile(tmp_path / "raw.npz", "w") as archive:
        for name in "x", "y":
            archive.writestr(name, b"hello")
    with pytest.raises(ValueError, match="`x` must have the shape"):
        data.load(tmp_path / "raw.npz")


def test_a_path_may_begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    np.savez(tmp_path / "mine.npz", x=np.zeros((2, 4, 4, 1)), y=np.arange(2))
    assert len(data.load("~/mine.npz").test) == 2


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
            assert len(data.load(str(path)).test) == 4


def test_bad_names_and_files(tmp_path):
    with pytest.raises(ValueError, match="Did you mean 'digits'"):
        data.load("digit")
    for name in None, 3, ["digits"], b"digits", "":
        with pytest.raises(ValueError, match="`name` must be one of"):
            data.load(name)
    with pytest.raises(ValueError, match="no data file"):
        data.load(str(tmp_path / "nothing.npz"))
    for content in (b"", b"hello", b"PK\x03\x04"):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(ValueError):
            data.load(str(tmp_path / "bad.npz"))
    with pytest.raises(ValueError, match="`image_size`"):
        data.load("digits", image_size=7)
    with pytest.raises(ValueError, match="`channels`"):
        data.load("digits", channels=0)
    with pytest.raises(ValueError, match="`channels` must be 3"):
        data.load(_colours(tmp_path / "colours"), channels=1)


def _colours(folder, size=(4, 5), mode="RGB", **arguments):
    """Write a folder of images by Pillow, two classes."""
    for name in "cat", "dog":
        (folder / name).mkdir(parents=True)
        for index in range(2):
            pixels = np.full((*size, 3), 100 * index + 10, "uint8")
            image = Image.fromarray(pixels).convert(mode)
            image.save(folder / name / f"{index}.png", **arguments)
    return folder


def test_a_folder_of_images(tmp_path):
    found = data.load(_colours(tmp_path / "pets"))
    assert found.test.images.shape == (4, 4, 5, 3) and not len(found.train)
    assert found.test.images[:, 0, 0, 0].tolist() == [10, 110, 10, 110]
    assert found.test.labels.tolist() == [0, 0, 1, 1]
    assert found.class_names == ("cat", "dog") and found.name == "pets"
    # What programs leave behind is no class, and no image.
    (tmp_path / "pets" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "pets" / "cat" / "._0.png").write_bytes(b"x")
    again = data.load(tmp_path / "pets")
    assert again.class_names == found.class_names
    np.testing.assert_array_equal(again.test.labels, found.test.labels)
    for part in "train", "test":
        _colours(tmp_path / "both" / part, mode="L")
    found = data.load(tmp_path / "both", channels=3)
    assert len(found.train) == len(found.test) == 4
    assert found.train.images.shape == (4, 4, 5, 3)


@pytest.mark.parametrize(
    "change, match",
    [
        (lambda f: Image.new("RGB", (9, 9)).save(f / "cat" / "9.png"), "one size"),
        (lambda f: Image.new("L", (5, 4)).save(f / "cat" / "9.png"), "all grey or all"),
        (lambda f: Image.new("RGBA", (5, 4)).save(f / "dog" / "9.png"), "transparency"),
        (lambda f: Image.new("I;16", (5, 4)).save(f / "dog" / "9.png"), "8 bits"),
        (lambda f: (f / "dog" / "9.png").write_bytes(b"no"), "not a readable image"),
        (lambda f: [x.unlink() for x in f.glob("*/*")], "none in"),
        (lambda f: [shutil.rmtree(x) for x in f.iterdir()], "without folders"),
    ],
)
def test_bad_folders(change, match, tmp_path):
    folder = _colours(tmp_path / "pets")
    change(folder)
    with pytest.raises(ValueError, match=match):
        data.load(folder)


def _zipped(content):
    # The time would be a part of the tests' names, which two processes compare.
    return gzip.compress(content, mtime=0)


def _idx(array):
    magic = struct.pack(f">{array.ndim + 1}I", 0x800 + array.ndim, *array.shape)
    return _zipped(magic + array.tobytes())


def _mnist(folder, rng):
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for split, count in ("train", 7), ("t10k", 3):
        images = rng.integers(256, size=(count, 28, 28)).astype("uint8")
        labels = rng.integers(10, size=count).astype("uint8")
        (folder / f"{split}-images-idx3-ubyte.gz").write_bytes(_idx(images))
        (folder / f"{split}-labels-idx1-ubyte.gz").write_bytes(_idx(labels))
        arrays[split] = images, labels
    return arrays


@pytest.mark.parametrize("place", ["directory", "variable"])
def test_idx_files(place, tmp_path, rng, monkeypatch):
    folder = tmp_path / "mnist"
    arrays = _mnist(folder, rng)
    if place == "variable":
        monkeypatch.setenv("KERAS_SPECTRAL_DATA", str(tmp_path))
        found = data.load("mnist", image_size=32)
    else:
        found = data.load("mnist", image_size=32, directory=folder)
    for split, name in (found.train, "train"), (found.test, "t10k"):
        images, labels = arrays[name]
        np.testing.assert_array_equal(split.images[:, 2:30, 2:30, 0], images)
        assert not split.images[:, :2].any() and not split.images[:, :, 30:].any()
        np.testing.assert_array_equal(split.labels, labels)
        assert split.inputs()[0, 0, 0, 0] == -1
    provenance = found.provenance()
    assert provenance.counts == (7, 3) and provenance.source == "IDX files"
    assert provenance.steps == ("black added to 32x32",)
    whole = found.test.images.tobytes() + found.test.labels.tobytes()
    assert provenance.sha256[1] == hashlib.sha256(whole).hexdigest()


@pytest.mark.parametrize(
    "content, match",
    [
        (b"", "must be an IDX|damaged"),
        (b"not gzip", "damaged"),
        (_zipped(b"\0\0\x08\x03"), "damaged"),
        (_zipped(struct.pack(">4I", 0x803, 9, 28, 28)), "0 bytes of 7056"),
        # A claim of 2^96 bytes, and a file that inflates past its claim.
        (_zipped(struct.pack(">4I", 0x803, *[2**32 - 1] * 3)), "IDX"),
        (_zipped(struct.pack(">4I", 0x803, 1, 1, 1) + bytes(9)), "2 bytes of 1"),
        (_idx(np.zeros((7, 28), "uint8")), "3 axes"),
        (_idx(np.zeros((7, 28, 27), "uint8")), "must hold 60000 images"),
        (_idx(np.zeros((6, 28, 28), "uint8")), "7 labels"),
    ],
)
def test_damaged_idx_files(content, match, tmp_path, rng):
    _mnist(tmp_path, rng)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(ValueError, match=match):
        data.load("mnist", directory=tmp_path)


DEBIAN = pathlib.Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.skipif(
    not DEBIAN.is_dir(),
    reason="Debian's package dataset-fashion-mnist is not installed",
)
def test_fashion_mnist_is_the_whole_of_it(monkeypatch):
    monkeypatch.delenv("KERAS_SPECTRAL_DATA", raising=False)
    fashion = data.load("fashion_mnist")
    assert fashion.train.images.shape == (60000, 28, 28, 1)
    assert np.bincount(fashion.train.labels).tolist() == [6000] * 10
    assert np.bincount(fashion.test.labels).tolist() == [1000] * 10
    # Mean and deviation of all pixels as they are published, in [0, 1].
    pixels = fashion.train.images.astype("float64") / 255
    assert pixels.mean() == pytest.approx(0.2860406, abs=1e-6)
    assert pixels.std() == pytest.approx(0.3530242, abs=1e-6)


@pytest.mark.parametrize("name", [name for name in data.names() if name != "digits"])
def test_what_is_not_there_is_said_at_once(name, tmp_path, monkeypatch):
    """With files, sizes and commands, and without TensorFlow Datasets' own tries."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("KERAS_SPECTRAL_DATA", raising=False)
    entry = dataclasses.replace(loading.ENTRIES[name], folders=(str(tmp_path),))
    monkeypatch.setitem(loading.ENTRIES, name, entry)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(FileNotFoundError) as caught:
        data.load(name)
    for file, size in entry.files.items():
        assert f"{file} ({size:g} MB)" in str(caught.value)
    assert "download=True" in str(caught.value)
    with pytest.raises(FileNotFoundError, match="`directory` must be a folder"):
        data.load(name, directory=tmp_path / "nowhere")
