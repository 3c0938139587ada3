"""What a discriminator and a generator minimize."""

from collections.abc import Callable
from typing import NamedTuple

from keras import ops


class Objective(NamedTuple):
    """Two losses, each of logits (batch, 1) and a scalar.

    Args:
        discriminator: Callable from the logits of real and of generated images.
        generator: Callable from the logits of generated images.
    """

    discriminator: Callable
    generator: Callable


def _hinge(real, fake):
    return ops.mean(ops.relu(1.0 - real)) + ops.mean(ops.relu(1.0 + fake))


def _minus_mean(fake):
    return -ops.mean(fake)


def _logistic(real, fake):
    return ops.mean(ops.softplus(-real)) + ops.mean(ops.softplus(fake))


def _non_saturating(fake):
    return ops.mean(ops.softplus(-fake))


# "hinge": [sanyal2020], appendix E.1 ([miyato2018]).
# "logistic": [garg2019], eq. 1 with phi = log and a sigmoid; the generator takes
# Goodfellow's loss that does not saturate.
OBJECTIVES = {
    "hinge": Objective(_hinge, _minus_mean),
    "logistic": Objective(_logistic, _non_saturating),
}
