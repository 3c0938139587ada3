"""Rows of an analysis: what is known of each matrix, as a table."""

import dataclasses
import math
from typing import Literal

from keras_spectral.measures.eigenvalues import Bulk
from keras_spectral.measures.power_law import FitStatus
from keras_spectral.printable import printable
from keras_spectral.results import Rows
from keras_spectral.tables import Cell, Column, Table, cell

View = Literal["matrix", "reshaped", "slices"]
# No law of weights is as steep; the fit's status says why.
_LARGEST_SHOWN = 100


@dataclasses.dataclass(frozen=True)
class AnalysisRow:
    """One matrix, or one convolution flattened by its filters (`norm="reshaped"`).

    Args:
        name: String, the tensor's key.
        kind: `"matrix"` or `"convolution"`; of a Keras model, the layer's class.
        shape: Tuple, as it is stored.
        note: String, what the file does not tell of the matrix, or `None`.
        spectral_norm: Float, of the flattened tensor.
        stable_rank: Float, likewise.
        view: Whose the eigenvalues are: `"matrix"`; of a convolution `"reshaped"`, the
            flattened tensor's, or `"slices"`, those of the matrices (channels, filters)
            of all pixels of its kernel, pooled.
        alpha_pdf: Float, exponent of the density of |w|.
        standard_error: Float, of `alpha_pdf`.
        tail_size: Integer, weights in the tail.
        status: String, of that fit, see `measures.PowerLawFit`.
        eigenvalue_alpha: Float, exponent of the eigenvalues of W'W (WeightWatcher's).
        eigenvalue_error: Float, its standard error.
        eigenvalue_tail: Integer, eigenvalues in the tail.
        eigenvalue_status: String, of that fit.
        eigenvalue_xmin: Float, where that tail begins.
        spikes: Integer, eigenvalues above the edge of random entries.
        bulk: String, see `measures.EigenvalueFit`.
        shuffled_spikes: Integer, the same with the entries shuffled.
        root_mean_square: Float, of the entries.
        kurtosis: Float, excess over the normal law's, 0.
        alpha_hat: Float, see `measures.EigenvalueFit`.
        log_norm: Float, base 10, likewise.
        log_alpha_norm: Float, base 10, likewise.
        bulk_edge: Float, likewise.
        sampled: Integer, how many entries the fit of |w| is of.
        eigenvalues: Tuple of floats, for figures.
    """

    name: str
    kind: str
    shape: tuple
    note: str | None
    spectral_norm: float
    stable_rank: float
    view: View
    alpha_pdf: float
    standard_error: float
    tail_size: int
    status: FitStatus
    eigenvalue_alpha: float
    eigenvalue_error: float
    eigenvalue_tail: int
    eigenvalue_status: FitStatus
    eigenvalue_xmin: float
    spikes: int
    bulk: Bulk
    shuffled_spikes: int
    root_mean_square: float
    kurtosis: float
    alpha_hat: float
    log_norm: float
    log_alpha_norm: float
    bulk_edge: float
    sampled: int
    eigenvalues: tuple = dataclasses.field(repr=False)


class Analysis(Rows):
    """Rows of `AnalysisRow`, and what was left out.

    Args:
        rows: List of `AnalysisRow`.
        skipped: Dict from a tensor's name to the reason.
        source: Dict, what was measured: file, sha256, container, entry, layout, and
            seed and version of the measurement.
        **kwargs: `title` and `caption`, see `Rows`.
    """

    def __init__(self, rows, skipped=(), source=(), **kwargs):
        super().__init__(rows, **kwargs)
        self.skipped = dict(skipped)
        self.source = dict(source)

    @property
    def notes(self):
        """Dict from what the file does not tell to the names of the rows concerned."""
        notes = {}
        for row in self.rows:
            if row.note:
                notes.setdefault(row.note, []).append(row.name)
        return notes

    def content(self):
        return {
            "source": self.source,
            "tensors": self.to_dicts(),
            "skipped": self.skipped,
        }

    def tables(self):
        columns = [
            Column("", "number", fixed=True),
            Column("tensor", "name"),
            Column("spectrum", "spectrum"),
            Column("shape", fixed=True),
            *(
                Column(label, "number", fixed=True)
                for label in ("norm", "stable\nrank", "alpha of\n|w|",
                              "alpha of\nW'W", "spikes")
            ),
        ]  # fmt: skip
        rows = [
            [
                cell(number),
                Cell(printable(_short(row.name)) + ("*" if row.note else "")),
                cell(row.eigenvalues),
                Cell("x".join(map(str, row.shape))),
                cell(row.spectral_norm, ".3g"),
                cell(row.stable_rank, ".2f"),
                _exponent(row.alpha_pdf, row.standard_error, row.status),
                _exponent(
                    row.eigenvalue_alpha, row.eigenvalue_error, row.eigenvalue_status
                ),
                Cell(
                    f"{row.spikes}{'' if row.bulk == 'ok' else '?'} "
                    f"({row.shuffled_spikes})",
                    row.spikes,
                ),
            ]
            for number, row in enumerate(self.rows, 1)
        ]
        return [Table(self.title, columns, rows, self.caption, compact=True)]


def _short(name):
    """Return a tensor's name without what all kernels' end in."""
    return name.removesuffix(".weight")


def _exponent(alpha, error, status):
    """Return an exponent's cell, with what it is to be read with."""
    if not math.isfinite(alpha) or (status != "ok" and alpha > _LARGEST_SHOWN):
        return Cell(status, math.nan)
    text = f"{alpha:.1f} +-{error:.1f}{'' if status == 'ok' else '?'}"
    return Cell(text, alpha)
