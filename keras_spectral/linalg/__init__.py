"""Pure functions on tensors: operators, power iteration, projections, norms."""

from keras_spectral.linalg.block_iteration import (
    LARGEST_FACTORED_SIDE,
    block_iterate,
    krylov_left_vectors,
    leading_left_vectors,
)
from keras_spectral.linalg.certificates import (
    convolution_norm_bound,
    induced_norm,
    unfolding_norm_bound,
)
from keras_spectral.linalg.converged import converged_norm, converged_triplet
from keras_spectral.linalg.convolutions import (
    convolution_operator,
    depthwise_convolution_operator,
    transposed_convolution_operator,
)
from keras_spectral.linalg.norms import (
    frobenius_norm,
    singular_values,
    spectral_norm,
    squared_frobenius_norm,
    stable_rank,
)
from keras_spectral.linalg.operators import (
    LinearOperator,
    dense_operator,
    reshaped_matrix,
)
from keras_spectral.linalg.power_iteration import (
    SingularTriplet,
    inner_product,
    iterate,
    leading_triplet,
    normalized,
    power_iteration,
    rayleigh_quotient,
)
from keras_spectral.linalg.projections import (
    clip_norm,
    clip_singular_values,
    clipping_scale,
    divide_by_norm,
    fixed_svd,
    nearest_orthonormal,
    normalizing_scale,
    rank_at_ratio,
    truncate_rank,
)
from keras_spectral.linalg.spectra import (
    circular_convolution_norm,
    circular_convolution_singular_values,
    operator_singular_values,
)
from keras_spectral.linalg.stable_rank_projections import (
    normalize_stable_rank,
    project_stable_rank,
    remainder_factor,
)
from keras_spectral.linalg.structured_operators import (
    diagonal_operator,
    identity_operator,
    repeated_operator,
)
from keras_spectral.linalg.turning import (
    turning_norm,
    turning_product,
    turning_singular_value,
)

__all__ = [
    "LARGEST_FACTORED_SIDE",
    "LinearOperator",
    "SingularTriplet",
    "circular_convolution_norm",
    "circular_convolution_singular_values",
    "block_iterate",
    "clip_norm",
    "clip_singular_values",
    "clipping_scale",
    "converged_norm",
    "converged_triplet",
    "convolution_norm_bound",
    "convolution_operator",
    "dense_operator",
    "depthwise_convolution_operator",
    "diagonal_operator",
    "divide_by_norm",
    "fixed_svd",
    "frobenius_norm",
    "identity_operator",
    "induced_norm",
    "inner_product",
    "iterate",
    "krylov_left_vectors",
    "leading_left_vectors",
    "leading_triplet",
    "nearest_orthonormal",
    "normalize_stable_rank",
    "normalized",
    "normalizing_scale",
    "operator_singular_values",
    "power_iteration",
    "project_stable_rank",
    "rank_at_ratio",
    "rayleigh_quotient",
    "remainder_factor",
    "repeated_operator",
    "reshaped_matrix",
    "singular_values",
    "spectral_norm",
    "squared_frobenius_norm",
    "stable_rank",
    "transposed_convolution_operator",
    "truncate_rank",
    "turning_norm",
    "turning_product",
    "turning_singular_value",
    "unfolding_norm_bound",
]
