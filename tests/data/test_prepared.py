"""Real builders of TensorFlow Datasets on tiny archives in the true layout.

Their own mocks accept splits that do not exist and give train and test the same images.
"""

import io
import json
import sys
import tarfile
import zipfile

import numpy as np
import pytest
import scipy.io
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download import checksums

from keras_spectral import data
from keras_spectral.data import loading, prepared

LANDMARKS = 10
ATTRIBUTES = 40


def _tar(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def _pixels(rng, count, size):
    return rng.integers(256, size=(count, size, size, 3)).astype("uint8")


def cifar10(folder, rng):
    """Five training files of four images and a test file of two: planes R, G, B."""
    images, labels = _pixels(rng, 22, 32), rng.integers(10, size=22).astype("uint8")
    rows = np.concatenate(
        [labels[:, None], images.transpose(0, 3, 1, 2).reshape(22, -1)], 1
    )
    names = [f"data_batch_{index}.bin" for index in range(1, 6)] + ["test_batch.bin"]
    parts = np.split(rows, [4, 8, 12, 16, 20])
    prefix = "cifar-10-batches-bin/"
    files = {prefix + n: p.tobytes() for n, p in zip(names, parts, strict=True)}
    files[prefix + "batches.meta.txt"] = "\n".join(
        loading.ENTRIES["cifar10"].class_names
    ).encode()
    _tar(folder / "cifar-10-binary.tar.gz", files)
    return (images[:20], labels[:20]), (images[20:], labels[20:])


def cifar100(folder, rng):
    images, labels = _pixels(rng, 9, 32), rng.integers(100, size=9).astype("uint8")
    coarse = labels[:, None] // 5
    planes = images.transpose(0, 3, 1, 2).reshape(9, -1)
    rows = np.concatenate([coarse, labels[:, None], planes], 1)
    prefix = "cifar-100-binary/"
    _tar(
        folder / "cifar-100-binary.tar.gz",
        {
            prefix + "train.bin": rows[:6].tobytes(),
            prefix + "test.bin": rows[6:].tobytes(),
            prefix + "fine_label_names.txt": "\n".join(map(str, range(100))).encode(),
            prefix + "coarse_label_names.txt": "\n".join(map(str, range(20))).encode(),
        },
    )
    return (images[:6], labels[:6]), (images[6:], labels[6:])


def svhn(folder, rng):
    """MATLAB files with 10 for the digit 0, and the extra file that is asked for."""
    found = []
    for name, count in ("train", 5), ("test", 4), ("extra", 1):
        images, labels = _pixels(rng, count, 32), rng.integers(10, size=count)
        stored = {
            "X": images.transpose(1, 2, 3, 0),
            "y": np.where(labels, labels, 10)[:, None],
        }
        scipy.io.savemat(folder / f"{name}_32x32.mat", stored)
        found.append((images, labels))
    return found[:2]


def celeb_a(folder, rng):
    """Seven smooth faces: JPEG keeps them nearly as they are."""
    partition, attributes, landmarks, identity = [], [], [], []
    found = [], [], []
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
        for index in range(7):
            # An image that changes from top to bottom shows where it was cropped.
            rows = np.linspace(0, 255, 218)[:, None, None]
            pixels = np.broadcast_to(rows * (index + 3) / 10, (218, 178, 3))
            image, name = pixels.astype("uint8"), f"{index:06d}.jpg"
            content = io.BytesIO()
            Image.fromarray(image).save(content, "JPEG", quality=95)
            archive.writestr(f"img_align_celeba/{name}", content.getvalue())
            split = (0, 0, 0, 1, 2, 2, 2)[index]
            found[split].append(pixels[20:198])
            partition.append(f"{name} {split}")
            attributes.append(f"{name} " + " ".join(["-1"] * ATTRIBUTES))
            landmarks.append(f"{name} " + " ".join(["1"] * LANDMARKS))
            identity.append(f"{name} 1")
    builder = sys.modules[type(tfds.builder("celeb_a")).__module__]
    heads = {
        "list_attr_celeba.txt": (builder.ATTR_HEADINGS, attributes),
        "list_landmarks_align_celeba.txt": (builder.LANDMARK_HEADINGS, landmarks),
    }
    for file, (head, lines) in heads.items():
        text = "\n".join([str(len(lines)), " ".join(head), *lines])
        (folder / file).write_text(text + "\n")
    (folder / "list_eval_partition.txt").write_text("\n".join(partition) + "\n")
    (folder / "identity_CelebA.txt").write_text("\n".join(identity) + "\n")
    # The means of blocks of 178 / 2 pixels.
    blocks = [np.reshape(split, (-1, 2, 89, 2, 89, 3)).mean((2, 4)) for split in found]
    return [(blocks[split], np.zeros(len(blocks[split]))) for split in (0, 2)]


def stl10(folder, rng):
    images, labels = _pixels(rng, 5, 96), rng.integers(10, size=5).astype("uint8")
    # Planes of columns, labels from 1.
    planes = images.transpose(0, 3, 2, 1)
    names = "\n".join(loading.ENTRIES["stl10"].class_names) + "\n"
    prefix = "stl10_binary/"
    _tar(
        folder / "stl10_binary.tar.gz",
        {
            prefix + "train_X.bin": planes[:3].tobytes(),
            prefix + "train_y.bin": (labels[:3] + 1).tobytes(),
            prefix + "test_X.bin": planes[3:].tobytes(),
            prefix + "test_y.bin": (labels[3:] + 1).tobytes(),
            prefix + "unlabeled_X.bin": planes[:1].tobytes(),
            prefix + "class_names.txt": names.encode(),
        },
    )
    return (images[:3], labels[:3]), (images[3:], labels[3:])


WRITERS = {f.__name__: f for f in (cifar10, cifar100, svhn, celeb_a, stl10)}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Where everything is kept in a test; nothing of the user's is read or written."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "prepared"))
    monkeypatch.setenv("KERAS_SPECTRAL_DATA", str(tmp_path / "own"))
    # It is read once, when the package is imported.
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "prepared"))
    return tmp_path


