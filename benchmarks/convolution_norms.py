"""How close the certificates of a convolution are, and what its norm costs.

    python benchmarks/convolution_norms.py ratios [--sizes 8 16 32]
    python benchmarks/convolution_norms.py time [--rounds 5]

`ratios`: certificates above the exact norms, by image size. The norm with zero
padding is by Lanczos iteration, the circular one by Fourier transforms. The
unfolding bound and the certificate hold for every size, the norms for theirs.

`time`: the circular norm beside the whole circular spectrum as published (the
complex Fourier transform and the SVD at every frequency, in NumPy); interleaved in
random order, medians of the rounds' ratios, wall / CPU time of the process.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from keras_spectral.linalg import (
    circular_convolution_norm,
    convolution_norm_bound,
    convolution_operator,
    operator_singular_values,
    unfolding_norm_bound,
)


def kernels():
    rng = np.random.default_rng(0)
    delta = np.zeros((3, 3, 16, 16))
    delta[1, 1] = np.eye(16)
    return {
        "Gaussian 3x3x16x16": rng.standard_normal((3, 3, 16, 16)) / 12,
        "Gaussian 3x3x3x64": rng.standard_normal((3, 3, 3, 64)) / 8,
        "Gaussian 5x5x8x8": rng.standard_normal((5, 5, 8, 8)) / 14,
        "constant 3x3x16x16": np.full((3, 3, 16, 16), 1 / 144),
        "delta 3x3x16x16": delta,
        # Certificates do not see a stride, which lowers the norm.
        "Gaussian 4x4x16x16, stride 2": rng.standard_normal((4, 4, 16, 16)) / 16,
    }


def ratios(sizes):
    print(
        "| kernel | image | certificate / circular | certificate / zero padding |",
        end="",
    )
    print(" unfolding / zero padding |\n|---|---|---|---|---|")
    for name, kernel in kernels().items():
        strides = 2 if "stride" in name else 1
        certificate = float(convolution_norm_bound(kernel))
        unfolding = float(unfolding_norm_bound(kernel))
        for size in sizes:
            operator = convolution_operator(kernel, (size, size), strides, "same")
            zero = operator_singular_values(operator, 1)[0]
            circular = circular_convolution_norm(kernel, (size, size), strides)
            values = certificate / circular, certificate / zero, unfolding / zero
            numbers = " | ".join(f"{value:.4f}" for value in values)
            print(f"| {name} | {size}x{size} | {numbers} |", flush=True)


def whole_spectrum(kernel, input_size):
    transforms = np.fft.fft2(kernel, input_size, axes=(0, 1))
    return np.linalg.svd(transforms, compute_uv=False)


def timing(rounds):
    order = np.random.default_rng(0)
    print("| kernel | image | times faster (wall / CPU) | relative difference |")
    print("|---|---|---|---|")
    for shape, size in [
        ((3, 3, 128, 128), 32),
        ((3, 3, 16, 16), 32),
        ((3, 3, 3, 64), 112),
    ]:
        kernel = order.standard_normal(shape) / np.sqrt(9 * shape[2])
        variants = {
            "norm": lambda k=kernel, n=size: circular_convolution_norm(k, (n, n)),
            "all": lambda k=kernel, n=size: whole_spectrum(k, (n, n)).max(),
        }
        found, quotients = {}, []
        for _ in range(rounds):
            spent = {}
            for name in order.permutation(list(variants)):
                wall, cpu = time.perf_counter(), time.process_time()
                found[name] = variants[name]()
                spent[name] = time.perf_counter() - wall, time.process_time() - cpu
            quotients.append(np.divide(spent["all"], spent["norm"]))
        wall, cpu = np.median(quotients, axis=0)
        difference = abs(found["norm"] / found["all"] - 1)
        print(
            f"| {'x'.join(map(str, shape))} | {size}x{size} | {wall:.1f} / {cpu:.1f} "
            f"| {difference:.0e} |",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("ratios")
    command.add_argument("--sizes", type=int, nargs="+", default=[8, 16, 32])
    command = commands.add_parser("time")
    command.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.command == "ratios":
        ratios(arguments.sizes)
    else:
        timing(arguments.rounds)


if __name__ == "__main__":
    main()
