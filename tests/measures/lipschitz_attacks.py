"""Small networks of every wiring, and pairs of inputs that they move apart the most."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers as kl

from keras_spectral.layers import SpectralNormalization, StableRankNormalization

IMAGE = (5, 5, 2)


def randomized(model, seed=0):
    """Give each weight numbers of its own, as large as its fan-in asks for."""
    rng = np.random.default_rng(seed)
    for weight in model.trainable_weights + model.non_trainable_weights:
        if not weight.dtype.startswith("float"):
            continue
        fan_in = max(1, np.prod(weight.shape[:-1], dtype=int))
        if "variance" in weight.path or "gamma" in weight.path:
            weight.assign(rng.uniform(0.5, 2.0, weight.shape))
        elif "/u" not in weight.path and "/v" not in weight.path:
            weight.assign(rng.standard_normal(weight.shape) / fan_in**0.5)
    return model


def _convolution(filters=4, **arguments):
    return kl.Conv2D(filters, 3, padding="same", **arguments)


def linear_chain(x):
    x = kl.AveragePooling2D(2)(kl.BatchNormalization()(_convolution()(x)))
    return kl.Dense(3)(kl.Flatten()(x))


def linear_branches(x):
    y = kl.Concatenate()([_convolution()(x), kl.BatchNormalization()(x)])
    y = kl.Add()([_convolution(6)(y), y])
    return kl.Dense(3)(kl.GlobalAveragePooling2D()(y))


def chain(x):
    for _ in range(2):
        x = kl.BatchNormalization()(_convolution(activation="relu")(x))
    return kl.Dense(3)(kl.Dense(12, "tanh")(kl.Flatten()(x)))


def residual(x):
    x = _convolution()(x)
    for _ in range(2):
        y = kl.ReLU()(kl.BatchNormalization()(_convolution()(x)))
        x = kl.ReLU()(kl.Add()([x, kl.BatchNormalization()(_convolution()(y))]))
    return kl.Dense(3)(kl.GlobalAveragePooling2D()(x))


def concatenation(x):
    for _ in range(2):
        y = _convolution()(kl.ReLU()(kl.BatchNormalization()(x)))
        x = kl.Concatenate()([x, y])
    return kl.Dense(3)(kl.GlobalAveragePooling2D()(x))


def pooled(x):
    x = kl.MaxPooling2D(3, 2, "same")(_convolution(activation="gelu")(x))
    x = kl.MaxPooling2D(2)(_convolution(activation="relu")(x))
    return kl.Dense(3)(kl.Flatten()(x))


def wrapped(x):
    x = SpectralNormalization(_convolution(activation="relu"), norm="operator")(x)
    x = kl.Flatten()(kl.AveragePooling2D(2)(x))
    x = StableRankNormalization(kl.Dense(8, "relu"), stable_rank_ratio=0.5)(x)
    return SpectralNormalization(kl.Dense(3))(x)


NETWORKS = {
    make.__name__.replace("_", " "): make
    for make in (
        linear_chain,
        linear_branches,
        chain,
        residual,
        concatenation,
        pooled,
        wrapped,
    )
}


def network(name):
    """Return one of `NETWORKS` in float64, with random weights."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    try:
        x = keras.Input(IMAGE, dtype="float64")
        return randomized(keras.Model(x, NETWORKS[name](x)))
    finally:
        keras.config.set_dtype_policy(before)


def largest_of_pairs(model, seed=0):
    """Return the largest |f(x) - f(y)| / |x - y|, and of how many pairs of inputs.

    All pairs of points of three sizes, in clusters: most far apart, some near.
    """
    rng = np.random.default_rng(seed)
    largest, pairs = 0.0, 0
    for scale in (0.1, 1.0, 10.0):
        x = rng.standard_normal((26, 1, *IMAGE)) * scale
        x = (x + 1e-3 * scale * rng.standard_normal((26, 10, *IMAGE))).reshape(-1, 50)
        y = model(x.reshape(-1, *IMAGE)).numpy()
        first, second = np.triu_indices(len(x), 1)
        moved = np.linalg.norm(y[first] - y[second], axis=1)
        ratios = moved / np.linalg.norm(x[first] - x[second], axis=1)
        largest, pairs = max(largest, float(ratios.max())), pairs + len(first)
    return largest, pairs


def _ratios(model, x, y):
    moved = tf.reshape(model(x) - model(y), (len(x), -1))
    return tf.norm(moved, axis=1) / tf.norm(tf.reshape(x - y, (len(x), -1)), axis=1)


def largest_by_ascent(model, count=32, steps=100, seed=0):
    """Return the largest ratio that gradient ascent on both ends of pairs finds.

    Pairs begin along the directions that the network moves most at random points.
    """
    rng = np.random.default_rng(seed)
    x = tf.constant(rng.standard_normal((count, *IMAGE)))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reshape(model(x), (count, -1))
    jacobians = tf.reshape(tape.batch_jacobian(y, x), (count, y.shape[1], -1))
    directions = np.linalg.svd(jacobians.numpy())[2][:, 0].reshape(x.shape)
    sizes = np.logspace(-4, 1, count).reshape(-1, 1, 1, 1)

    @tf.function
    def step(x, y, rate):
        with tf.GradientTape() as tape:
            tape.watch((x, y))
            ratios = _ratios(model, x, y)
            total = tf.reduce_sum(tf.math.log(ratios))
        distances = tf.reshape(tf.norm(tf.reshape(x - y, (count, -1)), axis=1), (-1, 1))
        moved = []
        for end, gradient in zip((x, y), tape.gradient(total, (x, y)), strict=True):
            length = tf.norm(tf.reshape(gradient, (count, -1)), axis=1, keepdims=True)
            scale = tf.reshape(rate * distances / (length + 1e-30), (-1, 1, 1, 1))
            moved.append(end + scale * gradient)
        return *moved, tf.reduce_max(ratios)

    y, largest = x + directions * sizes, 0.0
    for at in range(steps):
        x, y, found = step(x, y, tf.constant(0.3 / (1 + at / 10), "float64"))
        largest = max(largest, float(found))
    return largest
