"""What a discriminator and a generator minimize."""

import keras
from keras import ops


class Objective:
    """Two losses of logits, and a base class of your own.

    A subclass that is to be saved is registered
    (`keras.saving.register_keras_serializable`) and has a `get_config` where its
    constructor takes arguments.

    Attributes:
        needs_real: Boolean; whether `generator` takes the logits of real images too.

    Example:
    >>> @keras.saving.register_keras_serializable(package="mine")
    ... class LeastSquares(Objective):
    ...     def discriminator(self, real, fake):
    ...         return ops.mean((real - 1) ** 2) + ops.mean(fake**2)
    ...     def generator(self, fake):
    ...         return ops.mean((fake - 1) ** 2)
    >>> objective_of(LeastSquares()).needs_real
    False
    """

    needs_real = False

    def discriminator(self, real, fake):
        """Return the discriminator's loss, a scalar.

        Args:
            real: Float32 tensor (batch, 1), logits of real images.
            fake: Likewise, of generated images.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must implement `discriminator`."
        )

    def generator(self, fake, real=None):
        """Return the generator's loss, a scalar.

        Args:
            fake: Float32 tensor (batch, 1), logits of generated images.
            real: Likewise, of real images; passed if `needs_real`.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `generator`.")

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@keras.saving.register_keras_serializable(package="keras_spectral")
class Hinge(Objective):
    """max(0, 1 - D(x)) + max(0, 1 + D(G(z))) for D; -D(G(z)) for G.

    Example:
    >>> real, fake = ops.convert_to_tensor([1.0]), ops.convert_to_tensor([0.5])
    >>> float(Hinge().discriminator(real, fake)), float(Hinge().generator(fake))
    (1.5, -0.5)

    Source: [sanyal2020], appendix E.1; [miyato2018].
    """

    def discriminator(self, real, fake):
        return ops.mean(ops.relu(1.0 - real)) + ops.mean(ops.relu(1.0 + fake))

    def generator(self, fake):
        return -ops.mean(fake)


@keras.saving.register_keras_serializable(package="keras_spectral")
class Logistic(Objective):
    """Cross-entropy of real and generated; G has the loss that does not saturate.

    -log s(D(x)) - log(1 - s(D(G(z)))) for D, with s the sigmoid; -log s(D(G(z))) for G.

    Example:
    >>> undecided = ops.zeros((4,))
    >>> round(float(Logistic().generator(undecided)), 4)  # log 2
    0.6931

    Source: [garg2019], eq. 1 with phi = log and a sigmoid; [goodfellow2014], section 3.
    """

    def discriminator(self, real, fake):
        return ops.mean(ops.softplus(-real)) + ops.mean(ops.softplus(fake))

    def generator(self, fake):
        return ops.mean(ops.softplus(-fake))


@keras.saving.register_keras_serializable(package="keras_spectral")
class Minimax(Logistic):
    """The logistic game itself: G minimizes log(1 - s(D(G(z)))), which saturates.

    Example:
    >>> undecided = ops.zeros((4,))
    >>> round(float(Minimax().generator(undecided)), 4)  # -log 2
    -0.6931

    Source: [goodfellow2014], the game itself.
    """

    def generator(self, fake):
        return -ops.mean(ops.softplus(fake))


@keras.saving.register_keras_serializable(package="keras_spectral")
class Wasserstein(Objective):
    """D(G(z)) - D(x) for D; -D(G(z)) for G.

    It needs a discriminator of a bounded Lipschitz constant: a `GradientPenalty`, or
    layers that have one.

    Example:
    >>> real, fake = ops.convert_to_tensor([1.0]), ops.convert_to_tensor([0.5])
    >>> float(Wasserstein().discriminator(real, fake))
    -0.5

    Source: [gulrajani2017], eq. 3.
    """

    def discriminator(self, real, fake):
        return ops.mean(fake) - ops.mean(real)

    def generator(self, fake):
        return -ops.mean(fake)


@keras.saving.register_keras_serializable(package="keras_spectral")
class RelativisticAverage(Objective):
    """Logistic losses of how much more real an image looks than the other kind do.

    With r = D(x) - mean D(G(z)) and f = D(G(z)) - mean D(x), D minimizes
    -log s(r) - log(1 - s(f)) and G minimizes -log s(f) - log(1 - s(r)).

    Example:
    >>> equal = ops.ones((4,))
    >>> round(float(RelativisticAverage().discriminator(equal, equal)), 4)  # 2 log 2
    1.3863

    Source: [jolicoeur2019], the loss called RaSGAN.
    """

    needs_real = True

    def discriminator(self, real, fake):
        more_real, more_fake = real - ops.mean(fake), fake - ops.mean(real)
        return ops.mean(ops.softplus(-more_real)) + ops.mean(ops.softplus(more_fake))

    def generator(self, fake, real=None):
        return self.discriminator(fake, real)


def scalar(loss, objective):
    """Return the loss that an objective has made, checked to be one number.

    Args:
        loss: What `discriminator` or `generator` has returned.
        objective: The `Objective`, for the message.

    Raises:
        ValueError: If it is no scalar: backends would take sums of it, or stop.
    """
    shape = getattr(loss, "shape", None)
    if shape is None or len(shape):
        received = "None" if loss is None else f"a loss of shape {shape}"
        raise ValueError(
            "`objective` must return a scalar loss, such as a mean over the batch. "
            f"Received: {received} of {type(objective).__name__}"
        )
    return loss


OBJECTIVES = {
    "hinge": Hinge(),
    "logistic": Logistic(),
    "minimax": Minimax(),
    "wasserstein": Wasserstein(),
    "relativistic_average": RelativisticAverage(),
}


def objective_of(given) -> Objective:
    """Return an objective by its name, or as it is.

    Args:
        given: A key of `OBJECTIVES`, or an `Objective`.

    Raises:
        ValueError: If it is neither.
    """
    if isinstance(given, Objective):
        return given
    if not isinstance(given, str) or given not in OBJECTIVES:
        names = ", ".join(f'"{name}"' for name in OBJECTIVES)
        raise ValueError(
            f"`objective` must be one of {names}, or a keras_spectral.gan.Objective. "
            f"Received: objective={given!r}"
        )
    return OBJECTIVES[given]
