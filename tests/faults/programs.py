"""Parts of pickles, and the files of PyTorch's around them."""

import io
import pickle
import struct
import zipfile

STORAGE = b"ctorch\nFloatStorage\n"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
ORDERED = b"ccollections\nOrderedDict\n"
SIZE = b"ctorch\nSize\n"


def text(string):
    content = string.encode()
    return b"X" + struct.pack("<I", len(content)) + content


def number(value):
    content = pickle.encode_long(value)
    if len(content) < 256:
        return b"\x8a" + bytes([len(content)]) + content
    return b"\x8b" + struct.pack("<i", len(content)) + content


def put(index):
    return b"r" + struct.pack("<I", index)


def get(index):
    return b"j" + struct.pack("<I", index)


def storage(key="0", numel=6, kind=STORAGE):
    return (
        b"(" + text("storage") + kind + text(key) + text("cpu") + number(numel) + b"tQ"
    )


def tensor(stored=None, offset=0, shape=(2, 3), strides=(3, 1)):
    """A tensor's program; each part may be bytes, a program itself."""

    def numbers(values):
        if isinstance(values, bytes):
            return values
        return b"(" + b"".join(map(number, values)) + b"t"

    stored = storage() if stored is None else stored
    return (
        REBUILD + b"(" + stored + number(offset) + numbers(shape) + numbers(strides)
        + b"\x89" + ORDERED + b")RtR"
    )  # fmt: skip


def state(*pairs):
    """The program of a dictionary of (name, program)."""
    items = b"".join(text(key) + value + b"s" for key, value in pairs)
    return b"\x80\x02}" + items + b"."


def zip_bytes(members, method=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


def torch_zip(program, method=zipfile.ZIP_STORED, **records):
    """A zip of PyTorch's; by default there is the storage "0" of six numbers."""
    records = records or {"0": bytes(24)}
    members = [(f"a/data/{key}", content) for key, content in records.items()]
    return zip_bytes([("a/data.pkl", program), *members], method)


def legacy(program, keys=(("0", bytes(24)),), itemsize=4, listed=None):
    """A file of PyTorch's older format."""
    listed = pickle.dumps([key for key, _ in keys], 2) if listed is None else listed
    head = (
        pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
        + pickle.dumps({"protocol_version": 1001, "little_endian": True}, 2)
    )  # fmt: skip
    stored = b"".join(
        struct.pack("<q", len(content) // itemsize) + content for _, content in keys
    )
    return head + program + listed + stored


def written(make):
    """Return a function of a folder that writes there what a function makes."""

    def write(folder):
        path = folder / "a.pth"
        path.write_bytes(make())
        return path

    return write
