"""Sweeps in other processes, and what becomes of them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from keras_spectral.experiments import engine, sweep
from tests.experiments.sweeps import small, sweeping


@pytest.mark.slow
def test_a_cluster_gives_the_same_rows(tmp_path, folder):
    """With two threads a worker, too, which Keras would not bear."""
    distributed = pytest.importorskip("distributed")
    alone = sweeping(tmp_path, folder)
    shutil.rmtree(tmp_path / "out")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, dashboard_address=None
    ) as cluster:
        rows = sweeping(tmp_path, folder, scheduler=cluster.scheduler_address)
    assert rows.to_dicts() == alone.to_dicts()


def _die(task):
    os._exit(1)


@pytest.mark.slow
def test_a_worker_that_dies_is_a_row(tmp_path, folder, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(sweep, "measure_in_worker", _die)
    rows = sweeping(tmp_path, folder, ["small_digits"], workers=1)
    assert ["KilledWorker" in row.error for row in rows] == [True, True]


@pytest.mark.slow
def test_a_killed_sweep_goes_on(tmp_path, folder):
    """Ctrl-C after the first of 6 rows; the rerun leaves that one as it is."""
    pytest.importorskip("distributed")
    for seed in range(2, 6):
        small(seed).save(folder / f"small_digits-{seed:02}.keras")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "keras_spectral.cli", "sweep"]
    command += ["--models", "small_digits", "--checkpoints", str(folder)]
    command += ["--workers", "1", "--output", str(out)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # Of a group of its own, and with Ctrl-C, which a shell's job may ignore.
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not list(out.glob("rows/*.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    # As a terminal does it: to the workers as well.
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in error and "Traceback" not in error
    finished = {path: path.stat().st_mtime_ns for path in out.glob("rows/*.json")}
    assert 1 <= len(finished) < 6
    assert json.loads((out / "table.json").read_text())["status"] == "interrupted"
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"{len(finished)} rows are there already" in result.stdout
    assert all(path.stat().st_mtime_ns == then for path, then in finished.items())
    assert json.loads((out / "table.json").read_text())["status"] == "complete"


def test_without_dask_this_process_computes(tmp_path, folder, monkeypatch):
    """Unless processes are asked for, and then it says what to install."""
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match="pip install dask distributed"):
        sweeping(tmp_path, folder, workers=2)
    rows = sweeping(tmp_path, folder, workers=None)
    shutil.rmtree(tmp_path / "out")
    assert rows.to_dicts() == sweeping(tmp_path, folder, workers=0).to_dicts()


def test_a_scheduler_that_is_not_there(tmp_path, folder, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(engine, "_PATIENCE", 0.5)
    with pytest.raises(OSError, match="dask scheduler"):
        sweeping(tmp_path, folder, scheduler="tcp://127.0.0.1:9")
    assert not (tmp_path / "out").exists()
