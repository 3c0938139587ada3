"""What becomes of a kernel in our wrappers, told by their config. NumPy alone."""

from keras_spectral.linalg.converged import (
    bounded_matrix,
    capped_matrix,
    clipped_matrix,
    converged_norm,
)

NORMALIZERS = (
    "SpectralNormalization",
    "OptimalSpectralNormalization",
    "StableRankNormalization",
)


def normalizer(kind, arguments, on_images):
    """Return what a wrapper in a file makes of a matrix.

    Args:
        kind: String, one of `NORMALIZERS`.
        arguments: Dict, the wrapper's config, empty if it is not in the file.
        on_images: Boolean, whether the layer is a convolution.

    Returns:
        Tuple of a callable from a float64 matrix (inputs, outputs) to another, `None`
        for one that cannot be told, and a note, or `None`.

    Example:
    >>> import numpy as np
    >>> function, _ = normalizer("SpectralNormalization", {"bound": 2.0}, False)
    >>> function(np.diag([4.0, 1.0])).tolist()
    [[2.0, 0.0], [0.0, 0.5]]
    """
    trained = "what is trained, not what the layer computes with"
    try:
        bound = float(arguments["bound"])
        if kind == "OptimalSpectralNormalization":
            return lambda matrix: clipped_matrix(matrix, bound), None
        if on_images and arguments.get("norm") == "operator":
            return None, f'{trained}: {kind} with norm="operator"'
        ratio = 1.0
        if kind == "StableRankNormalization":
            ratio = float(arguments["stable_rank_ratio"])
            if arguments.get("preserved", 1) != 1:
                return None, f"{trained}: {kind} that preserves several values"
        epsilon, clip = float(arguments.get("epsilon", 1e-12)), arguments.get("clip")
    except (KeyError, TypeError, ValueError, OverflowError):
        return None, f"{trained}: the arguments of its {kind} are not in the file"

    def normalized(matrix):
        smaller = min(matrix.shape)
        if kind == "StableRankNormalization" and smaller > 1:
            matrix = capped_matrix(matrix, max(1.0, ratio * smaller))
        norm = converged_norm(matrix)
        return bounded_matrix(matrix, norm, bound, epsilon, clip is True)

    if arguments.get("method") == "power_iteration":
        return normalized, f"by the norm, of which its {kind} has an estimate"
    return normalized, None
