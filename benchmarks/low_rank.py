"""How much faster factorized layers are, and what projections cost.

    python benchmarks/low_rank.py

Ratios of medians of five rounds; in a round original and copy take turns.
"""

import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from keras import layers as kl

from keras_spectral.compression.factorization import factorize
from keras_spectral.compression.projection import project_matrix, project_vector

ROUNDS = 5


def dense_model(units):
    return keras.Sequential([keras.Input((units,)), kl.Dense(units, name="layer")])


def convolution_model(channels):
    layer = kl.Conv2D(channels, 3, padding="same", name="layer")
    return keras.Sequential([keras.Input((32, 32, channels)), layer])


def inference(model, x):
    function = tf.function(lambda x: model(x, training=False), jit_compile=False)
    return lambda: function(x).numpy()


def training(model, x):
    model.compile("sgd", "mse")
    y = np.zeros((len(x), *model.output_shape[1:]), "float32")
    return lambda: model.train_on_batch(x, y)


def seconds(function, repeats):
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    return (time.perf_counter() - start) / repeats


def ratio(step, model, copy, x):
    """Return median seconds of the original and of the copy."""
    functions = [step(model, x), step(copy, x)]
    for function in functions:
        seconds(function, 2)
    repeats = max(1, round(0.3 / seconds(functions[0], 2)))
    rounds = [[seconds(function, repeats) for function in functions]]
    while len(rounds) < ROUNDS:
        rounds.append([seconds(function, repeats) for function in functions])
    return [statistics.median(times) for times in zip(*rounds, strict=True)]


def networks():
    print("| layer | rank | batch | parameters | multiply-adds |", end="")
    print(" inference | training step |\n" + "|---" * 7 + "|")
    cases = [(dense_model, 2048, ratio, 64) for ratio in (0.4, 0.25, 0.1)]
    cases += [(dense_model, 2048, 0.1, 1), (dense_model, 256, 0.1, 64)]
    cases += [(convolution_model, 128, ratio, 8) for ratio in (0.5, 0.25, 0.1)]
    for build, size, rank_ratio, batch in cases:
        model = build(size)
        copy, (row, _) = factorize(model, rank_ratio=rank_ratio)
        shape = (batch, *model.input_shape[1:])
        x = np.random.default_rng(0).standard_normal(shape).astype("float32")
        faster = []
        for step in (inference, training):
            before, after = ratio(step, model, copy, x)
            faster.append(f"{before / after:.2f}")
        print(
            f"| {row.kind} {row.shape[0]} x {row.shape[1]} | {row.rank} | {batch} | "
            f"1 / {row.parameters_before / row.parameters_after:.2f} | "
            f"1 / {row.multiply_adds_before / row.multiply_adds_after:.2f} | "
            f"{faster[0]} | {faster[1]} |",
            flush=True,
        )


def projections():
    c = np.full(10_000, 0.01)
    A = np.random.default_rng(0).standard_normal((256, 128))
    for name, function in (
        ("Vector-Project, h = 10,000", lambda: project_vector(c, 0.5, 0.1, seed=0)),
        ("Matrix-Project, 256 x 128", lambda: project_matrix(A, 0.2, 0.1, seed=0)),
    ):
        coefficients = len(function()[0])
        times = [seconds(function, 1) for _ in range(ROUNDS)]
        print(f"{name}: k = {coefficients}, {statistics.median(times):.2f} s")


if __name__ == "__main__":
    networks()
    projections()
