"""Matrices of low rank: truncation of singular values and what it proves."""

import math
from typing import NamedTuple

import numpy as np

from keras_spectral.validation import Variant, check_choice, check_integer


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

    Source: [orton2018], Lemma 5.
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

    Source: [orton2018], the claim after Theorem 4's proof.
    """
    check_choice("variant", variant, Variant)
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
