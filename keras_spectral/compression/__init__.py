"""Compression of trained networks."""

from keras_spectral.compression.heavy_tail import (
    CompressionRow,
    apply,
    compress,
    compress_matrix,
)
from keras_spectral.compression.masks import (
    ReplacedKernel,
    compression_of,
    keep_mask,
)
from keras_spectral.compression.storage import (
    StorageRow,
    load_compressed,
    save_compressed,
)

__all__ = [
    "CompressionRow",
    "ReplacedKernel",
    "StorageRow",
    "apply",
    "compress",
    "compress_matrix",
    "compression_of",
    "keep_mask",
    "load_compressed",
    "save_compressed",
]
