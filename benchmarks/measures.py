"""What measures cost, relative to forward passes of the same network.

    python benchmarks/measures.py [--networks resnet110 vgg19] [--rounds 5]

A batch of 32 images of 32x32 under `predict_on_batch`, and `lipschitz_bound`, in turn;
the medians of the rounds' ratios of CPU time are printed, with their range, and of wall
time.
Set OMP_NUM_THREADS=1 where other work runs: threads that wait for a core spin.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import keras_spectral as ks

NETWORKS = {
    "resnet110": lambda: ks.zoo.cifar_resnet(110, 10),
    "vgg19": lambda: ks.zoo.cifar_vgg(19, 10),
}


def seconds(function):
    """CPU and wall time of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return np.array([time.process_time() - cpu, time.perf_counter() - wall])


def lipschitz_bound(name, method, rounds, passes=20):
    """Print how many forward passes a bound costs."""
    model = NETWORKS[name]()
    x = np.random.default_rng(0).standard_normal((32, 32, 32, 3)).astype("float32")

    def forward():
        for _ in range(passes):
            model.predict_on_batch(x)

    forward()
    ratios = []
    for _ in range(rounds):
        bound = seconds(lambda: ks.measures.lipschitz_bound(model, method=method))
        ratios.append(bound / seconds(forward) * passes)
    cpu, wall = np.median(ratios, axis=0)
    least, most = np.min(ratios, axis=0)[0], np.max(ratios, axis=0)[0]
    print(
        f"{name}, {method}: {cpu:.0f} forward passes of CPU time "
        f"({least:.0f}-{most:.0f}), {wall:.0f} of wall time",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--methods", nargs="+", default=["product", "merged"])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    for name in arguments.networks:
        for method in arguments.methods:
            lipschitz_bound(name, method, arguments.rounds)


if __name__ == "__main__":
    main()
