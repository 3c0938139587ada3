"""Losses and penalties against closed forms, on each backend."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_spectral.gan import GAN, OBJECTIVES, R1, GradientPenalty, Objective
from keras_spectral.gan.gradients import gradient_by
from keras_spectral.layers import (
    AlmostOrthogonal,
    SpectralNormalization,
    StableRankNormalization,
    restart_power_iteration,
)

REAL = np.array([[-2.0], [0.5], [3.0]], "float32")
FAKE = np.array([[-3.0], [-0.5]], "float32")
SHAPE = (2, 2, 1)


def cross_entropy(logits, truth):
    """-log of the sigmoid's probability, in float64."""
    probability = 1 / (1 + np.exp(-logits.astype("float64")))
    return -np.log(probability if truth else 1 - probability).mean()


RELATIVE = REAL - FAKE.mean(), FAKE - REAL.mean()
EXPECTED = {
    # max(0, 1 - real): 3, 0.5, 0; max(0, 1 + fake): 0, 0.5.
    "hinge": (3.5 / 3 + 0.5 / 2, 1.75),
    "logistic": (
        cross_entropy(REAL, 1) + cross_entropy(FAKE, 0),
        cross_entropy(FAKE, 1),
    ),
    "minimax": (
        cross_entropy(REAL, 1) + cross_entropy(FAKE, 0),
        -cross_entropy(FAKE, 0),
    ),
    "wasserstein": (-1.75 - 0.5, 1.75),
    "relativistic_average": (
        cross_entropy(RELATIVE[0], 1) + cross_entropy(RELATIVE[1], 0),
        cross_entropy(RELATIVE[1], 1) + cross_entropy(RELATIVE[0], 0),
    ),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses_by_hand(name):
    objective = OBJECTIVES[name]
    real, fake = (ops.convert_to_tensor(x) for x in (REAL, FAKE))
    judged, made = EXPECTED[name]
    assert float(objective.discriminator(real, fake)) == pytest.approx(judged, rel=1e-6)
    logits = (fake, real) if objective.needs_real else (fake,)
    assert float(objective.generator(*logits)) == pytest.approx(made, rel=1e-6)


def test_nothing_pulls_beyond_the_margin():
    real = ops.convert_to_tensor([[1.5], [0.0]])
    fake = ops.convert_to_tensor(FAKE)
    gradient = gradient_by(lambda x: OBJECTIVES["hinge"].discriminator(x, fake), real)
    np.testing.assert_allclose(ops.convert_to_numpy(gradient), [[0.0], [-0.5]])


def linear(wrap=lambda layer: layer):
    keras.utils.set_random_seed(0)
    kl = keras.layers
    generator = keras.Sequential([keras.Input((3,)), kl.Dense(4), kl.Reshape(SHAPE)])
    head = wrap(kl.Dense(1, name="head"))
    discriminator = keras.Sequential([keras.Input(SHAPE), kl.Flatten(), head])
    return generator, discriminator


@pytest.mark.parametrize("penalty", [GradientPenalty(10.0), R1(10.0)])
def test_the_penalty_of_a_linear_discriminator(penalty, rng):
    gan = GAN(*linear(), objective="wasserstein", penalty=penalty, seed=0)
    head = gan.discriminator.get_layer("head")
    head.kernel.assign(rng.standard_normal((4, 1)))
    w = ops.convert_to_numpy(head.kernel).astype("float64")
    norm = np.linalg.norm(w)
    x = rng.standard_normal((5, *SHAPE)).astype("float32")
    points = penalty.points(
        ops.convert_to_tensor(x), ops.zeros((5, *SHAPE)), gan.random
    )
    found = ops.convert_to_numpy(gan._gradient_penalty(points, None))
    expected = (
        10 * (norm - 1) ** 2 if penalty.get_config().get("target") else 5 * norm**2
    )
    assert found == pytest.approx(expected, rel=1e-6)
    # Between the two: the same share in each pixel of an image, its own in each image.
    if isinstance(penalty, GradientPenalty):
        shares = ops.convert_to_numpy(points) / x
        np.testing.assert_allclose(shares.std(axis=(1, 2, 3)), 0, atol=1e-6)
        assert 0 <= shares.min() < shares.max() <= 1


# Of JAX each costs ten seconds of compiling small operations.
WRAPS = {
    "block": SpectralNormalization,
    "operator": lambda x: SpectralNormalization(x, norm="operator"),
    "stable rank": lambda x: StableRankNormalization(x, 0.4, gradient="exact"),
    "almost orthogonal": AlmostOrthogonal,
}


@pytest.mark.parametrize(
    "kind", ["stable rank"] if keras.backend.backend() == "jax" else WRAPS
)
def test_a_penalty_s_gradient_by_a_wrapped_kernel_is_that_of_differences(kind):
    kl = keras.layers
    keras.utils.set_random_seed(1)
    inner = kl.Conv2D(3, 2, padding="same", activation="tanh", name="first")
    first = WRAPS[kind](inner)
    layers = [first, kl.Flatten(), kl.Dense(1, use_bias=False)]
    discriminator = keras.Sequential([keras.Input(SHAPE), *layers])
    gan = GAN(linear()[0], discriminator, penalty=GradientPenalty(10.0), seed=0)
    gan.compile("sgd", keras.optimizers.SGD(1.0))
    rng = np.random.default_rng(0)
    points = ops.convert_to_tensor(rng.standard_normal((3, *SHAPE)).astype("float32"))
    for layer in (inner, discriminator.layers[-1]):
        layer.kernel.assign(rng.standard_normal(layer.kernel.shape))
    restart_power_iteration(discriminator)

    def loss():
        value = gan._gradient_penalty(points, None)
        return value, value

    weights = discriminator.get_weights()
    kernel = inner.kernel
    before = ops.convert_to_numpy(kernel).copy()
    gan._updated(loss, discriminator, gan.discriminator_optimizer)
    gradient = before - ops.convert_to_numpy(kernel)
    discriminator.set_weights(weights)
    for direction in rng.standard_normal((2, *before.shape)):
        slope = 0.0
        for sign in (1, -1):
            kernel.assign(before + sign * 1e-2 * direction)
            slope += sign * float(ops.convert_to_numpy(loss()[0])) / 2e-2
        # Float32, and differences.
        assert np.sum(gradient * direction) == pytest.approx(slope, rel=1e-2)


@keras.saving.register_keras_serializable(package="tests_gan")
class Squares(Objective):
    def __init__(self, scale):
        self.scale = scale

    def discriminator(self, real, fake):
        return ops.mean((real - self.scale) ** 2) + ops.mean(fake**2)

    def generator(self, fake):
        return ops.mean((fake - self.scale) ** 2)

    def get_config(self):
        return {"scale": self.scale}


def test_an_objective_and_a_penalty_of_one_s_own_are_saved(tmp_path, rng):
    penalty = GradientPenalty(5.0, target=0.5)
    gan = GAN(*linear(), objective=Squares(0.5), penalty=penalty, ema_momentum=0.9)
    gan.save(tmp_path / "gan.keras")
    loaded = keras.models.load_model(tmp_path / "gan.keras")
    assert type(loaded.objective) is Squares and loaded.objective.scale == 0.5
    assert loaded.penalty.get_config() == {"factor": 5.0, "target": 0.5}
    assert loaded.ema_momentum == 0.9
    loaded.compile(run_eagerly=True)
    x = rng.uniform(-1, 1, (4, *SHAPE)).astype("float32")
    losses = loaded.evaluate(x, verbose=0, return_dict=True)
    latents = keras.random.normal((4, 3), seed=0)
    logits = loaded.discriminator(loaded.generator(latents))
    expected = np.mean((ops.convert_to_numpy(logits) - 0.5) ** 2)
    assert losses["generator_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"objective": "hing"}, '`objective` must be one of "hinge", .*hing'),
        ({"objective": ["hinge"]}, "`objective` must be one of"),
        ({"penalty": 10.0}, "`penalty` must be a keras_spectral.gan.Penalty"),
        ({"ema_momentum": 1.0}, "`ema_momentum` must be"),
    ],
)
def test_what_is_no_objective_penalty_or_momentum(arguments, match):
    with pytest.raises(ValueError, match=match):
        GAN(*linear(), **arguments)


def test_what_is_no_factor():
    with pytest.raises(ValueError, match="`factor`"):
        R1(0.0)
    with pytest.raises(ValueError, match="`target`"):
        GradientPenalty(target=-1.0)
