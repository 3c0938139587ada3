"""One tensor of a file: what it claims to be, checked, and how to read it."""

import functools
import math
import mmap
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from keras_spectral.convert.files.errors import CheckpointError, UnsafeCheckpointError
from keras_spectral.convert.files.placeholders import described

CHUNK = 2**20
# Bytes of a tensor whose numbers are stored once and stand in many places.
LARGEST_EXPANDED = 2**26

# What a file may unpack to: weights hardly compress, blocks of zeros do.
_RATIO = 20
_ALLOWANCE = 64 * 2**20


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """A tensor that was found in a file and not yet read.

    Args:
        shape: Tuple of integers.
        dtype: String, NumPy's name of the type, `"bfloat16"` and float8 among them.
        read: Callable without arguments, to a new NumPy array of the stored values.
        place: Hashable, equal for two records of the same numbers of a file; `None` if
            no other record has them.
        bytes_read: Integer, for a type that is not known here: `read` then gives so
            many bytes.
    """

    shape: tuple
    dtype: str
    read: Callable[[], np.ndarray]
    place: object = None
    bytes_read: int | None = None

    @property
    def nbytes(self):
        """Bytes of the stored values."""
        if self.bytes_read is not None:
            return self.bytes_read
        return math.prod(self.shape) * numpy_dtype(self.dtype).itemsize


class Contents(NamedTuple):
    """What a file holds.

    Args:
        records: Dict from key to `TensorRecord`.
        notes: List of strings, how it was found.
        layer_names: Dict from a layer's path in a file of Keras' to its name.
        config: Dict, from which Keras would make the model; `None` if not there.
    """

    records: dict
    notes: list = []
    layer_names: dict = {}
    config: dict | None = None


@functools.lru_cache(256)
def numpy_dtype(name):
    """Return NumPy's dtype, or that of `ml_dtypes` where NumPy has none."""
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        if not hasattr(ml_dtypes, name):
            raise CheckpointError(
                f"holds numbers of the type {name}, which NumPy does not know"
            ) from None
        return np.dtype(getattr(ml_dtypes, name))


def shown(name):
    """Return what a file calls a tensor, short and printable."""
    text = ascii(name[:80])[1:-1]
    return f"`{text[:60]}...`" if len(text) > 60 else f"`{text}`"


def listed(names):
    """Return a list of what is shown already, however long, as a few."""
    more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
    return f"{', '.join(names[:5])}{more}"


def unknown_types(records):
    """Return a list of one note, or none: which records have types unknown here."""
    unknown = [
        f"{shown(key)} ({record.dtype})"
        for key, record in records.items()
        if record.bytes_read is not None
    ]
    return [f"skipped, of types unknown here: {listed(unknown)}"] if unknown else []


def check_shape(shape, key="a tensor"):
    """Return a shape that a file declares as a tuple of integers in [0, 2**63)."""
    shape = tuple(shape)
    whole = all(type(n) is int and 0 <= n < 2**63 for n in shape)
    # Of nothing NumPy makes no array either, if its other axes are endless.
    endless = 0 in shape and math.prod(n or 1 for n in shape) >= 2**58
    if len(shape) > 32 or not whole or endless:
        raise CheckpointError(f"is damaged ({key} has the shape {described(shape)})")
    return shape


def check_total(unpacked, size):
    """Refuse a file that unpacks to far more than it holds."""
    if unpacked > _RATIO * size + _ALLOWANCE:
        raise UnsafeCheckpointError(
            f"unpacks {size:,} bytes to {unpacked:,}, which no weights do"
        )


def empty(shape, dtype):
    """Return an array to be filled.

    For four megabytes and more `numpy.empty` asks for huge pages, which the kernel may
    have to gather first: on fragmented memory that took four times as long as reading.
    """
    dtype, count = np.dtype(dtype), math.prod(shape)
    if count * dtype.itemsize < 2**22:
        return np.empty(shape, dtype)
    # Windows has no flags; private memory is what they ask for.
    private = getattr(mmap, "MAP_PRIVATE", 0) | getattr(mmap, "MAP_ANONYMOUS", 0)
    flags = {"flags": private} if private else {}
    memory = mmap.mmap(-1, count * dtype.itemsize, **flags)
    return np.frombuffer(memory, dtype, count).reshape(shape)


def fill(buffer, file, skip=0):
    """Read a file to its end, and a part of it into a buffer.

    Reading on to the end lets a zip check its sum.

    Args:
        buffer: Writable contiguous NumPy array, of as many bytes as are wanted.
        file: Binary file object, at the start of the record.
        skip: Integer, bytes before the part.
    """
    view = memoryview(buffer.reshape(-1).view(np.uint8)) if buffer.size else bytearray()
    while skip and (chunk := file.read(min(CHUNK, skip))):
        skip -= len(chunk)
    position = 0
    while count := file.readinto(view[position : position + CHUNK]):
        position += count
    if position < len(view):
        raise CheckpointError("is damaged (a tensor's values end early)")
    if file.read(1):
        while file.read(CHUNK):
            pass
