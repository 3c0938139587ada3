"""Train three classifiers; what is certified of them, and what an attack leaves.

    python examples/certify_fashion_mnist.py
    python examples/certify_fashion_mnist.py --data digits --epochs 10

A plain convolutional network, one whose layers have a norm of one (spectral
normalization of the operator) and one of almost-orthogonal layers and GroupSort, of the
same shape. At each radius, of pixels in [0, 1], an image is certified if no change of
that Euclidean norm can alter its class; the attack (projected gradient ascent) looks
for such a change. What is certified holds against every attack, so in each row
certified <= attacked <= clean, which is asserted.

Fashion-MNIST is that of Debian's package: `apt-get install dataset-fashion-mnist`, or a
folder with its four files in --folder. --data digits needs nothing.
"""

import argparse
import dataclasses
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers as kl

import keras_spectral as ks
from keras_spectral.results import Rows

RADII = [36 / 255, 72 / 255, 108 / 255, 1.0]


@dataclasses.dataclass(frozen=True)
class Row:
    """A network at one radius."""

    network: str
    radius_255: int = dataclasses.field(metadata={"label": "radius * 255"})
    clean: float = dataclasses.field(metadata={"format": ".1%"})
    attacked: float = dataclasses.field(metadata={"format": ".1%"})
    certified: float = dataclasses.field(metadata={"format": ".1%"})
    lipschitz_constant: float = dataclasses.field(metadata={"label": "constant"})


def load(name, folder):
    """Return training and test images in [0, 1], each with their labels."""
    found = ks.data.load(name, directory=folder)
    train, test = ((split.inputs() + 1) / 2 for split in (found.train, found.test))
    return train, found.train.labels, test, found.test.labels


def network(name, shape, width):
    """Return a plain, a spectrally normalized or a GroupSort network."""
    wrappers = {
        "plain": lambda layer: layer,
        "SN": lambda layer: ks.layers.SpectralNormalization(layer, norm="operator"),
        "GroupSort": ks.layers.AlmostOrthogonal,
    }
    wrap = wrappers[name]
    start = {"kernel_initializer": "orthogonal"} if name == "GroupSort" else {}
    activation = ks.layers.GroupSort if name == "GroupSort" else kl.ReLU
    inputs = x = keras.Input(shape)
    for filters in (width, 2 * width):
        x = wrap(kl.Conv2D(filters, 4, strides=2, padding="same", **start))(x)
        x = activation()(x)
    x = kl.Flatten()(x)
    x = activation()(wrap(kl.Dense(8 * width, **start))(x))
    return keras.Model(inputs, wrap(kl.Dense(10, **start))(x), name=name)


def attacker(model, steps=20):
    """Return a function of images, labels and a radius: which stay right under attack.

    Projected gradient ascent from each image, on its margin: the gradient of that does
    not vanish where the network is sure.
    """
    import tensorflow as tf

    def norm(x):
        return tf.sqrt(tf.reduce_sum(x**2, axis=[1, 2, 3], keepdims=True)) + 1e-12

    @tf.function
    def least_margins(images, labels, radius):
        truth = tf.one_hot(labels, 10)
        moved, least = images, tf.fill([len(images)], np.float32(np.inf))
        for _ in tf.range(steps + 1):
            with tf.GradientTape() as tape:
                tape.watch(moved)
                logits = model(moved, training=False)
                own = tf.reduce_sum(logits * truth, axis=1)
                margin = own - tf.reduce_max(logits - 1e9 * truth, axis=1)
            least = tf.minimum(least, margin)
            descent = tape.gradient(margin, moved)
            change = moved - 0.25 * radius * descent / norm(descent) - images
            moved = images + change * tf.minimum(1.0, radius / norm(change))
        return least

    def attacked(x, y, radius):
        # Within the ball in float32, too.
        radius = tf.constant(radius * (1 - 1e-6), "float32")
        parts = [
            least_margins(tf.constant(x[at : at + 250]), y[at : at + 250], radius)
            for at in range(0, len(x), 250)
        ]
        return np.concatenate(parts) > 0

    return attacked


def train(name, data, width, epochs, margin):
    x, y, *_ = data
    keras.utils.set_random_seed(0)
    model = network(name, x.shape[1:], width)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if name != "plain":
        # Logits of norm-one layers move by one: a margin is a radius times sqrt(2).
        loss = ks.losses.MarginCrossEntropy(margin=margin, temperature=margin / 4)
    steps = epochs * (len(x) // 64)
    rate = keras.optimizers.schedules.CosineDecay(3e-3, steps)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    model.fit(x, y, batch_size=64, epochs=epochs, verbose=0)
    return model


def measure(model, x, y):
    """Return a row for each radius."""
    certified = ks.measures.certify(model, x, y, RADII)
    rows, attacked = [], attacker(model)
    for row in certified:
        survived = float(attacked(x, y, row.radius).mean())
        rows.append(
            Row(
                model.name,
                round(row.radius_255),
                certified.accuracy,
                survived,
                row.certified_accuracy,
                certified.lipschitz_constant,
            )
        )
        assert row.certified_accuracy <= survived <= certified.accuracy, rows[-1]
    return rows


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    names = ["fashion_mnist", "digits"]
    parser.add_argument("--data", choices=names, default=names[0])
    parser.add_argument("--folder", type=Path, help="Of Fashion-MNIST's four files.")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--margin", type=float, default=1.0, help="Of the logits.")
    parser.add_argument("--images", type=int, default=1000, help="Test images.")
    options = parser.parse_args(arguments)
    data = load(options.data, options.folder)
    x, y = (part[: options.images] for part in data[2:])
    rows = []
    for name in ("plain", "SN", "GroupSort"):
        model = train(name, data, options.width, options.epochs, options.margin)
        rows += measure(model, x, y)
    table = Rows(
        rows,
        title=f"{options.data}, {len(x)} test images, {options.epochs} epochs",
        caption="Euclidean norm, pixels in [0, 1]. Certified: against every change of "
        "that norm. Constant: of the network before its last layer.",
    )
    print(table)
    return table


if __name__ == "__main__":
    main()
