"""Eigenvalues of W'W: heavy tails, the bulk of random entries, and what stands out."""

import dataclasses
import math
from typing import Literal

import numpy as np

from keras_spectral.linalg.arrays import stable_rank_of
from keras_spectral.measures.power_law import PowerLawFit, fit_power_law
from keras_spectral.validation import check_integer

# 99 % quantile of the Tracy-Widom law of real matrices.
_TRACY_WIDOM_99 = 2.0234
Bulk = Literal["ok", "none"]
# A spectrum of independent entries with some spikes has most of it below the edge.
_MOST_SPIKES = 1 / 3
# Bytes of a block of rows that is widened at once.
_BLOCK_BYTES = 1 << 22


@dataclasses.dataclass(frozen=True)
class EigenvalueFit:
    """The spectrum of W'W of one matrix, in the quantities that WeightWatcher names.

    Args:
        eigenvalues: Float64 array, squared singular values from large to small; 0
            where they are at the level of rounding, rows or columns times 2e-16 of
            the largest.
        power_law: `PowerLawFit` of the eigenvalues; its `alpha_pdf` is what
            WeightWatcher calls alpha.
        alpha_hat: Float, alpha times log10 of the largest eigenvalue.
        log_norm: Float, log10 of the squared Frobenius norm.
        log_spectral_norm: Float, log10 of the largest eigenvalue.
        log_alpha_norm: Float, log10 of the sum of eigenvalues to the power alpha.
        stable_rank: Float, the sum of the eigenvalues over the largest.
        bulk_deviation: Float, standard deviation of the entries under the spikes.
        bulk_edge: Float, the largest eigenvalue of random entries of that deviation,
            at 99 %; of a stack, that of one of its matrices.
        spikes: Integer, eigenvalues above the edge, found by taking them out of the
            deviation and looking again until there are no more.
        bulk: `"ok"`, or `"none"` where that took away more than a third of the
            eigenvalues: a spectrum without a bulk, of which the edge says nothing.
        shuffled_spikes: Integer, the same for the matrix with its entries shuffled:
            what the entries' law alone does.
        shuffled_largest: Float, its largest eigenvalue.
    """

    eigenvalues: np.ndarray = dataclasses.field(repr=False)
    power_law: PowerLawFit
    alpha_hat: float
    log_norm: float
    log_spectral_norm: float
    log_alpha_norm: float
    stable_rank: float
    bulk_deviation: float
    bulk_edge: float
    spikes: int
    bulk: Bulk
    shuffled_spikes: int
    shuffled_largest: float


