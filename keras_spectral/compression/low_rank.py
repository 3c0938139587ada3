"""Matrices of low rank: truncation of singular values and what it proves."""

import math
from typing import NamedTuple

import numpy as np

from keras_spectral.validation import check_choice, check_integer, check_positive

_VARIANTS = ("corrected", "as_printed")


class Truncation(NamedTuple):
    """A matrix in two factors of inner dimension `rank`, and what that costs.

    Args:
        left: Float64 array U sqrt(S) of shape (m, rank).
        right: Float64 array sqrt(S) V' of shape (rank, n).
        rank: Integer; 0 for a zero matrix.
        spectral_norm: Float |A|_2.
        spectral_error: Float |A - left right|_2, the first singular value left out.
        frobenius_error: Float |A - left right|_F.
    """

    left: np.ndarray
    right: np.ndarray
    rank: int
    spectral_norm: float
    spectral_error: float
    frobenius_error: float

    @property
    def relative_error(self) -> float:
        """|A - left right|_2 / |A|_2; 0 for a zero matrix."""
        return self.spectral_error / self.spectral_norm if self.spectral_norm else 0.0


def truncate(matrix, delta=None, rank=None):
    """Remove the small singular values of a matrix, in float64.

    Singular values below delta |A|_2 go. Then |A - A_hat|_2 <= delta |A|_2, and
    the rank is at most |A|_F^2 / (delta |A|_2)^2, the stable rank by delta^2.

    Args:
        matrix: Float array (m, n), the paper's A, finite.
        delta: Float in [0, 1]. One equal to delta |A|_2 stays.
        rank: Integer >= 1 in place of `delta`, how many stay at most.

    Returns:
        A `Truncation`: the nearest matrix of its rank (Eckart and Young), in
        factors that share the singular values evenly.

    Raises:
        ValueError: If not one of `delta` and `rank` is given, or an argument is out
            of range or not finite.

    Example:
    >>> import numpy as np
    >>> found = truncate(np.diag([4.0, 3.0, 1.0]), delta=0.5)
    >>> found.rank, found.spectral_error, found.left.shape
    (2, 1.0, (3, 2))

    Source: papers/compression-bounds-notes.md, Lemma 5.
    """
    if (delta is None) == (rank is None):
        raise ValueError(
            "One of `delta` and `rank` must be given. "
            f"Received: delta={delta}, rank={rank}"
        )
    if rank is not None:
        check_integer("rank", rank, least=1)
    elif not 0 <= delta <= 1:
        raise ValueError(f"`delta` must be in [0, 1]. Received: delta={delta}")
    matrix = np.asarray(matrix).astype("float64")
    if matrix.ndim != 2 or not matrix.size or not np.isfinite(matrix).all():
        raise ValueError(
            "`matrix` must have two dimensions and finite numbers. Received: "
            f"shape {matrix.shape}"
            + (", not all of them finite" if not np.isfinite(matrix).all() else "")
        )
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    stay = s > 0 if rank is not None else (s >= delta * s[0]) & (s > 0)
    rank = min(int(stay.sum()), s.size if rank is None else int(rank))
    roots, removed = np.sqrt(s[:rank]), s[rank:]
    return Truncation(
        left=u[:, :rank] * roots,
        right=roots[:, None] * vt[:rank],
        rank=rank,
        spectral_norm=float(s[0]),
        spectral_error=float(removed[0]) if removed.size else 0.0,
        frobenius_error=float(np.linalg.norm(removed)),
    )


def round_factors(truncation, variant="corrected"):
    """Round the factors of a truncated matrix to multiples of a quantum.

    The notes claim, without a proof, that |A|_F / h^2 does. But the factors grow
    like sqrt|A|, so that scaling A by c > 1 makes its relative error larger. With
    sqrt(|A|_F) / h^2 the change is at most |A|_F (1 / h + 1 / (4 h^2)) in norm, and
    no entry has more than 2 h^2 + 1 values.

    Args:
        truncation: A `Truncation`; h is the largest side of its matrix.
        variant: `"corrected"`, or `"as_printed"`.

    Returns:
        Tuple (left, right, quantum): float64 arrays of multiples of a float.

    Raises:
        ValueError: On another variant.

    Example:
    >>> import numpy as np
    >>> left, right, quantum = round_factors(truncate(np.diag([4.0, 1.0]), delta=0.5))
    >>> round(quantum, 4), left.round(4).tolist()
    (0.5, [[2.0], [0.0]])

    Source: papers/compression-bounds-notes.md, the claim after Theorem 4's proof.
    """
    check_choice("variant", variant, _VARIANTS)
    left, right = truncation.left, truncation.right
    width = max(left.shape[0], right.shape[1])
    # The norm of what is rounded: that of A itself may hide in what was removed.
    norm = math.sqrt(float(np.sum(np.sum(left**2, 0) ** 2)))
    quantum = (math.sqrt(norm) if variant == "corrected" else norm) / width**2
    if not quantum:
        return left.copy(), right.copy(), quantum
    return (
        np.round(left / quantum) * quantum,
        np.round(right / quantum) * quantum,
        quantum,
    )


