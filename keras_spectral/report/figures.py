"""Figures from rows; nothing here computes a measure."""

import functools
import math

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation, LogLocator

from keras_spectral.files import replacing
from keras_spectral.printable import printable

# Okabe and Ito's palette, which colour-blind readers can tell apart: those first that
# stand out most from white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_GREY = "#555555"
_INK = "#222222"
_STYLE = {
    "axes.edgecolor": _GREY,
    "axes.labelcolor": _INK,
    "axes.labelsize": 9.5,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "text.color": _INK,
    "xtick.color": _GREY,
    "xtick.labelcolor": _INK,
    "xtick.labelsize": 9,
    "ytick.color": _GREY,
    "ytick.labelcolor": _INK,
    "ytick.labelsize": 9,
}
_MARKERS = "osD^"
# Points that a line of a legend takes.
_LINE = 15


def styled(draw):
    """Let a function draw in the one look of all figures.

    Args:
        draw: Function that returns a figure.
    """

    @functools.wraps(draw)
    def drawn(*arguments, **options):
        with matplotlib.rc_context(_STYLE):
            return draw(*arguments, **options)

    return drawn


def _finish(axes, title, legend=0):
    """Give axes a title, and between both room for so many lines of a legend."""
    axes.set_title(
        title, loc="left", fontsize=11, fontweight="bold", pad=6 + _LINE * legend
    )


