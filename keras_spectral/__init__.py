"""keras_spectral: control, measure and compress the singular values of a network.

Public names are imported at first use, so that the command line answers without
loading Keras. Imported after Keras, all classes are registered with it at once, and
`keras.models.load_model` opens what holds them.

Example:
>>> import keras_spectral as ks
>>> ks.layers.SpectralNormalization.__name__
'SpectralNormalization'
"""

import sys

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

if sys.modules.get("keras") is not None:
    import keras_spectral.registration  # noqa: F401
