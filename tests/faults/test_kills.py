"""Twenty kills of what writes; `python -m tests.faults.kills` makes two hundred."""

import os
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a fork")
def test_twenty_kills_leave_nothing_half_written():
    command = [sys.executable, "-m", "tests.faults.kills", "--kills", "20"]
    command += ["--only", "export", "save_compressed", "analyze"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 wrong" in done.stdout.splitlines()[-1]
