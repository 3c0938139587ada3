"""How long a page of many layers takes to make and to open, and how large it is.

Prints a line a page. Opening is timed in Chromium, without what an empty page takes, if
it is installed: `python -m benchmarks.pages`.
"""

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from keras_spectral import report

FLAGS = "--headless --no-sandbox --disable-gpu --no-first-run --window-size=1400,900"
EMPTY = "<!doctype html><title>Empty</title>"


def analysis(layers, values=1000, seed=0):
    """What `analyze` leaves of a network of so many layers."""
    rng = np.random.default_rng(seed)
    spectra = np.sort(rng.pareto(3, (layers, values)) + 1)[:, ::-1]
    tensors = [
        dict(name=f"encoder.layer.{number}.attention.projection.weight", kind="matrix",
             shape=[values, values], note=None, spectral_norm=float(s[0] ** 0.5),
             stable_rank=float(s.sum() / s[0]), view="matrix", alpha_pdf=4.0,
             standard_error=0.1, tail_size=200, status="ok", eigenvalue_alpha=4.0,
             eigenvalue_error=0.1, eigenvalue_tail=200, eigenvalue_status="ok",
             eigenvalue_xmin=float(s[200]), spikes=3, bulk="ok", shuffled_spikes=0,
             root_mean_square=1.0, kurtosis=0.0, alpha_hat=3.0, log_norm=1.0,
             log_alpha_norm=1.0, bulk_edge=float(s[3]), sampled=values**2,
             eigenvalues=s.tolist())
        for number, s in enumerate(spectra)
    ]  # fmt: skip
    return {"source": {"file": "model.safetensors"}, "tensors": tensors, "skipped": {}}


def opened(text, times=3):
    """Return the least seconds in which Chromium draws a page, its own start too."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(text, encoding="utf-8")
        command = ["chromium", *FLAGS.split(), f"--screenshot={folder}/a.png"]
        best = float("inf")
        for _ in range(times):
            start = time.perf_counter()
            subprocess.run([*command, f"file://{page}"], capture_output=True)
            best = min(best, time.perf_counter() - start)
    return best


def main():
    """Print a line a page."""
    start = opened(EMPTY) if shutil.which("chromium") else None
    for layers in (100, 500):
        content = analysis(layers)
        before = time.process_time()
        text = report.page(content)
        line = f"{layers} layers: {len(text.encode()):,} bytes, made in "
        line += f"{time.process_time() - before:.2f} s"
        if start is not None:
            line += f", opened in {opened(text) - start:.2f} s"
        print(line)


if __name__ == "__main__":
    main()
