"""Formats that hold nothing but named arrays: safetensors, .npz, .keras."""

import io
import math
import re
import tempfile
import zipfile
from typing import Annotated

import msgspec
import numpy as np

from keras_spectral.convert.files.archives import Archive, Part
from keras_spectral.convert.files.errors import CheckpointError, UnsafeCheckpointError
from keras_spectral.convert.files.hdf5_files import read_hdf5
from keras_spectral.convert.files.records import (
    CHUNK,
    Contents,
    TensorRecord,
    check_shape,
    empty,
    fill,
    listed,
    numpy_dtype,
    shown,
    unknown_types,
)
from keras_spectral.json_text import LONGEST, parse_json

_SAFETENSORS = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8",
    "BOOL": "bool", "C64": "complex64",
}  # fmt: skip
# A table each; of what else a header has, a few a tensor and some more.
_MOST_TENSORS = 400_000
# Each is opened for its header.
_MOST_ARRAYS = 50_000
_MORE = 2**17
# Of an array: a table of some hundred columns.
_LONGEST_HEADER = 10_000

_Offset = Annotated[int, msgspec.Meta(ge=0)]


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    """What a safetensors header says of one tensor."""

    dtype: str
    shape: list[int]
    data_offsets: tuple[_Offset, _Offset]


_ENTRIES = msgspec.json.Decoder(_Entry)


