from .almost_orthogonal import (
    almost_orthogonal as almost_orthogonal,
)
from .block_iteration import (
    LARGEST_FACTORED_SIDE as LARGEST_FACTORED_SIDE,
    block_iterate as block_iterate,
    krylov_left_vectors as krylov_left_vectors,
    leading_left_vectors as leading_left_vectors,
)
from .certificates import (
    convolution_norm_bound as convolution_norm_bound,
    induced_norm as induced_norm,
    unfolding_norm_bound as unfolding_norm_bound,
)
from .converged import (
    bounded_matrix as bounded_matrix,
    capped_matrix as capped_matrix,
    clipped_matrix as clipped_matrix,
    converged_norm as converged_norm,
    converged_triplet as converged_triplet,
)
from .convolutions import (
    convolution_operator as convolution_operator,
    depthwise_convolution_operator as depthwise_convolution_operator,
    transposed_convolution_operator as transposed_convolution_operator,
)
from .norms import (
    frobenius_norm as frobenius_norm,
    singular_values as singular_values,
    spectral_norm as spectral_norm,
    squared_frobenius_norm as squared_frobenius_norm,
    stable_rank as stable_rank,
)
from .operators import (
    LinearOperator as LinearOperator,
    dense_operator as dense_operator,
    reshaped_matrix as reshaped_matrix,
)
from .power_iteration import (
    SingularTriplet as SingularTriplet,
    inner_product as inner_product,
    iterate as iterate,
    leading_triplet as leading_triplet,
    normalized as normalized,
    power_iteration as power_iteration,
    rayleigh_quotient as rayleigh_quotient,
)
from .projections import (
    clip_norm as clip_norm,
    clip_singular_values as clip_singular_values,
    clipping_scale as clipping_scale,
    divide_by_norm as divide_by_norm,
    fixed_svd as fixed_svd,
    nearest_orthonormal as nearest_orthonormal,
    normalizing_scale as normalizing_scale,
    rank_at_ratio as rank_at_ratio,
    truncate_rank as truncate_rank,
)
from .spectra import (
    circular_convolution_norm as circular_convolution_norm,
    circular_convolution_singular_values as circular_convolution_singular_values,
    operator_singular_values as operator_singular_values,
)
from .stable_rank_projections import (
    normalize_stable_rank as normalize_stable_rank,
    project_stable_rank as project_stable_rank,
    remainder_factor as remainder_factor,
)
from .structured_operators import (
    diagonal_operator as diagonal_operator,
    identity_operator as identity_operator,
    repeated_operator as repeated_operator,
)
from .turning import (
    turning_norm as turning_norm,
    turning_product as turning_product,
    turning_singular_value as turning_singular_value,
)
