"""What one batch does: updates of the discriminator, then one of the generator."""

import keras
from keras import ops

from keras_spectral.gan.gradients import (
    gradient_by,
    replicas,
    shared_out,
    stepped,
    update,
    without_gradients,
)
from keras_spectral.gan.inputs import (
    check_floats,
    check_label_shape,
    refuse_weights,
    with_labels,
)
from keras_spectral.gan.objectives import objective_of, scalar
from keras_spectral.layers.vector_state import vectors_held
from keras_spectral.models.keras_internals import flatten_layers


class AlternatingSteps(keras.Model):
    """The training and test step of a `GAN`, whose attributes it reads."""

    def train_step(self, *given):
        return stepped(self, self._train, given)

    def test_step(self, *given):
        return stepped(self, self._test, given)

    def _test(self, data):
        images, labels, counts = self._unpacked(data)
        latents = keras.random.normal((ops.shape(images)[0], self.latent), seed=0)
        generated = self.generator(with_labels(latents, labels), training=False)
        real, fake = (
            ops.cast(
                self.discriminator(with_labels(x, labels), training=False), "float32"
            )
            for x in (images, generated)
        )
        objective = objective_of(self.objective)
        logits = (fake, real) if objective.needs_real else (fake,)
        self.discriminator_loss.update_state(
            objective.discriminator(real, fake), counts
        )
        self.generator_loss.update_state(objective.generator(*logits), counts)
        return {metric.name: metric.result() for metric in self.metrics}

    def _train(self, data):
        images, labels, counts = self._unpacked(data)
        count = ops.shape(images)[0]
        steps = self.discriminator_steps
        for step in range(steps):
            # The last batch of an epoch may have fewer images than there are parts.
            start = step * count // steps
            part = _at_least_one((step + 1) * count // steps - start)
            chosen = slice(start, start + part)
            real = shared_out(images[chosen])
            real_labels = None if labels is None else shared_out(labels[chosen])
            self._discriminator_step(real, real_labels, part, counts)
        made = 2 * _at_least_one(count // steps)
        self._generator_step(made, real, real_labels, counts)
        return {metric.name: metric.result() for metric in self.metrics}

    def _unpacked(self, data):
        """Return a batch's images and labels, checked, and what each loss counts.

        That is 0 for a replica without images, 1 for another one, `None` for a whole.
        """
        images, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        refuse_weights(weights)
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
            turned = shape[1:] + shape[:1] == wanted
            hint = "Move channels to the end." if turned else "Resize them."
            raise ValueError(
                f"`x` must hold images of the discriminator's shape {wanted}. "
                f"Received: images of shape {shape}. {hint}"
            )
        check_floats(images)
        # A single batch comes as it was given, and networks mix no kinds of tensors.
        images = ops.convert_to_tensor(images)
        if labels is not None:
            check_label_shape(labels)
            labels = ops.convert_to_tensor(labels)
        if replicas() == 1:
            return images, labels, None
        # Of a last batch some replicas have no share: one image that counts nothing.
        missing = ops.maximum(0, 1 - ops.shape(images)[0])
        counts = 1.0 - ops.cast(missing, "float32")
        images = ops.pad(images, [(0, missing), (0, 0), (0, 0), (0, 0)])
        if labels is not None:
            others = [(0, 0)] * (len(labels.shape) - 1)
            labels = ops.pad(labels, [(0, missing), *others])
        return images, labels, counts

    def _latents(self, count):
        shape = (count, self.latent)
        return shared_out(keras.random.normal(shape, seed=self.random))

    def _labels(self, count):
        drawn = keras.random.randint((count,), 0, self.classes, seed=self.random)
        return shared_out(drawn)

    @property
    def _normalizes_batches(self):
        return any(
            isinstance(layer, keras.layers.BatchNormalization)
            for layer in flatten_layers(self.discriminator)
        )

    def _logits(self, images, labels, training=True):
        logits = self.discriminator(with_labels(images, labels), training=training)
        return ops.cast(logits, "float32")

    def _judged(self, real, fake, labels, made, count):
        """Return the logits of real and generated images, and what the layers ask for.

        State moves as in one call.
        """
        if self._normalizes_batches:
            logits = self._logits(real, labels)
            extra = _sum_of_losses(self.discriminator)
            with vectors_held():
                return logits, self._logits(fake, made), extra
        both = ops.concatenate([real, fake], axis=0)
        if labels is not None:
            labels = ops.reshape(ops.cast(labels, made.dtype), (-1,))
            labels = ops.concatenate([labels, made], axis=0)
        logits = self._logits(both, labels)
        return logits[:count], logits[count:], _sum_of_losses(self.discriminator)

    def _discriminator_step(self, images, labels, count, counts=None):
        made = None if labels is None else self._labels(count)
        with without_gradients():
            latents = with_labels(self._latents(count), made)
            generated = self.generator(latents, training=True)
        images = ops.cast(images, generated.dtype)
        points = None
        if self.penalty is not None:
            points = self.penalty.points(
                *(ops.cast(x, "float32") for x in (images, generated)), self.random
            )

        def loss():
            real, fake, extra = self._judged(images, generated, labels, made, count)
            objective = objective_of(self.objective)
            value = scalar(objective.discriminator(real, fake), objective)
            total = value
            if points is not None:
                total = total + self._gradient_penalty(points, labels)
            return _weighted(total, counts) + extra, value

        value = self._updated(loss, self.discriminator, self.discriminator_optimizer)
        self.discriminator_loss.update_state(value, counts)

    def _gradient_penalty(self, points, labels):
        gradients = gradient_by(
            lambda x: self._logits(x, labels, training=False), points
        )
        axes = tuple(range(1, len(points.shape)))
        return self.penalty.penalty(ops.sum(ops.square(gradients), axis=axes))

    def _generator_step(self, count, real=None, real_labels=None, counts=None):
        latents = self._latents(count)
        labels = None if self.classes is None else self._labels(count)
        objective = objective_of(self.objective)
        training = self._normalizes_batches

        def loss():
            generated = self.generator(with_labels(latents, labels), training=True)
            extra = _sum_of_losses(self.generator)
            # The singular vectors belong to the discriminator's own updates.
            with vectors_held():
                logits = [self._logits(generated, labels, training)]
                if objective.needs_real:
                    images = ops.cast(real, generated.dtype)
                    logits.append(self._logits(images, real_labels, training))
            value = scalar(objective.generator(*logits), objective)
            return _weighted(value, counts) + extra, value

        # A number, and not the variable, which moves.
        before = ops.add(self.generator_optimizer.iterations, 0)
        value = self._updated(loss, self.generator, self.generator_optimizer)
        self.generator_loss.update_state(value, counts)
        if self.averaged_generator is not None:
            self._average(before)

    def _updated(self, loss, network, optimizer):
        everything = [*self.variables, *self.optimizer.variables]
        return update(loss, network, optimizer, everything)

    def _average(self, before):
        """Let the averaged generator follow the generator, if that was updated.

        Args:
            before: Integer tensor, the updates before this step.
        """
        after = ops.convert_to_tensor(self.generator_optimizer.iterations)
        # What stands there at first is not of this training.
        momentum = ops.where(after <= 1, 0.0, self.ema_momentum)
        # Gradients may be gathered over steps, and an overflow is no update.
        momentum = ops.where(after > before, momentum, 1.0)
        for average, variable in zip(
            self.averaged_generator.variables, self.generator.variables, strict=True
        ):
            value = ops.convert_to_tensor(variable)
            if variable.trainable:
                share = ops.cast(momentum, value.dtype)
                value = share * average + (1 - share) * value
            average.assign(value)


def _sum_of_losses(network):
    return sum(ops.cast(extra, "float32") for extra in network.losses)


def _at_least_one(count):
    # A number where the batch's size is known, which XLA needs.
    return max(1, count) if isinstance(count, int) else ops.maximum(1, count)


def _weighted(loss, weight):
    return loss if weight is None else loss * weight
