"""What a Keras model is made of: layers, weights, a graph; and copies of it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
