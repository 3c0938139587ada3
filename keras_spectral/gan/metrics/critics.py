"""Neural divergences: how well a critic that is trained to can tell images apart."""

import abc
import math
from collections.abc import Callable
from typing import Any, Literal

import keras
import numpy as np
from keras import layers as kl
from keras import ops

from keras_spectral.gan.gradients import gradient_by, stepped, update
from keras_spectral.gan.metrics.images import to_uint8
from keras_spectral.gan.metrics.scores import Score
from keras_spectral.gan.penalties import GradientPenalty
from keras_spectral.linalg.differentiation import gradients
from keras_spectral.validation import check_choice, check_integer, check_probability

Kind = Literal["logistic", "cnn"]
# Batches that a sampler is asked for at once: those that are left are for nothing.
_BLOCK = 4


def neural_divergence(
    generated: Any,
    real,
    kind="logistic",
    steps: int = 100_000,
    *,
    batch_size: int | None = None,
    evaluation_samples: int | None = None,
    ema_momentum: float = 0.999,
    seed: int = 0,
) -> Score:
    """Return how well a critic that is trained to tells generated from real images.

    Two definitions go by one name, and point to opposite sides:

    - `"logistic"`, the stable-rank paper's: f is trained on log(1 + e^f(fake)) +
      log(1 + e^-f(real)), and the divergence is the mean of log(1 + e^f(fake)) of
      further generated images. Higher is better; log 2 where f cannot tell. Images are
      in [-1, 1], as far as the paper says nothing.
    - `"cnn"`, of Gulrajani, Raffel and Metz: the critic is WGAN-GP's, four times as
      wide, the divergence is minus its loss of further batches, penalty included, with
      averaged weights. Lower is better; 0 where it cannot tell. Pixels are
      (x - 128) / 128 plus noise from [0, 1 / 128).

    The papers' count of steps is 100,000: with fewer the critic knows less, which is
    why the name of the score has it. Numbers of different counts, kinds and data do
    not compare. Training takes real images that the generator was not trained on.

    Args:
        generated: Array (samples, height, width, channels), uint8, or floats in
            [-1, 1]; or a sampler, called as `generated(count, seed=integer)`, such as
            `gan.generate`: each batch is then of new images, as in the papers, and of a
            conditional GAN its labels are drawn, which are also passed as `labels`. An
            array is gone through in rounds, and is what the critic is tried on, too.
        real: Array of the same form.
        kind: `"logistic"` or `"cnn"`.
        steps: Integer >= 1, updates of the critic.
        batch_size: Integer >= 1, real images a step, and as many generated; default
            128 for `"logistic"`, 256 for `"cnn"`.
        evaluation_samples: Integer >= 1, generated images that the value is of, in
            whole batches; default 1,000,000 for `"logistic"`, and 2,560,000 for
            `"cnn"`, with as many real ones. Of fewer the standard error is larger.
        ema_momentum: Float in (0, 1), of the averaged weights of `"cnn"`.
        seed: Integer >= 0, of the critic's first weights, batches and noise.

    Returns:
        A `Score` with the count of steps in its name, the direction, the value of
        chance, and the standard error over the batches.

    Raises:
        ValueError: If the images do not fit each other, or an argument is out of range.

    Example: what a critic cannot tell apart.
    >>> images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1), "uint8")
    >>> found = neural_divergence(
    ...     images, images, steps=4, batch_size=16, evaluation_samples=64
    ... )
    >>> found.metric, found.direction, round(found.value, 1)
    ('neural divergence (logistic, 4 steps)', 'higher', 0.7)

    Source: [sanyal2020], appendix E.1; [gulrajani2019], the CNN divergence.
    """
    check_choice("kind", kind, Kind)
    check_integer("steps", steps, least=1)
    check_integer("seed", seed, least=0)
    check_probability("ema_momentum", ema_momentum)
    definition: _Definition = _DEFINITIONS[kind]()
    size = definition.batch_size if batch_size is None else batch_size
    check_integer("batch_size", size, least=1)
    tried = definition.evaluation_samples
    tried = tried if evaluation_samples is None else evaluation_samples
    check_integer("evaluation_samples", tried, least=1)
    tried = -(-tried // size)
    if isinstance(generated, keras.Model):
        raise ValueError(
            "`generated` must be images, or a function that samples them, such as "
            f"`gan.generate`. Received: a model, '{generated.name}'"
        )
    random = np.random.default_rng(seed)
    first = generated
    if callable(generated):
        first = generated(1, seed=0)
    else:
        generated = to_uint8(generated)
    shape, real = to_uint8(first).shape[1:], to_uint8(real)
    for name, images in (("generated", first), ("real", real)):
        if not len(images):
            raise ValueError(f"`{name}` must hold an image. Received: none")
    if real.shape[1:] != shape:
        raise ValueError(
            "`generated` and `real` must hold images of one shape. Received: "
            f"{shape} and {real.shape[1:]}"
        )
    critic = Critic(definition, shape, seed=int(random.integers(2**31)))
    critic.compile(optimizer=definition.optimizer(steps, ema_momentum))
    # Batches of their own, as a backend may read ahead.
    for_training, for_test = random.spawn(2)
    pairs = _pairs(real, generated, size, for_training)
    critic.fit(pairs, steps_per_epoch=steps, shuffle=False, verbose=0)
    values = critic.values(_pairs(real, generated, size, for_test), tried)
    error = values.std(ddof=1) / math.sqrt(tried) if tried > 1 else math.nan
    return Score(
        f"neural divergence ({kind}, {steps:,} steps)",
        float(values.mean()),
        definition.direction,
        spread=float(error),
        spread_of=f"standard error over {tried:,} batches of {size}",
        generated=tried * size if callable(generated) else len(generated),
        reference=len(real),
        chance=definition.chance,
    )


class _Definition(abc.ABC):
    """What a kind of divergence is made of."""

    direction: Literal["lower", "higher"]
    chance: float
    batch_size: int
    evaluation_samples: int
    filters: tuple
    activation = "silu"
    initializer: Callable

    @abc.abstractmethod
    def optimizer(self, steps, ema_momentum): ...

    @abc.abstractmethod
    def scaled(self, images, seed):
        """Return the critic's input for pixels from 0 to 255, float32."""

    @abc.abstractmethod
    def loss(self, critic, real, fake, seed): ...

    @abc.abstractmethod
    def value(self, critic, real, fake, seed): ...


class _Logistic(_Definition):
    direction = "higher"
    chance = math.log(2.0)
    batch_size, evaluation_samples = 128, 1_000_000
    filters = 16, 32, 64

    def initializer(self, seed):
        return keras.initializers.RandomNormal(stddev=0.02, seed=seed)

    def optimizer(self, steps, ema_momentum):
        return keras.optimizers.Adam(2e-4, 0.0, 0.9)

    def scaled(self, images, seed):
        return images / 127.5 - 1.0

    def loss(self, critic, real, fake, seed):
        logits = critic(ops.concatenate([real, fake]))
        real, fake = ops.split(logits, 2)
        return ops.mean(ops.softplus(-real)) + ops.mean(ops.softplus(fake))

    def value(self, critic, real, fake, seed):
        return ops.mean(ops.softplus(critic(fake)))


class _CNN(_Definition):
    direction = "lower"
    chance = 0.0
    batch_size, evaluation_samples = 256, 2_560_000
    filters = 64, 128, 256
    penalty = GradientPenalty(10.0)

    def initializer(self, seed):
        return keras.initializers.HeNormal(seed=seed)

    def optimizer(self, steps, ema_momentum):
        rate = keras.optimizers.schedules.PolynomialDecay(2e-4, steps, 0.0)
        return keras.optimizers.Adam(
            rate, 0.0, 0.9, use_ema=True, ema_momentum=ema_momentum
        )

    def scaled(self, images, seed):
        noise = keras.random.uniform(ops.shape(images), 0.0, 1.0 / 128, seed=seed)
        return (images - 128.0) / 128.0 + noise

    def loss(self, critic, real, fake, seed, slopes=gradient_by):
        judged_real, judged_fake = ops.split(critic(ops.concatenate([real, fake])), 2)
        slopes = slopes(critic, self.penalty.points(real, fake, seed))
        squares = ops.sum(ops.square(slopes), axis=(1, 2, 3))
        # The authors' guard of the root.
        penalty = self.penalty.penalty(squares + 1e-8)
        return ops.mean(judged_fake) - ops.mean(judged_real) + penalty

    def value(self, critic, real, fake, seed):
        # Outside of training a backend may record nothing unless it is asked to.
        return -self.loss(critic, real, fake, seed, _slopes)


def _slopes(critic, images):
    return gradients(lambda x: (ops.sum(critic(x[0])), ()), [images])[0][0]


_DEFINITIONS = {"logistic": _Logistic, "cnn": _CNN}


class Critic(keras.Model):
    """The critic of a neural divergence, and the step that trains it.

    Args:
        definition: A `_Definition`.
        shape: Tuple, the images' (height, width, channels).
        seed: Integer of the first weights, and of noise.
    """

    def __init__(self, definition, shape, seed):
        super().__init__()
        self.definition = definition
        # The value must not depend on the precision that is set for other networks.
        options = [
            {
                "kernel_initializer": definition.initializer(seed + at),
                "dtype": "float32",
            }
            for at in range(len(definition.filters) + 1)
        ]
        layers = [
            kl.Conv2D(filters, 5, 2, "same", activation=definition.activation, **own)
            for filters, own in zip(definition.filters, options, strict=False)
        ]
        layers += [kl.Flatten(dtype="float32"), kl.Dense(1, **options[-1])]
        self.network = keras.Sequential([keras.Input(shape), *layers])
        self.random = keras.random.SeedGenerator(seed)
        self.loss_of_training = keras.metrics.Mean(name="loss")
        self.built = True

    def call(self, images):
        return self.network(images)

    def build(self, input_shape=None):
        """Do nothing: the network is built."""

    @property
    def metrics(self):
        return [self.loss_of_training]

    def train_step(self, *given):
        return stepped(self, self._train, given)

    def test_step(self, *given):
        return stepped(self, self._test, given)

    def values(self, pairs, count):
        """Return a float64 array (count,), the value of each of the next batches."""
        values = []
        record = keras.callbacks.LambdaCallback(
            on_test_batch_end=lambda batch, logs: values.append(float(logs["value"]))
        )
        self.evaluate(pairs, steps=count, callbacks=[record], verbose=0)
        return np.asarray(values, "float64")

    def _scaled(self, data):
        return [
            self.definition.scaled(ops.cast(images, "float32"), self.random)
            for images in data
        ]

    def _train(self, data):
        real, fake = self._scaled(data)

        def loss():
            value = self.definition.loss(self.network, real, fake, self.random)
            return value, value

        everything = [*self.variables, *self.optimizer.variables]
        value = update(loss, self.network, self.optimizer, everything)
        self.loss_of_training.update_state(value)
        return {"loss": self.loss_of_training.result()}

    def _test(self, data):
        real, fake = self._scaled(data)
        value = self.definition.value(self.network, real, fake, self.random)
        return {"value": value}


def _pairs(real, generated, size, random):
    """Yield batches of real and of generated images."""
    batches = (_batches(images, size, random) for images in (real, generated))
    yield from zip(*batches, strict=False)


def _labels(sampler, size, random):
    """Return labels for a GAN's `generate`: its own begin with the first each time."""
    classes = getattr(getattr(sampler, "__self__", None), "classes", None)
    if classes is None:
        return {}
    return {"labels": random.integers(classes, size=_BLOCK * size)}


def _batches(images, size, random):
    """Yield batches of uint8 images without end, new ones where there is a sampler."""
    if callable(images):
        while True:
            seed = int(random.integers(2**31))
            made = to_uint8(
                images(_BLOCK * size, seed=seed, **_labels(images, size, random))
            )
            if len(made) != _BLOCK * size:
                raise ValueError(
                    "`generated` must return as many images as it is asked for, "
                    f"{_BLOCK * size}. Received: {len(made)}"
                )
            yield from np.split(made, _BLOCK)
    order = random.permutation(len(images))
    while True:
        while len(order) < size:
            order = np.concatenate([order, random.permutation(len(images))])
        yield images[order[:size]]
        order = order[size:]
