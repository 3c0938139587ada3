"""Figures of an analysis: exponents and stable ranks, and the largest spectra."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from keras_spectral.report.figures import _COLOURS, _finish

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
    """
    rows = list(rows)
    if not rows:
        raise ValueError("`rows` must hold a row. Received: none. See `.skipped`.")
    figure = Figure(figsize=(11, 8.5), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1, 1.15))
    left, right = top.subplots(1, 2)
    _draw_exponents(left, rows)
    _draw_ranks(right, rows)
    largest = sorted(rows, key=lambda row: -len(row.eigenvalues))[:_SPECTRA]
    panels = bottom.subplots(2, 3, squeeze=False)
    for axes, row in zip(panels.ravel(), largest, strict=False):
        _draw_spectrum(axes, row)
    for axes in panels.ravel()[len(largest) :]:
        axes.axis("off")
    return figure


def _plain_ticks(axis):
    """Write a logarithmic axis' numbers without powers, at 1, 2 and 5."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter("")


def _draw_exponents(axes, rows):
    places = np.arange(len(rows))
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
    _plain_ticks(axes.yaxis)
    axes.set_ylabel("exponent of the density")
    axes.set_xlabel("matrix, in the file's order")
    axes.legend(frameon=False, fontsize=9, loc="upper right")
    _finish(axes, "Power laws, with standard errors")


def _draw_ranks(axes, rows):
    places = np.arange(len(rows))
    full = [len(row.eigenvalues) for row in rows]
    axes.bar(places, full, color="#DDDDDD", width=0.8, label="rank at most")
    ranks = [row.stable_rank for row in rows]
    axes.bar(places, ranks, color=_COLOURS[2], width=0.8, label="stable rank")
    axes.set_yscale("log")
    _plain_ticks(axes.yaxis)
    axes.set_xlabel("matrix, in the file's order")
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    _finish(axes, "Stable ranks of the flattened tensors")


def _draw_spectrum(axes, row):
    values = np.array([value for value in row.eigenvalues if value > 0])
    # Squares of rounding errors are no spectrum.
    values = values[values > 1e-12 * values[0]]
    share = np.arange(1, len(values) + 1) / len(values)
    axes.step(values, share, where="post", color=_COLOURS[0], lw=1.5)
    axes.axvline(row.bulk_edge, color=_COLOURS[5], lw=1, ls="--")
    axes.set_xscale("log")
    axes.set_yscale("log")
    _plain_ticks(axes.xaxis)
    name = row.name.removesuffix(".weight")
    axes.set_xlabel(f"{row.spikes} above the edge of random entries", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    name = name if len(name) <= 34 else f"...{name[-31:]}"
    axes.set_title(name, loc="left", fontsize=9)
    if axes.get_subplotspec().is_first_col():
        axes.set_ylabel("share above", fontsize=9)
