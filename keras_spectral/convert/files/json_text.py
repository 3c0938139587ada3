"""JSON that a stranger wrote, parsed within bounds of memory and depth."""

import json

from keras_spectral.convert.files.errors import CheckpointError, UnsafeCheckpointError

# The index of a model of 700 billion numbers has 9 MB and a hundred thousand names, the
# config of a network of a thousand layers a tenth of that. One letter beyond the usual
# alphabets makes four bytes of each.
LONGEST = 2**24
# Each may become an object of a hundred bytes.
_MOST_SIGNS = 1_000_000
# A wrapper in a wrapper takes three levels, a model in a model five.
_DEEPEST = 200


def parse_json(text, what):
    """Return what a JSON text says.

    Args:
        text: Bytes.
        what: String, what it is: `"index of shards"`.

    Returns:
        Dict, list, string, number, boolean or `None`.

    Raises:
        UnsafeCheckpointError: If it is longer or deeper than any that is needed, or a
            table has two entries of one name.
        CheckpointError: If it is no JSON.

    Example:
    >>> parse_json(b'{"a": [1]}', "index")
    {'a': [1]}
    """
    signs = sum(map(text.count, (b"{", b"[", b":", b",")))
    if len(text) > LONGEST or signs > _MOST_SIGNS:
        raise UnsafeCheckpointError(f"has JSON larger than any {what}")
    try:
        value = json.loads(text.decode(), object_pairs_hook=_once)
    except CheckpointError:
        raise
    except (ValueError, RecursionError, MemoryError) as error:
        raise CheckpointError(f"is damaged (its {what} is no JSON)") from error
    level = [value]
    for _ in range(_DEEPEST):
        level = [inner for item in level for inner in _inside(item)]
        if not level:
            return value
    raise UnsafeCheckpointError(f"has JSON nested deeper than any {what}")


def _inside(value):
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _once(pairs):
    table = dict(pairs)
    if len(table) < len(pairs):
        raise UnsafeCheckpointError("has two entries of one name in its JSON")
    return table
