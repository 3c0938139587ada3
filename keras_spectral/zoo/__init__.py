"""The papers' networks, and a registry of them.

The registry is imported at once; the builders, which need Keras, at first use.
"""

import importlib

from keras_spectral.zoo.registry import (
    BUILDERS,
    Checkpoint,
    build,
    checkpoint,
    entry,
    heavy_tail_models,
    list_models,
)

__all__ = [
    "Checkpoint",
    "build",
    "checkpoint",
    "cifar_alexnet",
    "cifar_densenet",
    "cifar_preresnet",
    "cifar_pyramidnet",
    "cifar_resnet",
    "cifar_vgg",
    "cifar_wrn",
    "dcgan_discriminator",
    "dcgan_generator",
    "entry",
    "heavy_tail_models",
    "imagenet_alexnet",
    "imagenet_vgg",
    "list_models",
    "low_rank_dcgan",
    "mnist_convnet",
    "resnet_discriminator",
    "resnet_generator",
    "sn_resnet_gan",
    "srn_resnet_gan",
]


def __getattr__(name):
    if name in BUILDERS:
        module = importlib.import_module(f"keras_spectral.zoo.{BUILDERS[name]}")
        return getattr(module, name)
    raise AttributeError(f"module 'keras_spectral.zoo' has no attribute '{name}'")
