"""Shared settings: which files run on which backend, and reproducible runs."""

import gc
import os
import resource
import signal
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# With `-n 2` two processes share the cores: more threads in each would spin. Read when
# the libraries load, and by the programs that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import keras
import numpy as np
import pytest

BACKEND = keras.backend.backend()

# A shell starts what it puts in the background deaf to Ctrl-C, and programs that tests
# start and interrupt would inherit it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A collection goes through a million objects, which was 7 % of all time: it waits for
# this many bytes that were taken since the last one.
_GARBAGE = 1 << 30
_STATUS = Path("/proc/self/statm")
if _STATUS.exists():
    gc.set_threshold(100_000, 10, 1000)

if BACKEND == "tensorflow":
    import tensorflow as tf

    # Two devices for the MirroredStrategy tests; must precede any operation.
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * 2
    )

if BACKEND == "jax":
    import jax

    jax.config.update("jax_num_cpu_devices", 2)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """With `-n 2` a file stays on one process: its fixtures and models are made once.

    An option in `addopts` would be an error where pytest-xdist is not installed.
    """
    if getattr(config.option, "dist", None) == "no":
        if config.option.numprocesses:
            config.option.dist = "loadfile"


def pytest_ignore_collect(collection_path, config):
    """Collect only `*_backends.py` when the backend is not TensorFlow."""
    if BACKEND != "tensorflow" and collection_path.suffix == ".py":
        return not collection_path.stem.endswith("_backends")
    return None


def _resident():
    return int(_STATUS.read_text().split()[1]) * resource.getpagesize()


@pytest.fixture(scope="session")
def memory():
    return {"kept": _resident() if _STATUS.exists() else 0}


@pytest.fixture(autouse=True)
def collected(memory):
    yield
    if _STATUS.exists() and _resident() > memory["kept"] + _GARBAGE:
        gc.collect()
        memory["kept"] = _resident()


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def float64():
    # The policy for the layers, floatx for `keras.Input`.
    for dtype in ("float64", "float32"):
        keras.config.set_dtype_policy(dtype)
        keras.config.set_floatx(dtype)
        if dtype == "float64":
            yield


@pytest.fixture
def jax_makes_float64():
    """JAX makes float64 from float64 only when told to."""
    if BACKEND != "jax":
        yield
        return
    import jax

    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)
