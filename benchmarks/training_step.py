"""Time of a training step with normalized layers, relative to plain layers.

Every variant is the same network and batch under `train_on_batch`; one step of
each is timed in turn, in random order, and the medians of the rounds' ratios
are printed: wall time and CPU time of the process.

    python benchmarks/training_step.py [--rounds 30] [--jit]
"""

import argparse
import functools
import time

import keras
import numpy as np

from keras_spectral import zoo
from keras_spectral.layers import SpectralNormalization, StableRankNormalization

VARIANTS = {
    "plain": lambda layer: layer,
    "plain again": lambda layer: layer,
    "SN": SpectralNormalization,
    "SRN": functools.partial(StableRankNormalization, stable_rank_ratio=0.3),
    "Keras' SN": keras.layers.SpectralNormalization,
}


def multilayer_perceptron(normalize):
    inputs = keras.Input((784,))
    x = inputs
    for _ in range(3):
        x = normalize(keras.layers.Dense(2048, activation="relu"))(x)
    return keras.Model(inputs, normalize(keras.layers.Dense(10))(x))


def resnet20(normalize):
    return zoo.cifar_resnet(20, 10, normalize=normalize)


def measure(build, shape, rounds, jit):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((32, *shape)).astype("float32")
    y = rng.integers(0, 10, 32)
    models = {}
    for name, normalize in VARIANTS.items():
        models[name] = build(normalize)
        models[name].compile(
            keras.optimizers.SGD(0.01, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=jit,
        )
        for _ in range(3):
            models[name].train_on_batch(x, y)
    ratios = {name: [] for name in VARIANTS}
    for _ in range(rounds):
        times = {}
        for name in rng.permutation(list(VARIANTS)):
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(3):
                models[name].train_on_batch(x, y)
            times[name] = time.perf_counter() - wall, time.process_time() - cpu
        for name in VARIANTS:
            ratios[name].append(np.divide(times[name], times["plain"]))
    return {name: np.median(values, axis=0) for name, values in ratios.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--jit", action="store_true")
    arguments = parser.parse_args()
    for label, build, shape in (
        ("MLP 784-3x2048-10, batch 32", multilayer_perceptron, (784,)),
        ("ResNet-20, batch 32", resnet20, (32, 32, 3)),
    ):
        print(f"{label}, jit_compile={arguments.jit}: ratio to plain, wall / CPU")
        results = measure(build, shape, arguments.rounds, arguments.jit)
        for name, (wall, cpu) in results.items():
            print(f"  {name:12} {wall:5.2f} / {cpu:5.2f}")


if __name__ == "__main__":
    main()