def squared_singular_values(matrix) -> np.ndarray:
    """Return the eigenvalues of W'W, by the Gram matrix of the shorter side.

    No float64 copy of the matrix is made. Each is off by about 1e-16 of the largest.

    Args:
        matrix: Float array (rows, columns).

    Returns:
        Float64 array, from large to small, not below 0.

    Example:
    >>> squared_singular_values(np.diag([3.0, 1.0])).tolist()
    [9.0, 1.0]
    """
    matrix = np.asarray(matrix)
    if matrix.shape[0] < matrix.shape[1]:
        matrix = matrix.T
    # So that squares neither overflow nor vanish.
    scale = max(float(matrix.max(initial=0)), -float(matrix.min(initial=0))) or 1.0
    step = max(1, _BLOCK_BYTES // (8 * max(matrix.shape[1], 1)))
    gram = np.zeros((matrix.shape[1], matrix.shape[1]))
    for start in range(0, matrix.shape[0], step):
        block = matrix[start : start + step].astype("float64")
        block /= scale
        gram += block.T @ block
    found = np.linalg.eigvalsh(gram)[::-1]
    with np.errstate(over="ignore"):
        return np.maximum(found, 0.0) * scale * scale


def random_edge(shape: tuple[int, int], deviation: float = 1.0) -> float:
    """Return the largest eigenvalue of W'W for random entries, at 99 %.

    Args:
        shape: Tuple (rows, columns).
        deviation: Float, standard deviation of the independent entries.

    Returns:
        Float: the edge deviation^2 (sqrt(rows) + sqrt(columns))^2 of Marchenko and
        Pastur, and the fluctuation of Tracy and Widom above it.

    Example:
    >>> round(random_edge((1000, 1000)) / 4000, 3)
    1.012

    Source: [johnstone2001], Theorem 1.1.
    """
    rows, columns = max(shape), min(shape)
    root = math.sqrt(max(rows - 1, 1)) + math.sqrt(columns)
    width = root * (1 / math.sqrt(max(rows - 1, 1)) + 1 / math.sqrt(columns)) ** (1 / 3)
    return deviation**2 * (root**2 + _TRACY_WIDOM_99 * width)


def _spectra(stack):
    """Return the eigenvalues (matrices, shorter side), each row from large to small."""
    found = [squared_singular_values(matrix) for matrix in stack]
    return np.stack([_resolved(values, stack.shape[1:]) for values in found])


def _bulk(spectra, shape):
    """Return (deviation, edge, spikes) with the spikes taken out of the deviation."""
    sides, spikes = sum(shape), np.zeros(len(spectra), int)
    while True:
        pairs = list(zip(spectra, spikes.tolist(), strict=True))
        rest = sum(float(values[taken:].sum()) for values, taken in pairs)
        # Each spike takes the freedom of a row and a column.
        freedom = sum(math.prod(shape) - taken * (sides - taken) for _, taken in pairs)
        deviation = math.sqrt(rest / max(freedom, 1))
        edge = random_edge(shape, deviation)
        found = (spectra > edge).sum(axis=1)
        if found.sum() <= spikes.sum() or found.sum() >= spectra.size:
            return deviation, edge, int(spikes.sum())
        spikes = found


def _resolved(eigenvalues, shape):
    """Return eigenvalues with those at the level of rounding set to 0."""
    noise = max(shape) * np.finfo("float64").eps * eigenvalues[0]
    return np.where(eigenvalues > noise, eigenvalues, 0.0)


def _is_real(dtype):
    """Return whether numbers of a dtype are real, bfloat16's among them."""
    return dtype.kind in "biuf" or np.can_cast(dtype, "float64")


def fit_eigenvalues(matrix, seed: int = 0) -> EigenvalueFit:
    """Fit a power law and a random bulk to the eigenvalues of W'W.

    Args:
        matrix: Float array (rows, columns), finite; a convolution's kernel flattened
            by its filters. Or a stack (matrices, rows, columns), whose spectra are
            pooled: the slices of a convolution, one a pixel of its kernel.
        seed: Integer >= 0, of the shuffled control.

    Returns:
        An `EigenvalueFit`. Of less than some hundred eigenvalues the exponent has a
        large error: see `power_law.standard_error`, `tail_size` and `status`.

    Raises:
        ValueError: If `matrix` is no matrix of finite real numbers, all zero, or its
            squares are out of float64's range.

    Example:
    >>> rng = np.random.default_rng(0)
    >>> w = rng.normal(size=(300, 100))
    >>> w += 3 * np.outer(rng.normal(size=300), rng.normal(size=100))
    >>> fit_eigenvalues(w).spikes
    1

    Source: [shin2021], Remark 1; [martin2021].
    """
    check_integer("seed", seed, least=0)
    matrix = np.asarray(matrix)
    if not _is_real(matrix.dtype):
        raise ValueError(
            f"`matrix` must hold real numbers. Received: dtype {matrix.dtype}"
        )
    shaped = matrix.ndim in (2, 3) and matrix.size > 0
    if not shaped or not np.isfinite(matrix).all():
        raise ValueError(
            "`matrix` must be a matrix of finite numbers, or a stack of them. "
            f"Received: shape {matrix.shape}{' with NaN or infinity' * shaped}"
        )
    if not matrix.any():
        raise ValueError("`matrix` must not be all zero: it has no spectrum.")
    stack = matrix if matrix.ndim == 3 else matrix[None]
    shape = stack.shape[1:]
    spectra = _spectra(stack)
    eigenvalues = np.sort(spectra, axis=None)[::-1]
    if not 0 < eigenvalues[0] < math.inf:
        raise ValueError(
            "`matrix` must hold numbers whose squares are in float64's range. "
            f"Received: an entry of magnitude {np.abs(matrix).max():.4g}. Scale it."
        )
    law = fit_power_law(eigenvalues)
    largest, total = float(eigenvalues[0]), float(eigenvalues.sum())
    logs = np.log10(eigenvalues[eigenvalues > 0])
    alpha = law.alpha_pdf
    log_alpha_norm = math.nan
    if math.isfinite(alpha):
        # In logarithms: powers of 20 overflow.
        log_alpha_norm = alpha * float(logs[0]) + math.log10(
            float((10 ** (alpha * (logs - logs[0]))).sum())
        )
    deviation, edge, spikes = _bulk(spectra, shape)
    shuffled = np.random.default_rng(seed).permutation(matrix.ravel())
    control = _spectra(shuffled.reshape(stack.shape))
    return EigenvalueFit(
        eigenvalues=eigenvalues,
        power_law=law,
        alpha_hat=alpha * math.log10(largest),
        log_norm=math.log10(total),
        log_spectral_norm=math.log10(largest),
        log_alpha_norm=log_alpha_norm,
        stable_rank=stable_rank_of(np.sqrt(eigenvalues)),
        bulk_deviation=deviation,
        bulk_edge=edge,
        spikes=spikes,
        bulk="ok" if spikes <= _MOST_SPIKES * len(eigenvalues) else "none",
        shuffled_spikes=_bulk(control, shape)[2],
        shuffled_largest=float(control.max()),
    )
