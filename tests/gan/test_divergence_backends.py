"""Neural divergences against what they must be; on every backend."""

import math

import keras
import numpy as np
import pytest

from keras_spectral.gan.metrics import critics


def images(rng, low, high, count=96, size=8):
    return rng.integers(low, high, (count, size, size, 1)).astype("uint8")


def trained(fake, real, kind, **arguments):
    settings = {"steps": 12, "batch_size": 16, "evaluation_samples": 96, **arguments}
    return critics.neural_divergence(fake, real, kind, **settings)


def test_of_one_set_it_is_chance(rng):
    x = images(rng, 0, 256)
    found = trained(x, x[::-1], "logistic", steps=24)
    assert abs(found.value - math.log(2)) < 0.01
    assert found.metric == "neural divergence (logistic, 24 steps)"
    assert (found.direction, found.chance) == ("higher", math.log(2))
    assert (found.generated, found.reference) == (96, 96)


def test_what_can_be_told_apart_is_below_chance(rng):
    dark, light = images(rng, 0, 60), images(rng, 200, 256)
    found = trained(light, dark, "logistic", steps=40)
    assert 0 < found.value < math.log(2) - 0.05 and found.spread > 0


def test_the_logistic_losses_are_those_of_numpy(rng):
    definition = critics._DEFINITIONS["logistic"]()
    critic = critics.Critic(definition, (8, 8, 1), seed=1)
    # As it begins its logits are all but 0.
    critic.network.layers[-1].kernel.assign(rng.normal(size=(64, 1)))
    real, fake = rng.uniform(-1, 1, (2, 5, 8, 8, 1)).astype("float32")
    a, b = (
        keras.ops.convert_to_numpy(critic(x)).astype("float64") for x in (real, fake)
    )
    tensors = [keras.ops.convert_to_tensor(x) for x in (real, fake)]
    loss = float(definition.loss(critic.network, *tensors, critic.random))
    value = float(definition.value(critic.network, *tensors, critic.random))
    expected = np.log1p(np.exp(b)).mean()
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    expected += np.log1p(np.exp(-a)).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_the_value_of_a_linear_critic_is_a_closed_form(rng):
    definition = critics._DEFINITIONS["cnn"]()
    layers = [keras.layers.Flatten(), keras.layers.Dense(1)]
    linear = keras.Sequential([keras.Input((4, 4, 1)), *layers])
    real, fake = rng.uniform(-1, 1, (2, 6, 4, 4, 1)).astype("float32")
    kernel = rng.normal(size=(16, 1))
    layers[-1].kernel.assign(kernel)
    tensors = [keras.ops.convert_to_tensor(x) for x in (real, fake)]
    seed = keras.random.SeedGenerator(0)
    loss = float(definition.loss(linear, *tensors, seed))
    value = float(definition.value(linear, *tensors, seed))
    moved = ((fake - real).reshape(6, -1) @ kernel).mean()
    norm = math.sqrt(1e-8 + (kernel**2).sum())
    np.testing.assert_allclose(loss, moved + 10 * (norm - 1) ** 2, rtol=1e-5)
    np.testing.assert_allclose(value, -loss, rtol=1e-6)


def test_the_wide_critic_learns(rng, monkeypatch):
    # Its size is in the next test; a fourth of it takes less time to compile.
    monkeypatch.setattr(critics._CNN, "filters", (16, 32))
    dark, light = images(rng, 0, 120), images(rng, 130, 256)
    same = trained(dark, dark[::-1], "cnn", ema_momentum=0.5, steps=80)
    apart = trained(light, dark, "cnn", ema_momentum=0.5, steps=80)
    assert same.value < 0 and apart.value > 1
    assert (same.direction, same.chance) == ("lower", 0.0)


@pytest.mark.parametrize(("kind", "count"), [("cnn", 1_033_345), ("logistic", 66_337)])
def test_parameters_are_those_of_the_definitions(kind, count):
    critic = critics.Critic(critics._DEFINITIONS[kind](), (32, 32, 3), seed=0)
    assert critic.network.count_params() == count
