"""JSON: what a stranger wrote, parsed within bounds; what numbers become in ours."""

import dataclasses
import json
import math

# The index of a model of 700 billion numbers has 9 MB and a hundred thousand names, the
# config of a network of a thousand layers a tenth of that. One letter beyond the usual
# alphabets makes four bytes of each.
LONGEST = 2**24
# Each may become an object of a hundred bytes.
_MOST_SIGNS = 1_000_000
# A wrapper in a wrapper takes three levels, a model in a model five.
_DEEPEST = 200


def is_too_long(text, times=1):
    """Tell whether a JSON text, bytes, is longer than any that is needed.

    Args:
        text: Bytes.
        times: Integer, how many times as long as a config it may be.
    """
    if len(text) > times * LONGEST:
        return True
    signs = sum(map(text.count, (b"{", b"[", b":", b",")))
    return signs > times * _MOST_SIGNS


def parse_json(text, what, damaged=ValueError, unsafe=ValueError, times=1):
    """Return what a JSON text says.

    Args:
        text: Bytes.
        what: String, what it is: `"index of shards"`.
        damaged: Class of the error if it is no JSON.
        unsafe: Class of the error if it is longer or deeper than any that is needed, or
            a table has two entries of one name.
        times: See `is_too_long`.

    Returns:
        Dict, list, string, number, boolean or `None`.

    Raises:
        ValueError: One of the two; the message goes on from the file's name.

    Example:
    >>> parse_json(b'{"a": [1]}', "index")
    {'a': [1]}
    """
    if is_too_long(text, times):
        raise unsafe(f"has JSON larger than any {what}")
    try:
        value = json.loads(text.decode(), object_pairs_hook=_once)
    except _TwiceError:
        raise unsafe("has two entries of one name in its JSON") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise damaged(f"is damaged (its {what} is no JSON)") from error
    level = [value]
    for _ in range(_DEEPEST):
        level = [inner for item in level for inner in _inside(item)]
        if not level:
            return value
    raise unsafe(f"has JSON nested deeper than any {what}")


def _inside(value):
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


class _TwiceError(Exception):
    """A table with two entries of one name."""


def _once(pairs):
    table = dict(pairs)
    if len(table) < len(pairs):
        raise _TwiceError
    return table


def python_scalar(value):
    """Return a NumPy scalar as a number of Python's, and all else as it is.

    Example:
    >>> import numpy as np
    >>> python_scalar(np.float32(0.5))
    0.5
    """
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        return value.item()
    return value


def plain(value):
    """Return a value as types that JSON has; NaN and infinity become null.

    Args:
        value: What JSON has, dataclasses, NumPy's scalars, and containers of them.

    Example:
    >>> plain({1: (float("nan"), True)})
    {'1': [None, True]}
    """
    if dataclasses.is_dataclass(value):
        return {
            field.name: plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
        }
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    value = python_scalar(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
