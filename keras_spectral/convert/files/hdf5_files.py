"""Arrays in an HDF5 file, whose every claim is checked before HDF5 acts upon it.

HDF5 follows links into other files, inflates without an end, and visits what is linked
twice as often as there are paths. So links are looked at before they are followed, and
what is packed is read as it is stored and unpacked here.
"""

import math
import os
import threading

import numpy as np

from keras_spectral.convert.files.errors import CheckpointError, UnsafeCheckpointError
from keras_spectral.convert.files.hdf5_filters import checked_filter, unpacked
from keras_spectral.convert.files.hdf5_heaps import check_heaps, check_sizes
from keras_spectral.convert.files.hdf5_links import (
    LONGEST_NAME,
    MOST_TENSORS,
    NAMES,
    datasets,
)
from keras_spectral.convert.files.records import (
    Contents,
    TensorRecord,
    check_shape,
    check_total,
    empty,
    listed,
    numpy_dtype,
    shown,
)

# Of names and structure; Keras takes a thousandth for a thousand layers.
_BESIDE_TENSORS = 2**26
# A tensor has larger pieces, or few.
_PIECE, _MOST_PIECES = 2**12, 2**17
_LARGEST_PIECE = 2**25


# HDF5 is one for a process, and loses its place between the calls of two threads.
_ONE_AT_A_TIME = threading.RLock()


def _unlock():
    """Give a forked child a lock of its own: who holds this one is not in it."""
    global _ONE_AT_A_TIME
    _ONE_AT_A_TIME = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)


def read_hdf5(file, size):
    """Return the `Contents` of an HDF5 file.

    Args:
        file: `pathlib.Path`, or binary file object.
        size: Integer, its bytes.
    """
    with _ONE_AT_A_TIME:
        return _read_alone(file, size)


def _read_alone(file, size):
    import h5py

    try:
        check_heaps(file, size)
        root = h5py.File(file, "r")
        check_sizes(root)
        claims, unread, passed_over, total, pieces = {}, [], [], 0, 0
        for number, (key, path, dataset) in enumerate(datasets(root, passed_over)):
            if number == MOST_TENSORS:
                raise UnsafeCheckpointError(
                    f"holds more than {MOST_TENSORS:,} tensors, which no model has"
                )
            claim = _Claim.of(key, dataset)
            if isinstance(claim, str):
                unread.append(f"{shown(key)} ({claim})")
            elif claim is not None:
                claims[key] = claim
                claim.path = path
                total += claim.unpacked
                check_total(total, size)
                pieces += claim.pieces if claim.unpacked < _PIECE * claim.pieces else 0
                if pieces > _MOST_PIECES:
                    raise UnsafeCheckpointError("keeps its tensors in countless pieces")
        records = {
            key: TensorRecord(
                claim.shape,
                claim.dtype,
                _reader(root, claim),
                claim.address if claim.unpacked else None,
            )
            for key, claim in claims.items()
        }
        notes = [f"not read, of other types: {listed(unread)}"] if unread else []
        if passed_over:
            notes.append(
                f"not gone into, links and groups again: {listed(passed_over)}"
            )
        beside = size - sum({c.address: c.stored for c in claims.values()}.values())
        keys = [claim.path.decode(*NAMES) for claim in claims.values()]
        return Contents(records, notes, _layer_names(root, keys, beside))
    except CheckpointError:
        raise
    except Exception as error:  # HDF5 raises nearly anything on a damaged file.
        raise _damaged(error) from error


def _damaged(error):
    said = str(error).strip() or type(error).__name__
    return CheckpointError(f"is damaged ({ascii(said)[1:101]})")


