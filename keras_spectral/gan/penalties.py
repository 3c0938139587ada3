"""Penalties on the gradient of a discriminator by its images."""

import keras
from keras import ops

from keras_spectral.validation import check_not_negative, check_positive


class Penalty:
    """A function of the discriminator's gradients at chosen images.

    The discriminator is called with `training=False` there, so that no state moves and
    the gradient of an image is its own.

    Args:
        factor: Float > 0, the weight in the discriminator's loss.

    Raises:
        ValueError: If `factor` is not above 0.

    Example:
    >>> class AtFakes(Penalty):
    ...     def points(self, real, fake, seed):
    ...         return fake
    ...
    ...     def penalty(self, squared_norms):
    ...         return self.factor * ops.mean(squared_norms)
    >>> float(AtFakes(2.0).penalty(ops.convert_to_tensor([3.0, 1.0])))
    4.0
    """

    def __init__(self, factor=10.0):
        check_positive("factor", factor)
        self.factor = float(factor)

    def points(self, real, fake, seed):
        """Return the images at which the gradient is taken.

        Args:
            real: Float32 tensor (batch, height, width, channels).
            fake: Likewise, as many generated images.
            seed: `keras.random.SeedGenerator`.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `points`.")

    def penalty(self, squared_norms):
        """Return the penalty, a scalar, of squared norms (batch,) of the gradients."""
        raise NotImplementedError(f"{type(self).__name__} must implement `penalty`.")

    def get_config(self):
        return {"factor": self.factor}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@keras.saving.register_keras_serializable(package="keras_spectral")
class GradientPenalty(Penalty):
    """factor * mean (||grad D(x)|| - target)^2 between real and generated images.

    x lies uniformly on the segment from a real image to a generated one.

    Args:
        factor: Float > 0, the paper's lambda.
        target: Float >= 0, the norm that is asked for.

    Raises:
        ValueError: If `factor` is not above 0, or `target` below it.

    Example:
    >>> gradients = [9.0, 1.0]
    >>> float(GradientPenalty(10.0).penalty(ops.convert_to_tensor(gradients)))
    20.0

    Source: [gulrajani2017], eq. 3.
    """

    def __init__(self, factor=10.0, target=1.0):
        super().__init__(factor)
        check_not_negative("target", target)
        self.target = float(target)

    def points(self, real, fake, seed):
        others = (1,) * (len(real.shape) - 1)
        share = keras.random.uniform((ops.shape(real)[0], *others), seed=seed)
        return real + share * (fake - real)

    def penalty(self, squared_norms):
        # The root's own gradient is infinite at zero.
        zero = ops.equal(squared_norms, 0)
        norms = ops.sqrt(ops.where(zero, ops.ones_like(squared_norms), squared_norms))
        norms = ops.where(zero, ops.zeros_like(norms), norms)
        return self.factor * ops.mean(ops.square(norms - self.target))

    def get_config(self):
        return {**super().get_config(), "target": self.target}


@keras.saving.register_keras_serializable(package="keras_spectral")
class R1(Penalty):
    """factor / 2 * mean ||grad D(x)||^2 at real images.

    Args:
        factor: Float > 0, the paper's gamma.

    Raises:
        ValueError: If `factor` is not above 0.

    Example:
    >>> float(R1(10.0).penalty(ops.convert_to_tensor([4.0, 2.0])))
    15.0

    Source: [mescheder2018].
    """

    def points(self, real, fake, seed):
        return real

    def penalty(self, squared_norms):
        return self.factor / 2.0 * ops.mean(squared_norms)
