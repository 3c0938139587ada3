"""Compression of trained networks, and what can be proved about it."""

from keras_spectral.compression.heavy_tail import (
    CompressionRow,
    apply,
    compress,
    compress_matrix,
)
from keras_spectral.compression.sparsity import (
    BracketRow,
    bracket_probability,
    large_weight_probability,
    resilient_classification,
    sparsity_bound,
    sparsity_probability,
    spiked_second_moment,
)

__all__ = [
    "BracketRow",
    "CompressionRow",
    "apply",
    "bracket_probability",
    "compress",
    "compress_matrix",
    "large_weight_probability",
    "resilient_classification",
    "sparsity_bound",
    "sparsity_probability",
    "spiked_second_moment",
]
