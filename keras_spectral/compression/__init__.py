"""Compression of trained networks, and what can be proved about it."""

from keras_spectral.compression.approximation import (
    approximate_matrix,
    approximation_threshold,
    failure_probability,
    split,
)
from keras_spectral.compression.heavy_tail import (
    CompressionRow,
    apply,
    compress,
    compress_matrix,
)
from keras_spectral.compression.masks import ReplacedKernel, compression_of, keep_mask
from keras_spectral.compression.sparsity import (
    BracketRow,
    bracket_probability,
    large_weight_probability,
    resilient_classification,
    sparsity_bound,
    sparsity_probability,
    spiked_second_moment,
)
from keras_spectral.compression.storage import (
    StorageRow,
    load_compressed,
    save_compressed,
)

__all__ = [
    "BracketRow",
    "CompressionRow",
    "ReplacedKernel",
    "StorageRow",
    "apply",
    "approximate_matrix",
    "approximation_threshold",
    "bracket_probability",
    "compress",
    "compress_matrix",
    "compression_of",
    "failure_probability",
    "keep_mask",
    "large_weight_probability",
    "load_compressed",
    "resilient_classification",
    "save_compressed",
    "sparsity_bound",
    "sparsity_probability",
    "spiked_second_moment",
    "split",
]
