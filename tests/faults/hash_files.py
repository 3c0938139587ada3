"""Crafted pickles whose keys have one hash: a table of them is quadratic."""

import math
import struct

from tests.faults.cases import Case
from tests.faults.programs import ORDERED, number, state, tensor, torch_zip, written

P = 2**61 - 1  # Python hashes whole numbers modulo this prime.


def keys(values):
    items = b"".join(value + b"N" for value in values)
    return torch_zip(b"\x80\x02}(" + items + b"u.")


def pairs_of_one_hash(count=30_000):
    """Pairs of numbers of one hash: the second is solved for, the sum being a sum."""
    first, second, third = (
        11400714785074694791,
        14029467366897019727,
        2870177450012600261,
    )
    mask, found, n = 2**64 - 1, [], 0

    def turned(x):
        return (x << 31 | x >> 33) & mask

    inverse, goal = pow(second, -1, 2**64), 12345
    while len(found) < count:
        n += 1
        before = turned((third + n * second) & mask) * first & mask
        lane = (goal - before) * inverse & mask
        signed = lane - 2**64 if lane >> 63 else lane
        if -P < signed < P and signed not in (-1, -2):
            found.append((n, signed))
    assert len({hash(pair) for pair in found[:100]}) == 1
    return found


def colliding_places():
    """Tensors of one number each, whose strides are such pairs and are never used."""
    pairs = [(a, b) for a, b in pairs_of_one_hash() if b >= 0]
    tensors = (tensor(shape=(1, 1), strides=pair) for pair in pairs)
    return torch_zip(state(*((f"{n}.w", it) for n, it in enumerate(tensors))))


PLAIN = {
    "multiples of 2^61 - 1": lambda: keys(number(P * n) for n in range(30_000)),
    "negative multiples": lambda: keys(number(-P * n) for n in range(30_000)),
    "large multiples": lambda: keys(number(P * n << 900) for n in range(30_000)),
    "written multiples": lambda: keys(b"L%dL\n" % (P * n) for n in range(30_000)),
    "floats of one hash": lambda: keys(
        b"G" + struct.pack(">d", math.ldexp(n % 512 + 1, 61 * (n // 512) % 900))
        for n in range(30_000)
    ),
    "pairs of one hash": lambda: keys(
        number(a) + number(b) + b"\x86" for a, b in pairs_of_one_hash()
    ),
    "numbers alike below": lambda: keys(number(n << 45) for n in range(30_000)),
    "pairs in an OrderedDict": lambda: torch_zip(
        b"\x80\x02"
        + ORDERED
        + b"]("
        + b"".join(number(P * n) + b"N\x86" for n in range(30_000))
        + b"e\x85R."
    ),
    "sets of one hash": lambda: torch_zip(
        b"\x80\x04\x8f(" + b"".join(number(P * n) for n in range(30_000)) + b"\x90."
    ),
    "memo of one hash": lambda: (
        b"\x80\x02N" + b"".join(b"p%d\n" % (P * n) for n in range(30_000)) + b"."
    ),
}
CASES = {name: Case(written(make)) for name, make in PLAIN.items()}
CASES["places of one hash"] = Case(written(colliding_places), "read", "'7.w': (1, 1)")
