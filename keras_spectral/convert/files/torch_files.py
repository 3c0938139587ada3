"""PyTorch's two file formats, read without PyTorch.

A file is a pickle that names storages, and the storages: members of a zip archive, or,
before PyTorch 1.6, one after the other behind the pickle. Every claim is checked
against the bytes that are there before memory is taken.
"""

import itertools
import math
import re
import struct
from typing import NamedTuple

import numpy as np

from keras_spectral.convert.files import archives
from keras_spectral.convert.files.errors import CheckpointError, UnsafeCheckpointError
from keras_spectral.convert.files.pickle_memo import fetched
from keras_spectral.convert.files.pickle_source import Budget
from keras_spectral.convert.files.pickles import read_pickle
from keras_spectral.convert.files.placeholders import (
    Dictionary,
    described,
)
from keras_spectral.convert.files.records import (
    CHUNK,
    LARGEST_EXPANDED,
    TensorRecord,
    check_shape,
    empty,
    fill,
    numpy_dtype,
)

_MAGIC = 0x1950A86A20F9469CFC6C
# A packed storage may claim so many bytes before they are counted.
_UNPROVED = 2**26
# Tensors may be views of the same numbers: of the file's bytes, and some more.
_VIEWS, _VIEWED = 3, 2**31
# The same, of numbers that stand in more places than the file has bytes for.
_ALL_EXPANDED = 4 * LARGEST_EXPANDED
# PyTorch's types whose numbers NumPy or `ml_dtypes` has.
_DTYPES = frozenset(
    "float64 float32 float16 bfloat16 float8_e4m3fn float8_e4m3fnuz float8_e5m2 "
    "float8_e5m2fnuz float8_e8m0fnu int64 int32 int16 int8 uint64 uint32 uint16 uint8 "
    "bool complex64 complex128".split()
)


def read_zip(path, budget=None):
    """Return what a zip file of PyTorch's holds, and where its storages are.

    Args:
        path: `pathlib.Path` of a file that begins like a zip.
        budget: `Budget`, of several files together. Default: a new one.

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
        needed = fetched(file)
    with archive.open(name) as file:
        root = read_pickle(file, budget, fetched=needed)

    # By what the pickle calls them: the folder's name may be long.
    members = {
        name[len(folder) + len("data/") :]: _Member(archive, name)
        for name in archive.names
        if name.startswith(f"{folder}data/")
    }
    return root, _Records(members, path.stat().st_size)


def is_legacy(head):
    """Tell from the first bytes whether a file is of the format before 1.6."""
    return _MAGIC.to_bytes(10, "little") in head[:32]


def read_legacy(path, budget=None):
    """Return what a file of PyTorch's older format holds, as `read_zip` does."""
    size, budget = path.stat().st_size, budget or Budget()
    with path.open("rb") as file:
        read_pickle(file, budget)  # The magic number.
        read_pickle(file, budget)  # The version of the format.
        system = read_pickle(file, budget)
        if isinstance(system, Dictionary) and system.get("little_endian") is False:
            raise CheckpointError("was saved on a big-endian machine")
        storages, runs = {}, {}
        root = read_pickle(file, budget, storages)
        keys = read_pickle(file, budget)
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise CheckpointError("is damaged (its list of storages)")
        for key in keys:
            head = file.read(8)
            if len(head) < 8:
                raise CheckpointError("is cut off")
            if key not in storages:
                raise CheckpointError("is damaged (a storage that nothing uses)")
            if key in runs:
                raise CheckpointError("is damaged (its list of storages)")
            (numel,) = struct.unpack("<q", head)
            nbytes = numel * numpy_dtype(storages[key].dtype or "uint8").itemsize
            if numel < 0 or file.tell() + nbytes > size:
                raise CheckpointError("is cut off")
            runs[key] = _Run(path, file.tell(), nbytes)
            file.seek(nbytes, 1)
        if file.tell() != size:
            raise CheckpointError("is damaged (it goes on after its last storage)")
    return root, _Records(runs, size)


class _Member:
    """A storage that is a member of a zip."""

    __slots__ = ("nbytes", "_archive", "_member", "_summed")

    def __init__(self, archive, name):
        self.nbytes, self._archive, self._member = archive.size(name), archive, name
        self._summed = False

    def cost(self, nbytes):
        """Return the bytes that must be unpacked for so many."""
        return self.nbytes if self._archive.is_packed(self._member) else nbytes

    def read(self, count, dtype, skip):
        """Return numbers of the storage, some bytes after its start."""
        packed = self._archive.is_packed(self._member)
        if packed and not self._summed and count * dtype.itemsize > _UNPROVED:
            # Memory is taken for what is there, and a packed member only claims.
            with self._archive.open(self._member) as file:
                if sum(map(len, iter(lambda: file.read(CHUNK), b""))) < self.nbytes:
                    raise CheckpointError("is damaged (a tensor's values end early)")
            self._summed = True
        values = empty((count,), dtype)
        if self._summed and not packed:
            # Another view of what was checked as a whole.
            with self._archive.part(self._member, skip, values.nbytes) as file:
                fill(values, file)
        else:
            with self._archive.open(self._member) as file:
                fill(values, file, skip)
            self._summed = True
        return values


