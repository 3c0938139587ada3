"""Crafted files of PyTorch's older format: pickles, and storages behind them."""

import pickle
import struct

from tests.faults.cases import Case
from tests.faults.programs import (
    get,
    legacy,
    number,
    put,
    state,
    storage,
    tensor,
    text,
    written,
)

PLAIN = state(("a.w", tensor()))
P = 2**61 - 1
SHARED = {}
HALF = b"ctorch\nHalfStorage\n"


def listed(program):
    return lambda: legacy(PLAIN, listed=b"\x80\x02" + program + b".")


def laughing_list():
    program = b"\x80\x02]" + put(0) + b"0"
    for level in range(200):
        program += b"](" + get(level) * 2 + b"e" + put(level + 1) + b"0"
    return legacy(PLAIN, listed=program + b"](" + get(200) + b"e.")


def claimed(numel):
    content = legacy(PLAIN)
    return content[: -(8 + 24)] + struct.pack("<q", numel) + bytes(24)


def many_storages(count):
    keys = [(str(n), bytes(24)) for n in range(count)]
    pairs = [(f"{n}.w", tensor(storage(str(n)))) for n in range(count)]
    return legacy(state(*pairs), keys)


def five_budgets():
    """Every one of the five pickles asks for what one may."""
    full = b"\x80\x02(" + b"}" * 1_200_000 + b"t."
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    return magic + full * 4


def tied(count):
    """One storage that hangs under many names, and deep in a tree."""
    program = b"\x80\x02}" + text("a.w") + tensor() + put(0) + b"s"
    program += b"".join(text(f"{n}.w") + get(0) + b"s" for n in range(count))
    return legacy(program + b".")


CASES = {
    name: Case(written(make), **outcome)
    for name, (make, outcome) in {
        "a list among the storages": (listed(b"]]a"), {}),
        "a dict among the storages": (listed(b"]}a"), {}),
        "a number among the storages": (listed(b"]" + number(10**600) + b"a"), {}),
        "colliding storages": (
            listed(b"](" + b"".join(number(P * n) for n in range(30_000)) + b"e"),
            {},
        ),
        "laughs among the storages": (laughing_list, {}),
        "a list in itself": (listed(b"]" + put(0) + get(0) + b"a"), {}),
        "a storage twice": (listed(b"](" + text("0") * 2 + b"e"), {}),
        "no list of storages": (listed(b"N"), {}),
        "a storage of two types": (
            lambda: legacy(
                state(
                    ("a.w", tensor()),
                    ("b.w", tensor(storage(kind=b"ctorch\nHalfStorage\n"))),
                )
            ),
            {"says": "two types"},
        ),
        "a storage that nothing uses": (
            lambda: legacy(PLAIN, [(n, bytes(24)) for n in "01"]),
            {"says": "nothing uses"},
        ),
        "a storage of 2^62 numbers": (lambda: claimed(2**62), {"says": "is cut off"}),
        "a storage of -1 numbers": (lambda: claimed(-1), {"says": "is cut off"}),
        "a storage of 5 numbers": (lambda: claimed(5), {}),
        "five budgets": (five_budgets, {"says": "objects"}),
        "one dict in one dict": (
            lambda: legacy(pickle.dumps({"a": SHARED, "b": [SHARED] * 100_000}, 2)),
            {},
        ),
        "20,000 storages": (
            lambda: many_storages(20_000),
            {"outcome": "read", "says": "'7.w': (2, 3)"},
        ),
        "30,000 names": (
            lambda: tied(30_000),
            {"outcome": "read", "says": "'7.w': (2, 3)"},
        ),
        "deep": (
            lambda: legacy(b"\x80\x02" + b"]" * 900_000 + b"a" * 899_999 + b"."),
            {},
        ),
    }.items()
}
