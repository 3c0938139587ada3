"""What an analysis costs as layers, widths and checkpoints grow, in CPU time.

    python benchmarks/scale.py

One thread, no backend: `experiments.analyze_checkpoint` of random matrices in a
safetensors file. CPU time, since a shared machine's clock says nothing.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from keras_spectral.experiments import analyze_checkpoint


def cost(folder, layers, width):
    """CPU seconds of an analysis, and of reading the file alone."""
    random = np.random.default_rng(0)
    path = Path(folder) / "net.safetensors"
    shape = layers, width, width
    kernels = random.standard_normal(shape, "float32") / np.sqrt(width)
    save_file({f"fc{i}.weight": kernels[i] for i in range(layers)}, path)
    start = time.process_time()
    analyze_checkpoint(path, workers=1)
    return time.process_time() - start, path.stat().st_size


def main():
    with tempfile.TemporaryDirectory() as folder:
        cost(folder, 1, 64)  # what is imported when it is needed
        print("| layers | width | MB | CPU s | CPU s a layer | peak MB |")
        print("|---|---|---|---|---|---|")
        for layers, width in (
            (4, 256), (16, 256), (64, 256), (4, 512), (2, 1024), (1, 2048)
        ):  # fmt: skip
            seconds, size = cost(folder, layers, width)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(
                f"| {layers} | {width} | {size / 1e6:.1f} | {seconds:.2f} "
                f"| {seconds / layers:.3f} | {peak:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
