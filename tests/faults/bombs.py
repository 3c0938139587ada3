"""Streams that inflate to far more than they are, written without making it all."""

import struct
import zlib

MEBIBYTE = 2**20


def zeros(mebibytes):
    """Return a zlib stream of so many MiB of zeros: a thousandth of them."""
    return repeated(bytes(MEBIBYTE), mebibytes, zlib.MAX_WBITS)


def repeated(block, count, window=zlib.MAX_WBITS):
    """Return the deflated `block * count`: zlib's, or with -15 a zip member's.

    Each block is packed as the first one, which looks at nothing before it.
    """
    pack = zlib.compressobj(9, wbits=-15)
    packed = pack.compress(block) + pack.flush(zlib.Z_FULL_FLUSH)
    body = packed * count + pack.flush()
    if window < 0:
        return body
    total = sum_of(block, count)
    return b"\x78\xda" + body + struct.pack(">I", total)


def sum_of(block, count):
    """Return Adler-32 of `block * count`."""
    value = 1
    for _ in range(count):
        value = zlib.adler32(block, value)
    return value
