"""Changes of files: of single bytes, and of what a format is made of."""

import hashlib
import io
import json
import struct
import warnings
import zipfile
import zlib

from tests.convert.corpus import zip_bytes
from tests.faults.names import COMMANDS

_NUMBERS = (  # Ends of types of integers.
    0,
    1,
    127,
    128,
    255,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**32 - 1,
    2**62,
    2**64 - 1,
)
# What stands in no such place: for trees of JSON.
_ODD = (
    None, True, -1, 0, 3, 2**31, 2**63, -(2**70), 0.5, 1e308, "", "w", "F32", COMMANDS,
    "a" * 2000, [], {}, [[[[]]]], [0, 4], [2**40, 2**40], {"w": {"w": []}},
)  # fmt: skip
# Words of the formats; of pickles, whole instructions.
_TOKENS = (
    *(bytes([x]) for x in b".(012ldt}])RbQeusN"),
    *(bytes([x]) for x in (*range(0x81, 0x98), 0x85, 0x86, 0x87, 0x93)),
    b"q\x00", b"h\x00", b"r\xff\xff\xff\x7f", b"I4300\n", b"L1L\n",
    b"cos\nsystem\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nSize\n",
    b"ccollections\nOrderedDict\n", b"X\x01\x00\x00\x00w",
    b"\x8a\xff" + b"\xff" * 255, b"[" * 500, b'{"a":' * 300,
    b"PK\x03\x04", b"PK\x05\x06", b"TREE", b"SNOD", b"HEAP", b"OHDR",
    b"\x93NUMPY", b"'shape': (", b"'|O'", b"<V0",
)  # fmt: skip


def bytes_changed(content, random, other):
    """Change bytes in some places, whatever they mean."""
    content = bytearray(content)
    for _ in range(random.randint(1, 4)):
        place, kind = random.randint(0, len(content)), random.randint(0, 6)
        length = min(random.choice((1, 2, 4, 8, 30, 300)), len(content) - place)
        if kind == 0 and place < len(content):
            content[place] ^= 1 << random.randint(0, 7)
        elif kind == 1 and place < len(content):
            content[place] = random.randint(0, 255)
        elif kind == 2:
            number = struct.pack("<Q", random.choice(_NUMBERS))
            number = number[: random.choice((1, 2, 4, 8))]
            content[place : place + len(number)] = number
        elif kind == 3:
            del content[place : place + length]
        elif kind == 4:
            part = content[place : place + length]
            content[place:place] = part * random.choice((1, 2, 50))
        elif kind == 5:
            content[place:place] = random.choice(_TOKENS)
        else:
            start = random.randint(0, len(other))
            content[place:] = other[start : start + 20_000]
    return bytes(content)


def tree_changed(tree, random):
    """Put something odd in one place of what JSON can hold."""
    if isinstance(tree, dict) and tree and random.random() < 0.85:
        key = random.choice(list(tree))
        changed = dict(tree)
        value = changed.pop(key)
        kind = random.randint(0, 9)
        if kind == 0:
            changed[random.choice(("", "w", COMMANDS, "__metadata__"))] = value
        elif kind > 1:
            changed[key] = tree_changed(value, random)
        return changed
    if isinstance(tree, list) and tree and random.random() < 0.85:
        place = random.randrange(len(tree))
        changed = list(tree)
        kind = random.randint(0, 9)
        if kind == 0:
            del changed[place]
        elif kind == 1:
            changed += [changed[place]] * random.choice((1, 100))
        else:
            changed[place] = tree_changed(changed[place], random)
        return changed
    return random.choice(_ODD)


def zip_changed(content, random, other):
    """Change a member of a zip, whose sums are right again."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(member.file_size for member in archive.infolist()) > 2**20:
                raise ValueError("too large to be changed often")
            members = [[name, archive.read(name)] for name in archive.namelist()]
    except Exception:
        return bytes_changed(content, random, other)
    if not members:
        return bytes_changed(content, random, other)
    place, kind = random.randrange(len(members)), random.randint(0, 9)
    name, inner = members[place]
    if kind == 0:
        del members[place]
    elif kind == 1:
        members.append([name, inner])
    elif kind == 2:
        members[place][0] = random.choice(("", "/", "a", "../b", COMMANDS, "a/data/0"))
    elif name.endswith(".json"):
        members[place][1] = json_changed(inner, random, other)
    else:
        members[place][1] = bytes_changed(inner, random, other)
    method = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return zip_bytes(members, method)
        except Exception:  # A name that no zip can have.
            return bytes_changed(content, random, other)


def json_changed(text, random, other):
    """Change a JSON text by its tree."""
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        return bytes_changed(text, random, other)
    return json.dumps(tree_changed(tree, random)).encode()


def safetensors_changed(content, random, other):
    """Change a safetensors header by its tree, with the right length before it."""
    header, data = _parts(content)
    return _whole(json_changed(header, random, other), data)


def compressed_changed(content, random, other):
    """Change a compressed file's description, with the right sum beside it."""
    header, data = _parts(content)
    try:
        table = json.loads(header)
        begin, end = table["description"]["data_offsets"]
        tree = json.loads(zlib.decompress(data[begin:end]))
    except Exception:
        return safetensors_changed(content, random, other)
    packed = zlib.compress(json.dumps(tree_changed(tree, random)).encode())
    head = json.loads(table["__metadata__"]["keras_spectral.compressed"])
    head["sha256"] = hashlib.sha256(packed).hexdigest()
    table["__metadata__"]["keras_spectral.compressed"] = json.dumps(head)
    table["description"].update(shape=[len(packed)], data_offsets=[0, len(packed)])
    for key, entry in table.items():
        if key not in ("description", "__metadata__"):
            # What lay before the description lies behind it now.
            behind = entry["data_offsets"][0] >= end
            shift = len(packed) - (end - begin if behind else 0)
            entry["data_offsets"] = [x + shift for x in entry["data_offsets"]]
    rest = data[:begin] + data[end:]
    return _whole(json.dumps(table).encode(), packed + rest)


def _parts(content):
    length = int.from_bytes(content[:8], "little")
    return content[8 : 8 + length], content[8 + length :]


def _whole(header, data):
    return struct.pack("<Q", len(header)) + header + data


STRUCTURAL = {
    "pickle": bytes_changed,
    "zip": zip_changed,
    "npz": zip_changed,
    "keras": zip_changed,
    "safetensors": safetensors_changed,
    "hdf5": bytes_changed,
    "compressed": compressed_changed,
}


def changed(kind, content, random, other):
    """Return a changed file of a kind, half of them by what the kind is made of."""
    change = STRUCTURAL[kind] if random.random() < 0.6 else bytes_changed
    content = change(content, random, other)
    return change(content, random, other) if random.random() < 0.3 else content
