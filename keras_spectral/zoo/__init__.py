"""The papers' networks, and a registry of them.

The registry is imported at once; the builders, which need Keras, at first use.
"""

import importlib

from keras_spectral.zoo.registry import (
    Checkpoint,
    build,
    checkpoint,
    entry,
    list_models,
)

# Builder -> the module that it lives in.
_BUILDERS = {
    "cifar_resnet": "resnet",
}

__all__ = [
    "Checkpoint",
    "build",
    "checkpoint",
    "cifar_resnet",
    "entry",
    "list_models",
]


def __getattr__(name):
    if name in _BUILDERS:
        module = importlib.import_module(f"keras_spectral.zoo.{_BUILDERS[name]}")
        return getattr(module, name)
    raise AttributeError(f"module 'keras_spectral.zoo' has no attribute '{name}'")
