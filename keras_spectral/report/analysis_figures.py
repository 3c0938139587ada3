"""Figures of an analysis: exponents and stable ranks, and the largest spectra."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from keras_spectral.report.figures import (
    _COLOURS,
    _GREY,
    _finish,
    _legend,
    _plain_ticks,
    _shown,
    styled,
)

_SPECTRA = 6
# Names that a figure has room for.
_NAMED = 45


@styled
def analysis_figure(rows):
    """Draw what `experiments.analyze_checkpoint` found.

    Above the exponents of |w| and of the eigenvalues with their errors, and the stable
    ranks, by name in the file's order; below the eigenvalues of the largest matrices on
    logarithmic axes, with the edge of random entries.

    Args:
        rows: `experiments.Analysis` with at least one row.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: If there is no row.

    Example:
    >>> import keras
    >>> from keras_spectral.experiments import analyze_model
    >>> model = keras.Sequential([keras.Input((30,)), keras.layers.Dense(20)])
    >>> len(analysis_figure(analyze_model(model)).axes)
    8
    """
    rows = list(rows)
    if not rows:
        raise ValueError("`rows` must hold a row. Received: none. See `.skipped`.")
    # As many names as can be read; of more, their numbers in the table.
    named = len(rows) <= _NAMED
    above = 1.4 + (0.19 * len(rows) if named else 3.6)
    figure = Figure(figsize=(11, above + 4.4), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(above, 4.4))
    left, right = top.subplots(1, 2, sharey=True)
    _draw_exponents(left, rows)
    _draw_ranks(right, rows)
    _name_rows(left, rows, named)
    numbered = list(enumerate(rows, 1))
    largest = sorted(numbered, key=lambda pair: -len(pair[1].eigenvalues))[:_SPECTRA]
    panels = bottom.subplots(2, 3, squeeze=False)
    for axes, (number, row) in zip(panels.ravel(), largest, strict=False):
        _draw_spectrum(axes, number, row)
    for axes in panels.ravel()[len(largest) :]:
        axes.axis("off")
    return figure


def _name_rows(axes, rows, named):
    """Name a figure's rows, from top to bottom, or number them as the table does."""
    axes.set_ylim(len(rows) + 0.7, 0.3)
    if named:
        labels = [f"{_short(row.name)}  {n}" for n, row in enumerate(rows, 1)]
        axes.set_yticks(range(1, len(rows) + 1), labels, fontsize=8)
        return
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_ylabel("matrix, by its number in the table")


def _short(name):
    """Return a tensor's name as far as there is room: its end tells it apart."""
    name = name.removesuffix(".weight")
    return _shown(name if len(name) <= 34 else f"...{name[-31:]}")


def _draw_exponents(axes, rows):
    places = np.arange(1, len(rows) + 1)
    for label, alpha, error, colour, marker, shift in (
        ("weights |w|", "alpha_pdf", "standard_error", _COLOURS[0], "o", -0.15),
        (
            "eigenvalues of W'W", "eigenvalue_alpha", "eigenvalue_error", _COLOURS[1],
            "s", 0.15,
        ),
    ):  # fmt: skip
        values = np.array([getattr(row, alpha) for row in rows])
        errors = np.array([getattr(row, error) for row in rows])
        axes.errorbar(
            values, places + shift, xerr=errors, fmt=marker, ms=4, lw=1, color=colour,
            label=label,
        )  # fmt: skip
    axes.set_xscale("log")
    shown = [row.alpha_pdf for row in rows] + [row.eigenvalue_alpha for row in rows]
    _plain_ticks(axes.xaxis, shown)
    axes.grid(axis="x")
    axes.set_xlabel("exponent of the density, ± standard error")
    _finish(axes, "Power laws", _legend(axes))


def _draw_ranks(axes, rows):
    places = np.arange(1, len(rows) + 1)
    full = [len(row.eigenvalues) for row in rows]
    axes.barh(places, full, color="#DDDDDD", height=0.8, label="rank at most")
    ranks = [row.stable_rank for row in rows]
    axes.barh(places, ranks, color=_COLOURS[2], height=0.8, label="stable rank")
    axes.set_xscale("log")
    _plain_ticks(axes.xaxis, [*full, *ranks])
    axes.set_xlabel("dimensions")
    _finish(axes, "Stable ranks of the flattened tensors", _legend(axes))


def _draw_spectrum(axes, number, row):
    values = np.array([value for value in row.eigenvalues if value > 0])
    # Squares of rounding errors are no spectrum.
    values = values[values > 1e-12 * values[0]]
    share = np.arange(1, len(values) + 1) / len(values)
    axes.step(values, share, where="post", color=_COLOURS[0], lw=1.5)
    if np.isfinite(row.eigenvalue_alpha):
        tail = values[values >= row.eigenvalue_xmin * (1 - 1e-12)]
        start = len(tail) / len(values)
        fitted = start * (tail / row.eigenvalue_xmin) ** (1 - row.eigenvalue_alpha)
        axes.plot(tail, fitted, color=_COLOURS[1], lw=1.5, label="fitted law")
    axes.axvline(row.bulk_edge, color=_GREY, lw=1, ls="--")
    axes.set_xscale("log")
    axes.set_yscale("log")
    _plain_ticks(axes.xaxis, values)
    _plain_ticks(axes.yaxis, share)
    axes.set_xlabel(
        f"eigenvalue; {row.spikes} above the edge of random entries (dashed)",
        fontsize=8,
    )
    axes.tick_params(labelsize=8)
    axes.set_title(f"{number}: {_short(row.name)}", loc="left", fontsize=9)
    if axes.get_subplotspec().is_first_col():
        axes.set_ylabel("share above", fontsize=9)