class _Run:
    """A storage that lies behind the pickles of an older file."""

    __slots__ = ("nbytes", "_source", "_start")

    def __init__(self, path, start, nbytes):
        self._source, self._start, self.nbytes = path, start, nbytes

    def cost(self, nbytes):
        """Return the bytes that must be read for so many."""
        return nbytes

    def read(self, count, dtype, skip):
        """Return numbers of the storage, some bytes after its start."""
        values = empty((count,), dtype)
        with self._source.open("rb") as file:
            file.seek(self._start + skip)
            fill(values, archives.Part(file, values.nbytes))
        return values


class _Records:
    """The records of tensors: each is checked against the bytes of its storage.

    Args:
        storages: Dict from the key of a storage to `_Member` or `_Run`.
        size: Integer, bytes of the file.
    """

    def __init__(self, storages, size):
        self._storages, self._size = storages, size
        self._cost = self._expanded = 0

    def __call__(self, tensor):
        key = tensor.storage.key
        if key not in self._storages:
            raise CheckpointError(
                f"is damaged (the record {described(f'data/{key}')} is missing)"
            )
        storage = self._storages[key]
        values = _checked(tensor, storage)
        if isinstance(values, TensorRecord):
            return values
        made = math.prod(values.shape) * values.dtype.itemsize
        self._cost += max(storage.cost(values.extent * values.dtype.itemsize), made)
        self._expanded += made if made > storage.nbytes else 0
        if self._expanded > _ALL_EXPANDED:
            raise UnsafeCheckpointError(
                f"declares expanded tensors of more than {_ALL_EXPANDED:,} bytes"
            )
        if self._cost > _VIEWS * self._size + _VIEWED:
            raise UnsafeCheckpointError(
                f"unpacks {self._size:,} bytes to more than {self._cost:,}: it holds "
                "the same numbers in many tensors"
            )
        # Two keys with one view of one storage: PyTorch's tied weights. As text, for
        # the hash of numbers in a tuple is the file's to choose.
        place = f"{values.offset} {values.shape} {values.strides} {tensor.dtype} {key}"
        place = place if values.extent else None
        return TensorRecord(values.shape, tensor.dtype, values, place)


class _View(NamedTuple):
    """A checked tensor, called for its numbers."""

    storage: _Member | _Run
    dtype: np.dtype
    offset: int
    extent: int
    shape: tuple
    strides: tuple

    def __call__(self):
        skip = self.offset * self.dtype.itemsize
        values = self.storage.read(self.extent, self.dtype, skip)
        if list(self.strides) == _contiguous(self.shape) or not self.extent:
            return values.reshape(self.shape)
        steps = [stride * self.dtype.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(values, self.shape, steps).copy()


def _checked(tensor, storage):
    """Check a tensor against the bytes of its storage; return its view."""
    shape = check_shape(tensor.shape)
    strides = check_shape(tensor.strides)
    (offset,) = check_shape([tensor.offset])
    if tensor.dtype not in _DTYPES:
        if not re.fullmatch(r"\w{1,20}", tensor.dtype, re.ASCII):
            raise CheckpointError("is damaged (the type of a tensor)")
        # Its storage's bytes are all that can be told of it; the others are read.
        nbytes = storage.nbytes
        whole = _View(storage, np.dtype("uint8"), 0, nbytes, (nbytes,), (1,))
        return TensorRecord(shape, tensor.dtype, whole, None, nbytes)
    dtype = numpy_dtype(tensor.dtype)
    stored = numpy_dtype(tensor.storage.dtype or "uint8")
    numel, nbytes = tensor.storage.numel, storage.nbytes
    if nbytes != numel * stored.itemsize or len(shape) != len(strides):
        raise CheckpointError(
            f"is damaged (a storage of {numel:,} numbers has {nbytes:,} bytes)"
        )
    count = math.prod(shape)
    # Of a row of one number the stride is never used, and may be anything.
    strides = tuple(s if n > 1 else 0 for n, s in zip(shape, strides, strict=True))
    extent = count and 1 + sum(
        (n - 1) * stride for n, stride in zip(shape, strides, strict=True)
    )
    available = nbytes // dtype.itemsize
    # Half precision is widened when it is read.
    if count > available and count * max(4, dtype.itemsize) > LARGEST_EXPANDED:
        raise UnsafeCheckpointError(
            f"declares an expanded tensor of {described(f'{count:,}')} numbers over "
            f"{available:,} stored ones"
        )
    if offset + extent > available:
        raise CheckpointError("is damaged (a tensor reaches beyond its storage)")
    if math.prod(n for n in shape if n) * dtype.itemsize >= 2**63:
        raise CheckpointError(f"is damaged (a tensor has the shape {described(shape)})")
    return _View(storage, dtype, offset, extent, shape, strides)


def _contiguous(shape):
    """Return the strides of numbers in a row; 0 where there is but one."""
    after = itertools.accumulate(reversed(shape[1:]), lambda a, b: a * b, initial=1)
    strides = list(after)[::-1][: len(shape)]
    return [s if n > 1 else 0 for n, s in zip(shape, strides, strict=True)]


def is_torch_zip(names):
    """Tell whether a zip with these members is PyTorch's."""
    return any(name.split("/")[-1] == "data.pkl" for name in names)
