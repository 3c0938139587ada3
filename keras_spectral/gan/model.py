"""One `keras.Model` that owns a generator and a discriminator."""

import keras
import numpy as np
from keras import ops

from keras_spectral.gan.inputs import check_floats, check_labels, checked
from keras_spectral.gan.objectives import OBJECTIVES
from keras_spectral.gan.optimizers import BothOptimizers, scaled, update
from keras_spectral.gan.seeds import SeedOfReplica
from keras_spectral.models.keras_internals import flatten_layers
from keras_spectral.validation import check_choice, check_integer

_COMPILED = {"jit_compile", "run_eagerly", "steps_per_execution"}


@keras.saving.register_keras_serializable(package="keras_spectral")
class GAN(keras.Model):
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
    does; each of these calls moves the state of the layers.

    Training needs the TensorFlow backend. Building, saving and `generate` do not.

    Args:
        generator: A `keras.Model` from latents (latent,) to images, or from latents and
            labels.
        discriminator: A `keras.Model` from images to logits (1,), or from images and
            labels.
        objective: `"hinge"` or `"logistic"`.
        discriminator_steps: Integer >= 1, discriminator updates a generator update.
        classes: Integer number of labels of a conditional pair, else `None`.
        seed: Integer of the latents and labels that it trains on; `None` draws one from
            `keras.utils.set_random_seed`. Where they are is saved with the weights;
            each replica of a `tf.distribute` strategy has its own.
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
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_choice("objective", objective, tuple(OBJECTIVES))
        check_integer("discriminator_steps", discriminator_steps, least=1)
        for name, model in (("generator", generator), ("discriminator", discriminator)):
            inputs = len(model.inputs)
            if inputs != (1 if classes is None else 2):
                raise ValueError(
                    f"`{name}` must take labels if and only if `classes` is given. "
                    f"Received: classes={classes}, a {name} with {inputs} inputs."
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
        self.built = True

    @property
    def latent(self):
        """Integer, numbers of a latent vector."""
        return self.generator.inputs[0].shape[-1]

    @property
    def metrics(self):
        return [self.discriminator_loss, self.generator_loss]

    def call(self, inputs, training=None):
        return self.generator(inputs, training=training)

    def build(self, input_shape=None):
        """Do nothing: both networks are built."""

    def compile(self, generator_optimizer=None, discriminator_optimizer=None, **kwargs):
        """Set the optimizers; the defaults are the stable-rank paper's.

        Args:
            generator_optimizer: A Keras optimizer, or its name; default: Adam, learning
                rate 2e-4, beta 0 and 0.999.
            discriminator_optimizer: Likewise, another instance.
            **kwargs: `jit_compile`, `run_eagerly` and `steps_per_execution`.

        A learning-rate schedule counts the updates of its own optimizer: in n batches
        the generator makes n, the discriminator n times `discriminator_steps`. With
        `use_ema=True` a network has its averages once `fit` returns.
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
        optimizers = BothOptimizers(generator_optimizer, discriminator_optimizer)
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
        _check_backend("fit")
        held_out = kwargs.get("validation_data")
        if isinstance(held_out, (tuple, list)):
            checked(*(*held_out, None)[:2], self.classes)
        elif held_out is not None:
            kwargs["validation_data"] = checked(held_out, None, self.classes)
        x = checked(x, y, self.classes)
        history = super().fit(x, y, *args, **kwargs)
        self.optimizer.finalize(self.generator, self.discriminator)
        return history

    def evaluate(self, x=None, y=None, *args, **kwargs):
        """Return both losses on images, as `keras.Model.evaluate`; nothing moves.

        The generator is given the same latents for each batch and in each call.
        """
        _check_backend("evaluate")
        return super().evaluate(checked(x, y, self.classes), y, *args, **kwargs)

    def test_step(self, data):
        images, labels = self._unpacked(data)
        latents = keras.random.normal((ops.shape(images)[0], self.latent), seed=0)
        generated = self.generator(_with(latents, labels), training=False)
        real, fake = (
            ops.cast(self.discriminator(_with(x, labels), training=False), "float32")
            for x in (images, generated)
        )
        objective = OBJECTIVES[self.objective]
        self.discriminator_loss.update_state(objective.discriminator(real, fake))
        self.generator_loss.update_state(objective.generator(fake))
        return {metric.name: metric.result() for metric in self.metrics}

    def train_step(self, data):
        images, labels = self._unpacked(data)
        count = ops.shape(images)[0]
        steps = self.discriminator_steps
        for step in range(steps):
            # The last batch of an epoch may have fewer images than there are parts.
            start = step * count // steps
            part = _at_least_one((step + 1) * count // steps - start)
            chosen = slice(start, start + part)
            self._discriminator_step(
                images[chosen], None if labels is None else labels[chosen], part
            )
        self._generator_step(2 * _at_least_one(count // steps))
        return {metric.name: metric.result() for metric in self.metrics}

    def _unpacked(self, data):
        """Return a batch's images and labels, checked against the networks."""
        images, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        if weights is not None:
            raise ValueError(
                "`sample_weight` has no place in the losses of a GAN, and neither has "
                "`class_weight`. Received: weights. Leave them out, or choose images."
            )
        if (labels is None) != (self.classes is None):
            raise ValueError(
                "`y` must hold labels if and only if the GAN is conditional. Received: "
                f"y={'None' if labels is None else 'labels'}, classes={self.classes}"
            )
        wanted = tuple(self.discriminator.inputs[0].shape[1:])
        shape = tuple(images.shape[1:])
        # A pipeline may not know a size.
        fits = len(shape) == len(wanted) and all(
            n in (size, None) for n, size in zip(shape, wanted, strict=True)
        )
        if not fits:
            raise ValueError(
                f"`x` must hold images of the discriminator's shape {wanted}. "
                f"Received: images of shape {shape}. Resize them."
            )
        check_floats(images)
        return images, labels

    def _latents(self, count):
        return keras.random.normal((count, self.latent), seed=self.random)

    def _labels(self, count):
        return keras.random.randint((count,), 0, self.classes, seed=self.random)

    @property
    def _normalizes_batches(self):
        return any(
            isinstance(layer, keras.layers.BatchNormalization)
            for layer in flatten_layers(self.discriminator)
        )

    def _logits(self, real, fake, labels, count):
        """Return what the discriminator makes of real and generated images."""
        if self._normalizes_batches:
            return [
                ops.cast(self.discriminator(_with(x, labels), training=True), "float32")
                for x in (real, fake)
            ]
        both = ops.concatenate([real, fake], axis=0)
        twice = None if labels is None else ops.concatenate([labels, labels], axis=0)
        logits = self.discriminator(_with(both, twice), training=True)
        logits = ops.cast(logits, "float32")
        return logits[:count], logits[count:]

    def _discriminator_step(self, images, labels, count):
        import tensorflow as tf

        generated = self.generator(_with(self._latents(count), labels), training=True)
        images = ops.cast(images, generated.dtype)
        with tf.GradientTape() as tape:
            real, fake = self._logits(images, generated, labels, count)
            loss = OBJECTIVES[self.objective].discriminator(real, fake)
            total = scaled(loss, self.discriminator, self.discriminator_optimizer)
        update(tape, total, self.discriminator, self.discriminator_optimizer)
        self.discriminator_loss.update_state(loss)

    def _generator_step(self, count):
        import tensorflow as tf

        latents = self._latents(count)
        labels = None if self.classes is None else self._labels(count)
        with tf.GradientTape() as tape:
            generated = self.generator(_with(latents, labels), training=True)
            # The singular vectors belong to the discriminator's own updates.
            logits = self.discriminator(
                _with(generated, labels), training=self._normalizes_batches
            )
            loss = OBJECTIVES[self.objective].generator(ops.cast(logits, "float32"))
            total = scaled(loss, self.generator, self.generator_optimizer)
        update(tape, total, self.generator, self.generator_optimizer)
        self.generator_loss.update_state(loss)

    def generate(self, count, labels=None, seed=None, batch_size=64):
        """Return generated images.

        Args:
            count: Integer >= 1, how many.
            labels: Integer or array (count,), for a conditional GAN; default: all
                labels in turns.
            seed: Integer of the latents; one seed gives the same latents on every
                backend, and of a larger count the same first ones.
            batch_size: Integer >= 1, images at a time.

        Returns:
            NumPy array (count, height, width, channels), float32, in [-1, 1].

        Raises:
            ValueError: If `count` is below 1, or labels do not fit.
        """
        check_integer("count", count, least=1)
        check_integer("batch_size", batch_size, least=1)
        latents = np.random.default_rng(seed).standard_normal((count, self.latent))
        if self.classes is None:
            if labels is not None:
                raise ValueError(
                    "`labels` needs a conditional GAN. Received: labels="
                    f"{labels!r}, classes=None. Leave it out."
                )
        else:
            labels = np.arange(count) % self.classes if labels is None else labels
            labels = np.broadcast_to(np.asarray(labels), (count,)).astype("int32")
            check_labels("labels", labels, self.classes)
        if not self.generator.compiled:
            # XLA would take its time for each size of a batch.
            self.generator.jit_compile = keras.backend.backend() == "jax"
        images = self.generator.predict(
            _with(latents.astype("float32"), labels), batch_size=batch_size, verbose=0
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
            "objective": self.objective,
            "discriminator_steps": self.discriminator_steps,
            "classes": self.classes,
            "seed": self.seed,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        networks = {
            key: keras.saving.deserialize_keras_object(
                config[key], custom_objects=custom_objects
            )
            for key in ("generator", "discriminator")
        }
        return cls(**{**config, **networks})


def _check_backend(method):
    if keras.backend.backend() != "tensorflow":
        raise NotImplementedError(
            f"`{method}` of a GAN needs the TensorFlow backend. Received: "
            f"backend={keras.backend.backend()!r}. Set KERAS_BACKEND=tensorflow; "
            "`generate` works on every backend."
        )


def _at_least_one(count):
    # A number where the batch's size is known, which XLA needs.
    return max(1, count) if isinstance(count, int) else ops.maximum(1, count)


def _with(tensor, labels):
    return tensor if labels is None else [tensor, labels]