def _accept(monkeypatch, name, folder):
    """Let a builder take these archives for the true ones."""
    kind = type(tfds.builder(prepared._BUILDERS.get(name, name)))
    true = kind.url_infos
    found = {}
    for url, info in true.items():
        path = folder / (info.filename or url.rsplit("/", 1)[-1])
        found[url] = checksums.compute_url_info(path)
    monkeypatch.setattr(kind, "url_infos", found)


@pytest.mark.parametrize("name", WRITERS)
def test_archives_through_the_real_builder(name, home, rng, monkeypatch):
    folder = home / "archives"
    folder.mkdir()
    expected = WRITERS[name](folder, rng)
    _accept(monkeypatch, name, folder)
    arguments = {"image_size": 2} if name == "celeb_a" else {}
    first = data.load(name, directory=folder, **arguments)
    shape = (2, 2, 3) if name == "celeb_a" else loading.ENTRIES[name].shape
    for split, (images, labels) in zip(
        (first.train, first.test), expected, strict=True
    ):
        assert split.images.shape == (len(images), *shape)
        assert split.images.dtype == "uint8"
        # The builder shuffles what it writes; images tell which is which.
        differences = np.abs(
            split.images.astype("float64")[:, None] - np.asarray(images)[None]
        ).max((2, 3, 4))
        order = differences.argmin(1)
        assert sorted(order) == list(range(len(images)))
        # JPEG, and a pixel rounded up or down.
        allowed = 2 if name == "celeb_a" else 0
        assert differences.min(1).max() <= allowed
        np.testing.assert_array_equal(split.labels, np.asarray(labels)[order])
        if name in ("celeb_a", "stl10"):
            assert isinstance(split.images, np.memmap)
    assert first.classes == len(loading.ENTRIES[name].class_names)
    assert "TensorFlow Datasets" in first.provenance().source
    # Prepared once, it is found without the archives and in the same order.
    again = data.load(name, **arguments)
    assert again.provenance() == first.provenance()


def test_prepared_elsewhere(home, rng, monkeypatch):
    folder = home / "archives"
    folder.mkdir()
    cifar10(folder, rng)
    _accept(monkeypatch, "cifar10", folder)
    first = data.load("cifar10", directory=folder)
    elsewhere = home / "elsewhere"
    (home / "prepared").rename(elsewhere)
    for place in elsewhere, elsewhere / "cifar10" / "3.0.2":
        found = data.load("cifar10", directory=place)
        assert found.provenance() == first.provenance()
    # Another data set's folder is not taken for this one.
    with pytest.raises(FileNotFoundError):
        data.load("cifar100", directory=elsewhere / "cifar10" / "3.0.2")


def test_wrong_archives_are_refused(home, rng):
    """Their checksums are registered; the true files have others."""
    folder = home / "archives"
    folder.mkdir()
    cifar10(folder, rng)
    with pytest.raises(ValueError, match="wrong checksum"):
        data.load("cifar10", directory=folder)
    assert not list((home / "prepared").rglob("dataset_info.json"))


def test_faces_of_a_size_that_cannot_be(home, monkeypatch):
    monkeypatch.setattr(prepared, "find", lambda *_: prepared.Source())
    with pytest.raises(ValueError, match="at most 178"):
        data.load("celeb_a", image_size=200)


def test_the_registered_archives_are_those_that_are_asked_for():
    """Names and sizes in our message, beside the builders' own."""
    for entry in loading.ENTRIES.values():
        builder = tfds.builder(prepared._BUILDERS.get(entry.name, entry.name))
        assert str(builder.version) == entry.version
        names = {
            info.filename or url.rsplit("/", 1)[-1]: info.size / 1e6
            for url, info in type(builder).url_infos.items()
        }
        assert set(names) == set(entry.files)
        for name, size in entry.files.items():
            assert names[name] == pytest.approx(size, rel=0.1), name
        info = json.loads(builder.info.as_json)
        assert info["name"] == builder.name
