"""Formats that hold nothing but named arrays: safetensors, .npz, .h5, .keras."""

import io
import json
import math
import re
from typing import Annotated

import msgspec
import numpy as np

from keras_spectral.convert.files.archives import Archive, Part
from keras_spectral.convert.files.errors import CheckpointError, UnsafeCheckpointError
from keras_spectral.convert.files.records import (
    Contents,
    TensorRecord,
    check_shape,
    check_total,
    empty,
    fill,
    numpy_dtype,
)

_SAFETENSORS = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8",
    "BOOL": "bool", "C64": "complex64",
}  # fmt: skip
# Some hundred times what the config of a network of a thousand layers takes.
_LARGEST_CONFIG = 2**26


_Offset = Annotated[int, msgspec.Meta(ge=0)]


class _Entry(msgspec.Struct):
    """What a safetensors header says of one tensor."""

    dtype: str
    shape: list[int]
    data_offsets: tuple[_Offset, _Offset]


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
        try:
            header = json.loads(file.read(start - 8), object_pairs_hook=_once)
        except CheckpointError:
            raise
        except (ValueError, RecursionError) as error:
            raise CheckpointError("is damaged (its header is no JSON)") from error
    if not isinstance(header, dict):
        raise CheckpointError("is damaged (its header is no table)")
    metadata = header.pop("__metadata__", None)
    entries = {key: _entry(key, table) for key, table in header.items()}
    records, unknown, end = {}, [], 0
    for key, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        if not re.fullmatch(r"\w{1,20}", entry.dtype, re.ASCII):
            raise CheckpointError(f"is damaged (the type of `{key}`)")
        dtype = _SAFETENSORS.get(entry.dtype)
        shape = check_shape(entry.shape, f"`{key}`")
        begin, stop = entry.data_offsets
        nbytes = max(0, stop - begin)
        if dtype is not None:
            nbytes = math.prod(shape) * numpy_dtype(dtype).itemsize
        if begin != end or stop - begin != nbytes:
            raise CheckpointError(f"is damaged (the place of `{key}`)")
        end = stop
        place = (begin, key) if nbytes else None
        if dtype is None:
            # Its bytes are all that can be told of it; the others are read.
            read = _plain(path, start + begin, "uint8", (nbytes,))
            records[key] = TensorRecord(shape, entry.dtype, read, place, nbytes)
            unknown.append(f"`{key}` ({entry.dtype})")
            continue
        read = _plain(path, start + begin, dtype, shape)
        records[key] = TensorRecord(shape, dtype, read, place)
    if start + end != size:
        what = "is cut off" if start + end > size else "is damaged (it is too long)"
        raise CheckpointError(what)
    records = {key: records[key] for key in header}
    tied = _tied(metadata, records)
    notes = []
    if unknown:
        notes.append(f"skipped, of types unknown here: {', '.join(unknown)}")
    if tied:
        pairs = (f"`{key}` is `{metadata[key]}`" for key in tied)
        notes.append(f"tied, by the metadata: {', '.join(pairs)}")
    return Contents({**records, **tied}, notes)


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


def _once(pairs):
    table = dict(pairs)
    if len(table) < len(pairs):
        raise UnsafeCheckpointError("has two entries of one name in its header")
    return table


def _entry(key, table):
    try:
        return msgspec.convert(table, _Entry)
    except msgspec.ValidationError as error:
        raise CheckpointError(
            f"is damaged (in its header, {ascii(key)[:60]}: {error})"
        ) from error


def _plain(path, start, dtype, shape):
    def read():
        values = empty(shape, numpy_dtype(dtype))
        with path.open("rb") as file:
            file.seek(start)
            fill(values, Part(file, values.nbytes))
        return values

    return read


def read_npz(path):
    """Return the `Contents` of an `.npz` file of plain arrays."""
    archive = Archive(path)
    records = {}
    for name in archive.names:
        with archive.open(name) as file:
            # Its own reader takes memory for whatever the header declares.
            head = io.BytesIO(file.read(2**14))
        try:
            version = np.lib.format.read_magic(head)
            reader = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, fortran, dtype = reader(head, max_header_size=10_000)
        except Exception as error:
            raise CheckpointError(f"is damaged (its member {name})") from error
        shape = check_shape(shape, f"`{name}`")
        if dtype.hasobject:
            raise UnsafeCheckpointError(
                f"holds Python objects in {name}, which could run code when read"
            )
        if head.tell() + math.prod(shape) * dtype.itemsize != archive.size(name):
            raise CheckpointError(f"is damaged (the size of {name})")
        records[name.removesuffix(".npy")] = TensorRecord(
            shape,
            dtype.name,
            _member(archive, name, head.tell(), shape, fortran, dtype),
        )
    return Contents(records)


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
    # HDF5 jumps back and forth, where a zip checks its sum from front to back.
    with archive.open(name) as file:
        while file.read(2**20):
            pass
    contents = read_hdf5(archive.open(name, seekable=True), archive.size(name))
    return contents._replace(config=_config(archive))


