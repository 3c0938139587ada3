"""Crafted safetensors headers, and crafted indexes of shards."""

import json
import os
import struct

from tests.faults.cases import Case

ONE = b'{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'


def headed(header, data=b"", name="a.safetensors"):
    """Return the writer of a file with a header, bytes or what makes them."""

    def write(folder):
        text = header() if callable(header) else header
        text = text if isinstance(text, bytes) else json.dumps(text).encode()
        (folder / name).write_bytes(struct.pack("<Q", len(text)) + text + data)
        return folder / name

    return write


def tensors(count, size=4):
    def write(folder):
        entries = {
            f"layer.{i}.weight": {
                "dtype": "F32", "shape": [size // 4, 1],
                "data_offsets": [size * i, size * i + size],
            }
            for i in range(count)
        }  # fmt: skip
        text = json.dumps(entries, separators=(",", ":")).encode()
        return headed(text, bytes(size * count))(folder)

    return write


def shape(numbers):
    return {"w": {"dtype": "F32", "shape": numbers, "data_offsets": [0, 4]}}


def indexed(names, *files):
    """Return the writer of an index, a dict or bytes, beside some files."""

    def write(folder):
        for make in files:
            make(folder)
        text = names() if callable(names) else names
        if not isinstance(text, bytes):
            text = json.dumps({"weight_map": text}).encode()
        path = folder / "a.index.json"
        path.write_bytes(text)
        return path

    return write


def linked(target):
    def write(folder):
        os.symlink(target, folder / "b.safetensors")
        return indexed({"w": "b.safetensors"})(folder)

    return write


def back_and_forth(folder):
    """An index that needs, for each tensor, another shard than the one before."""
    names = {}
    for shard in "ab":
        keys = [f"{i:05}{shard}" for i in range(3000)]
        entries = {
            key: {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]}
            for i, key in enumerate(keys)
        }
        headed(entries, bytes(4 * len(keys)), f"{shard}.safetensors")(folder)
        names |= dict.fromkeys(keys, f"{shard}.safetensors")
    return indexed(dict(sorted(names.items())))(folder)


