"""What a GAN cannot train on is told before it does, and by name."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from keras_spectral.gan import GAN, GradientPenalty, Objective

SHAPE = 4, 4, 1
X = np.linspace(-1, 1, 8 * 16, dtype="float32").reshape(8, *SHAPE)
Y = np.arange(8) % 3
WEIGHTS = np.ones(8)


def generator(latent=(2,)):
    latents = keras.Input(latent)
    x = layers.Dense(16, activation="tanh")(layers.Flatten()(latents))
    return keras.Model(latents, layers.Reshape(SHAPE)(x))


def discriminator():
    images = keras.Input(SHAPE)
    return keras.Model(images, layers.Dense(1)(layers.Flatten()(images)))


def conditional():
    latents, images = keras.Input((2,)), keras.Input(SHAPE)
    labels = [keras.Input((), dtype="int32") for _ in range(2)]
    made = layers.Dense(16, activation="tanh")(latents)
    made = layers.Add()([made, layers.Embedding(3, 16)(labels[0])])
    flat = layers.Flatten()(images)
    logits = layers.Dot(1)([flat, layers.Embedding(3, 16)(labels[1])])
    return GAN(
        keras.Model([latents, labels[0]], layers.Reshape(SHAPE)(made)),
        keras.Model([images, labels[1]], logits),
        classes=3,
        discriminator_steps=2,
    )


def compiled(gan=None, **settings):
    gan = gan or GAN(generator(), discriminator(), discriminator_steps=2, **settings)
    gan.compile(run_eagerly=True)
    return gan


class Subclassed(keras.Model):
    def call(self, latents):
        return latents


def two_outputs():
    images = keras.Input(SHAPE)
    x = layers.Flatten()(images)
    return keras.Model(images, [layers.Dense(1)(x), layers.Dense(3)(x)])


@pytest.mark.parametrize(
    ("networks", "match"),
    [
        ((None, discriminator), "`generator` must be a functional or Sequential"),
        ((Subclassed, discriminator), "`generator` must be a functional"),
        ((lambda: keras.Sequential([layers.Dense(3)]), discriminator), "`keras.Input`"),
        ((generator, two_outputs), "`discriminator` must be.*one output"),
        ((lambda: generator((1, 1, 2)), discriminator), r"latents \(samples, latent\)"),
    ],
)
def test_networks(networks, match):
    ours, theirs = (network and network() for network in networks)
    with pytest.raises(ValueError, match=match):
        GAN(ours, theirs)


@pytest.mark.parametrize("method", ["fit", "evaluate", "train_on_batch"])
def test_weights_of_images_without_labels(method):
    # Keras drops them where there is no `y`.
    with pytest.raises(ValueError, match="`sample_weight` has no place"):
        getattr(compiled(), method)(X, sample_weight=WEIGHTS)


@pytest.mark.parametrize(
    "arguments",
    [
        {"class_weight": {0: 1.0}},
        {"validation_data": (X, None, WEIGHTS)},
    ],
)
def test_other_weights(arguments):
    with pytest.raises(ValueError, match="`sample_weight` has no place"):
        compiled().fit(X, verbose=0, **arguments)


@pytest.mark.parametrize("method", ["train_on_batch", "test_on_batch"])
def test_single_batches_are_checked_as_those_of_fit(method):
    with pytest.raises(ValueError, match=r"`x` must hold images in \[-1, 1\]"):
        getattr(compiled(), method)(X * 255)
    with pytest.raises(ValueError, match="`y` must hold labels from 0 to 2"):
        getattr(compiled(conditional()), method)(X, Y + 1)


def test_single_batches_that_fit_give_losses():
    gan = compiled()
    for found in (gan.train_on_batch(X, return_dict=True), gan.test_on_batch(X)):
        assert len(found) == 2


@pytest.mark.parametrize(
    ("images", "match"),
    [
        (None, "`x` must be an array.*NoneType"),
        (np.array(["a.png", "b.png"]), "`x` must hold images.*images of <U5"),
        (X.astype(object), "`x` must hold images.*images of object"),
        (X[:0], "`x` must hold images.*none"),
    ],
)
def test_images_that_are_none(images, match):
    with pytest.raises(ValueError, match=match):
        compiled().fit(images, verbose=0)


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (np.eye(3, dtype="int32")[Y], r"one label an image.*\(4, 3\).*argmax"),
        (Y.astype(str), "`y` must hold labels from 0 to 2.*labels of <U"),
    ],
)
def test_labels_that_are_none(labels, match):
    with pytest.raises(ValueError, match=match):
        compiled(conditional()).fit(X, labels, batch_size=4, verbose=0)


def test_labels_in_a_column_are_labels():
    gan = compiled(conditional())
    assert np.isfinite(gan.fit(X, Y[:, None], verbose=0).history["generator_loss"])


@pytest.mark.parametrize("seed", [-1, 1.5, "a"])
def test_seeds_of_latents(seed):
    with pytest.raises(ValueError, match="`seed` must be an integer >= 0"):
        compiled().generate(2, seed=seed)


class Unreduced(Objective):
    def discriminator(self, real, fake):
        return ops.softplus(-real) + ops.softplus(fake)

    def generator(self, fake):
        return ops.mean(fake)


class Forgotten(Objective):
    def discriminator(self, real, fake):
        ops.mean(real)


@pytest.mark.parametrize("objective", [Unreduced(), Forgotten()])
def test_a_loss_that_is_no_scalar(objective):
    with pytest.raises(ValueError, match="`objective` must return a scalar loss"):
        compiled(objective=objective).fit(X, verbose=0)


def test_a_gradient_penalty_needs_no_images():
    latents, points = keras.Input((2,)), keras.Input((3,))
    gan = GAN(
        keras.Model(latents, layers.Dense(3, activation="tanh")(latents)),
        keras.Model(points, layers.Dense(1, kernel_initializer="ones")(points)),
        penalty=GradientPenalty(10.0),
        discriminator_steps=1,
    )
    found = gan._gradient_penalty(
        gan.penalty.points(ops.zeros((5, 3)), ops.ones((5, 3)), gan.random), None
    )
    assert float(found) == pytest.approx(10 * (3**0.5 - 1) ** 2, rel=1e-5)


@pytest.mark.parametrize(
    ("batch", "match"),
    [
        ({"image": X, "label": Y}, "`x` must hold images.*a dict.*images, labels"),
        ((np.array(["a.png"] * 8), Y), "`x` must hold images.*strings"),
        ((X, Y.astype(str)), "`y` must hold labels from 0 to 2.*labels of object"),
    ],
)
def test_pipelines_of_other_things(batch, match):
    pipeline = tf.data.Dataset.from_tensor_slices(batch).batch(4)
    with pytest.raises(ValueError, match=match):
        compiled(conditional()).fit(pipeline, verbose=0)


def test_labels_that_are_booleans_count_as_0_and_1():
    pipeline = tf.data.Dataset.from_tensor_slices((X, Y > 0)).batch(4)
    gan = compiled(conditional())
    assert np.isfinite(gan.fit(pipeline, verbose=0).history["generator_loss"])
