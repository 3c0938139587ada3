"""IDX files, MNIST's format: a magic number, sizes, bytes; gzipped."""

import gzip
import math
import struct
import zlib

import numpy as np

from keras_spectral.data.splits import Data, Split


def present(folder, files):
    """Return whether a folder has all of these files."""
    return all((folder / name).is_file() for name in files)


def read(entry, folder):
    """Return a data set of four IDX files, checked against what it should hold."""
    splits = []
    for (images, labels), count in zip(
        [list(entry.files)[:2], list(entry.files)[2:]], entry.counts, strict=True
    ):
        x = _array(folder / images, axes=3)[..., None]
        y = _array(folder / labels, axes=1).astype("int64")
        if x.shape[1:] != entry.shape or len(x) != len(y) or not len(x):
            raise ValueError(
                f"{folder / images} and {folder / labels} must hold {count} images of "
                f"{entry.shape[:2]} pixels and their labels. Received: images of shape "
                f"{x.shape}, {len(y)} labels"
            )
        if y.max() >= len(entry.class_names):
            raise ValueError(
                f"{folder / labels} must hold labels below {len(entry.class_names)}. "
                f"Received: {y.max()}"
            )
        splits.append(Split(x, y))
    return Data(entry.name, *splits, entry.class_names, "IDX files")


def _array(path, axes):
    try:
        with gzip.open(path) as file:
            magic, *shape = struct.unpack(f">{axes + 1}I", file.read(4 * (axes + 1)))
            size = math.prod(shape)
            # As many as are claimed and one more: no file makes this read on.
            raw = file.read(size + 1)
    except (OSError, EOFError, zlib.error, struct.error, OverflowError) as error:
        raise ValueError(
            f"{path} is not a gzipped IDX file, or it is damaged: {error}"
        ) from error
    if magic != 0x800 + axes or len(raw) != size:
        raise ValueError(
            f"{path} must be an IDX file of bytes with {axes} axes (magic number "
            f"{0x800 + axes:#010x}) and as many bytes as it says. Received: "
            f"{magic:#010x}, {len(raw)} bytes of {size}"
        )
    return np.frombuffer(raw, "uint8").reshape(shape)
