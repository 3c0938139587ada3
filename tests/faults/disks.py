"""Disks that are full at any byte, under every function of the library that writes."""

import functools
import resource
import signal

import keras
import numpy as np
from matplotlib.figure import Figure

from keras_spectral import compression, convert, report
from keras_spectral.files import write_json


@functools.cache
def network():
    return keras.Sequential([keras.Input((40,)), keras.layers.Dense(60, name="fc")])


@functools.cache
def imported():
    state = {"fc.weight": np.ones((60, 40)), "fc.bias": np.ones(60)}
    return convert.from_torch(state, network.__wrapped__())


@functools.cache
def figure():
    made = Figure()
    made.subplots().plot(np.sin(np.arange(900.0)))
    return made


SAVERS = {
    "model": ("a.keras", lambda path: convert.save_model(network(), path)),
    "card": ("a.keras", lambda path: convert.save_model(imported(), path)),
    "safetensors": ("a.safetensors", lambda path: convert.to_torch(network(), path)),
    "pth": ("a.pth", lambda path: convert.to_torch(network(), path)),
    "compressed": (
        "a.safetensors",
        lambda path: compression.save_compressed(network(), path),
    ),
    "png": ("a.png", lambda path: report.save(figure(), path)),
    "pdf": ("a.pdf", lambda path: report.save(figure(), path)),
    "svg": ("a.svg", lambda path: report.save(figure(), path)),
    "json": ("a.json", lambda path: write_json(path, {"a": "x" * 9000})),
}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def fill(folder, saver, limits):
    """Save over a file where disks are full, and see that it stays as it was.

    Args:
        folder: `pathlib.Path`, an empty folder.
        saver: A key of `SAVERS`.
        limits: Integer >= 4, at how many sizes of the file the disk is full: at none,
            at one byte less than all, and at sizes between.

    Returns:
        Integer, how many disks were full.
    """
    name, save = SAVERS[saver]
    path = folder / name
    save(path)
    before, size = contents(folder), path.stat().st_size
    places = {*np.linspace(9, size - 20, limits - 2).astype(int).tolist(), 0, size - 1}
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    own = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        for limit in sorted(places):
            told = None
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, own[1]))
            try:
                save(path)
            except OSError as error:
                told = error
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, own)
            assert told is not None, f"nothing is said of a disk of {limit} bytes"
            assert told.filename == str(path) and told.errno and told.strerror
            assert "\n" not in str(told)
            assert contents(folder) == before
    finally:
        signal.signal(signal.SIGXFSZ, handler)
    return len(places)
