"""The heavy-tail paper's three figures, drawn from rows and from closed forms."""

import math

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from keras_spectral.measures import alpha_stable_density, fit_linear_mixture
from keras_spectral.report.figures import (
    _COLOURS,
    _GREY,
    _finish,
    _legend,
    _shown,
    styled,
)
from keras_spectral.theory import resilient_classification

# No bound, a wrong one, a right one.
_KINDS = ("#D9D9D9", _COLOURS[1], _COLOURS[2])
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# Most points that are enough for a smooth curve; a density takes time.
_POINTS = 400


@styled
def figure_1(alphas=(2.0, 1.5, 1.0, 0.5), reach=100.0):
    """Return Figure 1: alpha-stable densities, and what the index does to the tail.

    Args:
        alphas: Tuple of floats in (0, 2].
        reach: Float > 5, the largest value, in scales.

    Returns:
        A `matplotlib.figure.Figure` of two panels: the middle, and a logarithmic tail.

    Raises:
        ValueError: If an index is out of range.

    Example:
    >>> len(figure_1(alphas=(1.0,)).axes)
    2

    Source: [shin2021], Figure 1.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    count = _POINTS // max(len(alphas), 1)
    # The law is symmetric: half of the points suffice. They are densest at the peak.
    near = 5 * np.linspace(0, 1, count // 2, endpoint=False) ** 2
    x = np.concatenate([near, np.geomspace(5, reach, count - count // 2)])
    lowest = 1.0
    for colour, alpha in zip(_cycle(_COLOURS, len(alphas)), alphas, strict=True):
        density = alpha_stable_density(x, alpha)
        label = {2.0: " (normal)", 1.0: " (Cauchy)"}.get(alpha, "")
        label = f"$\\alpha$ = {alpha:g}{label}"
        middle = x <= 5
        left.plot(
            np.concatenate([-x[middle][::-1], x[middle]]),
            np.concatenate([density[middle][::-1], density[middle]]),
            color=colour, lw=1.8, label=label,
        )  # fmt: skip
        # A power law is a straight line here, and the normal law falls out of it.
        seen = (x >= 0.5) & (density > 1e-8)
        right.loglog(x[seen], density[seen], color=colour, lw=1.8, label=label)
        lowest = min(lowest, density[-1] if alpha < 2 else 1.0)
    left.set_xlim(-5, 5)
    left.set_ylim(0, None)
    left.set_xlabel("value, in scales")
    left.set_ylabel("density")
    _finish(left, "Alpha-stable densities", _legend(left))
    right.set_xlim(0.5, reach)
    right.set_ylim(min(lowest / 2, 1e-3), 1)
    right.set_xlabel("value, in scales")
    right.set_ylabel("density")
    lines = -(-len(alphas) // 2)
    _finish(right, "Their tails fall as $x^{-(\\alpha + 1)}$", lines)
    return figure


@styled
def figure_2(scale=1.3, levels=5, columns=64, steps=59):
    """Return Figure 2: the printed formula, where it holds, and the exact probability.

    Each square is P(a row holds c^(M - i) weights between c^i and c^(i + 1)). The
    second panel tells where the formula's condition holds, and where its value then is
    above the exact probability: it has the law's asymptote in place of the law, and
    so is no bound in other places, too.

    Args:
        scale: Float > 1, the paper's c.
        levels: Integer >= 1, the paper's M.
        columns: Integer >= 1, the paper's N.
        steps: Integer >= 2, how many values of alpha in (0, 2).

    Returns:
        A `matplotlib.figure.Figure` of three panels and a colour bar.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> len(figure_2(steps=4).axes)
    4

    Source: [shin2021], equation 16 and Figure 2.
    """
    edges = np.linspace(0.1, 2, steps + 1)
    alphas = (edges[:-1] + edges[1:]) / 2
    rows = resilient_classification(tuple(alphas), scale, levels, columns)

    def grid(name):
        values = [float(getattr(row, name)) for row in rows]
        return np.reshape(values, (steps, levels + 1)).T

    printed, exact, valid = grid("bound"), grid("exact"), grid("valid") > 0
    # The printed bound has a law's asymptote in place of its probability.
    kind = np.where(valid, np.where(printed >= exact, 2, 1), 0)
    up = np.arange(levels + 2) - 0.5
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    settings = {"vmin": 0, "vmax": 1, "cmap": "viridis"}
    mesh = panels[0].pcolormesh(edges, up, printed, **settings)
    panels[1].pcolormesh(edges, up, kind, vmin=0, vmax=2, cmap=ListedColormap(_KINDS))
    panels[2].pcolormesh(edges, up, exact, **settings)
    # What is not valid is shown, since the paper drew it, but cannot be missed.
    for i, j in np.argwhere(~valid):
        panels[0].fill_between(
            edges[j : j + 2], *up[i : i + 2], facecolor="none", edgecolor="white",
            hatch="////", lw=0, alpha=0.5,
        )  # fmt: skip
    labels = (
        "condition fails: no bound",
        "condition holds, yet below the exact one",
        "condition holds, above the exact one",
    )
    panels[1].legend(
        handles=[
            Patch(color=colour, label=f"{label} ({np.mean(kind == index):.0%})")
            for index, (colour, label) in enumerate(zip(_KINDS, labels, strict=True))
        ],
        frameon=False, fontsize=8.5, loc="upper left", bbox_to_anchor=(0, -0.16),
    )  # fmt: skip
    titles = (
        "As printed (hatched: not valid)",
        "Condition $\\kappa > Np$, and the result",
        "Exact probability",
    )
    for axes, title in zip(panels, titles, strict=True):
        axes.set_xlabel("index $\\alpha$ of the law")
        axes.set_yticks(range(levels + 1))
        _finish(axes, title)
    panels[0].set_ylabel("$i$: weights between $c^i$ and $c^{i+1}$")
    figure.colorbar(mesh, ax=panels, label="probability", pad=0.01)
    figure.suptitle(
        f"Probability that {columns} weights hold $\\kappa = c^{{{levels}-i}}$ "
        f"of size $c^i$, $c$ = {scale:g}", x=0.01, ha="left", fontsize=11,
    )  # fmt: skip
    return figure


def stable_rank_mixture(rows, **arguments):
    """Return the mixture of lines of Figure 3, stable rank against alpha.

    Args:
        rows: List of rows with `alpha_pdf` and `stable_rank`; those with a `status`
            other than "ok" have no exponent that can be relied on, and are left out.
        **arguments: See `measures.fit_linear_mixture`.

    Returns:
        `measures.LinearMixture`, or `None` for points that have no line: fewer than
        six, or all of one alpha.

    Example:
    >>> stable_rank_mixture([]) is None
    True
    """
    rows = [row for row in rows if _reliable(row)]
    x = np.array([row.alpha_pdf for row in rows])
    if len(rows) < 6 or x.min() == x.max():
        return None
    return fit_linear_mixture(x, [row.stable_rank for row in rows], **arguments)


def _reliable(row):
    return getattr(row, "status", None) in (None, "ok")


@styled
def figure_3(rows, mixture=None):
    """Return Figure 3: stable rank against alpha, with the mixture's lines.

    Points whose `status` is not "ok" are hollow, and belong to no line; where they are
    far from the others they are counted instead.

    Args:
        rows: List of rows with `alpha_pdf`, `standard_error` (of alpha) and
            `stable_rank`, such as `experiments.run_sweep` returns; those of one
            `dataset` share a marker.
        mixture: `measures.LinearMixture` of these rows; default
            `stable_rank_mixture(rows)`. A line is drawn where its points are.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: Without rows.

    Example:
    >>> from keras_spectral.experiments import SweepRow
    >>> row = SweepRow("a", "a", "", {}, alpha_pdf=3, standard_error=0.1, stable_rank=4)
    >>> len(figure_3([row]).axes)
    1

    Source: [shin2021], Figure 3 and appendix D.
    """
    rows = list(rows)
    if not rows:
        raise ValueError("`rows` must hold a row. Received: none")
    reliable = [row for row in rows if _reliable(row)]
    if mixture is None:
        mixture = stable_rank_mixture(rows)
    figure = Figure(figsize=(6.8, 4.6), layout="constrained")
    axes = figure.subplots()
    remarks, colours = [], [_COLOURS[0]] * len(reliable)
    if mixture is not None:
        members = mixture.responsibilities.argmax(1)
        colours = [_colour_of(member) for member in members]
        _draw_lines(axes, reliable, mixture, members)
        bics = [r for r in mixture.candidates if math.isfinite(r.bic)]
        remarks.append(
            "BIC by number of lines: "
            + ", ".join(f"{row.components}: {row.bic:.1f}" for row in bics)
        )
    datasets = list(dict.fromkeys(getattr(row, "dataset", None) for row in rows))
    markers = dict(zip(datasets, _cycle(_MARKERS, len(datasets)), strict=True))
    for row, colour in zip(reliable, colours, strict=True):
        _draw_point(axes, row, markers, colour, mfc=colour, mec="white", mew=0.6)
    if reliable:
        # A tail of ten weights has an exponent of a hundred: it must not set the scale.
        axes.set_xlim(axes.get_xlim())
    low, high = axes.get_xlim() if reliable else (-math.inf, math.inf)
    beyond = hollow = 0
    for row in rows:
        if not _reliable(row):
            inside = low < row.alpha_pdf < high
            hollow += inside
            beyond += not inside
            _draw_point(axes, row, markers, _GREY, mfc="white", mec=_GREY, mew=1)
    for dataset in datasets:
        axes.plot(
            [], [], ls="", marker=markers[dataset], color=_GREY, ms=6,
            label=_shown(dataset or "data unknown"),
        )  # fmt: skip
    if hollow:
        axes.plot(
            [], [], ls="", marker="o", mfc="white", mec=_GREY, ms=6,
            label="fit not reliable",
        )  # fmt: skip
    if beyond:
        fits = "its fit is" if beyond == 1 else "their fits are"
        remarks.append(f"{beyond} more beyond the axis: {fits} not reliable")
    axes.annotate(
        "\n".join(remarks), (1, 0.01), xycoords="axes fraction", ha="right",
        va="bottom", fontsize=8, color=_GREY,
    )  # fmt: skip
    ranks = [row.stable_rank for row in rows]
    span = max(np.ptp(ranks), 0.5)
    # Room for the remarks below.
    axes.set_ylim(max(min(ranks) - 0.3 * span, 0), max(ranks) + 0.1 * span)
    axes.set_xlabel("$\\alpha$, exponent of the density of |w| ($\\pm$ standard error)")
    axes.set_ylabel("stable rank")
    lines = _legend(axes, columns=3)
    count = len(rows)
    title = f"Final dense layers of {count} checkpoint{'s' * (count > 1)}"
    _finish(axes, title, lines)
    return figure


def _draw_point(axes, row, markers, colour, **settings):
    axes.errorbar(
        row.alpha_pdf, row.stable_rank, xerr=row.standard_error,
        fmt=markers[getattr(row, "dataset", None)], color=colour, ms=6, elinewidth=0.9,
        capsize=2, alpha=0.9, zorder=3, **settings,
    )  # fmt: skip


def _draw_lines(axes, rows, mixture, members):
    x = np.array([row.alpha_pdf for row in rows])
    for k in range(mixture.components):
        mine = x[members == k]
        if not mine.size:
            continue
        ends = np.array([mine.min(), mine.max()])
        ends += 0.04 * np.ptp(x) * np.array([-1, 1])
        slope, intercept = mixture.slopes[k], mixture.intercepts[k]
        heights = slope * ends + intercept
        axes.plot(
            ends, heights, color=_colour_of(k), lw=1.8, zorder=2,
            label=f"{intercept:.2f} {'-' if slope < 0 else '+'} {abs(slope):.2f} "
            f"$\\alpha$ ({mixture.weights[k]:.0%})",
        )  # fmt: skip
        sd = mixture.deviations[k]
        axes.fill_between(
            ends, heights - sd, heights + sd, color=_colour_of(k), alpha=0.12, lw=0,
            zorder=1,
        )  # fmt: skip


def _colour_of(index):
    return _COLOURS[index % len(_COLOURS)]


def _cycle(values, count):
    return [values[index % len(values)] for index in range(count)]
