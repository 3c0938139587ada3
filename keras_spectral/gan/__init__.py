"""Generative adversarial networks that train by `fit`."""

from keras_spectral.gan import callbacks, metrics
from keras_spectral.gan.model import GAN
from keras_spectral.gan.objectives import (
    OBJECTIVES,
    Hinge,
    Logistic,
    Minimax,
    Objective,
    RelativisticAverage,
    Wasserstein,
)
from keras_spectral.gan.penalties import R1, GradientPenalty, Penalty

__all__ = [
    "GAN",
    "OBJECTIVES",
    "R1",
    "GradientPenalty",
    "Hinge",
    "Logistic",
    "Minimax",
    "Objective",
    "Penalty",
    "RelativisticAverage",
    "Wasserstein",
    "callbacks",
    "metrics",
]
