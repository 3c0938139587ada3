"""Two devices train as one: each has its share of a batch, and its own latents."""

import contextlib
import sys

import keras
import numpy as np
import pytest

from keras_spectral.experiments.devices import devices_of
from keras_spectral.gan import GAN, GradientPenalty
from keras_spectral.layers import SpectralNormalization
from tests.jax_processes import run_two

BACKEND = keras.backend.backend()
SHAPE = (2, 2, 1)
pytestmark = pytest.mark.skipif(BACKEND == "torch", reason="It has one device.")


def tiny(classes=None, **arguments):
    kl = keras.layers
    keras.utils.set_random_seed(0)
    labels = [] if classes is None else [keras.Input((), dtype="int32")]

    def joined(x):
        added = [kl.Embedding(classes, x.shape[-1])(y) for y in labels]
        return kl.Add()([x, *added]) if added else x

    latents, images = keras.Input((3,)), keras.Input(SHAPE)
    made = kl.Reshape(SHAPE)(kl.Dense(4, activation="tanh")(joined(latents)))
    hidden = SpectralNormalization(kl.Dense(5, activation="tanh", name="hidden"))
    logits = kl.Dense(1)(hidden(joined(kl.Flatten()(images))))
    return GAN(
        keras.Model([latents, *labels], made),
        keras.Model([images, *labels], logits),
        classes=classes,
        discriminator_steps=2,
        seed=5,
        ema_momentum=0.5,
        **arguments,
    )


def pixels():
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (16, *SHAPE)).astype("float32")


def trained(scope, images, latents=None, batch_size=8, **arguments):
    with scope:
        gan = tiny(**arguments)
        gan.compile(keras.optimizers.SGD(0.5), keras.optimizers.SGD(0.5))
        gan._latents = latents or gan._latents
        y = None if gan.classes is None else np.arange(16) % gan.classes
        gan.fit(images, y, batch_size=batch_size, shuffle=False, verbose=0)
    return gan


def assert_same(variables, others):
    for ours, theirs in zip(variables, others, strict=True):
        ours, theirs = (keras.ops.convert_to_numpy(x) for x in (ours, theirs))
        # Float32, added up in another order.
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.skipif(BACKEND != "jax", reason="Of JAX's data parallelism.")
def test_data_parallel_of_jax_is_one_device():
    # Latents and labels of the whole batch are drawn, so they are the same too.
    arguments = {"classes": 4, "penalty": GradientPenalty(1.0)}
    two = trained(devices_of(2).scope(), pixels(), **arguments)
    assert len(two.generator.variables[0].value.sharding.device_set) == 2
    one = trained(contextlib.nullcontext(), pixels(), **arguments)
    assert_same(two.variables, one.variables)


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "jax", reason="Of JAX's processes.")
def test_two_processes_of_jax_are_one_device(tmp_path):
    run_two("tests.gan.test_gan_devices_backends", tmp_path)
    one = trained(contextlib.nullcontext(), pixels(), penalty=GradientPenalty(1.0))
    for number in range(2):
        with np.load(tmp_path / f"{number}.npz") as both:
            assert_same(one.variables, list(both.values()))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="Of tf.distribute.")
def test_a_mirrored_strategy_is_one_device_with_the_latents_of_both():
    import tensorflow as tf

    drawn = np.random.default_rng(1).standard_normal((16, 3)).astype("float32")
    # Collectives of two strategies in one process share their keys.
    strategy = tf.distribute.MirroredStrategy(
        [device.name for device in tf.config.list_logical_devices("CPU")[:2]],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )
    two = trained(strategy.scope(), pixels(), lambda count: tf.constant(drawn)[:count])

    def of_both(count):
        return tf.concat([tf.constant(drawn)[: count // 2]] * 2, axis=0)

    # Each has half of a batch, and makes parts of that.
    order = [0, 1, 4, 5, 2, 3, 6, 7]
    images = np.concatenate([pixels()[:8][order], pixels()[8:][order]])
    one = trained(contextlib.nullcontext(), images, of_both)
    assert_same(two.variables, one.variables)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="Of tf.distribute.")
@pytest.mark.parametrize("objective", ["hinge", "relativistic_average"])
@pytest.mark.parametrize("classes", [None, 4])
def test_a_replica_without_a_share_counts_nothing(objective, classes):
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(
        [device.name for device in tf.config.list_logical_devices("CPU")[:2]],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )
    drawn = tf.constant(np.random.default_rng(1).standard_normal((16, 3)), "float32")
    arguments = {"objective": objective, "classes": classes}

    def latents(count):
        return drawn[:count]

    x, y = pixels()[:9], None if classes is None else np.arange(9) % classes
    gans = []
    for count in (9, 8):
        with strategy.scope():
            gan = tiny(**arguments)
            gan.compile(keras.optimizers.SGD(0.5), keras.optimizers.SGD(0.5))
            gan._latents, gan._labels = latents, lambda count: tf.zeros(count, "int32")
            given = x[:count], None if y is None else y[:count]
            logs = gan.fit(*given, batch_size=8, shuffle=False, verbose=0).history
            assert np.isfinite(list(logs.values())).all()
            assert np.isfinite(gan.evaluate(*given, batch_size=8, verbose=0)).all()
        gans.append(gan)
    two, until = gans
    # The last batch is one image on one device, but that Keras divides by replicas.
    one = tiny(**arguments)
    for ours, theirs in zip(one.variables, until.variables, strict=True):
        ours.assign(theirs)
    one.compile(keras.optimizers.SGD(0.25), keras.optimizers.SGD(0.25))
    one._latents, one._labels = latents, lambda count: tf.zeros(count, "int32")
    one.train_on_batch(x[8:], None if y is None else y[8:])
    for network in ("generator", "discriminator"):
        assert_same(*(getattr(gan, network).trainable_weights for gan in (two, one)))


def main(folder):
    """Train in one of two processes, each with its half of every batch."""
    devices = devices_of("all")
    assert devices.processes == 2
    shares = pixels().reshape(2, 2, 4, *SHAPE)[:, devices.process]
    images = shares.reshape(8, *SHAPE)
    penalty = GradientPenalty(1.0)
    gan = trained(devices.scope(), images, batch_size=4, penalty=penalty)
    values = map(keras.ops.convert_to_numpy, gan.variables)
    np.savez(f"{folder}/{devices.process}.npz", *values)


if __name__ == "__main__":
    main(sys.argv[1])
