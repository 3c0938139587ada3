"""Figures from rows; nothing here computes a measure."""

import math

from matplotlib.figure import Figure

from keras_spectral.files import replacing
from keras_spectral.printable import printable

# Okabe and Ito's palette, which colour-blind readers can tell apart.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
_GREY = "#555555"


def _finish(axes, title):
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)


def _exp(log):
    """Return e^log as text, also where it overflows a float."""
    return f"{math.exp(log):.3g}" if log < 700 else f"1e+{log / math.log(10):.0f}"


def _colour(labels, start=0):
    return {
        label: _COLOURS[index % len(_COLOURS)]
        for index, label in enumerate(labels, start)
    }


def _shown(name):
    """Return a name from a file as a figure shows it, in which no dollar is math."""
    return printable(name, 60).replace("$", r"\$")


def draw_training(axes, rows):
    """Draw the accuracy of each model on training and test data.

    Args:
        axes: Matplotlib axes.
        rows: Rows with `name`, `train_accuracy` and `test_accuracy` in [0, 1].
    """
    colours = _colour([row.name for row in rows])
    lowest = 100.0
    for index, row in enumerate(rows):
        pair = 100 * row.train_accuracy, 100 * row.test_accuracy
        lowest = min(lowest, *pair)
        axes.plot([index, index], pair, color=colours[row.name], lw=2, zorder=1)
        axes.scatter(index, pair[0], s=60, color=colours[row.name], marker="o")
        axes.scatter(
            index,
            pair[1],
            s=60,
            facecolor="white",
            edgecolor=colours[row.name],
            marker="s",
            linewidth=2,
        )
    axes.scatter([], [], s=60, color=_GREY, marker="o", label="training")
    axes.scatter(
        [], [], s=60, facecolor="white", edgecolor=_GREY, marker="s", label="test"
    )
    axes.set_xticks(
        range(len(rows)),
        [
            f"{_shown(row.name)}\nstable ranks: {row.sum_of_stable_ranks:.1f}\n"
            f"norms: {_exp(row.log_product_of_spectral_norms)}"
            for row in rows
        ],
    )
    axes.set_xlim(-0.5, len(rows) - 0.5)
    axes.set_ylim(lowest - 0.3 * (100.5 - lowest) - 0.5, 100.5)
    axes.set_ylabel("accuracy (%)")
    axes.legend(frameon=False, fontsize=9, loc="lower left", ncols=2)
    _finish(axes, "Accuracy, sum of stable ranks, product of norms")


def draw_spectra(axes, spectra, layer=None):
    """Draw one layer's singular values in each model, relative to the largest.

    Args:
        axes: Matplotlib axes.
        spectra: Dict from a model's label to its `measures.Spectrum`.
        layer: String, the layer's name; default the one with the most singular
            values.

    Raises:
        ValueError: If a model has no such layer.
    """
    if layer is None:
        rows = next(iter(spectra.values())).rows
        layer = max(rows, key=lambda row: len(row.singular_values)).name
    colours = _colour(spectra)
    for label, spectrum in spectra.items():
        row = next((row for row in spectrum if row.name == layer), None)
        if row is None:
            raise ValueError(
                "`spectra` must hold one layer of each model. "
                f"Received: '{label}' without the layer '{layer}'."
            )
        values = row.singular_values
        axes.plot(
            range(1, len(values) + 1),
            [value / values[0] if values[0] else math.nan for value in values],
            color=colours[label],
            marker=".",
            label=f"{_shown(label)} (stable rank {row.stable_rank:.1f})",
        )
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("index of the singular value")
    axes.set_ylabel("singular value / largest")
    axes.legend(frameon=False, fontsize=9, loc="upper right")
    _finish(axes, f"Spectrum of layer {_shown(layer)}")


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
            fmt="o",
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
    axes.set_ylim(low - 0.25 * span - 0.5, min(100.5, high + 0.1 * span + 0.5))
    axes.set_ylabel("test accuracy (%)")
    # One line of entries fits into the margin below the lowest point.
    axes.legend(
        frameon=False, fontsize=9, title="replaced by", title_fontsize=9,
        loc="lower left", ncols=len(replacements), alignment="left",
    )  # fmt: skip
    _finish(axes, f"Compressing {_shown(rows[0].name)}")


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


def demo_figure(training, spectra, compression):
    """Return the demo's figure: accuracies, spectra and compression.

    Args:
        training: Rows for `draw_training`.
        spectra: Dict for `draw_spectra`.
        compression: Rows for `draw_compression`.

    Returns:
        A `matplotlib.figure.Figure` of three panels.
    """
    figure = Figure(figsize=(15, 4.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    draw_training(left, training)
    draw_spectra(middle, spectra)
    draw_compression(right, compression)
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
