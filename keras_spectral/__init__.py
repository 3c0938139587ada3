"""keras_spectral: control, measure and compress the singular values of a network.

Public names are imported at first use, so `import keras_spectral` costs nothing
and the command line answers without loading Keras.

Example:
>>> import keras_spectral as ks
>>> ks.layers.SpectralNormalization.__name__
'SpectralNormalization'
"""

import importlib

__version__ = "0.1.0"

_MODULES = (
    "callbacks",
    "compression",
    "constraints",
    "convert",
    "data",
    "experiments",
    "gan",
    "layers",
    "linalg",
    "measures",
    "models",
    "regularizers",
    "report",
    "surgery",
    "theory",
    "zoo",
)

# What users call most stands at the top too.
_FUNCTIONS = {
    "constrain": "kernel_settings",
    "regularize": "kernel_settings",
    "restart_power_iteration": "layers",
    "unwrap": "surgery",
    "wrap": "surgery",
}

__all__ = ["__version__", *_MODULES, *_FUNCTIONS]


def __getattr__(name):
    if name in _MODULES:
        return importlib.import_module(f"keras_spectral.{name}")
    if name in _FUNCTIONS:
        module = importlib.import_module(f"keras_spectral.{_FUNCTIONS[name]}")
        return getattr(module, name)
    raise AttributeError(f"module 'keras_spectral' has no attribute '{name}'")


def __dir__():
    return sorted(__all__)
