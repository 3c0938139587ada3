"""Small networks in a folder, and a sweep over them."""

import keras
from rich.console import Console

from keras_spectral.experiments import run_sweep

QUIET = Console(quiet=True)


def small(seed=0, classes=10):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(12, "relu"),
            keras.layers.Dense(classes, name="head"),
        ],
        name="small",
    )


def checkpoints(folder):
    """Save two networks with other weights, and a file that is no network."""
    (folder / "deeper").mkdir(parents=True)
    small(0).save(folder / "small_digits-a.keras")
    small(1).save(folder / "deeper" / "small_digits-b.keras")
    (folder / "broken_digits.keras").write_bytes(b"no zip")
    return folder


def sweeping(tmp_path, folder, models=("all",), **arguments):
    return run_sweep(
        list(models), folder, tmp_path / "out", trials=2,
        **{"workers": 0, "console": QUIET, **arguments},
    )  # fmt: skip
