"""The description inside of a compressed checkpoint, and its checks.

Everything is checked before memory is taken for it: a file may come from anywhere.
"""

import dataclasses
import hashlib
import json
import math
import zlib

import numpy as np

from keras_spectral.compression import coding
from keras_spectral.compression.masks import ReplacedKernel

METADATA = "keras_spectral.compressed"
DESCRIPTION = "description"
VERSION = 1

# Weight's dtype -> what safetensors calls it.
DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
FLOATS = ("float64", "float32", "float16", "bfloat16")
_LONGEST_DESCRIPTION = 2**26


@dataclasses.dataclass(frozen=True)
class Coded:
    """How a compressed weight is stored, and what was done to it."""

    count: int
    index: str
    values: str
    scale: float
    replacement: str
    rule: str | None
    threshold: float | None
    mean: float
    deviation: float
    seed: list
    key: list
    normals_sha256: str | None


@dataclasses.dataclass(frozen=True)
class StoredWeight:
    """One weight of the model; `coded` is `None` for one that is stored as it is."""

    name: str
    path: str
    shape: tuple
    dtype: str
    sha256: str
    coded: Coded | None = None

    @property
    def size(self):
        """Number of entries."""
        return math.prod(self.shape)


def _require(table, **types):
    """Return the values of a JSON object whose fields have these types."""
    if not isinstance(table, dict) or set(table) != set(types):
        raise ValueError("its description has other fields than this version's")
    for name, kind in types.items():
        value = table[name]
        right = isinstance(value, kind) and not isinstance(value, bool)
        if right and isinstance(value, float):
            right = math.isfinite(value)
        if not right:
            raise ValueError(f"its description has a strange `{name}`")
    return table


def _naturals(value, most, name):
    if len(value) > most or any(type(n) is not int or n < 0 for n in value):
        raise ValueError(f"its description has a strange `{name}`")
    return value


def _choice(value, choices, name):
    if value not in choices:
        raise ValueError(f"its description has a strange `{name}`: {str(value)[:40]}")


def _stored_weight(table):
    """Return a `StoredWeight` of its JSON, checked."""
    table = _require(
        table, name=str, path=str, shape=list, dtype=str, sha256=str,
        coded=(dict, type(None)),
    )  # fmt: skip
    _naturals(table["shape"], 32, "shape")
    _choice(table["dtype"], DTYPES, "dtype")
    coded, shape = table["coded"], tuple(table["shape"])
    if coded is not None:
        _choice(table["dtype"], FLOATS, "dtype")
        coded = Coded(
            **_require(
                coded, count=int, index=str, values=str, scale=float,
                replacement=str, rule=(str, type(None)),
                threshold=(float, type(None)), mean=float, deviation=float,
                seed=list, key=list, normals_sha256=(str, type(None)),
            )
        )  # fmt: skip
        _naturals(coded.seed, 64, "seed")
        _naturals(coded.key, 64, "key")
        _choice(coded.index, coding.INDICES, "index")
        _choice(coded.values, (*FLOATS, "int8"), "values")
        _choice(coded.replacement, ("gaussian", "matched", "zero"), "replacement")
        _choice(coded.rule, ("magnitude", "signed", None), "rule")
        if not 0 <= coded.count <= math.prod(shape) or coded.deviation < 0:
            raise ValueError("its description has a strange `count` or `deviation`")
    return StoredWeight(**{**table, "shape": shape, "coded": coded})


def describe(config, stored):
    """Return (metadata, uint8 array) of a description: deflated JSON and its sum."""
    content = {
        "config": config,
        "weights": [dataclasses.asdict(weight) for weight in stored],
    }
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    packed = zlib.compress(text.encode(), 9)
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
    head = _json(metadata[METADATA])
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
        text = inflate.decompress(packed, _LONGEST_DESCRIPTION)
    except zlib.error as error:
        raise ValueError("its description cannot be inflated") from error
    if not inflate.eof:
        raise ValueError("its description is too long")
    content = _require(_json(text), config=dict, weights=list)
    return content["config"], [_stored_weight(item) for item in content["weights"]]


def _json(text):
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("its description is no JSON") from error


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
