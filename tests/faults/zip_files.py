"""Crafted zips of PyTorch's: what a directory claims."""

import struct
import zipfile
import zlib

from tests.faults.cases import MEBIBYTE, Case
from tests.faults.programs import (
    number,
    state,
    storage,
    tensor,
    text,
    torch_zip,
    written,
    zip_bytes,
)

PLAIN = state(("a.w", tensor()))
READ = {"outcome": "read", "says": "'a.w': (2, 3)"}


def member(name, content, deflated=None, **claims):
    """Return a local header with content, and what the directory says of it."""
    encoded = name if isinstance(name, bytes) else name.encode()
    method, stored = (0, content) if deflated is None else (8, deflated)
    says = {
        "flags": 0x800, "method": method, "crc": zlib.crc32(content),
        "packed": len(stored), "size": len(content), "extra": b"", "offset": None,
        "local": encoded,
    } | claims  # fmt: skip
    local = struct.pack(
        "<4sHHHHHIIIHH", b"PK\3\4", 20, says["flags"], says["method"], 0, 33,
        says["crc"], says["packed"], says["size"], len(says["local"]), 0,
    )  # fmt: skip
    return encoded, local + says["local"] + stored, says


def archive(*members, entries=None, size=None, offset=None, comment=b"", behind=b""):
    """Return a zip of members, whose last record may claim anything."""
    content, directory = b"", b""
    for name, local, says in members:
        at = len(content) if says["offset"] is None else says["offset"]
        directory += struct.pack(
            "<4sHHHHHHIIIHHHHHII", b"PK\1\2", 20, 20, says["flags"], says["method"], 0,
            33, says["crc"], says["packed"], says["size"], len(name),
            len(says["extra"]), 0, 0, 0, 0, at,
        ) + name + says["extra"]  # fmt: skip
        content += local
    count = len(members) if entries is None else entries
    last = struct.pack(
        "<4sHHHHIIH", b"PK\5\6", 0, 0, count, count,
        len(directory) if size is None else size,
        len(content) if offset is None else offset, len(comment),
    )  # fmt: skip
    return content + directory + behind + last + comment


PICKLE, RECORD = member("a/data.pkl", PLAIN), member("a/data/0", bytes(24))


def with_record(*arguments, **claims):
    return lambda: archive(PICKLE, member("a/data/0", *arguments, **claims))


def zip64(**values):
    """A member whose size, packed size and place stand in 64 bits."""
    numbers = [values.get(key, 24) for key in ("size", "packed")]
    extra = struct.pack("<HH", 1, 24) + struct.pack(
        "<QQQ", *numbers, values.get("offset", len(PICKLE[1]))
    )
    huge = {"size": 2**32 - 1, "packed": 2**32 - 1, "offset": 2**32 - 1}
    return with_record(bytes(24), extra=extra, **huge)


def zip64_end(size, offset, entries=2):
    """The last record in 64 bits."""
    record = struct.pack(
        "<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, entries, entries, size, offset
    )
    at = len(archive(PICKLE, RECORD)) - 22
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, at, 1)
    return archive(
        PICKLE, RECORD, behind=record + locator, entries=2**16 - 1, size=2**32 - 1,
        offset=2**32 - 1,
    )  # fmt: skip


def sparse_directory(size):
    """A directory that claims what a gigabyte of nothing holds."""

    def write(folder):
        path = folder / "a.pth"
        last = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 1, 1, size, 4, 0)
        with path.open("wb") as file:
            file.write(b"PK\3\4")
            file.seek(size + 4)
            file.write(last)
        return path

    return write


def many_members(count, name="{}"):
    members = [(name.format(n), b"") for n in range(count)]
    return zip_bytes(
        [("a/data.pkl", PLAIN), ("a/data/0", bytes(24)), *members], zipfile.ZIP_STORED
    )


def long_folder(count=20_000):
    """Every storage's name has the folder's, of 60,000 letters."""
    folder = "a" * 60_000
    pairs = [(f"{n}.w", tensor()) for n in range(count)]
    return zip_bytes(
        [(f"{folder}/data.pkl", state(*pairs)), (f"{folder}/data/0", bytes(24))]
    )