def _legend(axes, columns=2, **options):
    """Name what is drawn above the axes, where nothing is covered.

    Args:
        axes: Matplotlib axes.
        columns: Integer, names a line.
        **options: Those of `Axes.legend`.

    Returns:
        Integer, how many lines there are, for `_finish`.
    """
    found = axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0.2,
        borderpad=0,
        ncols=columns,
        **options,
    )
    return -(-len(found.get_texts()) // columns)


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


def _colour(labels, start=0):
    return {
        label: _COLOURS[index % len(_COLOURS)]
        for index, label in enumerate(labels, start)
    }


def _shown(name, most=60):
    """Return a name from a file as a figure shows it, in which no dollar is math."""
    return printable(name, most).replace("$", r"\$")


def _named_at_its_end(axes, x, y, label):
    """Write a line's name right of its last point: nothing has to be looked up."""
    axes.annotate(
        label, (x, y), xytext=(6, 0), textcoords="offset points", va="center",
        color="#222222", fontsize=10, fontweight="bold", annotation_clip=False,
    )  # fmt: skip


def draw_memorization(axes, curves):
    """Draw how much of random labels each network has learned, epoch by epoch.

    Args:
        axes: Matplotlib axes.
        curves: Dict from a network's label to its accuracies in [0, 1], one an epoch.
    """
    colours = _colour(curves)
    for label, curve in curves.items():
        values = [100 * value for value in curve]
        axes.plot(range(1, len(values) + 1), values, color=colours[label], lw=2)
        text = f"{_shown(label)}  {values[-1]:.0f} %"
        _named_at_its_end(axes, len(values), values[-1], text)
    axes.set_ylim(0, 104)
    axes.set_xlabel("epoch")
    axes.set_ylabel("random labels learned (%)")
    _finish(axes, "Noise learned by heart")


def draw_certified(axes, certified, accuracies):
    """Draw the share of images that are right and certified, by the radius.

    Args:
        axes: Matplotlib axes.
        certified: Dict from a network's label to rows (dicts) with `radius` and
            `certified_accuracy`.
        accuracies: Dict from a network's label to its test accuracy: radius 0.
    """
    colours = _colour(certified)
    for label, rows in certified.items():
        radii = [0, *(row["radius"] for row in rows)]
        shares = [accuracies[label], *(row["certified_accuracy"] for row in rows)]
        values = [100 * share for share in shares]
        axes.plot(radii, values, color=colours[label], lw=2, label=_shown(label))
    axes.set_ylim(0, 104)
    axes.set_xlim(left=0)
    axes.set_xlabel("any change of the pixels up to this norm")
    axes.set_ylabel("certified test accuracy (%)")
    _finish(axes, "What no attack can turn", _legend(axes))


def draw_spectra(axes, spectra, layer=None):
    """Draw one layer's singular values in each model, relative to the largest.

    Args:
        axes: Matplotlib axes.
        spectra: Dict from a model's label to its rows (dicts) of `measures.spectrum`.
        layer: String, the layer's name; default the one with the most singular
            values.

    Raises:
        ValueError: If a model has no such layer.
    """
    if layer is None:
        rows = next(iter(spectra.values()))
        layer = max(rows, key=lambda row: len(row["singular_values"]))["name"]
    colours = _colour(spectra)
    for label, rows in spectra.items():
        row = next((row for row in rows if row["name"] == layer), None)
        if row is None:
            raise ValueError(
                "`spectra` must hold one layer of each model. "
                f"Received: '{label}' without the layer '{layer}'."
            )
        values = row["singular_values"]
        axes.plot(
            range(1, len(values) + 1),
            [value / values[0] if values[0] else math.nan for value in values],
            color=colours[label],
            marker=".",
            label=f"{_shown(label)} (stable rank {row['stable_rank']:.1f})",
        )
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("index of the singular value")
    axes.set_ylabel("singular value / largest")
    lines = _legend(axes)
    _finish(axes, f"Spectrum of layer {_shown(layer)}", lines)


def draw_compression(axes, rows):
    """Draw accuracy after compression, mean and standard deviation.

    Args:
        axes: Matplotlib axes.
        rows: Rows of `compression.compare_replacements` with accuracies.

    Raises:
        ValueError: If the rows hold no accuracies.
    """
    if any(row.compressed_accuracy_mean is None for row in rows):
        raise ValueError(
            "`rows` must hold accuracies. Received: rows without `evaluate`. "
            "Pass `evaluate=` to `compression.compare_replacements`."
        )
    replacements = list(dict.fromkeys(row.replacement for row in rows))
    rules = list(dict.fromkeys(row.rule for row in rows))
    # Not the models' colours: the demo's figure shows both.
    colours = _colour(replacements, start=3)
    width = 0.8 / len(replacements)
    original = 100 * rows[0].original_accuracy
    low = high = original
    for row in rows:
        offset = replacements.index(row.replacement) - (len(replacements) - 1) / 2
        mean, sd = 100 * row.compressed_accuracy_mean, 100 * row.compressed_accuracy_sd
        low, high = min(low, mean - sd), max(high, mean + sd)
        axes.errorbar(
            rules.index(row.rule) + offset * width,
            mean,
            yerr=sd,
            fmt=_MARKERS[replacements.index(row.replacement) % len(_MARKERS)],
            ms=7,
            capsize=4,
            color=colours[row.replacement],
            label=row.replacement if row.rule == rules[0] else None,
        )
    axes.axhline(original, color=_GREY, lw=1, ls="--")
    axes.annotate(
        f"original {original:.1f} %",
        (0.99, original),
        xycoords=("axes fraction", "data"),
        xytext=(0, 2),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize=9,
        color=_GREY,
    )
    kept = {row.rule: 100 * row.kept for row in rows}
    axes.set_xticks(
        range(len(rules)),
        [f'"{rule}"\n{kept[rule]:.0f} % of the weights kept' for rule in rules],
    )
    axes.set_xlim(-0.5, len(rules) - 0.5)
    span = high - low
    axes.set_ylim(low - 0.1 * span - 0.5, min(100.5, high + 0.1 * span + 0.5))
    axes.set_ylabel("test accuracy (%)")
    lines = _legend(axes, columns=len(replacements))
    _finish(axes, f"Compressing {_shown(rows[0].name)}: weights replaced by", lines)


@styled
def compression_figure(rows):
    """Return a figure of `compression.compare_replacements` rows with accuracies.

    Args:
        rows: Rows of `compression.compare_replacements`.

    Returns:
        A `matplotlib.figure.Figure`.

    Example:
    >>> import keras
    >>> from keras_spectral import compression
    >>> model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(10)])
    >>> rows = compression.compare_replacements(
    ...     model, trials=2, evaluate=lambda model: 0.5
    ... )
    >>> len(compression_figure(rows).axes)
    1
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    draw_compression(figure.subplots(), rows)
    return figure


@styled
def demo_figure(results):
    """Return the demo's figure: noise learned, certificates and spectra.

    Args:
        results: Dict, the content of the demo's `results.json`.

    Returns:
        A `matplotlib.figure.Figure` of three panels.
    """
    figure = Figure(figsize=(15, 4.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    draw_memorization(left, results["memorization"])
    accuracies = {row["name"]: row["test_accuracy"] for row in results["training"]}
    draw_certified(middle, results["certified"], accuracies)
    draw_spectra(right, results["spectra"])
    return figure


def save(figure, path):
    """Write a figure, whole or not at all; the suffix gives the format.

    Args:
        figure: A `matplotlib.figure.Figure`.
        path: Path such as `demo.png`, `demo.pdf` or `demo.svg`.

    Raises:
        OSError: If the file cannot be written.

    Example:
    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(Figure(), f"{folder}/empty.svg")
    ...     os.listdir(folder)
    ['empty.svg']
    """
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)
