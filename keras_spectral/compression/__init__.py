"""Compression of trained networks."""

from keras_spectral.compression.heavy_tail import (
    CompressionRow,
    apply,
    compress,
    compress_matrix,
)

__all__ = ["CompressionRow", "apply", "compress", "compress_matrix"]
