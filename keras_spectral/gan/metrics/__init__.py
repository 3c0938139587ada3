"""Metrics of generated images, made of features; each names its protocol."""

from keras_spectral.gan.metrics.critics import neural_divergence
from keras_spectral.gan.metrics.features import Features, inception
from keras_spectral.gan.metrics.frechet import (
    frechet_distance,
    frechet_distance_infinity,
    intra_frechet_distance,
)
from keras_spectral.gan.metrics.images import resized, to_uint8
from keras_spectral.gan.metrics.inception_score import inception_score
from keras_spectral.gan.metrics.kernel import kernel_distance
from keras_spectral.gan.metrics.manifold import precision_recall_density_coverage
from keras_spectral.gan.metrics.scores import (
    Score,
    bootstrap_interval,
    protocol_name,
    score_images,
)
from keras_spectral.gan.metrics.slopes import (
    DiscriminatorJacobians,
    discriminator_jacobians,
    discriminator_slopes,
    loss_instability,
)
from keras_spectral.gan.metrics.statistics import Statistics

__all__ = [
    "DiscriminatorJacobians",
    "Features",
    "Score",
    "Statistics",
    "bootstrap_interval",
    "discriminator_jacobians",
    "discriminator_slopes",
    "frechet_distance",
    "frechet_distance_infinity",
    "inception",
    "inception_score",
    "intra_frechet_distance",
    "kernel_distance",
    "loss_instability",
    "neural_divergence",
    "precision_recall_density_coverage",
    "protocol_name",
    "resized",
    "score_images",
    "to_uint8",
]
