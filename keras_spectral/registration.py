"""Imports all that registers our classes with Keras, for files that name them."""

import keras_spectral.constraints
import keras_spectral.gan
import keras_spectral.layers
import keras_spectral.losses
import keras_spectral.regularizers
import keras_spectral.zoo.pyramidnet
import keras_spectral.zoo.resnet_gan_networks  # noqa: F401
