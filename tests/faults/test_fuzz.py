"""The fuzzer finds what it is for, and nothing in some hundred changed files."""

import json
import random
import subprocess
import sys

import pytest

from tests.faults import fuzz, mutations
from tests.faults.names import header, keras_model


def test_some_hundred_changed_files_are_read_or_refused():
    formats = [name for name in fuzz.FORMATS if name != "compressed"]
    arguments = [x for name in formats for x in ("--format", name)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.fuzz", "--cases", "150", *arguments],
        capture_output=True, text=True,
    )  # fmt: skip
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [found["format"] for found in results] == formats, done.stderr
    for found in results:
        assert found["findings"] == [], found
        assert found["read"] + found["refused"] == found["cases"] == 150
    assert done.returncode == 0
    # Changes reach behind the first check.
    assert sum(found["read"] for found in results) > 10


def crash(path):
    raise RuntimeError("what no reader may raise\x1b")


def endless(path):
    while True:
        pass


def hostile(path):
    raise ValueError("\x1b[2J")


@pytest.mark.parametrize(
    "read, found",
    [
        (crash, "ends in RuntimeError('what no reader"),
        (endless, "takes more than"),
        (hostile, "says '\\x1b[2J"),
        (len, "ends in TypeError"),
        (str, "read"),
        (int, "refused"),
    ],
)
def test_what_is_neither_read_nor_refused_is_found(read, found, tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "CPU_SECONDS", 0.2)
    monkeypatch.setattr(fuzz.signal, "setitimer", _timer(fuzz.signal.setitimer))
    path = 3 if read is len else "a"
    assert fuzz._judged(read, ValueError, path).startswith(found)


def _timer(setitimer):
    def timer(which, seconds):
        def overrun(*_):
            raise fuzz._Overrun

        fuzz.signal.signal(fuzz.signal.SIGPROF, overrun)
        return setitimer(which, seconds)

    return timer


def test_a_worker_that_dies_is_found(monkeypatch, tmp_path):
    script = "import os, sys; print(7, flush=True); os.kill(os.getpid(), 11)"
    started = subprocess.Popen
    monkeypatch.setattr(
        fuzz.subprocess,
        "Popen",
        lambda command, **options: started([sys.executable, "-c", script], **options),
    )
    result = {"cases": 0, "read": 0, "refused": 0, "findings": []}
    assert fuzz._batch([], result) == 1
    assert result["findings"] == [[7, "the process dies (-11)", ""]]


@pytest.mark.parametrize("kind", mutations.STRUCTURAL)
def test_changes_are_the_same_for_the_same_seed(kind):
    seed = keras_model() if kind in ("zip", "npz", "keras") else header()

    def made():
        source = random.Random(3)
        return [mutations.changed(kind, seed, source, seed) for _ in range(20)]

    first = made()
    # A zip notes the time.
    assert [len(x) for x in first] == [len(x) for x in made()]
    assert len(set(first)) > 10


@pytest.mark.parametrize("kind", fuzz.FORMATS[:-1])
def test_every_format_has_files_to_begin_with(kind, tmp_path):
    assert fuzz.write_seeds(tmp_path, kind, crafted=False) > 5
    for path in tmp_path.iterdir():
        assert fuzz.kind_of(path.read_bytes()) == kind
