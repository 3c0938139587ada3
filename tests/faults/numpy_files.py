"""Crafted .npy headers in .npz files, and zips that lie."""

import io
import struct
import zipfile

import numpy as np

from tests.faults.bombs import repeated
from tests.faults.cases import MEBIBYTE, Case


def member(header, data=b"", version=(1, 0)):
    """Return a .npy file with a header of any text."""
    text = header if isinstance(header, bytes) else header.encode()
    length = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + length + text + data


def described(shape="(1,)", descr="'<f4'", order="False"):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


def zipped(*members, method=zipfile.ZIP_STORED):
    def write(folder):
        path = folder / "a.npz"
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, content in members:
                archive.writestr(name, content)
        return path

    return write


def one(header, data=bytes(4), **arguments):
    return zipped(("w.npy", member(header, data, **arguments)))


def bomb(folder):
    """One member of 2 GiB of zeros, with the sizes and sum that it has."""
    block, count = bytes(MEBIBYTE), 2048
    head = described(f"({count * MEBIBYTE // 4 - 32},)")
    head = member(head + " " * (128 - 10 - len(head)))
    raw = repeated(block, count, -15)
    path = folder / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w.npy", head)
    content = bytearray(path.read_bytes())
    directory = content.index(b"PK\x01\x02")
    start = 30 + len("w.npy")
    end = content[directory:]
    end[20:28] = struct.pack("<II", len(raw), count * MEBIBYTE)
    end[-6:-2] = struct.pack("<I", start + len(raw))
    content[18:26] = struct.pack("<II", len(raw), count * MEBIBYTE)
    path.write_bytes(bytes(content[:start]) + raw + bytes(end))
    return path


def many(count):
    content = member(described(), bytes(4))
    return zipped(*((f"w{i}.npy", content) for i in range(count)))


def saved(**arrays):
    def write(folder):
        stream = io.BytesIO()
        np.savez(stream, **arrays)
        (folder / "a.npz").write_bytes(stream.getvalue())
        return folder / "a.npz"

    return write


NO_NUMBERS = ("'|S0'", "'<U0'", "'|V0'", "'(0,)f4'", "'(2,)f4'", "[]")
CASES = {
    **{
        f"type {descr}": Case(one(described(descr=descr)), says="damaged")
        for descr in NO_NUMBERS
    },
    "brackets": Case(one("(" * 9000 + ")" * 900), says="damaged (its member"),
    "brackets in the shape": Case(one(described("(" * 90 + "1" + ",)" * 90))),
    "minus signs": Case(one("-" * 9000 + "1"), says="damaged (its member"),
    "a call": Case(one("__import__('os').system('true')"), says="damaged (its"),
    "10,000 digits": Case(one(described(f"({'9' * 9000},)")), says="damaged"),
    "2^63 rows": Case(one(described(f"({2**63}, 0)")), says="damaged"),
    "2^62 rows of none": Case(one(described(f"({2**62}, 0)"), b""), says="the shape"),
    "negative rows": Case(one(described("(-1, -1)")), says="the shape"),
    "33 axes": Case(one(described(str((1,) * 33))), says="the shape"),
    "true rows": Case(one(described("(True,)")), says="the shape"),
    "header of 4 GiB": Case(
        zipped(("w.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b"x" * 9)),
        says="damaged (its member",
    ),
    "another version": Case(one(described(), version=(9, 9)), says="its member"),
    "version 3 without UTF-8": Case(
        one(b"{'descr': [('\xff', 'f4')]}", version=(3, 0)), says="its member"
    ),
    "version 3 of brackets": Case(
        one("(" * 5000 + "\U0001f600" * 1200, version=(3, 0)), says="its member"
    ),
    "version 3 of a shape": Case(
        one(described("('\U0001f600',)"), version=(3, 0)), says="damaged"
    ),
    "a table of a megabyte of columns": Case(
        one("x" * 2**20, bytes(9), version=(2, 0)), "read", reader="inspected"
    ),
    "no end": Case(one(described("(9,)")), says="the size of"),
    "objects": Case(one(described(descr="'|O'")), says="Python objects"),
    "objects in records": Case(
        one(described(descr="[('a', '|O')]"), bytes(8)), says="Python objects"
    ),
    "text": Case(saved(w=np.array(["ab", "c"])), reader="inspected", outcome="read"),
    "records": Case(
        saved(w=np.zeros(2, "i4,f4"), v=np.ones(2)), reader="inspected", outcome="read"
    ),
    "dates": Case(saved(w=np.zeros(2, "M8[s]")), reader="inspected", outcome="read"),
    "text, analysed": Case(
        saved(w=np.array([["ab", "c"]])), reader="analysis", outcome="read"
    ),
    "a name of 60 KB": Case(
        zipped(("x" * 60_000 + ".npy", member("{"))), says="its member"
    ),
    "no rows, analysed": Case(
        saved(w=np.ones((0, 4)), v=np.ones((4, 0))), reader="analysis", outcome="read"
    ),
    "2 GiB of zeros": Case(bomb, says="which no weights do"),
    "16,384 members": Case(many(16_384), "read", reader="inspected"),
}  # fmt: skip
