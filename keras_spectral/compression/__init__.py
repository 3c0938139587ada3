"""Compression of trained networks, and what can be proved about it."""

from keras_spectral.compression.approximation import (
    approximate_matrix,
    approximation_threshold,
    failure_probability,
    split,
)
from keras_spectral.compression.bounds import (
    Assumption,
    OccamBound,
    description_bits,
    inverse_kl,
    occam_bound,
)
from keras_spectral.compression.certification import (
    CertificateRow,
    ErrorCertificate,
    certify_error,
    quantize_large_weights,
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
    "Assumption",
    "BracketRow",
    "CertificateRow",
    "CompressionRow",
    "ErrorCertificate",
    "OccamBound",
    "ReplacedKernel",
    "StorageRow",
    "allowed_output_change",
    "apply",
    "approximate_matrix",
    "approximation_threshold",
    "bracket_probability",
    "certify_error",
    "compress",
    "compress_matrix",
    "compression_bound",
    "compression_gap",
    "compression_of",
    "cushion_measure",
    "description_bits",
    "entropy_integral",
    "failure_probability",
    "inverse_kl",
    "keep_mask",
    "large_weight_probability",
    "layer_tolerances",
    "load_compressed",
    "margin_error",
    "occam_bound",
    "perturbation_bound",
    "projection_parameters",
    "quantize_large_weights",
    "resilient_classification",
    "save_compressed",
    "sparsity_bound",
    "sparsity_measure",
    "sparsity_probability",
    "spiked_second_moment",
    "split",
]
