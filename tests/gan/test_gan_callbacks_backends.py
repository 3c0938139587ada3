"""Callbacks of a GAN in training, on every backend."""

import keras
import numpy as np
from PIL import Image

import keras_spectral as ks
from keras_spectral.gan.callbacks import SampleGrid, SampleMetrics

SHAPE = (4, 4, 1)


def small(classes=None):
    kl = keras.layers
    latents, images = keras.Input((3,)), keras.Input(SHAPE)
    labels = [] if classes is None else [keras.Input((), dtype="int32")]
    inner = latents
    if labels:
        embedded = kl.Flatten()(kl.Embedding(classes, 2)(labels[0]))
        inner = kl.Concatenate()([latents, embedded])
    # Both networks name their layer alike, as those of the zoo do.
    made = kl.Dense(16, "tanh", name="block1")(inner)
    judged = kl.Dense(1, name="block1")(kl.Flatten()(images))
    if labels:
        judged = judged + kl.Flatten()(kl.Embedding(classes, 1)(labels[0]))
    gan = ks.gan.GAN(
        keras.Model([latents, *labels] if labels else latents, kl.Reshape(SHAPE)(made)),
        keras.Model([images, *labels] if labels else images, judged),
        discriminator_steps=1,
        classes=classes,
    )
    gan.compile(*(keras.optimizers.SGD(0.1) for _ in range(2)))
    return gan


def fitted(gan, callbacks, epochs=3):
    x = np.zeros((8, *SHAPE), "float32")
    y = None if gan.classes is None else np.arange(8) % gan.classes
    return gan.fit(x, y, epochs=epochs, callbacks=callbacks, verbose=0).history


def test_the_last_grid_is_what_generate_makes(tmp_path):
    gan = small()
    fitted(gan, [SampleGrid(tmp_path, count=3, columns=2, every=2, seed=5)])
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["epoch_0001.png", "epoch_0003.png"]
    first, last = (np.array(Image.open(tmp_path / name)) for name in names)
    # Four pixels, 16 times as large, and 2 between.
    assert last.shape == (2 * 66 + 2, 2 * 66 + 2)
    assert (first != last).any()
    images = ks.gan.metrics.to_uint8(gan.generate(3, seed=5))[..., 0]
    for index, image in enumerate(images):
        top, left = 2 + index // 2 * 66, 2 + index % 2 * 66
        shown = last[top : top + 64 : 16, left : left + 64 : 16]
        np.testing.assert_array_equal(shown, image)
    # What no image is at is white.
    assert (last[68:, 68:] == 255).all() and (last[:2] == 255).all()


def test_metrics_are_in_the_history_of_each_second_epoch():
    gan, seen = small(classes=3), []

    def mean(images):
        seen.append(images)
        return images.mean()

    callback = SampleMetrics({"mean": mean}, samples=6, every=2, seed=1)
    history = fitted(gan, [callback])
    assert len(history["mean"]) == 2 and len(history["generator_loss"]) == 3
    np.testing.assert_array_equal(seen[1], gan.generate(6, seed=1))
    assert [(epoch, key) for epoch, key, _ in callback.results] == [
        (0, "mean"),
        (2, "mean"),
    ]


def test_spectra_of_a_discriminator_are_its_own():
    gan = small()
    logger = ks.callbacks.SpectralLogger(network="discriminator")
    history = fitted(gan, [logger])
    kernel = keras.ops.convert_to_numpy(gan.discriminator.get_layer("block1").kernel)
    np.testing.assert_allclose(
        history["block1/norm"][-1], np.linalg.norm(kernel), rtol=1e-6
    )
    assert [row.name for row in logger.rows] == ["block1"] * 3
