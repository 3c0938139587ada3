"""The papers' theorems as functions, as printed and corrected."""

from keras_spectral.theory.approximation import (
    approximation_threshold,
    failure_probability,
)
from keras_spectral.theory.bounds import (
    Assumption,
    OccamBound,
    description_bits,
    inverse_kl,
    occam_bound,
)
from keras_spectral.theory.low_rank import (
    LowRankBound,
    LowRankRow,
    low_rank_error_bound,
)
from keras_spectral.theory.projection import (
    matrix_projections,
    rounding_quantum,
    vector_projections,
)
from keras_spectral.theory.sparsity import (
    BracketRow,
    bracket_probability,
    large_weight_probability,
    resilient_classification,
    sparsity_bound,
    sparsity_probability,
    spiked_second_moment,
)
from keras_spectral.theory.theorems import (
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
from keras_spectral.theory.truncation import (
    truncation_measure,
    truncation_parameters,
    truncation_tolerance,
)

__all__ = [
    "Assumption",
    "BracketRow",
    "LowRankBound",
    "LowRankRow",
    "OccamBound",
    "allowed_output_change",
    "approximation_threshold",
    "bracket_probability",
    "compression_bound",
    "compression_gap",
    "cushion_measure",
    "description_bits",
    "entropy_integral",
    "failure_probability",
    "inverse_kl",
    "large_weight_probability",
    "layer_tolerances",
    "low_rank_error_bound",
    "margin_error",
    "margin_measure",
    "matrix_projections",
    "occam_bound",
    "perturbation_bound",
    "projection_parameters",
    "resilient_classification",
    "rounding_quantum",
    "sparsity_bound",
    "sparsity_measure",
    "sparsity_probability",
    "spiked_second_moment",
    "truncation_measure",
    "truncation_parameters",
    "truncation_tolerance",
    "vector_projections",
]
