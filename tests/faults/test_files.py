"""Every crafted file has its outcome, in bounded time and memory."""

import importlib
from pathlib import Path

import pytest

from tests.faults.cases import reading

CASES = {
    (path.stem, name): case
    for path in sorted(Path(__file__).parent.glob("*_files.py"))
    if path.stem != "test_files"
    for name, case in importlib.import_module(f"tests.faults.{path.stem}").CASES.items()
}


@pytest.fixture(scope="module")
def read():
    with reading() as function:
        yield function


@pytest.mark.parametrize("kind, name", CASES)
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