SHARD = headed({"w": json.loads(ONE)}, bytes(4), "b.safetensors")
CASES = {
    "30 million lists": Case(
        headed(lambda: b'{"a":[' + b"[]," * 30_000_000 + b"[]]}"), says="weights need"
    ),
    "lists in place of a table": Case(
        headed(lambda: b'{"a":[' + b"[]," * 30_000 + b"[]]}"), says="Expected `object`"
    ),
    "12 million tables": Case(
        headed(lambda: b'{"a":[' + b'{"":1},' * 12_000_000 + b"{}]}"), says="need"
    ),
    "45 million numbers": Case(
        headed(lambda: b'{"w":{"dtype":"F32","shape":[' + b"1," * 45_000_000 + b"1]}}"),
        says="need",
    ),
    "4 million names": Case(
        headed(
            lambda: b"{" + b",".join(b'"%d":1' % i for i in range(4_000_000)) + b"}"
        ),
        says="need",
    ),
    "tables in a text": Case(
        headed(
            lambda: b'{"__metadata__":{"a":"' + b'{\\"' * 10**7 + b'"},'
            + b",".join(b'"%d":1' % i for i in range(1_000_000)) + b"}"
        ),
        says="need",
    ),  # fmt: skip
    "metadata of 90 MB": Case(
        headed(lambda: b'{"__metadata__":{"a":"' + b"x" * 90_000_000 + b'"}}'),
        says="larger than any metadata",
    ),
    "metadata of lists": Case(
        headed(
            lambda: (
                b'{"__metadata__":[' + b"[]," * 100_000 + b'[]],"w":' + ONE + b"}"
            ),
            bytes(4),
        ), "read", says="{'w'",
    ),
    "metadata of brackets": Case(
        headed(lambda: b'{"__metadata__":' + b"[" * 800 + b"]" * 800 + b"}"),
        says="nested deeper",
    ),
    "a million brackets": Case(
        headed(lambda: b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        says="no JSON",
    ),
    "a name of 1 MB": Case(headed({"x" * 10**6: 3}), says="Expected `object`"),
    "a name of 1 MB, misplaced": Case(
        headed(lambda: b'{"' + b"x" * 10**6 + b'":' + ONE + b"}"), says="cut off"
    ),
    "one name twice": Case(
        headed(b'{"w":' + ONE + b',"w":' + ONE + b"}", bytes(4)), says="two entries"
    ),
    "one name twice, escaped": Case(
        headed(b'{"w":' + ONE + b',"\\u0077":' + ONE + b"}", bytes(4)),
        says="two entries",
    ),
    "one name twice, empty": Case(
        headed(b'{"w":' + ONE + b',"v":{"dtype":"F32","shape":[0],"data_offsets":[4,4]}'
               b',"v":{"dtype":"F32","shape":[0,3],"data_offsets":[4,4]}}', bytes(4)),
        says="two entries",
    ),
    "a quote that is escaped": Case(
        headed(b'{"a\\\\\\"\\\\":' + ONE + b"}", bytes(4)), "read", says="(1,)"
    ),
    "a field twice": Case(
        headed(b'{"w":{"dtype":"F32","shape":[2],"shape":[1],"data_offsets":[0,4]}}',
               bytes(4)), says="two entries",
    ),
    "33 axes": Case(headed(shape([1] * 33), bytes(4)), says="has the shape"),
    "10,000 digits": Case(
        headed(b'{"w":{"dtype":"F32","shape":[' + b"9" * 10_000 + b'],'
               b'"data_offsets":[0,4]}}', bytes(4)), says="damaged",
    ),
    "2^62 rows of none": Case(
        headed({"w": {"dtype": "F32", "shape": [2**62, 0], "data_offsets": [0, 0]}}),
        says="has the shape",
    ),
    "16,384 tensors": Case(tensors(16_384), "read", "16384", reader="inspected"),
    "300,000 tensors": Case(tensors(300_000), "read", "300000", reader="inspected"),
    "500,000 tensors": Case(tensors(500_000), says="no weights need"),
    "shard above": Case(indexed({"w": "../x"}), says="no name of a file"),
    "shard of a root": Case(indexed({"w": "/dev/zero"}), says="no name of a file"),
    "shard of 1 MB": Case(indexed({"w": "x" * 10**6}), says="no name of a file"),
    "shard of a list": Case(indexed({"w": [[1] * 10**5]}), says="no name of a file"),
    "link outside": Case(linked("/etc/hostname"), says="link out of the folder"),
    "link to a device": Case(linked("/dev/zero"), says="link out of the folder"),
    "link to itself": Case(linked("b.safetensors"), says="is missing"),
    "index of itself": Case(indexed({"w": "a.index.json"}), says="shards itself"),
    "a million shards": Case(
        indexed(lambda: {f"{i}": f"{i}" for i in range(10**6)}),
        says="larger than any index",
    ),
    "300,000 names of no tensor": Case(
        indexed(b'{"weight_map":{' + b",".join(
            b'"%d":"b.safetensors"' % i for i in range(300_000)) + b"}}", SHARD),
        says="names 300000 tensors",
    ),
    "back and forth": Case(back_and_forth, says="back and forth"),
    "index of numbers": Case(
        indexed(b'{"weight_map":{"a":' + b"9" * 10_000 + b"}}"), says="no JSON"
    ),
    "index of NaN": Case(indexed(b'{"weight_map":{"a":NaN}}'), says="no name of a"),
    "index of brackets": Case(
        indexed(b'{"weight_map":' + b"[" * 900 + b"]" * 900 + b"}"),
        says="nested deeper",
    ),
}  # fmt: skip
