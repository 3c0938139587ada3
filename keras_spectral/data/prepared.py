"""Data sets through TensorFlow Datasets, which is imported only here."""

import dataclasses
import os
from pathlib import Path

import numpy as np

from keras_spectral.data.splits import Data, Split
from keras_spectral.files import replacing

# Its names of those that are called otherwise here.
_BUILDERS = {"svhn": "svhn_cropped"}


@dataclasses.dataclass(frozen=True)
class Source:
    """Where TensorFlow Datasets finds a data set.

    Args:
        prepared: Path with `dataset_info.json`, or `None`.
        archives: Path of the folder with the archives, or `None`.
    """

    prepared: Path | None = None
    archives: Path | None = None


def find(entry, folders):
    """Return a `Source`, or `None`, from what lies on the disk alone.

    Asked first, since TensorFlow Datasets itself tries to download for minutes.
    """
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    builder = _BUILDERS.get(entry.name, entry.name)
    for folder in [*folders, Path(default).expanduser()]:
        for place in folder, folder / entry.version, folder / builder / entry.version:
            # The name is read, too: a folder may be another data set's.
            if (place / "dataset_info.json").is_file() and builder in place.parts:
                return Source(prepared=place)
    for folder in folders:
        if all((folder / name).is_file() for name in entry.files):
            return Source(archives=folder)
    return None


def read(entry, source, image_size):
    """Return a data set of TensorFlow Datasets; without a source, download it."""
    size = entry.shape[0]
    if entry.name == "celeb_a" and image_size is not None:
        size = image_size
        if size > 178:
            raise ValueError(
                "`image_size` must be at most 178, the width of CelebA's images. "
                f"Received: image_size={image_size}"
            )
    builder = _builder(entry, source)
    version = str(builder.version)
    splits = []
    for name in "train", "test":
        count = builder.info.splits[name].num_examples
        if not entry.mapped:
            images = np.empty((count, *entry.shape), "uint8")
            labels = _fill(builder, name, images, entry, size)
        else:
            images, labels = _mapped(builder, name, count, entry, size)
        splits.append(Split(images, labels))
    steps = ()
    if entry.name == "celeb_a":
        steps = (f"178x178 pixels in the middle, averaged to {size}x{size}",)
    source = f"TensorFlow Datasets {builder.name} {version}"
    return Data(entry.name, *splits, _class_names(builder, entry), source, steps)


def _builder(entry, source):
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            f"'{entry.name}' is read through TensorFlow Datasets, which cannot be "
            f"imported ({error}): pip install tensorflow-datasets importlib_resources"
        ) from error
    if source is not None and source.prepared is not None:
        return tfds.builder_from_directory(str(source.prepared))
    name = _BUILDERS.get(entry.name, entry.name)
    builder = tfds.builder(f"{name}:{entry.version}")
    archives = str(source.archives) if source is not None else None
    # Checksums stay as they are registered: told to register new ones it would write
    # into its own installation.
    settings = tfds.download.DownloadConfig(manual_dir=archives, try_download_gcs=False)
    try:
        builder.download_and_prepare(download_config=settings)
    except Exception as error:  # Its own, and whatever a damaged archive raises.
        where = f"the archives in {archives}" if archives else "a download"
        raise ValueError(
            f"TensorFlow Datasets could not prepare '{entry.name}' from {where}: "
            f"{type(error).__name__}: {error}"
        ) from error
    return builder


def _class_names(builder, entry):
    features = builder.info.features
    found = features["label"].names if "label" in features else ()
    return tuple(found) or entry.class_names


def _fill(builder, name, images, entry, size):
    """Write a split's images into an array; return its labels."""
    import tensorflow_datasets as tfds

    # One file after the other: the order is that of the files.
    config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    rows = builder.as_dataset(split=name, shuffle_files=False, read_config=config)
    labels = np.zeros(len(images), "int64")
    for index, row in enumerate(tfds.as_numpy(rows)):
        image = row["image"]
        if entry.name == "celeb_a":
            image = _face(image, size)
        images[index] = image
        labels[index] = row.get("label", 0)
    return labels


def _face(image, size):
    from PIL import Image

    top = (image.shape[0] - 178) // 2
    square = Image.fromarray(image[top : top + 178])
    return np.asarray(square.resize((size, size), Image.Resampling.BOX))


def _mapped(builder, name, count, entry, size):
    """Return images and labels of a split from files that are mapped into memory."""
    from keras_spectral.data.loading import own_folder

    folder = own_folder() or Path("~/.cache/keras_spectral").expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{entry.name}-{builder.version}-{size}-{name}-{count}"
    paths = [folder / f"{stem}-{part}.npy" for part in ("images", "labels")]
    # Written last: where it is, the images are whole.
    if not paths[1].is_file():
        with replacing(paths[0]) as temporary:
            images = np.lib.format.open_memmap(
                temporary, "w+", "uint8", (count, size, size, entry.shape[2])
            )
            labels = _fill(builder, name, images, entry, size)
            images.flush()
            del images
        with replacing(paths[1]) as temporary, temporary.open("wb") as file:
            np.save(file, labels)
    return np.load(paths[0], mmap_mode="r"), np.load(paths[1])
