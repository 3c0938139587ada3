"""What is an update, and what it does: averages, labels, frozen networks."""

import keras
import numpy as np
import pytest

from keras_spectral.gan import GradientPenalty
from tests.gan.test_gan_devices_backends import pixels, tiny


@pytest.mark.parametrize("epochs", [0, 1])
def test_averages_of_no_update_are_not_taken(epochs):
    gan = tiny(penalty=GradientPenalty(1.0))
    adams = [keras.optimizers.Adam(use_ema=True) for _ in range(2)]
    scaled = [keras.optimizers.LossScaleOptimizer(adam) for adam in adams]
    gan.compile(*scaled)
    for optimizer in scaled:
        # Overflows, so that no step is an update.
        optimizer.dynamic_scale.assign(float("inf"))
    before = gan.generator.get_weights()
    gan.fit(pixels()[:4], batch_size=4, epochs=epochs, verbose=0)
    assert [int(adam.iterations) for adam in adams] == [0, 0]
    assert all(map(np.array_equal, gan.generator.get_weights(), before))


def test_the_average_follows_updates_and_no_batches():
    gan = tiny()
    gan.compile(
        keras.optimizers.SGD(0.5, gradient_accumulation_steps=2),
        keras.optimizers.SGD(0.5),
    )
    average = None
    for batch in range(6):
        gan.train_on_batch(pixels()[:4])
        weights = gan.generator.get_weights()
        if batch % 2:  # Of two batches one is an update, and the first is taken whole.
            if average is None:
                average = weights
            average = [(a + w) / 2 for a, w in zip(average, weights, strict=True)]
            ours = gan.averaged_generator.get_weights()
            for found, expected in zip(ours, average, strict=True):
                np.testing.assert_allclose(found, expected, atol=1e-6)


def test_generated_images_have_labels_of_their_own():
    """Uniform ones, whatever the batch has, as the authors draw them."""
    gan = tiny(classes=4)
    gan.compile(run_eagerly=True, jit_compile=False)
    seen, judge = [], gan._judged

    def judged(real, fake, labels, made, count):
        seen.extend(map(int, made))
        return judge(real, fake, labels, made, count)

    gan._judged = judged
    images = np.repeat(pixels()[:1], 400, axis=0)
    gan.fit(images, np.zeros(400, int), batch_size=400, verbose=0)
    counts = np.bincount(seen, minlength=4)
    # Of 400 draws: five deviations of a count.
    assert len(seen) == 400 and abs(counts - 100).max() < 5 * 8.7


@pytest.mark.parametrize("side", ["generator", "discriminator"])
def test_a_network_may_be_frozen(side):
    gan = tiny()
    network, other = gan.generator, gan.discriminator
    if side == "discriminator":
        network, other = other, network
    network.trainable = False
    gan.compile()
    frozen, free = network.get_weights(), other.get_weights()
    gan.fit(pixels()[:8], batch_size=4, verbose=0)
    assert all(map(np.array_equal, network.get_weights(), frozen))
    assert not all(map(np.array_equal, other.get_weights(), free))