def _config(archive):
    """Return the JSON from which Keras would make the model."""
    name = "config.json"
    if archive.size(name) > _LARGEST_CONFIG:
        raise UnsafeCheckpointError(
            f"has a {name} of {archive.size(name):,} bytes, which no model needs"
        )
    with archive.open(name) as file:
        text = file.read()
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"is damaged (its {name})") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"is damaged (its {name})")
    return config


def read_hdf5(file, size):
    """Return the `Contents` of an HDF5 file.

    Args:
        file: `pathlib.Path`, or binary file object.
        size: Integer, its bytes.
    """
    import h5py

    try:
        root = h5py.File(file, "r")
        datasets, unread = {}, []
        for key, dataset in _datasets(root, ""):
            if _dtype(dataset) is None:
                unread.append(f"`{key}` ({dataset.dtype})")
            else:
                datasets[key] = dataset
        total = sum(math.prod(d.shape) * d.dtype.itemsize for d in datasets.values())
        check_total(total, size)
        records = {
            key: TensorRecord(
                check_shape(dataset.shape), _dtype(dataset), _dataset(dataset)
            )
            for key, dataset in datasets.items()
        }
        notes = [f"not read, of other types: {', '.join(unread)}"] if unread else []
        return Contents(records, notes, _layer_names(root, datasets))
    except CheckpointError:
        raise
    except Exception as error:  # HDF5 raises nearly anything on a damaged file.
        raise CheckpointError(f"is damaged ({str(error)[:100]})") from error


def _datasets(group, prefix):
    """Yield (path, dataset) of everything that lies in the file itself."""
    import h5py

    for name in group:
        key = f"{prefix}{name}"
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise UnsafeCheckpointError(f"has a link to somewhere else at {key}")
        item = group[name]
        if isinstance(item, h5py.Group):
            # A group may hold itself.
            if key.count("/") > 50:
                raise UnsafeCheckpointError("has groups in groups without end")
            yield from _datasets(item, f"{key}/")
        elif not isinstance(item, h5py.Dataset):  # A type with a name.
            continue
        elif item.external or item.is_virtual:
            raise UnsafeCheckpointError(f"keeps `{key}` in another file")
        elif item.shape is not None:
            yield key, item


def _dtype(dataset):
    """Return the name of a dataset's type, or `None` for what is no array of numbers.

    Keras stores bfloat16 as two bytes without a meaning, and says so beside them.
    """
    if dataset.dtype.kind in "fiubc":
        return dataset.dtype.name
    attributes = dataset.attrs
    if dataset.dtype.kind != "V" or "dtype" not in attributes:
        return None
    if attributes.get_id("dtype").get_storage_size() > 2**10:
        return None
    name = attributes["dtype"]
    bfloat16 = dataset.dtype.itemsize == 2 and isinstance(name, str)
    return "bfloat16" if bfloat16 and name == "bfloat16" else None


def _layer_names(root, datasets):
    """Return {path of a layer: its name}, as Keras notes it beside the tensors."""
    groups = {key.rpartition("/")[0] for key in datasets}
    # A layer without tensors of its own, such as attention, holds layers that have.
    paths = {
        "/".join(parts[:end])
        for parts in (group.split("/") for group in groups)
        for end in range(len(parts))
    }
    found = {}
    for path in sorted(paths):
        inner = f"{path}/vars" if path else "vars"
        if inner not in root or "name" not in root[inner].attrs:
            continue
        attributes = root[inner].attrs
        if attributes.get_id("name").get_storage_size() > 2**10:
            continue
        name = attributes["name"]
        if isinstance(name, str) and len(name) <= 2**10 and name.isprintable():
            found[path] = name
    return found


def _dataset(dataset):
    def read():
        try:
            values = np.asarray(dataset[()])
            return values.view(numpy_dtype(_dtype(dataset)))
        except Exception as error:
            raise CheckpointError(f"is damaged ({str(error)[:100]})") from error

    return read
