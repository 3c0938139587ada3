"""Crafted files of `save_compressed`: their descriptions, read without a backend."""

import hashlib
import json
import struct
import zlib

from tests.faults.bombs import repeated
from tests.faults.cases import MEBIBYTE, Case


def described(description, metadata=None, packed=False, tensors=()):
    """Return the writer of a file with a description, bytes or JSON."""

    def write(folder):
        text = description() if callable(description) else description
        if not isinstance(text, bytes):
            text = json.dumps(text).encode()
        raw = text if packed else zlib.compress(text, 9)
        head = {"sha256": hashlib.sha256(raw).hexdigest(), "version": 1}
        told = json.dumps(head) if metadata is None else metadata
        header = {
            "__metadata__": {"keras_spectral.compressed": told},
            "description": {
                "dtype": "U8", "shape": [len(raw)], "data_offsets": [0, len(raw)]
            },
        }  # fmt: skip
        for index, name in enumerate(tensors):
            place = [len(raw) + 4 * index, len(raw) + 4 * index + 4]
            header[name] = {"dtype": "F32", "shape": [1], "data_offsets": place}
        text = json.dumps(header).encode()
        path = folder / "a.safetensors"
        path.write_bytes(
            struct.pack("<Q", len(text)) + text + raw + bytes(4 * len(tensors))
        )
        return path

    return write


def headed(text):
    def write(folder):
        path = folder / "a.safetensors"
        path.write_bytes(struct.pack("<Q", len(text())) + text())
        return path

    return write


def weight(**values):
    plain = dict(
        name="w", path="a/w", shape=[1], dtype="float32", sha256="", coded=None
    )
    return {"config": {}, "weights": [{**plain, **values}]}


def coded(**values):
    plain = dict(
        count=1, index="delta", values="float32", scale=1.0, replacement="zero",
        rule=None, threshold=None, mean=0.0, deviation=0.0, seed=[0], key=[],
        normals_sha256=None,
    )  # fmt: skip
    return weight(coded={**plain, **values})


def nest(levels):
    return lambda: (
        b'{"weights":[],"config":{"a":' + b"[" * levels + b"]" * levels + b"}}"
    )


CASES = {
    "64 MiB of brackets": Case(
        described(lambda: repeated(b"[" * MEBIBYTE, 64), packed=True), says="too long"
    ),
    "15 MiB of lists": Case(
        described(lambda: b"[" + b"[]," * 5_000_000 + b"[]]"), says="larger than any"
    ),
    "config nested 600 deep": Case(described(nest(600)), says="nested deeper"),
    "config nested 60,000 deep": Case(described(nest(60_000)), says="no JSON"),
    "metadata of brackets": Case(described({}, "[" * 10**6), says="no JSON"),
    "metadata of lists": Case(
        described({}, "[" + "[]," * 10**6 + "[]]"), says="larger than any"
    ),
    "metadata of digits": Case(described({}, "9" * 10_000), says="no JSON"),
    "metadata of a number": Case(described({}, "1"), says="version 1"),
    "header of 9 MiB": Case(
        headed(lambda: b'{"__metadata__":{"a":"' + b"x" * 9 * MEBIBYTE + b'"}}'),
        says="header is longer",
    ),
    "no Unicode": Case(described(b'{"a":"\xff"}'), says="no JSON"),
    "two of one name": Case(
        described(b'{"config":{},"config":{},"weights":[]}'), says="two entries"
    ),
    "no end": Case(described(b"x" * 9, packed=True), says="cannot be inflated"),
    "10,000 digits": Case(described(b'{"a":' + b"9" * 10_000 + b"}"), says="no JSON"),
    "a name of 1 MB": Case(described({"x" * 10**6: 1}), says="other fields"),
    "shape of digits": Case(described(weight(shape=[10**4000])), says="not those"),
    "shape of NaN": Case(described(weight(shape=[float("nan")])), says="shape"),
    "shape of a million": Case(described(weight(shape=[1] * 10**5)), says="shape"),
    "scale 1e999": Case(
        described(json.dumps(coded(scale=7.25)).replace("7.25", "1e999").encode()),
        says="strange `scale`",
    ),
    "seed of a million": Case(described(coded(seed=[1] * 10**5)), says="seed"),
    "path of 1 MB": Case(described(weight(path="x" * 10**6)), says="not those"),
    "whole": Case(described(weight(), tensors=["0.a/w"]), "read", says="1 []"),
}  # fmt: skip
CASES = {
    name: Case(case.write, case.outcome, case.says, "compressed")
    for name, case in CASES.items()
}
