"""keras_spectral: control, measure and compress the singular values of a network.

Public names are imported at first use, so `import keras_spectral` costs nothing
and the command line answers without loading Keras.

Example:
>>> import keras_spectral as ks
>>> ks.layers.SpectralNormalization.__name__
'SpectralNormalization'
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
