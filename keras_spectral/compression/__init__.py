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
from keras_spectral.compression.linear_mixture import (
    LinearMixture,
    fit_linear_mixture,
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
from keras_spectral.compression.theorems import (
    allowed_output_change,
    compression_bound,
    compression_gap,
    cushion_measure,
    entropy_integral,
    layer_tolerances,
    margin_error,
    perturbation_bound,
    projection_parameters,
    sparsity_measure,
)

__all__ = [
    "BracketRow",
    "CompressionRow",
    "LinearMixture",
    "ReplacedKernel",
    "StorageRow",
    "allowed_output_change",
    "apply",
    "approximate_matrix",
    "approximation_threshold",
    "bracket_probability",
    "compress",
    "compress_matrix",
    "compression_bound",
    "compression_gap",
    "compression_of",
    "cushion_measure",
    "entropy_integral",
    "failure_probability",
    "fit_linear_mixture",
    "keep_mask",
    "large_weight_probability",
    "layer_tolerances",
    "load_compressed",
    "margin_error",
    "perturbation_bound",
    "projection_parameters",
    "resilient_classification",
    "save_compressed",
    "sparsity_bound",
    "sparsity_measure",
    "sparsity_probability",
    "spiked_second_moment",
    "split",
]