def truncation_tolerance(spectral_norms, input_norm, margin):
    """Return Theorem 4's delta = gamma / (e |x| d prod |A_i|).

    Args:
        spectral_norms: Sequence of floats > 0, one a layer.
        input_norm: Float > 0, the largest |x| of the training set.
        margin: Float > 0, by how much the outputs may change, in the Euclidean
            norm: see `allowed_output_change`.

    Returns:
        Float: singular values below delta |A_i| may go. At most 1 / d, for the
        perturbation bound behind it ends there (`perturbation_bound`).

    Raises:
        ValueError: If an argument is not positive, or there is no layer.

    Example:
    >>> round(truncation_tolerance([1.0, 1.0], 1.0, 1.0), 4)
    0.1839

    Source: papers/compression-bounds-notes.md, proof of Theorem 4.
    """
    delta = math.exp(_log_tolerance(spectral_norms, input_norm, margin))
    return min(delta, 1 / len(spectral_norms))


def _log_tolerance(spectral_norms, input_norm, margin):
    check_positive("input_norm", input_norm)
    check_positive("margin", margin)
    if not len(spectral_norms):
        raise ValueError(
            "`spectral_norms` must have one number a layer. Received: none"
        )
    for norm in spectral_norms:
        check_positive("spectral_norms", norm)
    log_product = sum(math.log(norm) for norm in spectral_norms)
    depth = len(spectral_norms)
    return math.log(margin / input_norm) - 1 - math.log(depth) - log_product


def truncation_parameters(
    spectral_norms, stable_ranks, width, input_norm, margin, variant="corrected"
):
    """Return Theorem 4's number of parameters after truncation.

    2 e^2 d^2 h |x|^2 prod |A_i|^2 sum srank_i / gamma^2, and no fewer than for
    delta = 1 / d, see `truncation_tolerance`. The theorem prints |x| for |x|^2, and
    is then not invariant when inputs and margin are scaled together.

    Args:
        spectral_norms: Sequence of floats > 0.
        stable_ranks: Sequence of floats >= 1, as many.
        width: Integer >= 1, the largest dimension h.
        input_norm: Float > 0, the largest |x|.
        margin: Float > 0.
        variant: `"corrected"` or `"as_printed"`.

    Returns:
        Float; compare it with the number that the network has.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> round(truncation_parameters([1.0], [2.0], 10, 1.0, 1.0), 1)
    295.6

    Source: papers/compression-bounds-notes.md, Theorem 4.
    """
    check_choice("variant", variant, _VARIANTS)
    check_integer("width", width, least=1)
    if len(stable_ranks) != len(spectral_norms) or not min(stable_ranks) > 0:
        raise ValueError(
            "`stable_ranks` must be positive, one for each spectral norm. Received: "
            f"stable_ranks={stable_ranks} for {len(spectral_norms)} norms"
        )
    if variant == "corrected":
        delta = truncation_tolerance(spectral_norms, input_norm, margin)
        return 2 * width * sum(stable_ranks) / delta**2
    log_delta = _log_tolerance(spectral_norms, input_norm, margin)
    return 2 * width * sum(stable_ranks) * math.exp(-2 * log_delta) / input_norm


def truncation_measure(
    spectral_norms, stable_ranks, width, input_norm, margin, samples,
    variant="corrected",
):  # fmt: skip
    """Return Theorem 4's sqrt(h d^2 |x|^2 prod |A|^2 sum srank / (gamma^2 m)).

    A measure: logarithms and constants are hidden, and the rank depends on the
    training set, which the theorem does not allow.

    Args:
        spectral_norms: Sequence of floats > 0.
        stable_ranks: Sequence of floats >= 1.
        width: Integer >= 1.
        input_norm: Float > 0.
        margin: Float > 0.
        samples: Integer >= 1.
        variant: See `truncation_parameters`.

    Returns:
        Float.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> round(truncation_measure([1.0], [2.0], 10, 1.0, 1.0, 2000), 3)
    0.1

    Source: papers/compression-bounds-notes.md, equations 10 and 12.
    """
    check_integer("samples", samples, least=1)
    count = truncation_parameters(
        spectral_norms, stable_ranks, width, input_norm, margin, variant
    )
    return math.sqrt(count / (2 * math.e**2) / samples)