class _Claim:
    """What a data set says of itself.

    Args:
        shape: Tuple of integers.
        dtype: String, the name of its type.
        stored_dtype: NumPy dtype of the bytes in the file.
        chunk: Tuple of integers, the shape of a piece; `None` if it lies in one.
        filters: List of (code, element size), in the order of writing.
        path: Bytes, where it lies, by names that lead to nothing else.
    """

    __slots__ = (
        "address", "chunk", "dtype", "filters", "path", "pieces", "shape", "stored",
        "stored_dtype", "unpacked",
    )  # fmt: skip

    @classmethod
    def of(cls, key, dataset):
        """Return the claim; what it is instead of numbers; `None` if nothing."""
        from h5py import h5d, h5o, h5s

        settings = dataset.get_create_plist()
        layout = settings.get_layout()
        # HDF5 opens the other files already when it is asked for the shape.
        if settings.get_external_count() or layout == h5d.VIRTUAL:
            raise UnsafeCheckpointError(f"keeps {shown(key)} in another file")
        space = dataset.get_space()
        if space.get_simple_extent_type() == h5s.NULL:
            return None
        stored_dtype = _stored_dtype(dataset)
        if isinstance(stored_dtype, str):
            return stored_dtype
        self = cls()
        self.shape = check_shape(map(int, space.get_simple_extent_dims()), shown(key))
        self.stored_dtype, self.dtype = stored_dtype, stored_dtype.name
        self.address, self.stored = h5o.get_info(dataset).addr, 0
        self.chunk, self.filters, self.pieces = None, (), 0
        self.unpacked = math.prod(self.shape) * stored_dtype.itemsize
        if layout == h5d.CHUNKED:
            self._check_pieces(key, settings)
        self.stored = dataset.get_storage_size()
        return self

    def _check_pieces(self, key, settings):
        self.chunk = tuple(map(int, settings.get_chunk()))
        if len(self.chunk) != len(self.shape) or 0 in self.chunk:
            raise CheckpointError(f"is damaged (the pieces of {shown(key)})")
        piece = math.prod(self.chunk) * self.stored_dtype.itemsize
        if piece > max(self.unpacked, _LARGEST_PIECE):
            raise UnsafeCheckpointError(
                f"keeps {shown(key)} in pieces of {piece:,} bytes, larger than itself"
            )
        # A piece at the edge is stored whole.
        self.pieces = math.prod(
            -(-n // c) for n, c in zip(self.shape, self.chunk, strict=True)
        )
        self.unpacked = max(self.unpacked, self.pieces * piece)
        self.filters = [
            checked_filter(key, *settings.get_filter(number))
            for number in range(settings.get_nfilters())
        ]


def _stored_dtype(dataset):
    """Return the NumPy dtype of a data set's bytes, or what they are instead.

    Keras stores bfloat16 as two bytes without a meaning, and says so beside them.
    """
    from h5py import Dataset, h5t

    stored = dataset.get_type()
    kind = stored.get_class()
    if kind == h5t.OPAQUE and stored.get_size() == 2:
        if _text(Dataset(dataset), "dtype") == "bfloat16":
            return numpy_dtype("bfloat16")
    if kind == h5t.ENUM and stored.get_nmembers() > 2:
        # Its names, thousands perhaps, are of no interest.
        stored = stored.get_super()
        kind = stored.get_class()
    members = stored.get_nmembers() if kind == h5t.COMPOUND else 2
    if kind in (h5t.INTEGER, h5t.FLOAT, h5t.ENUM, h5t.COMPOUND) and members == 2:
        dtype = stored.dtype
        if dtype.kind != "b" and kind == h5t.ENUM:
            stored = stored.get_super()
        if dtype.kind in "fiubc" and h5t.py_create(np.dtype(dtype.str)) == stored:
            return np.dtype(dtype.str)
    return _KINDS.get(kind, "of another type")


# HDF5's numbers of the classes of types.
_KINDS = {
    0: "odd integers", 1: "odd floats", 2: "times", 3: "strings", 4: "bits", 5: "bytes",
    6: "records", 7: "references", 8: "names", 9: "lists", 10: "arrays",
}  # fmt: skip


def _text(item, name):
    """Return an attribute that is one short string, or `None`."""
    from h5py import h5s, h5t

    if name not in item.attrs:
        return None
    attribute = item.attrs.get_id(name)
    stored, space = attribute.get_type(), attribute.get_space()
    if stored.get_class() != h5t.STRING or space.get_simple_extent_type() != h5s.SCALAR:
        return None
    if not stored.is_variable_str() and stored.get_size() > LONGEST_NAME:
        return None
    value = item.attrs[name]
    if len(value) > LONGEST_NAME:
        # Each may be of the same hundred megabytes.
        raise UnsafeCheckpointError(
            f"has an attribute `{name}` of {len(value):,} characters"
        )
    return value if isinstance(value, str) and value.isprintable() else None


def _layer_names(root, keys, beside):
    """Return {path of a layer: its name}, as Keras notes it beside the tensors."""
    groups = {key.rpartition("/")[0] for key in keys}
    # A layer without tensors of its own, such as attention, holds layers that have.
    paths = {
        "/".join(parts[:end])
        for parts in (group.split("/") for group in groups)
        for end in range(len(parts))
    }
    found = {}
    for path in sorted(paths):
        inner = f"{path}/vars" if path else "vars"
        item = root.get(inner)
        if item is None:
            continue
        if beside > _BESIDE_TENSORS:
            raise UnsafeCheckpointError(f"has {beside:,} bytes beside its tensors")
        name = _text(item, "name")
        if name is not None:
            found[path] = name
    return found


def _reader(root, claim):
    import h5py

    def read():
        try:
            with _ONE_AT_A_TIME:
                return read_alone()
        except CheckpointError:
            raise
        except Exception as error:
            raise _damaged(error) from error

    def read_alone():
        dataset = h5py.h5d.open(root.id, claim.path)
        values = empty(claim.shape, claim.stored_dtype)
        if not values.size:
            return values
        if claim.chunk is not None:
            _read_pieces(dataset, claim, values)
        else:
            everything, stored = h5py.h5s.ALL, dataset.get_type()
            raw = values.view(f"V{values.itemsize}")
            dataset.read(everything, everything, raw, stored)
        return values

    return read


def _read_pieces(dataset, claim, values):
    """Fill an array from the pieces of a data set that are stored."""
    values[...] = _fill_value(dataset, claim.stored_dtype)
    size = math.prod(claim.chunk) * claim.stored_dtype.itemsize
    found = []
    # In one pass: looked up by number, each would be searched from the first.
    dataset.chunk_iter(lambda piece: found.append((piece.chunk_offset, piece.size)))
    for offset, stored in found:
        # Deflate lengthens what it cannot pack by a few bytes in a thousand.
        if stored > size + size // 64 + 2**10 or any(
            at % step or at >= end
            for at, step, end in zip(offset, claim.chunk, claim.shape, strict=True)
        ):
            raise CheckpointError("is damaged (a piece of a tensor)")
        mask, raw = dataset.read_direct_chunk(offset)
        piece = np.frombuffer(
            unpacked(raw, mask, claim.filters, size), claim.stored_dtype
        ).reshape(claim.chunk)
        ends = [
            min(at + step, end)
            for at, step, end in zip(offset, claim.chunk, claim.shape, strict=True)
        ]
        place = tuple(map(slice, offset, ends))
        part = tuple(slice(end - at) for at, end in zip(offset, ends, strict=True))
        values[place] = piece[part]


def _fill_value(dataset, dtype):
    """Return what is in the place of pieces that are not stored."""
    from h5py import h5d

    settings = dataset.get_create_plist()
    raw = f"V{dtype.itemsize}" if dtype.name == "bfloat16" else dtype
    value = np.zeros(1, raw)
    if settings.fill_value_defined() != h5d.FILL_VALUE_UNDEFINED:
        settings.get_fill_value(value)
    return value.view(dtype)[0]
