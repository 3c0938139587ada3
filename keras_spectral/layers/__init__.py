"""Keras layers that control the singular values of a kernel while it trains."""

from keras_spectral.layers.almost_orthogonal import AlmostOrthogonal
from keras_spectral.layers.conditional_batch_normalization import (
    ConditionalBatchNormalization,
)
from keras_spectral.layers.group_sort import GroupSort
from keras_spectral.layers.invertible_residual import Inversion, InvertibleResidual
from keras_spectral.layers.lipschitz_batch_normalization import (
    LipschitzBatchNormalization,
)
from keras_spectral.layers.masked_convolution import MaskedConv2D
from keras_spectral.layers.optimal_spectral_normalization import (
    OptimalSpectralNormalization,
)
from keras_spectral.layers.reparametrization import (
    Reparametrization,
    restart_power_iteration,
)
from keras_spectral.layers.spectral_normalization import SpectralNormalization
from keras_spectral.layers.stable_rank_normalization import StableRankNormalization
from keras_spectral.layers.svd import SVDConv2D, SVDConv2DTranspose, SVDDense

__all__ = [
    "AlmostOrthogonal",
    "ConditionalBatchNormalization",
    "GroupSort",
    "InvertibleResidual",
    "Inversion",
    "LipschitzBatchNormalization",
    "MaskedConv2D",
    "OptimalSpectralNormalization",
    "Reparametrization",
    "SVDConv2D",
    "SVDConv2DTranspose",
    "SVDDense",
    "SpectralNormalization",
    "StableRankNormalization",
    "restart_power_iteration",
]
