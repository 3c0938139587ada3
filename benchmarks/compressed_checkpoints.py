"""Sizes of compressed checkpoints, from the files, and their noise's speed.

python benchmarks/compressed_checkpoints.py
"""

import itertools
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from keras_spectral import compression

ROWS, COLUMNS = 4096, 1024


def bits(p, width):
    """Entropy of the mask and the kept values, a weight."""
    return -p * np.log2(p) - (1 - p) * np.log2(1 - p) + p * width


def pruned(law, deviations):
    """Return a model of one kernel whose entries up to tau are zero."""
    weights = getattr(np.random.default_rng(0), law)(size=(ROWS, COLUMNS))
    weights[np.abs(weights) <= deviations * weights.std()] = 0
    layer = keras.layers.Dense(COLUMNS, use_bias=False, name="dense")
    model = keras.Sequential([keras.Input((ROWS,)), layer])
    layer.kernel.assign(weights)
    return model


def sizes(folder):
    """Print the ratio of plain files to compressed ones."""
    path = folder / "model.safetensors"
    print("Bytes of a plain file over the compressed one's, by type of the plain file.")
    print("| weights | tau / sd | kept | index | values | bytes", end="")
    print(" | fp32 | fp16 | int8 | entropy, fp32 |\n" + "|---" * 10 + "|")
    for law, deviations in itertools.product(("laplace", "normal"), (1, 2, 3)):
        model = pruned(law, deviations)
        for values, index in itertools.product(
            ("float32", "float16", "int8"), ("bitmap", "delta")
        ):
            rows = compression.save_compressed(model, path, values=values, index=index)
            kept, total = rows[0].kept, rows[-1]
            width = {"float32": 32, "float16": 16, "int8": 8}[values]
            print(
                f"| {law} | {deviations} | {kept:.2%} | {index} | {values} | "
                f"{total.bytes:,} | {total.float32_ratio:.2f} | "
                f"{total.float16_ratio:.2f} | {total.int8_ratio:.2f} | "
                f"{32 / bits(kept, width):.2f} |"
            )


def speed(folder):
    """Print what saving and loading cost, with noise and without."""
    layer = keras.layers.Dense(COLUMNS, use_bias=False, name="dense")
    model = keras.Sequential([keras.Input((ROWS,)), layer])
    path = folder / "model.safetensors"
    for replacement in ("zero", "matched"):
        compressed = compression.compress(model, replacement=replacement)
        start = time.process_time()
        compression.save_compressed(compressed, path)
        middle = time.process_time()
        compression.load_compressed(path)
        print(
            f"{replacement}: saved in {middle - start:.2f} s, loaded in "
            f"{time.process_time() - middle:.2f} s of CPU time"
        )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        sizes(Path(name))
        speed(Path(name))
