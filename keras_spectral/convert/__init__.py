"""PyTorch checkpoints in and out.

The reader is imported at once; what needs Keras at first use.
"""

from keras_spectral.convert.cards import load_model, provenance, save_model
from keras_spectral.convert.comparison import TensorDifference, compare, is_keras_model
from keras_spectral.convert.files.errors import (
    CheckpointError,
    MismatchError,
    UnsafeCheckpointError,
)
from keras_spectral.convert.files.reader import read_checkpoint
from keras_spectral.convert.files.state import StateDict

__all__ = [
    "CheckpointError",
    "MismatchError",
    "StateDict",
    "TensorDifference",
    "UnsafeCheckpointError",
    "compare",
    "from_torch",
    "is_keras_model",
    "load_model",
    "provenance",
    "read_checkpoint",
    "save_model",
    "to_torch",
]


def __getattr__(name):
    if name in ("from_torch", "to_torch"):
        from keras_spectral.convert import torch_weights

        return getattr(torch_weights, name)
    raise AttributeError(f"module 'keras_spectral.convert' has no attribute '{name}'")
