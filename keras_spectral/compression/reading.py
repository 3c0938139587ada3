"""The description inside of a compressed checkpoint, and its checks.

Everything is checked before memory is taken for it: a file may come from anywhere.
"""

import dataclasses
import hashlib
import json
import math
import reprlib
import sys
import zlib
from typing import Annotated, Literal, get_args

import msgspec
import numpy as np

from keras_spectral.compression import coding
from keras_spectral.compression.masks import ReplacedKernel, Replacement, Rule
from keras_spectral.json_text import LONGEST, is_too_long, parse_json

METADATA = "keras_spectral.compressed"
DESCRIPTION = "description"
VERSION = 1

# Weight's dtype -> what safetensors calls it.
DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
_LONGEST_HEADER = 2**23

Float = Literal["float64", "float32", "float16", "bfloat16"]
Finite = Annotated[float, msgspec.Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
Natural = Annotated[int, msgspec.Meta(ge=0)]
Naturals = Annotated[list[Natural], msgspec.Meta(max_length=64)]


@dataclasses.dataclass(frozen=True)
class Coded:
    """How a compressed weight is stored, and what was done to it."""

    count: Natural
    index: coding.Index
    values: Float | Literal["int8"]
    scale: Finite
    replacement: Replacement
    rule: Rule | None
    threshold: Finite | None
    mean: Finite
    deviation: Finite
    seed: Naturals
    key: Naturals
    normals_sha256: str | None


@dataclasses.dataclass(frozen=True)
class StoredWeight:
    """One weight of the model; `coded` is `None` for one that is stored as it is."""

    name: str
    path: str
    shape: Annotated[tuple[Natural, ...], msgspec.Meta(max_length=32)]
    dtype: str
    sha256: str
    coded: Coded | None = None

    @property
    def size(self):
        """Number of entries."""
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class _Description:
    config: dict
    weights: list


def _checked(kind, table, place):
    """Return a `kind` of a JSON object that has its fields, each of its type.

    One field at a time: msgspec says only in a sentence which one is wrong.
    """
    types = {field.name: field.type for field in dataclasses.fields(kind)}
    found = table.keys() if isinstance(table, dict) else set()
    if found != types.keys():
        odd = sorted(found ^ types.keys())
        raise ValueError(f"{place} has other fields than this version's: {_shown(odd)}")
    values = {}
    for name, expected in types.items():
        try:
            values[name] = msgspec.convert(table[name], expected)
        except msgspec.ValidationError as error:
            raise _strange(place, name, table[name]) from error
    return kind(**values)


def _strange(place, name, value):
    return ValueError(f"{place} has a strange `{name}`: {_shown(value)}")


def _shown(value):
    """Return what a stranger wrote, of any length, depth and letters, as a few."""
    return reprlib.repr(value)[:80]


def _stored_weight(index, table):
    """Return a `StoredWeight` of its JSON, checked."""
    place = f"its description of weight {index}"
    if isinstance(table, dict) and isinstance(table.get("coded"), dict):
        table = {**table, "coded": _checked(Coded, table["coded"], place)}
    weight = _checked(StoredWeight, table, place)
    coded = weight.coded
    if weight.dtype not in (DTYPES if coded is None else get_args(Float)):
        raise _strange(place, "dtype", weight.dtype)
    if coded is not None and (coded.count > weight.size or coded.deviation < 0):
        raise ValueError(
            f"{place} has a strange `count` or `deviation`: "
            f"{_shown((coded.count, coded.deviation))}"
        )
    return weight


def describe(config, stored):
    """Return (metadata, uint8 array) of a description: deflated JSON and its sum."""
    content = {
        "config": config,
        "weights": [dataclasses.asdict(weight) for weight in stored],
    }
    text = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
    if is_too_long(text):
        raise ValueError("its description is longer than any model's")
    packed = zlib.compress(text, 9)
    head = {"sha256": hashlib.sha256(packed).hexdigest(), "version": VERSION}
    return {METADATA: json.dumps(head)}, np.frombuffer(packed, "uint8")


def read_description(file):
    """Return (config, list of `StoredWeight`) of an open safetensors file."""
    metadata = file.metadata() or {}
    if METADATA not in metadata or DESCRIPTION not in file.keys():  # noqa: SIM118
        raise ValueError(
            "it is a safetensors file of something else; `save_compressed` writes "
            "what can be loaded here"
        )
    head = _json(metadata[METADATA].encode())
    if not isinstance(head, dict) or head.get("version") != VERSION:
        version = head.get("version") if isinstance(head, dict) else head
        raise ValueError(
            f"its format is version {str(version)[:20]}, and this is version {VERSION}"
        )
    if file.get_slice(DESCRIPTION).get_dtype() != "U8":
        raise ValueError("its description is damaged")
    packed = file.get_tensor(DESCRIPTION).tobytes()
    if hashlib.sha256(packed).hexdigest() != head.get("sha256"):
        raise ValueError("its description is damaged")
    inflate = zlib.decompressobj()
    try:
        text = inflate.decompress(packed, LONGEST)
    except zlib.error as error:
        raise ValueError("its description cannot be inflated") from error
    if not inflate.eof:
        raise ValueError("its description is too long")
    content = _checked(_Description, _json(text), "its description")
    weights = [_stored_weight(*item) for item in enumerate(content.weights)]
    return content.config, weights


def _json(text):
    """Return what a stranger's JSON says, within bounds of memory and depth."""
    try:
        return parse_json(text, "description")
    except ValueError as error:
        raise ValueError(f"it {error}") from error


def check_header(path):
    """Raise a ValueError if a file's header is longer than any model's.

    The library would make an object of each word in it.
    """
    with path.open("rb") as file:
        if int.from_bytes(file.read(8), "little") > _LONGEST_HEADER:
            raise ValueError(
                "it is cut off, damaged or no safetensors file (its header is longer "
                "than any model's)"
            )


def tensor_keys(index, weight):
    """Return the names of a weight's tensors: one, or those of values and index."""
    name = f"{index}.{weight.path}"
    return (name,) if weight.coded is None else (f"{name}.values", f"{name}.index")


def check_tensors(file, stored):
    """Raise a ValueError unless a file holds just the tensors that it describes."""
    expected = {DESCRIPTION: None}
    for index, weight in enumerate(stored):
        keys, coded = tensor_keys(index, weight), weight.coded
        if coded is None:
            expected[keys[0]] = DTYPES[weight.dtype], list(weight.shape)
        else:
            expected[keys[0]] = DTYPES[coded.values], [coded.count]
            expected[keys[1]] = "U8", None
    found = set(file.keys())
    if found != set(expected):
        odd = sorted(found ^ set(expected))[0]
        raise ValueError(f"its tensors are not those it describes (`{odd[:80]}`)")
    for key, claim in expected.items():
        if claim is None:
            continue
        place = file.get_slice(key)
        dtype, shape = place.get_dtype(), place.get_shape()
        right = len(shape) == 1 if claim[1] is None else shape == claim[1]
        if dtype != claim[0] or not right:
            raise ValueError(
                f"`{key[:80]}` is {dtype} {shape} and is described as {claim[0]} "
                f"{claim[1] or ''}"
            )


def replaced_kernel(weight, kept):
    """Return the `ReplacedKernel` of a coded weight and its mask."""
    coded = weight.coded
    return ReplacedKernel(
        kept.reshape(weight.shape),
        coded.rule,
        coded.replacement,
        coded.threshold,
        coded.mean,
        coded.deviation,
        tuple(coded.seed),
        tuple(coded.key),
    )
