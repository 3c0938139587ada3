"""Crafted pickles: what opcodes can make of few bytes."""

import pickle

from tests.faults.cases import Case


def nested_by_reference(folder):
    """One dictionary nested in itself by reference, 300 keys, 4 levels."""
    inner = {}
    for _ in range(4):
        inner = {str(i): inner for i in range(300)}
    path = folder / "a.pth"
    path.write_bytes(pickle.dumps(inner, protocol=2))
    return path


CASES = {"nested by reference": Case(nested_by_reference)}
