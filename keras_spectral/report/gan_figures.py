"""Figures of a GAN's discriminator."""

import numpy as np
from matplotlib.figure import Figure

from keras_spectral.report.figures import _colour, _finish, _legend, _shown, styled

_BINS = 40


@styled
def distribution_figure(found, percentile=95.0):
    """Draw histograms of distributions, with a dashed line at a percentile.

    Args:
        found: Dict from a model's name to `measures.Distributions` of the same rows,
            such as those of `gan.metrics.discriminator_slopes`.
        percentile: Float from 0 to 100, which the lines mark.

    Returns:
        A `matplotlib.figure.Figure`: a panel a row, in which each model is a curve.

    Raises:
        ValueError: If there is no model, or they have different rows.

    Example:
    >>> from keras_spectral.measures import Distributions
    >>> slopes = Distributions({"real-fake": np.array([1.0, 2.0, np.nan])})
    >>> len(distribution_figure({"plain": slopes}).axes)
    1

    Source: [sanyal2020], Figures 5 and 12 to 16.
    """
    names = {tuple(row.name for row in rows) for rows in found.values()}
    if len(names) != 1:
        raise ValueError(
            "`found` must hold distributions of the same rows. Received: rows "
            f"{sorted(names)}"
        )
    (names,) = names
    colours = _colour(found)
    # All panels have room for the legend of the first.
    columns = 2
    lines = -(-len(found) // columns)
    figure = Figure(figsize=(4.2 * len(names), 3.6), layout="constrained")
    for axes, name in zip(
        figure.subplots(1, len(names), squeeze=False)[0], names, strict=True
    ):
        values = {m: rows.values[name] for m, rows in found.items()}
        values = {m: each[~np.isnan(each)] for m, each in values.items()}
        together = np.concatenate(list(values.values()))
        edges = np.histogram_bin_edges(together, _BINS)
        for model, each in values.items():
            colour = colours[model]
            shares = np.histogram(each, edges)[0] / max(len(each), 1)
            axes.stairs(shares, edges, color=colour, lw=1.6, label=_shown(model))
            axes.stairs(shares, edges, color=colour, fill=True, alpha=0.15)
            if len(each):
                mark = np.percentile(each, percentile)
                axes.axvline(mark, color=colour, lw=1.2, ls="--")
        axes.set_xlabel(f"dashed: {percentile:g}th percentile", fontsize=9)
        axes.set_ylim(bottom=0)
        _finish(axes, _shown(name), lines)
    figure.axes[0].set_ylabel("share")
    _legend(figure.axes[0], columns)
    return figure
