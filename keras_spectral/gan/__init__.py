"""Generative adversarial networks that train by `fit`."""

from keras_spectral.gan import metrics
from keras_spectral.gan.model import GAN
from keras_spectral.gan.objectives import OBJECTIVES, Objective

__all__ = ["GAN", "OBJECTIVES", "Objective", "metrics"]
