"""What HDF5 calls filters, undone here: its own inflate ignores the size declared."""

import zlib

import numpy as np

from keras_spectral.convert.files.errors import CheckpointError
from keras_spectral.convert.files.records import CHUNK, shown

_DEFLATE, _SHUFFLE, _FLETCHER32 = 1, 2, 3


def checked_filter(key, code, _, values, name):
    """Return (code, element size) of a filter that is known here."""
    if code not in (_DEFLATE, _SHUFFLE, _FLETCHER32):
        name = shown(name.decode("ascii", "replace")) if name else f"number {code}"
        raise CheckpointError(
            f"packs {shown(key)} by {name}; known here are deflate, shuffle and "
            "fletcher32. Save it again with gzip, or as it is."
        )
    size = int(values[0]) if code == _SHUFFLE and values else 1
    if size < 1:
        raise CheckpointError(f"is damaged (the filters of {shown(key)})")
    return code, size


def unpacked(raw, mask, filters, size):
    """Return the bytes of a piece, which must be `size`.

    Args:
        raw: Bytes, as they are stored.
        mask: Integer, a bit for each filter that was left out.
        filters: List of (code, element size), in the order of writing.
        size: Integer.
    """
    used = [f for number, f in enumerate(filters) if not mask >> number & 1]
    for number, (code, element) in reversed(list(enumerate(used))):
        if code == _SHUFFLE:
            raw = _unshuffled(raw, element)
        elif code == _DEFLATE:
            # Whatever was added before the packing is unpacked with it.
            added = 4 * sum(code == _FLETCHER32 for code, _ in used[:number])
            raw = zlib.decompressobj().decompress(raw, size + added + 1)
        else:
            raw, stored = raw[:-4], raw[-4:]
            found = _fletcher32(raw)
            # Versions before 1.6.3 swapped the bytes of each half.
            swapped = found[1::-1] + found[:1:-1]
            if stored not in (found, swapped):
                raise CheckpointError("is damaged (the sum of a piece of a tensor)")
    if len(raw) != size:
        raise CheckpointError("is damaged (the size of a piece of a tensor)")
    return raw


def _unshuffled(raw, element):
    """Return what HDF5's shuffle was given: all first bytes, all second bytes, ..."""
    whole = len(raw) // element * element
    body = np.frombuffer(raw, "uint8", whole).reshape(element, -1)
    return body.T.tobytes() + raw[whole:]


def _fletcher32(raw):
    """Return HDF5's Fletcher sum of 32 bits, as it is stored."""
    odd = len(raw) % 2
    words = np.frombuffer(raw, ">u2", len(raw) // 2)
    if odd:
        words = np.append(words, np.uint16(raw[-1] << 8))
    first = second = 0
    for start in range(0, words.size, CHUNK):
        part = words[start : start + CHUNK].astype("uint64")
        weights = np.arange(part.size, 0, -1, dtype="uint64")
        second += first * part.size + int(part @ weights)
        first += int(part.sum())
    # In one's complement 65535 is zero, unless all is zero.
    halves = [n and (n - 1) % 65535 + 1 for n in (first, second)]
    return (halves[1] << 16 | halves[0]).to_bytes(4, "little")
