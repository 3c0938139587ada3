"""The papers' networks, and a registry of them."""

from keras_spectral.zoo.registry import (
    Checkpoint,
    build,
    checkpoint,
    entry,
    list_models,
)
from keras_spectral.zoo.resnet import cifar_resnet

__all__ = [
    "Checkpoint",
    "build",
    "checkpoint",
    "cifar_resnet",
    "entry",
    "list_models",
]
