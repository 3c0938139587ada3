"""Compression of trained networks, and what can be proved about it."""

from keras_spectral.compression.approximation import (
    approximate_matrix,
    approximation_threshold,
    failure_probability,
    split,
)
from keras_spectral.compression.assumptions import AssumptionRow, check_assumptions
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
from keras_spectral.compression.factorization import FactorizationRow, factorize
from keras_spectral.compression.heavy_tail import (
    CompressionRow,
    apply,
    compress,
    compress_matrix,
)
from keras_spectral.compression.linear_mixture import LinearMixture, fit_linear_mixture
from keras_spectral.compression.low_rank import (
    Truncation,
    round_factors,
    truncate,
    truncation_measure,
    truncation_parameters,
    truncation_tolerance,
)
from keras_spectral.compression.masks import ReplacedKernel, compression_of, keep_mask
from keras_spectral.compression.projection import (
    matrix_projections,
    project_matrix,
    project_vector,
    rebuild_matrix,
    rebuild_vector,
    rounding_quantum,
    vector_projections,
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
    margin_measure,
    perturbation_bound,
    projection_parameters,
    sparsity_measure,
)

__all__ = [
    "Assumption",
    "AssumptionRow",
    "BracketRow",
    "CertificateRow",
    "CompressionRow",
    "ErrorCertificate",
    "FactorizationRow",
    "LinearMixture",
    "OccamBound",
    "ReplacedKernel",
    "StorageRow",
    "Truncation",
    "allowed_output_change",
    "apply",
    "approximate_matrix",
    "approximation_threshold",
    "bracket_probability",
    "certify_error",
    "check_assumptions",
    "compress",
    "compress_matrix",
    "compression_bound",
    "compression_gap",
    "compression_of",
    "cushion_measure",
    "description_bits",
    "entropy_integral",
    "factorize",
    "failure_probability",
    "fit_linear_mixture",
    "inverse_kl",
    "keep_mask",
    "large_weight_probability",
    "layer_tolerances",
    "load_compressed",
    "margin_error",
    "margin_measure",
    "matrix_projections",
    "occam_bound",
    "perturbation_bound",
    "project_matrix",
    "project_vector",
    "projection_parameters",
    "quantize_large_weights",
    "rebuild_matrix",
    "rebuild_vector",
    "resilient_classification",
    "round_factors",
    "rounding_quantum",
    "save_compressed",
    "sparsity_bound",
    "sparsity_measure",
    "sparsity_probability",
    "spiked_second_moment",
    "split",
    "truncate",
    "truncation_measure",
    "truncation_parameters",
    "truncation_tolerance",
    "vector_projections",
]