def read_safetensors(path):
    """Return the `Contents` of a safetensors file.

    The library would read it whole, or leave out what NumPy has no type for; and it
    takes the last of two tensors of one name.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        if start > size:
            raise CheckpointError("is cut off")
        text = file.read(start - 8)
    # Each entry makes room for its record: there may be hundreds of thousands.
    records, metadata = _header(text)
    del text
    end = 0
    for key in sorted(records, key=lambda key: records[key].data_offsets):
        entry = records[key]
        if not re.fullmatch(r"\w{1,20}", entry.dtype, re.ASCII):
            raise CheckpointError(f"is damaged (the type of {shown(key)})")
        dtype = _SAFETENSORS.get(entry.dtype)
        shape = check_shape(entry.shape, shown(key))
        begin, stop = entry.data_offsets
        nbytes = max(0, stop - begin)
        if dtype is not None:
            nbytes = math.prod(shape) * numpy_dtype(dtype).itemsize
        if begin != end or stop - begin != nbytes:
            raise CheckpointError(f"is damaged (the place of {shown(key)})")
        end = stop
        position = start + begin
        # Its bytes are all that can be told of an unknown type; the others are read.
        stored = ("uint8", (nbytes,)) if dtype is None else (dtype, shape)
        records[key] = TensorRecord(
            shape,
            dtype or entry.dtype,
            _Plain(path, position, *stored),
            position if nbytes else None,
            nbytes if dtype is None else None,
        )
    if start + end != size:
        what = "is cut off" if start + end > size else "is damaged (it is too long)"
        raise CheckpointError(what)
    tied = _tied(metadata, records)
    notes = unknown_types(records)
    if tied:
        pairs = [f"{shown(key)} is {shown(metadata[key])}" for key in tied]
        notes.append(f"tied, by the metadata: {listed(pairs)}")
    return Contents({**records, **tied}, notes)


def _header(text):
    """Return {key: `_Entry`} of a header, and the metadata in it."""
    tables, lists, pairs, commas = _signs(text, b"{[:,")
    if (
        tables > _MOST_TENSORS
        or lists > 2 * tables + _MORE
        or pairs > 4 * tables + _MORE
        or commas > 8 * tables + _MORE
    ):
        raise UnsafeCheckpointError(
            f"has {pairs:,} pairs and {lists:,} lists in its header, which no weights "
            "need"
        )
    try:
        header = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (ValueError, RecursionError, MemoryError) as error:
        raise CheckpointError("is damaged (its header is no JSON)") from error
    metadata, known = header.pop("__metadata__", None), 0
    if metadata is not None:
        metadata = bytes(metadata)
        known = 1 + _signs(metadata, b":")[0]
        metadata = parse_json(
            metadata, "metadata of weights", CheckpointError, UnsafeCheckpointError
        )
    for key, entry in header.items():
        header[key] = _entry(key, entry)
    # An entry is its name and three pairs: what is left was of a name twice.
    if pairs != known + 4 * len(header):
        raise UnsafeCheckpointError("has two entries of one name in its header")
    return header, metadata


def _entry(key, text):
    try:
        return _ENTRIES.decode(text)
    except (ValueError, RecursionError, MemoryError) as error:
        raise CheckpointError(
            f"is damaged (in its header, {ascii(key)[:60]}: {str(error)[:100]})"
        ) from error


def _signs(text, signs):
    """Return how often each of some signs stands in a JSON text outside of strings."""
    counts, inside, start = np.zeros(256, "int64"), 0, 0
    while start < len(text):
        end = start + CHUNK
        while text[end - 1 : end] == b"\\":
            end += 1
        part = text[start:end].replace(rb"\\", b"__").replace(rb"\"", b"__")
        part, start = np.frombuffer(part, "uint8"), end
        # Each quote turns a string on, or off again.
        outside = (np.cumsum(part == ord('"'), dtype="uint8") + inside) % 2 == 0
        inside = 1 - int(outside[-1])
        counts += np.bincount(part[outside], minlength=256)
    return [int(counts[sign]) for sign in signs]


def _tied(metadata, records):
    """Return the records of names that stand in the metadata alone.

    Of weights that share their memory safetensors' `save_model` keeps one, and under
    each other name the name of that one.
    """
    if not isinstance(metadata, dict):
        return {}
    return {
        key: records[name]
        for key, name in metadata.items()
        if isinstance(name, str)
        and name in records
        and key not in records
        and key != "format"
    }


class _Plain:
    """Reads numbers that lie in a file as they are; smaller than a closure."""

    __slots__ = "dtype", "path", "shape", "start"

    def __init__(self, path, start, dtype, shape):
        self.path, self.start, self.dtype, self.shape = path, start, dtype, shape

    def __call__(self):
        values = empty(self.shape, numpy_dtype(self.dtype))
        # A buffer would be larger than most tensors.
        with open(self.path, "rb", buffering=0) as file:
            file.seek(self.start)
            fill(values, Part(file, values.nbytes))
        return values


def read_npz(path):
    """Return the `Contents` of an `.npz` file of plain arrays."""
    archive = Archive(path)
    if len(archive.names) > _MOST_ARRAYS:
        raise UnsafeCheckpointError(f"holds more than {_MOST_ARRAYS:,} arrays")
    records = {}
    for name in archive.names:
        with archive.open(name) as file:
            # Its own reader takes memory for whatever the header declares.
            head = io.BytesIO(file.read(2**14))
        try:
            shape, fortran, dtype = _array_header(head, archive.size(name))
        except Exception as error:  # NumPy parses Python, and raises nearly anything.
            raise CheckpointError(f"is damaged (its member {shown(name)})") from error
        shape = check_shape(shape, shown(name))
        if dtype.hasobject:
            raise UnsafeCheckpointError(
                f"holds Python objects in {shown(name)}, which could run code when read"
            )
        if not dtype.itemsize or dtype.subdtype is not None:
            raise CheckpointError(f"is damaged (the type of {shown(name)})")
        nbytes = math.prod(shape) * dtype.itemsize
        if head.tell() + nbytes != archive.size(name):
            raise CheckpointError(f"is damaged (the size of {shown(name)})")
        key = name.removesuffix(".npy")
        if dtype.kind in "fiubc":
            read = _member(archive, name, head.tell(), shape, fortran, dtype)
            records[key] = TensorRecord(shape, dtype.name, read)
        else:
            # Text, dates, tables: its bytes are all that can be told of it.
            read = _member(archive, name, head.tell(), (nbytes,), False, np.dtype("u1"))
            records[key] = TensorRecord(shape, dtype.name[:20], read, None, nbytes)
    return Contents(records, unknown_types(records))


def _array_header(file, size):
    """Return (shape, order, dtype) of an array's header, of any version.

    Args:
        file: Binary file object, which is left behind the header.
        size: Integer, bytes of the whole array's file.
    """
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise CheckpointError("is of a version that is not known here")
    length = file.read(2 if version == (1, 0) else 4)
    length = int.from_bytes(length, "little")
    start = file.tell()
    text = file.read(min(length, _LONGEST_HEADER))
    file.seek(start + length)
    if length > _LONGEST_HEADER and start + length <= size:
        # A table of hundreds of columns, which is no tensor.
        return (size - start - length,), False, np.dtype("V1")
    # The third version is the second in UTF-8, and NumPy keeps its reader to itself. In
    # strings, where letters beyond ASCII must be, an escape is the same letter.
    text = text.decode("utf-8" if version == (3, 0) else "latin-1")
    text = text.encode("ascii", "backslashreplace")
    head = io.BytesIO(len(text).to_bytes(4, "little") + text)
    return np.lib.format.read_array_header_2_0(head, 10 * _LONGEST_HEADER)


def _member(archive, name, skip, shape, fortran, dtype):
    def read():
        values = empty(shape[::-1] if fortran else shape, dtype)
        with archive.open(name) as file:
            fill(values, file, skip)
        return values.T if fortran else values

    return read


def read_keras(path):
    """Return the `Contents` of a `.keras` model."""
    archive = Archive(path)
    name = "model.weights.h5"
    if name not in archive.names:
        raise CheckpointError("is a Keras model without weights")
    size = archive.size(name)
    packed = archive.names[name].compress_type != zipfile.ZIP_STORED
    # HDF5 jumps back and forth: what is packed would be unpacked from its beginning for
    # each jump, and a zip checks its sum from front to back.
    weights = tempfile.TemporaryFile() if packed else None  # noqa: SIM115
    with archive.open(name) as file:
        while part := file.read(CHUNK):
            if packed:
                weights.write(part)
    if not packed:
        weights = archive.open(name, seekable=True)
    contents = read_hdf5(weights, size)
    return contents._replace(config=_config(archive))


def _config(archive):
    """Return the JSON from which Keras would make the model."""
    name = "config.json"
    if archive.size(name) > LONGEST:
        raise UnsafeCheckpointError(
            f"has a {name} of {archive.size(name):,} bytes, which no model needs"
        )
    with archive.open(name) as file:
        text = file.read()
    config = parse_json(text, name, CheckpointError, UnsafeCheckpointError)
    if not isinstance(config, dict):
        raise CheckpointError(f"is damaged (its {name})")
    return config
