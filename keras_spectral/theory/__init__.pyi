from .approximation import (
    approximation_threshold as approximation_threshold,
    failure_probability as failure_probability,
)
from .bounds import (
    Assumption as Assumption,
    OccamBound as OccamBound,
    description_bits as description_bits,
    inverse_kl as inverse_kl,
    occam_bound as occam_bound,
)
from .low_rank import (
    LowRankBound as LowRankBound,
    LowRankRow as LowRankRow,
    low_rank_error_bound as low_rank_error_bound,
)
from .projection import (
    matrix_projections as matrix_projections,
    rounding_quantum as rounding_quantum,
    vector_projections as vector_projections,
)
from .sparsity import (
    BracketRow as BracketRow,
    bracket_probability as bracket_probability,
    large_weight_probability as large_weight_probability,
    resilient_classification as resilient_classification,
    sparsity_bound as sparsity_bound,
    sparsity_probability as sparsity_probability,
    spiked_second_moment as spiked_second_moment,
)
from .theorems import (
    allowed_output_change as allowed_output_change,
    compression_bound as compression_bound,
    compression_gap as compression_gap,
    cushion_measure as cushion_measure,
    entropy_integral as entropy_integral,
    layer_tolerances as layer_tolerances,
    margin_error as margin_error,
    margin_measure as margin_measure,
    perturbation_bound as perturbation_bound,
    projection_parameters as projection_parameters,
    sparsity_measure as sparsity_measure,
)
from .truncation import (
    truncation_measure as truncation_measure,
    truncation_parameters as truncation_parameters,
    truncation_tolerance as truncation_tolerance,
)
