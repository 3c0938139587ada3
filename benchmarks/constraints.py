"""What `LipschitzClip` costs in a training step, relative to the same network without.

    python benchmarks/constraints.py [--jit] [--models small ...] [--rounds 7]

One batch under `train_on_batch`, SGD with momentum. One group of steps of each
variant is timed in turn, in random order; the medians of the rounds' ratios of CPU
time to the plain network are printed, with their range. "plain again" is a second
plain network: the noise. Initial kernels are above the bound of 1, so it is active.
"SN" has the same bound by `SpectralNormalization(norm="operator", clip=True)`.
"""

import argparse
import math
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers as kl

import keras_spectral as ks
from keras_spectral.constraints import LipschitzClip

VARIANTS = {
    "plain": lambda: None,
    "plain again": lambda: None,
    "p = 2": lambda: LipschitzClip(1.0, 2),
    "p = inf": lambda: LipschitzClip(1.0, math.inf),
    "SN": lambda: None,
}


def convolutional(channels, shape, pooled=False):
    def build(constraint):
        inputs = x = keras.Input(shape)
        for filters in channels:
            x = kl.Conv2D(filters, 3, padding="same", kernel_constraint=constraint)(x)
            x = kl.MaxPooling2D()(kl.ReLU()(x)) if pooled else kl.ReLU()(x)
        x = kl.GlobalAveragePooling2D()(x)
        return keras.Model(inputs, kl.Dense(10, kernel_constraint=constraint)(x))

    return build


def multilayer_perceptron(constraint):
    inputs = x = keras.Input((784,))
    for _ in range(2):
        x = kl.Dense(256, activation="relu", kernel_constraint=constraint)(x)
    return keras.Model(inputs, kl.Dense(10, kernel_constraint=constraint)(x))


# name -> (builder, input shape, steps a timing)
MODELS = {
    "small": (convolutional((16, 32, 32), (28, 28, 1)), (28, 28, 1), 10),
    "pooled": (convolutional((16, 32, 32), (28, 28, 1), True), (28, 28, 1), 20),
    "wide": (convolutional((64, 64), (32, 32, 3)), (32, 32, 3), 3),
    "mlp": (multilayer_perceptron, (784,), 10),
}


def compiled(name, variant, jit):
    keras.utils.set_random_seed(0)
    model = MODELS[name][0](VARIANTS[variant]())
    if variant == "SN":
        model = ks.wrap(
            model, ks.layers.SpectralNormalization, norm="operator", clip=True
        )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01, 0.9), loss, jit_compile=jit)
    return model


def measure(name, jit, rounds, variants):
    _, shape, steps = MODELS[name]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((32, *shape)).astype("float32")
    y = rng.integers(0, 10, 32)
    models = {variant: compiled(name, variant, jit) for variant in variants}
    for model in models.values():
        for _ in range(3):
            model.train_on_batch(x, y)
    times = {variant: [] for variant in models}
    for _ in range(rounds):
        for variant in rng.permutation(list(models)):
            start = time.process_time()
            for _ in range(steps):
                models[variant].train_on_batch(x, y)
            times[variant].append((time.process_time() - start) / steps)
    plain = np.array(times["plain"])
    print(f"{name}, jit_compile={jit}: plain {1e3 * np.median(plain):.1f} ms", end="")
    for variant in models:
        if variant != "plain":
            ratios = np.array(times[variant]) / plain
            print(
                f"; {variant} {np.median(ratios):.2f} "
                f"({ratios.min():.2f}-{ratios.max():.2f})",
                end="",
            )
    print(flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--jit", action="store_true")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    for name in arguments.models:
        measure(name, arguments.jit, arguments.rounds, VARIANTS)


if __name__ == "__main__":
    main()
