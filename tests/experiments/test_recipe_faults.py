"""Recipes that are killed, and disks that are full."""

import os
import signal
import subprocess
import sys

import pytest

from tests.experiments import tiny


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a fork")
def test_two_kills_end_in_the_same_numbers():
    """`python -m tests.experiments.kills` makes fifty."""
    command = [sys.executable, "-m", "tests.experiments.kills", "--count", "2"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all bit-equal" in done.stdout


def test_a_full_disk_leaves_what_was_there(tmp_path):
    resource = pytest.importorskip("resource")
    output = tmp_path / "out"

    def files():
        found = (path for path in output.rglob("*") if path.is_file())
        return {path: path.read_bytes() for path in found}

    row = tiny.run(output, changes=["schedule.epochs=1"])
    before, own = files(), resource.getrlimit(resource.RLIMIT_FSIZE)
    assert row["error"] is None and len(before) == 8
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40, own[1]))
    try:
        with pytest.raises(OSError, match="what was there stays") as caught:
            tiny.run(output, changes=["schedule.epochs=2"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, own)
        signal.signal(signal.SIGXFSZ, handler)
    assert str(output) in caught.value.filename
    assert files() == before
