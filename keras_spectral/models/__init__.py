"""What a Keras model is made of: layers, weights, a graph; and copies of it."""

from keras_spectral.models.weights import LeftOut, Weight, Weights, weights

__all__ = ["LeftOut", "Weight", "Weights", "weights"]
