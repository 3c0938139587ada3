"""What GANs cost: a training step, generated images, the Fréchet distance.

    python benchmarks/gan.py steps [--width 128] [--rounds 5] [--mimicry FOLDER]
    python benchmarks/gan.py memory [--width 128] [--rounds 5] [--mimicry FOLDER]
    python benchmarks/gan.py generate [--width 256] [--rounds 5]
    python benchmarks/gan.py frechet [--samples 5000] [--rounds 5]

Variants are timed in turn in one process, wall and CPU time; medians of the rounds'
ratios to the first one, and their ranges. `steps` is one update of the discriminator
on 64 real and 64 generated images and one of the generator on 128 latents, of SNGAN for
32 pixels; on TensorFlow, JAX or torch (`KERAS_BACKEND`). With `--mimicry`, a folder of
its source (see `mimicry_parity.py`), mimicry's own step in PyTorch is beside them.
`memory` is by how much three such steps raise the peak of a fresh process.
"""

import argparse
import os
import resource
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import scipy.linalg

import keras_spectral as ks
from keras_spectral.gan.metrics import Statistics, frechet_distance

NORMALIZERS = {
    "plain": None,
    "SN": ks.layers.SpectralNormalization,
    "SRN-70": lambda layer: ks.layers.StableRankNormalization(layer, 0.7),
    "Keras' SN": keras.layers.SpectralNormalization,
    "plain again": None,
}
MIMICRY = "mimicry's SNGAN, PyTorch"


def timed(function):
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - cpu


def compare(variants, rounds):
    """Print each variant's seconds, and its ratio to the first one."""
    found = {name: [] for name in variants}
    for function in variants.values():
        function()  # What is compiled or cached comes first.
    for _ in range(rounds):
        for name, function in variants.items():
            found[name].append(timed(function))
    print("| | seconds | wall | CPU |\n|---|---|---|---|")
    first = np.array(next(iter(found.values())))
    for name, times in found.items():
        times = np.array(times)
        wall, cpu = (
            f"{np.median(ratio):.2f} ({ratio.min():.2f}-{ratio.max():.2f})"
            for ratio in (times / first).T
        )
        print(f"| {name} | {np.median(times[:, 0]):.3f} | {wall} | {cpu} |")


def trainer(normalize, width, generator_width):
    gan = ks.zoo.resnet_gan(
        normalize=normalize,
        width=width,
        generator_width=generator_width,
        discriminator_steps=1,
        seed=0,
    )
    gan.compile()
    images = np.random.default_rng(0).uniform(-1, 1, (64, 32, 32, 3)).astype("float32")
    return lambda: gan.train_on_batch(images)


def step_of(name, arguments):
    """Return a function that updates both networks of a variant."""
    width = arguments.width or 128
    if name == MIMICRY:
        return mimicry_step(arguments.mimicry, width)
    return trainer(NORMALIZERS[name], width, 2 * width)


def names(arguments):
    return [*NORMALIZERS, *[MIMICRY] * (arguments.mimicry is not None)]


def steps(arguments):
    variants = {name: step_of(name, arguments) for name in names(arguments)}
    compare(variants, arguments.rounds)


def memory(arguments):
    """Print each variant's MiB, and the medians of the ratios to the first one."""
    found = {name: [] for name in names(arguments)}
    options = [f"--width={arguments.width or 128}"]
    options += [f"--mimicry={arguments.mimicry}"] * (arguments.mimicry is not None)
    for _ in range(arguments.rounds):
        for name, peaks in found.items():
            output = subprocess.run(
                [sys.executable, __file__, "peak", f"--variant={name}", *options],
                check=True, capture_output=True, text=True,
            ).stdout  # fmt: skip
            peaks.append(float(output.splitlines()[-1]))
    print("| | MiB | ratio |\n|---|---|---|")
    first = np.array(next(iter(found.values())))
    for name, peaks in found.items():
        ratio = np.array(peaks) / first
        print(
            f"| {name} | {np.median(peaks):.0f} "
            f"| {np.median(ratio):.2f} ({ratio.min():.2f}-{ratio.max():.2f}) |"
        )


def peak(arguments):
    """Print by how many MiB three steps raise this process' peak."""
    step = step_of(arguments.variant, arguments)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):
        step()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print((after - before) / 1024)


def mimicry_step(folder, width):
    from mimicry_parity import Trainer, imported

    peer = Trainer(imported(folder), width, 2 * width)
    images = np.random.default_rng(0).uniform(-1, 1, (64, 32, 32, 3)).astype("float32")

    def step():
        peer.judge(images)
        peer.make(128)

    return step


def generate(arguments):
    width = arguments.width or 256
    gan = ks.zoo.resnet_gan(width=8, generator_width=width)
    latents = np.random.default_rng(0).standard_normal((256, gan.latent))
    latents = latents.astype("float32")

    def called():
        for start in range(0, 256, 64):
            keras.ops.convert_to_numpy(gan.generator(latents[start : start + 64]))

    compare(
        {
            "generate": lambda: gan.generate(256, seed=0),
            "layer by layer": called,
        },
        arguments.rounds,
    )


def frechet(arguments):
    rng = np.random.default_rng(0)
    scales = 1 / np.sqrt(np.arange(1, 2049))
    x, y = (
        (rng.standard_normal((arguments.samples, 2048)) * scales).astype("float32")
        for _ in range(2)
    )

    def covariances():
        return [np.cov(z.astype("float64"), rowvar=False) for z in (x, y)]

    def by_square_root():
        one, other = covariances()
        return np.trace(np.real(scipy.linalg.sqrtm(one @ other)))

    def by_eigenvalues():
        one, other = covariances()
        return np.sqrt(np.linalg.eigvals(one @ other).astype(complex)).real.sum()

    def ours():
        one, other = Statistics(), Statistics()
        one.update(x)
        other.update(y)
        return frechet_distance(one, other)

    compare(
        {
            "ours": ours,
            "eigenvalues of the product, as torch-fidelity": by_eigenvalues,
            "SciPy's sqrtm, as pytorch-fid": by_square_root,
        },
        arguments.rounds,
    )


def main():
    what = {each.__name__: each for each in (steps, memory, peak, generate, frechet)}
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=what)
    parser.add_argument("--width", type=int, help="Default: the papers'.")
    parser.add_argument("--mimicry", help="Folder with torch_mimicry.")
    parser.add_argument("--variant", default="plain", help="Of `peak`, one process.")
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    what[arguments.what](arguments)


if __name__ == "__main__":
    main()
