"""Figures of an analysis: exponents and stable ranks, and the largest spectra."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation, LogLocator, MaxNLocator

from keras_spectral.report.figures import _COLOURS, _finish, _shown

_SPECTRA = 6


def analysis_figure(rows):
    """Draw what `experiments.analyze_checkpoint` found.

    Above the exponents of |w| and of the eigenvalues with their errors, and the stable
    ranks, in the file's order; below the eigenvalues of the largest matrices on
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
    figure = Figure(figsize=(11, 8.5), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1, 1.15))
    left, right = top.subplots(1, 2)
    _draw_exponents(left, rows)
    _draw_ranks(right, rows)
    numbered = list(enumerate(rows, 1))
    largest = sorted(numbered, key=lambda pair: -len(pair[1].eigenvalues))[:_SPECTRA]
    panels = bottom.subplots(2, 3, squeeze=False)
    for axes, (number, row) in zip(panels.ravel(), largest, strict=False):
        _draw_spectrum(axes, number, row)
    for axes in panels.ravel()[len(largest) :]:
        axes.axis("off")
    return figure


def _plain_ticks(axis, values):
    """Write a logarithmic axis' numbers: at 1, 2 and 5, or few powers of many decades.

    Args:
        axis: A matplotlib axis.
        values: Array, what is drawn on it.
    """
    values = np.asarray(values, "float64")
    values = values[np.isfinite(values) & (values > 0)]
    decades = np.ptp(np.log10(values)) if values.size else 0
    if decades <= 2:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
    else:
        axis.set_major_locator(LogLocator(numticks=6))
        axis.set_major_formatter(LogFormatterSciNotation())
    axis.set_minor_formatter("")


def _number_rows(axes, rows):
    """Number a figure's rows as the table does."""
    axes.set_xlim(0.3, len(rows) + 0.7)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("matrix, by its number in the table")


def _draw_exponents(axes, rows):
    places = np.arange(1, len(rows) + 1)
    for label, alpha, error, colour, shift in (
        ("weights |w|", "alpha_pdf", "standard_error", _COLOURS[0], -0.12),
        ("eigenvalues", "eigenvalue_alpha", "eigenvalue_error", _COLOURS[1], 0.12),
    ):
        values = np.array([getattr(row, alpha) for row in rows])
        errors = np.array([getattr(row, error) for row in rows])
        axes.errorbar(
            places + shift, values, errors, fmt="o", ms=4, lw=1, color=colour,
            label=label,
        )  # fmt: skip
    axes.set_yscale("log")
    shown = [row.alpha_pdf for row in rows] + [row.eigenvalue_alpha for row in rows]
    _plain_ticks(axes.yaxis, shown)
    axes.set_ylabel("exponent of the density")
    _number_rows(axes, rows)
    axes.legend(frameon=False, fontsize=9, loc="upper right")
    _finish(axes, "Power laws, with standard errors")


def _draw_ranks(axes, rows):
    places = np.arange(1, len(rows) + 1)
    full = [len(row.eigenvalues) for row in rows]
    axes.bar(places, full, color="#DDDDDD", width=0.8, label="rank at most")
    ranks = [row.stable_rank for row in rows]
    axes.bar(places, ranks, color=_COLOURS[2], width=0.8, label="stable rank")
    axes.set_yscale("log")
    _plain_ticks(axes.yaxis, [*full, *ranks])
    _number_rows(axes, rows)
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    _finish(axes, "Stable ranks of the flattened tensors")


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
    axes.axvline(row.bulk_edge, color=_COLOURS[5], lw=1, ls="--")
    axes.set_xscale("log")
    axes.set_yscale("log")
    _plain_ticks(axes.xaxis, values)
    _plain_ticks(axes.yaxis, share)
    name = row.name.removesuffix(".weight")
    axes.set_xlabel(f"{row.spikes} above the edge of random entries", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    name = name if len(name) <= 34 else f"...{name[-31:]}"
    axes.set_title(f"{number}: {_shown(name)}", loc="left", fontsize=9)
    if axes.get_subplotspec().is_first_col():
        axes.set_ylabel("share above", fontsize=9)
