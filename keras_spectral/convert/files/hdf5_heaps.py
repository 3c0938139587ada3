"""Heaps of an HDF5 file, looked at before HDF5 does: it inflates them, or goes round.

HDF5 looks for none of this itself, and cannot be stopped once it has begun.
"""

import struct

from keras_spectral.convert.files.errors import UnsafeCheckpointError
from keras_spectral.convert.files.records import CHUNK

# A heap of names, and a collection of texts.
_NAMES, _TEXTS = b"FRHP\0", b"GCOL\1"
# Of a heap's beginning that is looked at.
_HEAD = 16
# The head of a text: number, uses, nothing, size.
_TEXT = struct.Struct("<HHIQ")


def check_heaps(file, size):
    """Refuse names that would have to be inflated, and texts that lead to themselves.

    A heap of names is inflated to any length. It begins with its signature, a version,
    the length of its keys, and that of its filters: zero in any file of weights.

    A collection of texts is gone through text by text. One of no size, or of nearly
    2^64 bytes, takes HDF5 back to where it was, for ever.

    Args:
        file: `pathlib.Path`, or binary file object.
        size: Integer, its bytes.
    """
    opened = file.open("rb") if hasattr(file, "open") else file
    try:
        collections = []
        for place, head in _found(opened):
            if head.startswith(_TEXTS):
                collections.append((place, int.from_bytes(head[8:16], "little")))
            elif head[7:9] != b"\0\0" and head[9] < 4:
                raise UnsafeCheckpointError("packs its names")
        # Each text has a head: collections that lie apart have no more.
        left = size // _TEXT.size
        for place, length in collections:
            # What would end beyond the file is not read by HDF5 either.
            if place + length <= size:
                left -= _texts(opened, place, length, left)
    finally:
        if opened is not file:
            opened.close()


def check_sizes(root):
    """Refuse a file whose lengths have another size than every writer gives them.

    Args:
        root: `h5py.File`.
    """
    if root.id.get_create_plist().get_sizes() != (8, 8):
        raise UnsafeCheckpointError("has addresses that no writer of today makes")


def _found(opened):
    """Yield place and first bytes of what looks like the heaps of a file."""
    before, at = b"", 0
    opened.seek(0)
    while part := before + opened.read(CHUNK):
        for signature in _NAMES, _TEXTS:
            start = 0
            while (start := part.find(signature, start)) >= 0:
                head = part[start : start + _HEAD]
                if len(head) == _HEAD:
                    yield at + start, head
                start += 1
        if len(part) < _HEAD:
            break
        before = part[1 - _HEAD :]
        at += len(part) - len(before)


def _texts(opened, place, length, most):
    """Return how many texts a collection has, once it is known to have an end."""
    at, count = _HEAD, 0
    while at + _TEXT.size <= length:
        opened.seek(place + at)
        number, _, _, size = _TEXT.unpack(opened.read(_TEXT.size))
        # What is free has the number zero, and a size with its head.
        need = _TEXT.size + -(-size // 8) * 8 if number else size
        count += 1
        if not 0 < need <= length - at or count > most:
            raise UnsafeCheckpointError("has texts that do not lie one after the other")
        at += need
    return count
