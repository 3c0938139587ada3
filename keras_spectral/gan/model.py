"""One `keras.Model` that owns a generator and a discriminator."""

import inspect

import keras
import numpy as np

from keras_spectral.gan.inputs import (
    check_labels,
    checked,
    refuse_weights,
    with_labels,
)
from keras_spectral.gan.objectives import objective_of
from keras_spectral.gan.optimizers import BothOptimizers
from keras_spectral.gan.penalties import Penalty
from keras_spectral.gan.seeds import SeedOfReplica
from keras_spectral.gan.steps import AlternatingSteps
from keras_spectral.layers.vector_state import vectors_uncounted
from keras_spectral.validation import check_integer, check_probability

_COMPILED = {"jit_compile", "run_eagerly", "steps_per_execution"}


@keras.saving.register_keras_serializable(package="keras_spectral")
class GAN(AlternatingSteps):
    """A generator and a discriminator that train by plain `fit`.

    A batch of n images is split into `discriminator_steps` parts, as equal as they can
    be. Each updates the discriminator once, called with `training=True` on the real and
    as many generated images together, so that a normalizing wrapper moves its singular
    vectors once an update; then the generator is updated once, on twice as many latents
    as the smallest part has images. So `batch_size` is `discriminator_steps` times the
    papers' batch: with 5 steps and 320 images these are their 64 and 128. Parts of a
    batch of fewer images than steps have one image each, some of them twice.

    A discriminator with batch normalization is called on real and on generated images
    apart, and with `training=True` in the generator's update too, as PyTorch's DCGAN
    does; each of these calls moves its statistics, the first one singular vectors. One
    without is called with `training=False` there, so that its `Dropout` drops nothing.

    Args:
        generator: A `keras.Model` from latents (latent,) to images, or from latents and
            labels.
        discriminator: A `keras.Model` from images to logits (1,), or from images and
            labels.
        objective: `"hinge"`, `"logistic"`, `"minimax"`, `"wasserstein"` or
            `"relativistic_average"`, or an `Objective`.
        discriminator_steps: Integer >= 1, discriminator updates a generator update.
        classes: Integer >= 1, number of labels of a conditional pair, else `None`.
        seed: Integer of the latents and labels that it trains on; `None` draws one from
            `keras.utils.set_random_seed`. Where they are is saved with the weights;
            each replica of a `tf.distribute` strategy has its own.
        penalty: A `Penalty` of the discriminator's gradients by its images, such as
            `GradientPenalty(10.0)`; `None` for none.
        ema_momentum: Float in (0, 1) for an averaged generator beside the one that
            trains, `averaged_generator`, which `generate` then uses: each generator
            update moves its weights to `ema_momentum` times themselves plus the rest of
            the new ones, the first update to the new ones; `None` for none.
        **kwargs: What a `keras.Model` takes, such as `name`.

    Call arguments:
        inputs: What the generator takes.

    Raises:
        ValueError: If an argument is out of range, or the two do not fit.

    Example:
    >>> from keras_spectral import zoo
    >>> gan = zoo.sn_resnet_gan(width=8, generator_width=8, discriminator_steps=2)
    >>> gan.compile()
    >>> images = np.random.default_rng(0).uniform(-1, 1, (10, 32, 32, 3))
    >>> history = gan.fit(images.astype("float32"), batch_size=10, verbose=0)
    >>> sorted(history.history)
    ['discriminator_loss', 'generator_loss']
    >>> gan.generate(4, seed=0).shape
    (4, 32, 32, 3)

    Source: [sanyal2020], section 5.3 and appendix E.
    """

    def __init__(
        self,
        generator,
        discriminator,
        objective="hinge",
        discriminator_steps=5,
        classes=None,
        seed=None,
        penalty=None,
        ema_momentum=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        objective_of(objective)
        if penalty is not None and not isinstance(penalty, Penalty):
            raise ValueError(
                "`penalty` must be a keras_spectral.gan.Penalty, such as "
                f"GradientPenalty(10.0), or None. Received: penalty={penalty!r}"
            )
        if ema_momentum is not None:
            check_probability("ema_momentum", ema_momentum)
        if classes is not None:
            check_integer("classes", classes, least=1)
        if seed is not None:
            check_integer("seed", seed, least=0)
            if seed >= 2**32:
                raise ValueError(
                    "`seed` must be below 2**32, which every backend takes. Received: "
                    f"seed={seed}"
                )
        check_integer("discriminator_steps", discriminator_steps, least=1)
        for name, model in (("generator", generator), ("discriminator", discriminator)):
            _check_network(name, model)
            inputs = len(model.inputs)
            if inputs != (1 if classes is None else 2):
                raise ValueError(
                    f"`{name}` must take labels if and only if `classes` is given. "
                    f"Received: classes={classes}, a {name} with {inputs} inputs."
                )
        if len(generator.inputs[0].shape) != 2 or generator.inputs[0].shape[1] is None:
            raise ValueError(
                "`generator` must take latents (samples, latent). Received: a "
                f"generator of inputs {generator.inputs[0].shape}"
            )
        made, read = generator.output_shape[1:], discriminator.inputs[0].shape[1:]
        if tuple(made) != tuple(read):
            raise ValueError(
                "`generator` must make the images that `discriminator` takes. "
                f"Received: images of {made} and of {read}"
            )
        self.generator = generator
        self.discriminator = discriminator
        self.objective = objective
        self.discriminator_steps = discriminator_steps
        self.classes = classes
        self.discriminator_loss = keras.metrics.Mean(name="discriminator_loss")
        self.generator_loss = keras.metrics.Mean(name="generator_loss")
        self.seed = seed
        self.random = SeedOfReplica(seed)
        self.penalty = penalty
        self.ema_momentum = ema_momentum
        self.averaged_generator = None
        if ema_momentum is not None:
            self.averaged_generator = keras.models.clone_model(generator)
            self.averaged_generator.set_weights(generator.get_weights())
            self.averaged_generator.trainable = False
        self.built = True

    @property
    def latent(self):
        """Integer, numbers of a latent vector."""
        return self.generator.inputs[0].shape[-1]

    @property
    def sampler(self):
        """The `keras.Model` that makes images: averaged, where there is an average."""
        return self.generator if self.ema_momentum is None else self.averaged_generator

    @property
    def metrics(self):
        return [self.discriminator_loss, self.generator_loss]

    def call(self, inputs, training=None):
        return self.generator(inputs, training=training)

    def build(self, input_shape=None):
        """Do nothing: both networks are built."""

    def summary(self, *args, expand_nested=True, **kwargs):
        """Print both networks, as `keras.Model.summary` prints one.

        A wrapper's layer is shown below it, and singular vectors, which are state, are
        not counted.

        Args:
            expand_nested: Boolean; `False` for a line a network.
            *args: What `keras.Model.summary` takes.
            **kwargs: Likewise.
        """
        with vectors_uncounted():
            super().summary(*args, expand_nested=expand_nested, **kwargs)

    def compile(self, generator_optimizer=None, discriminator_optimizer=None, **kwargs):
        """Set the optimizers; the defaults are the stable-rank paper's.

        Args:
            generator_optimizer: A Keras optimizer, or its name; default: Adam, learning
                rate 2e-4, beta 0 and 0.999.
            discriminator_optimizer: Likewise, another instance.
            **kwargs: `jit_compile`, `run_eagerly` and `steps_per_execution`.

        A learning-rate schedule counts the updates of its own optimizer: in n batches
        the generator makes n, the discriminator n times `discriminator_steps`. With
        `use_ema=True` a network has its averages once `fit` returns. Losses of networks
        in float16 are scaled (`keras.optimizers.LossScaleOptimizer`). New optimizers
        begin anew, and so does the average of `ema_momentum`, as Keras' own does.
        """
        dropped = sorted(set(kwargs) - _COMPILED)
        if dropped:
            raise ValueError(
                f"`{dropped[0]}` has no place in `compile` of a GAN, which takes "
                "generator_optimizer, discriminator_optimizer, "
                f"{', '.join(sorted(_COMPILED))}; its losses are the `objective`. "
                f"Received: {', '.join(dropped)}"
            )
        super().compile(optimizer=None, **kwargs)
        self._given = kwargs
        optimizers = BothOptimizers(
            generator_optimizer,
            discriminator_optimizer,
            (self.generator, self.discriminator),
        )
        self.generator_optimizer, self.discriminator_optimizer = optimizers.whole
        # Built now, so that a loaded model finds where its state belongs.
        self.generator_optimizer.build(self.generator.trainable_variables)
        self.discriminator_optimizer.build(self.discriminator.trainable_variables)
        self.optimizer = optimizers

    def get_compile_config(self):
        if not self.compiled:
            return None
        return {
            "generator_optimizer": keras.saving.serialize_keras_object(
                self.generator_optimizer
            ),
            "discriminator_optimizer": keras.saving.serialize_keras_object(
                self.discriminator_optimizer
            ),
            **self._given,
        }

    def compile_from_config(self, config):
        self.compile(
            **{
                key: keras.saving.deserialize_keras_object(value)
                for key, value in config.items()
            }
        )

    def fit(self, x=None, y=None, *args, **kwargs):
        """Train, as `keras.Model.fit`; `x` are images in [-1, 1], `y` labels."""
        given = inspect.signature(super().fit).bind(x, y, *args, **kwargs).arguments
        refuse_weights(given.get("sample_weight"), given.get("class_weight"))
        held_out = given.get("validation_data")
        if isinstance(held_out, (tuple, list)):
            checked(*(*held_out, None)[:2], self.classes)
            refuse_weights(*held_out[2:])
        elif held_out is not None:
            given["validation_data"] = checked(
                held_out, None, self.classes, given.get("validation_steps")
            )
        given["x"] = checked(x, y, self.classes, given.get("steps_per_epoch"))
        history = super().fit(**given)
        self.optimizer.finalize(self.generator, self.discriminator)
        return history

    def evaluate(self, x=None, y=None, *args, **kwargs):
        """Return both losses on images, as `keras.Model.evaluate`; nothing moves.

        The generator is given the same latents for each batch and in each call.
        """
        given = inspect.signature(super().evaluate).bind(x, y, *args, **kwargs)
        refuse_weights(given.arguments.get("sample_weight"))
        x = checked(x, y, self.classes, given.arguments.get("steps"))
        return super().evaluate(x, y, *args, **kwargs)

    def train_on_batch(
        self, x, y=None, sample_weight=None, class_weight=None, return_dict=False
    ):
        """Train on one batch of arrays, as `keras.Model.train_on_batch`."""
        refuse_weights(sample_weight, class_weight)
        x = checked(x, y, self.classes)
        return super().train_on_batch(x, y, return_dict=return_dict)

    def test_on_batch(self, x, y=None, sample_weight=None, return_dict=False):
        """Return both losses on a batch, as `keras.Model.test_on_batch`."""
        refuse_weights(sample_weight)
        x = checked(x, y, self.classes)
        return super().test_on_batch(x, y, return_dict=return_dict)

    def generate(self, count, labels=None, seed=None, batch_size=64):
        """Return generated images.

        Args:
            count: Integer >= 1, how many.
            labels: Integer or array (count,), for a conditional GAN; default: all
                labels in turns.
            seed: Integer >= 0 of the latents; one gives the same latents on every
                backend, and of a larger count the same first ones.
            batch_size: Integer >= 1, images at a time.

        Returns:
            NumPy array (count, height, width, channels), float32, in [-1, 1].

        Raises:
            ValueError: If a number is below its least, or labels do not fit.
        """
        check_integer("count", count, least=1)
        check_integer("batch_size", batch_size, least=1)
        if seed is not None:
            check_integer("seed", seed, least=0)
        latents = np.random.default_rng(seed).standard_normal((count, self.latent))
        if self.classes is None:
            if labels is not None:
                raise ValueError(
                    "`labels` needs a conditional GAN. Received: labels="
                    f"{labels!r}, classes=None. Leave it out."
                )
        else:
            labels = np.arange(count) % self.classes if labels is None else labels
            if np.shape(labels) not in ((), (count,)):
                raise ValueError(
                    f"`labels` must be one integer, or one for each of {count} images. "
                    f"Received: labels of shape {np.shape(labels)}"
                )
            check_labels("labels", labels, self.classes)
            labels = np.broadcast_to(labels, (count,)).astype("int32")
        sampler = self.sampler
        if not sampler.compiled:
            # XLA would take its time for each size of a batch.
            sampler.jit_compile = keras.backend.backend() == "jax"
        if keras.backend.backend() == "jax":
            # Within an epoch the variables are the trainer's.
            self.jax_state_sync()
        images = sampler.predict(
            with_labels(latents.astype("float32"), labels),
            batch_size=batch_size,
            verbose=0,
        )
        return np.asarray(images, "float32")

    def save_own_variables(self, store):
        super().save_own_variables(store)
        # Keras leaves it out; training that resumes must go on with its numbers.
        store["random"] = self.random.state

    def load_own_variables(self, store):
        self.random.state.assign(store["random"])

    def get_config(self):
        return {
            "generator": keras.saving.serialize_keras_object(self.generator),
            "discriminator": keras.saving.serialize_keras_object(self.discriminator),
            "objective": keras.saving.serialize_keras_object(self.objective),
            "discriminator_steps": self.discriminator_steps,
            "classes": self.classes,
            "seed": self.seed,
            "penalty": keras.saving.serialize_keras_object(self.penalty),
            "ema_momentum": self.ema_momentum,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        # Files of before had fewer.
        made = {
            key: keras.saving.deserialize_keras_object(
                config[key], custom_objects=custom_objects
            )
            for key in ("generator", "discriminator", "objective", "penalty")
            if key in config
        }
        return cls(**{**config, **made})


def _check_network(name, model):
    # A model that was never built has no inputs, one that was subclassed never.
    fits = isinstance(model, keras.Model) and getattr(model, "inputs", None)
    if not fits or len(model.outputs) != 1:
        raise ValueError(
            f"`{name}` must be a functional or Sequential `keras.Model` with a "
            f"`keras.Input` and one output. Received: {name}={model!r}"
        )
