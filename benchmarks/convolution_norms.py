"""Norms of a convolution: how tight the certificate is, how fast the exact one.

python benchmarks/convolution_norms.py
"""

import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from keras_spectral import linalg


def tightness():
    """Bounds over the exact norms, by the size of the image."""
    rng = np.random.default_rng(0)
    kernels = {
        "3x3, 16 to 32": rng.standard_normal((3, 3, 16, 32)),
        "5x5, 8 to 8": rng.standard_normal((5, 5, 8, 8)),
    }
    print("| kernel | image | certificate / circular | / zero padding | unfoldings |")
    print("|---|---|---|---|---|")
    for name, kernel in kernels.items():
        bound = float(linalg.convolution_norm_bound(kernel))
        unfolding = float(linalg.unfolding_norm_bound(kernel))
        for size in (8, 16, 32):
            circular = linalg.circular_convolution_norm(kernel, (size, size))
            zero = linalg.convolution_singular_values(kernel, (size, size), 1)[0]
            print(
                f"| {name} | {size}x{size} | {bound / circular:.4f} | "
                f"{bound / zero:.4f} | {unfolding / zero:.2f} |"
            )


def speed(rounds=5):
    """Exact circular norm against all SVDs of the Fourier transform."""
    kernel = np.random.default_rng(0).standard_normal((3, 3, 128, 128))

    def full():
        blocks = np.fft.fft2(kernel, (32, 32), axes=(0, 1))
        return np.linalg.svd(blocks, compute_uv=False).max()

    ratios = []
    for _ in range(rounds):
        start = time.process_time()
        expected = full()
        middle = time.process_time()
        norm = linalg.circular_convolution_norm(kernel, (32, 32))
        ratios.append((middle - start) / (time.process_time() - middle))
    print(
        f"3x3x128x128 on 32x32: {np.median(ratios):.1f} times less CPU time than all "
        f"SVDs, relative difference {abs(norm / expected - 1):.0e}"
    )


if __name__ == "__main__":
    tightness()
    speed()
