"""Which entries of an array are kept, and their values, in few bytes.

What is decoded comes from a file, so every decoder checks it against the size of the
array first, and takes a few times that array's memory at most.
"""

import zlib
from typing import Literal, get_args

import numpy as np

Index = Literal["bitmap", "delta"]
INDICES = get_args(Index)
Values = Literal["float32", "float16", "bfloat16", "int8"]
VALUES = get_args(Values)
_BLOCK = 2**20


def dtype_named(name):
    """Return NumPy's dtype of that name, or that of `ml_dtypes` for bfloat16."""
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def _gaps(kept):
    """Return the gaps before each kept entry: 255 is 255 and more to come."""
    positions = np.flatnonzero(kept)
    gaps = np.diff(positions, prepend=-1) - 1
    ends = np.cumsum(gaps // 255 + 1) - 1
    last = positions[-1] if positions.size else -1
    # The end is coded too: a few bytes cannot then claim an endless array.
    closing = (kept.size - 1 - last) // 255
    codes = np.full(gaps.size + int((gaps // 255).sum()) + closing, 255, "uint8")
    codes[ends] = gaps % 255
    return codes


def _from_gaps(codes, size, count):
    """Return the mask of `_gaps`."""
    ends = codes < 255
    if ends.sum() != count:
        raise ValueError(f"its index names {ends.sum():,} entries instead of {count:,}")
    covered = int(codes.sum(dtype="int64")) + count
    if not 0 <= size - covered < 255:
        raise ValueError(f"its index covers {covered:,} entries instead of {size:,}")
    kept, reached = np.zeros(size, bool), 0
    # In blocks: the sums of all would take many times the memory of the weight.
    for start in range(0, codes.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        sums = reached + np.cumsum(codes[part].astype("int64") + ends[part])
        kept[sums[ends[part]] - 1] = True
        reached = int(sums[-1])
    return kept


def _from_bitmap(codes, size, count):
    kept = np.unpackbits(codes, bitorder="little").view(bool)
    if kept[size:].any():
        raise ValueError("its index names entries beyond its end")
    if kept.sum() != count:
        raise ValueError(f"its index names {kept.sum():,} entries instead of {count:,}")
    return kept[:size]


def encode_index(kept, index="auto"):
    """Return a mask as bytes: a bit an entry, or the gaps between kept entries.

    Either is deflated, which brings it near the entropy.

    Args:
        kept: Boolean array.
        index: `"bitmap"`, `"delta"` (one byte a gap, 255 for 255 and more to come), or
            `"auto"`, the shorter.

    Returns:
        Tuple (index that was taken, its uint8 array).

    Example:
    >>> import numpy as np
    >>> kept = np.zeros(10000, bool)
    >>> kept[[3, 5000]] = True
    >>> encode_index(kept)[0]
    'delta'
    """
    kept = np.asarray(kept, bool).reshape(-1)
    encoders = {
        "bitmap": lambda: np.packbits(kept, bitorder="little"),
        "delta": lambda: _gaps(kept),
    }
    encoded = {
        name: zlib.compress(encoders[name]().tobytes(), 9)
        for name in (INDICES if index == "auto" else (index,))
    }
    best = min(encoded, key=lambda name: len(encoded[name]))
    return best, np.frombuffer(encoded[best], "uint8")


def decode_index(index, packed, size, count):
    """Return the mask that `encode_index` was given.

    Args:
        index: `"bitmap"` or `"delta"`.
        packed: Uint8 array.
        size: Integer, entries of the mask.
        count: Integer, those that are kept.

    Returns:
        Boolean array (size,).

    Raises:
        ValueError: If the bytes are anything else than such a mask.

    Example:
    >>> decode_index("delta", encode_index([True, False, True], "delta")[1], 3, 2)
    array([ True, False,  True])
    """
    # One byte an entry and one a run of 255 is all that there can be.
    longest = -(-size // 8) if index == "bitmap" else count + size // 255
    inflate = zlib.decompressobj()
    try:
        # One more than is allowed, so that too much shows.
        codes = inflate.decompress(packed.tobytes(), longest + 1)
    except zlib.error as error:
        raise ValueError("its index cannot be inflated") from error
    if len(codes) > longest or not inflate.eof or inflate.unused_data:
        raise ValueError("its index has the wrong length")
    codes = np.frombuffer(codes, "uint8")
    if index == "delta":
        return _from_gaps(codes, size, count)
    if len(codes) < longest:
        raise ValueError("its index has the wrong length")
    return _from_bitmap(codes, size, count)


def encode_values(values, kind):
    """Return float values in a narrower type, and the scale of int8.

    Args:
        values: Float array (count,), finite.
        kind: `"float32"`, `"float16"`, `"bfloat16"` or `"int8"`. Values are never
            widened: float16 ones stay so for `"float32"`.

    Returns:
        Tuple (array (count,), scale): a Python float that holds a float32, 1 for all
        but int8. Values are array * scale.

    Raises:
        ValueError: If a value is not finite, or beyond the type.

    Example:
    >>> import numpy as np
    >>> encode_values(np.array([-1.27, 0.5]), "int8")[0].tolist()
    [-127, 50]
    """
    with np.errstate(over="ignore"):
        single = values.astype("float32")
    if not np.isfinite(single).all():
        raise ValueError("are not finite numbers of float32")
    if kind == "int8":
        largest = float(np.abs(values).max(initial=0))
        scale = float(np.float32(largest / 127)) or 1.0
        whole = np.rint(values.astype("float64") / scale)
        return np.clip(whole, -127, 127).astype("int8"), scale
    if kind == "float32" and values.dtype.itemsize < 4:
        return values, 1.0
    with np.errstate(over="ignore"):
        narrow = values.astype(dtype_named(kind))
    if not np.isfinite(narrow.astype("float32")).all():
        raise ValueError(f"are too large for {kind}")
    return narrow, 1.0


def decode_values(array, scale, dtype):
    """Return the values of `encode_values` in the type of their tensor.

    Example:
    >>> import numpy as np
    >>> decode_values(np.array([50], "int8"), 0.5, "float32").tolist()
    [25.0]
    """
    if array.dtype != np.int8:
        return array.astype(dtype_named(dtype))
    # Exact in float64, so rounded once, and alike everywhere.
    wide = (array.astype("float64") * scale).astype(np.float32)
    return wide.astype(dtype_named(dtype))
