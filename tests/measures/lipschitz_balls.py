"""What points of balls, and the Jacobians there, show of a network."""

import math

import numpy as np
import tensorflow as tf
from keras import ops


def randomized(model, seed=0):
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        value = rng.standard_normal(weight.shape) / max(1, weight.shape[-1]) ** 0.5
        if "variance" in weight.path:
            value = rng.uniform(0.5, 2.0, weight.shape)
        weight.assign(value)
    return model


def outputs(model, arrays):
    made = model(arrays if len(arrays) > 1 else arrays[0])
    made = made if isinstance(made, list) else [made]
    parts = [ops.convert_to_numpy(y).reshape(len(arrays[0]), -1) for y in made]
    return np.concatenate(parts, axis=1)


def steepest(model, arrays):
    """The norms of the Jacobians, by differences along their own top directions."""
    x = [tf.constant(array) for array in arrays]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        made = model(x if len(x) > 1 else x[0])
        made = made if isinstance(made, list) else [made]
        y = tf.concat([tf.reshape(part, (len(arrays[0]), -1)) for part in made], 1)
        columns = [y[:, at] for at in range(y.shape[1])]
    rows = []
    for column in columns:
        parts = tape.gradient(column, x, unconnected_gradients="zero")
        parts = [tf.reshape(part, (len(arrays[0]), -1)) for part in parts]
        rows.append(tf.concat(parts, 1))
    return np.linalg.norm(np.stack([row.numpy() for row in rows], 1), 2, axis=(1, 2))


def inside(rng, centers, radius, count):
    """Points of the ball around each sample's numbers, many of them on its surface."""
    sizes = [math.prod(array.shape) for array in centers]
    moves = rng.standard_normal((count, sum(sizes)))
    moves /= np.linalg.norm(moves, axis=1, keepdims=True)
    moves *= radius * rng.uniform(size=(count, 1)) ** 0.05
    parts = np.split(moves, np.cumsum(sizes)[:-1], axis=1)
    return [c + p.reshape(-1, *c.shape) for c, p in zip(centers, parts, strict=True)]
