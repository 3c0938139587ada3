"""Every crafted file has its outcome, in bounded time and memory."""

import importlib
from pathlib import Path

import pytest

from tests.faults.cases import FULL, reading

CASES = {
    (path.stem, name): case
    for path in sorted(Path(__file__).parent.glob("*_files.py"))
    if path.stem != "test_files"
    for name, case in importlib.import_module(f"tests.faults.{path.stem}").CASES.items()
}
# Seconds each, for `python -m tests.faults --full`; a smaller one of its kind is tried
# here.
LONG = {
    "hdf5_files": ["60,000 links"],
    "keras_model_files": ["100,000 layers of one name"],
    "legacy_files": ["deep", "five budgets"],
    "many_files": ["one number an array", "one type by many names"],
    "numpy_files": ["16,384 members"],
    "pickle_files": [
        "40,000 tensors", "deep dicts", "deep lists", "deep tuples in a zip",
        "empty dicts", "empty lists", "empty sets", "functions", "memo of millions",
        "named arguments", "60 million instructions",
    ],
    "safetensors_files": [
        "300,000 tensors", "4 million names", "500,000 tensors", "back and forth",
        "30 million lists", "45 million numbers", "metadata of 90 MB",
    ],
    "zip_files": ["60,000 members", "a folder of 60,000 letters"],
}  # fmt: skip


@pytest.fixture(scope="module")
def read():
    with reading() as function:
        yield function


def test_what_takes_long_is_there():
    assert {(kind, name) for kind in LONG for name in LONG[kind]} <= CASES.keys()


@pytest.mark.parametrize(
    "kind, name",
    [(kind, name) for kind, name in CASES if FULL or name not in LONG.get(kind, ())],
)
def test_outcome(kind, name, read, tmp_path):
    case = CASES[kind, name]
    outcome = read(case.write(tmp_path), case)
    assert outcome.kind != "crash", outcome
    if case.outcome != "either":
        assert outcome.kind == case.outcome, outcome
    assert case.says in outcome.text
    # No message prints more than a few hundred characters of a file.
    assert outcome.kind == "read" or len(outcome.text) < 1200
    assert outcome.text.isprintable() or outcome.text.replace("\n", "").isprintable()