def inflated(claim, held):
    """A storage that claims more numbers than its member inflates to."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = compressor.compress(bytes(held)) + compressor.flush()
    program = state(("a.w", tensor(storage("0", claim // 4), 0, (claim // 4,), (1,))))
    return archive(
        member("a/data.pkl", program),
        member("a/data/0", bytes(held), packed, size=claim),
        # So that the file is large enough to claim much.
        member("a/padding", bytes(40 * MEBIBYTE)),
    )


CASES = {
    name: Case(written(make), **outcome)
    for name, (make, outcome) in {
        "plain": (lambda: archive(PICKLE, RECORD), READ),
        "a name of NUL": (with_record(bytes(24)), READ),
        "two names by NUL": (
            lambda: archive(PICKLE, RECORD, member(b"a/data/0\0b", bytes(24))),
            {"says": "two members of one name"},
        ),
        "a name of no letters": (
            lambda: archive(PICKLE, RECORD, member(b"a/data/\xff\xfe", b"")),
            {},
        ),
        "a name in Unicode": (
            lambda: archive(PICKLE, RECORD, member("a/data/\u202e\U0001f600", b"")),
            READ,
        ),
        "another local name": (with_record(bytes(24), local=b"a/data/1"), {}),
        "a missing local header": (with_record(bytes(24), offset=3), {}),
        "a place beyond the end": (with_record(bytes(24), offset=2**31), {}),
        "a size of 4 GiB": (with_record(bytes(24), size=2**32 - 2), {}),
        "a packed size of 4 GiB": (with_record(bytes(24), packed=2**32 - 2), {}),
        "both of 4 GiB": (
            with_record(bytes(24), packed=2**32 - 2, size=2**32 - 2),
            {},
        ),
        "another sum": (with_record(bytes(24), crc=1), {"says": "CRC"}),
        "encrypted": (with_record(bytes(24), flags=0x801), {"says": "encrypted"}),
        "of another method": (with_record(bytes(24), method=99), {}),
        "no deflate": (with_record(bytes(24), b"\xff" * 9), {}),
        "64 bits": (zip64(), READ),
        "64 bits, a size of 2^63": (zip64(size=2**63), {}),
        "64 bits, a packed size of 2^63": (zip64(packed=2**63), {}),
        "64 bits, a place of 2^63": (zip64(offset=2**63), {}),
        "64 bits too few": (
            with_record(bytes(24), extra=b"\1\0\x08\0" + bytes(8), size=2**32 - 1,
                        packed=2**32 - 1),
            {},
        ),
        "an extra that ends early": (
            with_record(bytes(24), extra=b"\1\0\xff\xff"),
            {},
        ),
        "64 bits at the end, a size of 2^63": (lambda: zip64_end(2**63, 0), {}),
        "64 bits at the end, a place of 2^63": (lambda: zip64_end(100, 2**63), {}),
        "a directory of 4 GiB": (lambda: archive(PICKLE, RECORD, size=2**32 - 2), {}),
        "a directory at 4 GiB": (lambda: archive(PICKLE, RECORD, offset=2**32 - 2), {}),
        "more members claimed": (lambda: archive(PICKLE, RECORD, entries=65_534), READ),
        "a comment of a zip": (
            lambda: archive(PICKLE, RECORD, comment=archive(PICKLE)),
            {"outcome": "either"},
        ),
        "no members": (lambda: archive(PICKLE, RECORD, size=0, entries=0), {}),
        "60,000 members": (lambda: many_members(60_000), READ),
        "names of a kilobyte": (
            lambda: many_members(20_000, "{:01000}"),
            {"says": "directory"},
        ),
        "a folder of 60,000 letters": (
            long_folder,
            {"outcome": "read", "says": "'7.w': (2, 3)"},
        ),
        "a deflated claim of 800 MiB": (
            lambda: inflated(800 * MEBIBYTE, MEBIBYTE),
            {},
        ),
        "slashes": (
            lambda: archive(PICKLE, RECORD, member("/" * 60_000, b"")),
            READ,
        ),
        "a storage's key of a folder": (
            lambda: torch_zip(state(("a.w", tensor(storage("../data.pkl"))))),
            {"says": "missing"},
        ),
        "a pickle cut off": (lambda: torch_zip(PLAIN[:-5]), {}),
        "a pickle of nothing": (lambda: torch_zip(b""), {}),
        "two pickles": (
            lambda: zip_bytes([("a/data.pkl", PLAIN), ("b/data.pkl", PLAIN),
                               ("a/data/0", bytes(24))]),
            READ,
        ),
        "a number as a storage's name": (
            lambda: torch_zip(
                b"\x80\x02}" + text("a.w") + tensor(
                    b"(" + text("storage") + b"ctorch\nFloatStorage\n" + number(0)
                    + text("cpu") + number(6) + b"tQ"
                ) + b"s."
            ),
            {},
        ),
    }.items()
}  # fmt: skip
for mebibytes in (7, 1000):
    CASES[f"a directory of {mebibytes} MiB of nothing"] = Case(
        sparse_directory(mebibytes * MEBIBYTE)
    )
