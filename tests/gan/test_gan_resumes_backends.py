"""Half precision, averages, and runs that go on as if nothing had happened."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_spectral.experiments.training_state import Checkpoint, environment
from keras_spectral.gan import GradientPenalty
from tests.gan.test_gan_backends import SHAPE, small


@pytest.fixture
def half():
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy("float32")


def images(count=8):
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (count, *SHAPE)).astype("float32")


def arrays(gan):
    return [ops.convert_to_numpy(x) for x in [*gan.variables, *gan.optimizer.variables]]


def assert_equal(gan, other):
    names = [x.path for x in [*gan.variables, *gan.optimizer.variables]]
    for name, ours, theirs in zip(names, arrays(gan), arrays(other), strict=True):
        np.testing.assert_array_equal(ours, theirs, name)


def adam(updates=None, **arguments):
    rate = 0.01
    if updates is not None:
        rate = keras.optimizers.schedules.PolynomialDecay(rate, updates, 0.0)
    return keras.optimizers.Adam(rate, beta_1=0.0, **arguments)


def compiled(**arguments):
    gan = small(seed=3, ema_momentum=0.9, penalty=GradientPenalty(1.0), **arguments)
    gan.compile(adam(4), adam(8, use_ema=True))
    return gan


def test_a_run_resumes_from_its_checkpoint_bit_for_bit(tmp_path):
    whole, state = compiled(), Checkpoint(tmp_path / "state.npz", environment())

    class Saving(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                state.save(whole, [logs], (0.0, 0.0))

    settings = {"batch_size": 4, "shuffle": False, "verbose": 0}
    whole.fit(images(), epochs=2, callbacks=[Saving()], **settings)
    keras.utils.set_random_seed(7)
    resumed = compiled()
    progress = state.restore(resumed)
    assert len(progress.history) == 1
    found = resumed.fit(images(), **settings).history
    assert found["generator_loss"][0] == whole.history.history["generator_loss"][1]
    assert_equal(resumed, whole)


def test_float16_with_averages(half, tmp_path):
    gan = small(seed=0, ema_momentum=0.5)
    momentum = 0.5
    gan.compile(adam(), adam(use_ema=True, ema_momentum=momentum))
    for optimizer in (gan.generator_optimizer, gan.discriminator_optimizer):
        assert type(optimizer) is keras.optimizers.LossScaleOptimizer
        # The first updates overflow at a scale of 2**15 times this, and are left out.
        optimizer.dynamic_scale.assign(2.0**17)
    made, judged = [], []

    class Recorded(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if keras.backend.backend() == "jax":
                gan.jax_state_sync()
            updates = int(gan.generator_optimizer.iterations)
            made.append((updates, gan.generator.get_weights()))
            judged.append(int(gan.discriminator_optimizer.iterations))

    gan.fit(images(), batch_size=4, epochs=8, callbacks=[Recorded()], verbose=0)
    assert all(np.isfinite(x).all() for x in arrays(gan))
    # What is left out counts in neither.
    assert judged[-1] < 16 * gan.discriminator_steps
    assert int(gan.generator_optimizer.iterations) > 0
    # Neither is it an update that the average follows; the first it takes as it is.
    average, done = made[0][1], 1
    for updates, weights in made:
        if updates > done:
            average = [0.5 * a + 0.5 * w for a, w in zip(average, weights, strict=True)]
            done = updates
        elif updates == 1:
            average = weights
    ours = gan.averaged_generator
    for index, (a, variable) in enumerate(zip(average, ours.weights, strict=True)):
        if not gan.generator.weights[index].trainable:
            a = made[-1][1][index]
        np.testing.assert_allclose(ops.convert_to_numpy(variable), a, atol=1e-5)
    gan.save(tmp_path / "gan.keras")
    loaded = keras.models.load_model(tmp_path / "gan.keras")
    np.testing.assert_array_equal(loaded.generate(3, seed=0), gan.generate(3, seed=0))
    for model in (gan, loaded):
        model.fit(images(), batch_size=4, shuffle=False, verbose=0)
    assert_equal(loaded, gan)


def test_a_penalty_in_float16_moves_as_in_float32(half):
    """Gradients of gradients have two backward passes in half precision."""
    moved = []
    for policy in "mixed_float16", "float32":
        keras.config.set_dtype_policy(policy)
        keras.utils.set_random_seed(0)
        gan = small(penalty=GradientPenalty(10.0), seed=0)
        gan.compile("sgd", keras.optimizers.SGD(1.0))
        for variable in gan.discriminator.trainable_variables:
            noise = np.random.default_rng(1).standard_normal(variable.shape)
            variable.assign(noise)
        points = ops.convert_to_tensor(images())

        def loss(gan=gan, points=points):
            value = gan._gradient_penalty(points, None)
            return value, value

        optimizer, before = gan.discriminator_optimizer, gan.discriminator.get_weights()
        if policy == "mixed_float16":
            optimizer.dynamic_scale.assign(2.0**7)
        value = float(gan._updated(loss, gan.discriminator, optimizer))
        after = gan.discriminator.get_weights()
        moved.append([value, *(x - y for x, y in zip(after, before, strict=True))])
    for ours, theirs in zip(*moved, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-2 * np.abs(theirs).max())
    assert np.abs(moved[1][1]).max() > 0.1


def test_averages_are_what_generate_uses():
    gan = small(seed=0, ema_momentum=0.9)
    assert gan.sampler is gan.averaged_generator
    gan.averaged_generator.set_weights(
        [np.ones_like(w) for w in gan.generator.get_weights()]
    )
    before = gan.generate(2, seed=0)
    gan.generator.set_weights([0 * w for w in gan.generator.get_weights()])
    np.testing.assert_array_equal(gan.generate(2, seed=0), before)
    assert small().sampler is not None and small().averaged_generator is None
