"""PyTorch's two file formats, read without PyTorch.

A file is a pickle that names storages, and the storages: members of a zip archive, or,
before PyTorch 1.6, one after the other behind the pickle. Every claim is checked
against the bytes that are there before memory is taken.
"""

import itertools
import math
import struct

import numpy as np

from keras_spectral.convert.files import archives
from keras_spectral.convert.files.errors import CheckpointError, UnsafeCheckpointError
from keras_spectral.convert.files.pickles import read_pickle
from keras_spectral.convert.files.placeholders import Dictionary, Storage, Tensor
from keras_spectral.convert.files.records import (
    TensorRecord,
    check_shape,
    empty,
    fill,
    numpy_dtype,
)

_MAGIC = 0x1950A86A20F9469CFC6C


def read_zip(path):
    """Return what a zip file of PyTorch's holds, and where its storages are.

    Args:
        path: `pathlib.Path` of a file that begins like a zip.

    Returns:
        Tuple (object, function from `pickles.Tensor` to `TensorRecord`).
    """
    archive = archives.Archive(path)
    name = next(n for n in archive.names if n.split("/")[-1] == "data.pkl")
    folder = name[: -len("data.pkl")]
    if f"{folder}byteorder" in archive.names:
        with archive.open(f"{folder}byteorder") as file:
            if file.read(10) != b"little":
                raise CheckpointError("was saved on a big-endian machine")
    with archive.open(name) as file:
        root = read_pickle(file)

    def storage(tensor):
        member = f"{folder}data/{tensor.storage.key}"
        if member not in archive.names:
            raise CheckpointError(f"is damaged (the record {member} is missing)")
        return archive.size(member), lambda: archive.open(member)

    return root, lambda tensor: _record(tensor, *storage(tensor))


def is_legacy(head):
    """Tell from the first bytes whether a file is of the format before 1.6."""
    return _MAGIC.to_bytes(10, "little") in head[:32]


def read_legacy(path):
    """Return what a file of PyTorch's older format holds, as `read_zip` does."""
    size = path.stat().st_size
    with path.open("rb") as file:
        read_pickle(file)  # The magic number.
        read_pickle(file)  # The version of the format.
        system = read_pickle(file)
        if isinstance(system, Dictionary) and system.get("little_endian") is False:
            raise CheckpointError("was saved on a big-endian machine")
        root = read_pickle(file)
        keys = read_pickle(file)
        itemsizes = {}
        for tensor in _tensors(root):
            stored = tensor.storage
            itemsize = numpy_dtype(stored.dtype or "uint8").itemsize
            if itemsizes.setdefault(stored.key, itemsize) != itemsize:
                raise CheckpointError("is damaged (a storage has two types)")
        places = {}
        if not isinstance(keys, list) or len(set(map(str, keys))) != len(keys):
            raise CheckpointError("is damaged (its list of storages)")
        for key in keys:
            head = file.read(8)
            if len(head) < 8:
                raise CheckpointError("is cut off")
            if key not in itemsizes:
                raise CheckpointError("is damaged (a storage that nothing uses)")
            (numel,) = struct.unpack("<q", head)
            nbytes = numel * itemsizes[key]
            if numel < 0 or file.tell() + nbytes > size:
                raise CheckpointError("is cut off")
            places[key] = file.tell(), nbytes
            file.seek(nbytes, 1)
        if file.tell() != size:
            raise CheckpointError("is damaged (it goes on after its last storage)")

    def storage(tensor):
        if tensor.storage.key not in places:
            raise CheckpointError("is damaged (a storage is missing)")
        start, nbytes = places[tensor.storage.key]

        def opened():
            file = path.open("rb")
            file.seek(start)
            return archives.Part(file, nbytes)

        return nbytes, opened

    return root, lambda tensor: _record(tensor, *storage(tensor))


def _tensors(root):
    """Yield every tensor in a tree of plain containers and placeholders."""
    seen, waiting = set(), [root]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Storage):
            yield Tensor(value, value.dtype or "uint8", 0, (value.numel,), (1,))
        elif id(value) not in seen:
            seen.add(id(value))
            if isinstance(value, dict):
                parts = [*value.values(), value.attributes]
            elif isinstance(value, (list, tuple)):
                parts = value
            elif hasattr(value, "arguments"):
                parts = [value.arguments, value.items, value.state]
            else:
                continue
            waiting.extend(part for part in parts if not isinstance(part, (str, int)))


def _record(tensor, nbytes, opened):
    """Check a tensor against the bytes of its storage; return its record."""
    shape = check_shape(tensor.shape)
    strides = check_shape(tensor.strides)
    (offset,) = check_shape([tensor.offset])
    dtype = numpy_dtype(tensor.dtype)
    stored = numpy_dtype(tensor.storage.dtype or "uint8")
    if nbytes != tensor.storage.numel * stored.itemsize or len(shape) != len(strides):
        raise CheckpointError(
            f"is damaged (a storage of {tensor.storage.numel:,} numbers has "
            f"{nbytes:,} bytes)"
        )
    count = math.prod(shape)
    extent = count and 1 + sum(
        (n - 1) * stride for n, stride in zip(shape, strides, strict=True)
    )
    available = nbytes // dtype.itemsize
    if count > available:
        raise UnsafeCheckpointError(
            f"declares an expanded tensor of {count:,} numbers over {available:,} "
            "stored ones"
        )
    if offset + extent > available:
        raise CheckpointError("is damaged (a tensor reaches beyond its storage)")

    def read():
        values = empty((extent,), dtype)
        with opened() as file:
            fill(values, file, offset * dtype.itemsize)
        if list(strides) == _contiguous(shape) or count == 0:
            return values[:count].reshape(shape)
        steps = [stride * dtype.itemsize for stride in strides]
        return np.lib.stride_tricks.as_strided(values, shape, steps).copy()

    # Two keys with one view of one storage: PyTorch's tied weights.
    place = (tensor.storage.key, offset, shape, strides, dtype.name) if count else None
    return TensorRecord(shape, dtype.name, read, place)


def _contiguous(shape):
    after = itertools.accumulate(reversed(shape[1:]), lambda a, b: a * b, initial=1)
    return list(after)[::-1]


def is_torch_zip(names):
    """Tell whether a zip with these members is PyTorch's."""
    return any(name.split("/")[-1] == "data.pkl" for name in names)
