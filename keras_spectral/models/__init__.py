"""What a Keras model is made of: kinds of layers, weights, copies."""

from keras_spectral.models.weights import LeftOut, Weight, Weights, weights

__all__ = ["LeftOut", "Weight", "Weights", "weights"]
