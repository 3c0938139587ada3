"""The figure of a recipe: how its networks learned, and where they ended."""

import numpy as np
from matplotlib.figure import Figure

from keras_spectral.report.figures import (
    _COLOURS,
    _GREY,
    _colour,
    _finish,
    _shown,
    styled,
)

# Panels side by side that a screen has room for.
_COLUMNS = 5
# The paper's own numbers.
_PAPERS = {"marker": "D", "facecolor": "none", "edgecolor": _GREY}


@styled
def recipe_figure(table):
    """Draw learning curves and final measures, a row of panels a network.

    Args:
        table: An `experiments.RecipeTable`.

    Returns:
        A `matplotlib.figure.Figure`, or `None` if no cell was finished. Curves are
        means over the seeds, their bands the range. Points have the 95 % interval of
        their mean; hollow diamonds are the paper's numbers. Several percentiles of one
        measure are drawn as its histogram, of the images of all seeds.

    Example:
    >>> from keras_spectral.experiments import RecipeTable
    >>> from keras_spectral.results import Rows
    >>> print(recipe_figure(RecipeTable([], Rows([]), [])))
    None
    """
    variants = list(dict.fromkeys(row.variant for row in table))
    measures = list(dict.fromkeys(row.measure for row in table))
    done = [cell for cell in table.cells if cell["error"] is None and cell["history"]]
    known = {cell["network"] for cell in done}
    networks = [x for x in dict.fromkeys(row.network for row in table) if x in known]
    if not networks:
        return None
    of_gans = "discriminator_loss" in done[0]["history"][0]
    colours = _colour(variants)
    dashes = {v: "-" if n < len(_COLOURS) else "--" for n, v in enumerate(variants)}
    panels_of = _panels(measures, done)
    wide = 1 + len(panels_of)
    columns = min(wide, _COLUMNS)
    # Of one network, all panels.
    lines = -(-wide // columns)
    high = (2.2 + 0.16 * len(variants)) * len(networks) * lines
    figure = Figure(figsize=(1.5 + 3.6 * columns, 0.9 + high), layout="constrained")
    panels = figure.subplots(len(networks) * lines, columns, squeeze=False)
    for place, network in enumerate(networks):
        mine = panels[place * lines : (place + 1) * lines].ravel()
        for axes in mine[wide:]:
            axes.remove()
        curves, *others = mine[:wide]
        for variant in variants:
            histories = [
                cell["history"]
                for cell in done
                if (cell["network"], cell["variant"]) == (network, variant)
            ]
            style = {"color": colours[variant], "ls": dashes[variant]}
            _draw_curve(curves, histories, _shown(variant), style, of_gans)
        curves.set_xlabel("generator updates" if of_gans else "epoch")
        curves.xaxis.get_major_locator().set_params(integer=True)
        curves.set_ylabel("loss" if of_gans else "accuracy, %")
        _finish(curves, _shown(network))
        named = False
        for number, (measure, spread) in enumerate(panels_of):
            axes = others[number]
            if (number + 1) % columns == 0:  # A new line, where names stand once.
                named = False
            if spread:
                cells = [cell for cell in done if cell["network"] == network]
                if any(measure in cell.get("distributions", {}) for cell in cells):
                    _finish(axes, _shown(measure.replace("_", " ")))
                    _draw_spread(axes, cells, measure, colours, dashes)
                    continue
                # Its cells have the percentiles alone.
                of_it = (x for x in measures if x.rpartition("_")[0] == measure)
                measure = next(of_it)
            _finish(axes, _shown(measure.replace("_", " ")))
            rows = [x for x in table if (x.network, x.measure) == (network, measure)]
            _draw_measure(axes, rows, colours)
            if named:
                axes.set_yticklabels([])
            named = True
    figure.suptitle(_shown(table.title, 110), x=0.01, ha="left", fontsize=12)
    handles, labels = panels[0][0].get_legend_handles_labels()
    handles += [
        panels[0][0].plot([], [], color=_GREY, lw=1.6)[0],
        panels[0][0].plot([], [], color=_GREY, lw=1.2, ls=":")[0],
    ]
    solid, dotted = ("D", "G") if of_gans else ("as trained", "test")
    names = [*labels, solid, dotted]
    if any(row.published is not None for row in table):
        handles.append(panels[0][0].scatter([], [], **_PAPERS))
        names.append("the paper's")
    figure.legend(
        handles,
        names,
        loc="outside lower center",
        ncols=min(len(handles), 2 + 2 * columns),
    )
    return figure


def _panels(measures, cells):
    """Return (measure, whether its histogram) for each panel."""
    known = {name for cell in cells for name in cell.get("distributions", {})}
    starts = [name.rpartition("_")[0] for name in measures]
    drawn = {
        name
        for name in known
        if starts.count(name) > 1 or name.startswith(("slope_", "gradient_"))
    }
    panels = {
        (start, True) if start in drawn else (name, False): None
        for name, start in zip(measures, starts, strict=True)
    }
    return list(panels)


def _draw_spread(axes, cells, measure, colours, dashes):
    """Draw each variant's histogram of a measure over images and seeds."""
    spreads: dict = {}
    for cell in cells:
        found = cell.get("distributions", {}).get(measure)
        if found is not None:
            # Percentiles stand for as many images each.
            spreads.setdefault(cell["variant"], []).extend(found)
    if spreads:
        everything = np.concatenate(list(spreads.values()))
        # The ends of long tails would leave one bar of all the rest.
        edges = np.linspace(*np.percentile(everything, [1, 99]), 31)
    for variant, samples in spreads.items():
        heights, _ = np.histogram(samples, edges)
        style = {"color": colours[variant], "ls": dashes[variant], "lw": 1.4}
        axes.stairs(heights / len(samples), edges, **style)
    axes.set_ylabel("share of images")


def _draw_curve(axes, histories, label, style, of_gans=False):
    """Draw the mean and the range of curves; those that stopped early end there."""
    if not histories:
        return
    longest = max(map(len, histories))
    epochs, keys, factor = np.arange(1, longest + 1), ("accuracy", "test_accuracy"), 100
    if of_gans:
        epochs = [row["steps"] for row in max(histories, key=len)]
        keys, factor = ("discriminator_loss", "generator_loss"), 1
    for key in keys:
        values = np.full((len(histories), longest), np.nan)
        for row, history in zip(values, histories, strict=True):
            row[: len(history)] = [factor * epoch[key] for epoch in history]
        mean = np.nanmean(values, axis=0)
        trained = key == keys[0]
        marker = "o" if longest == 1 else None
        more = {"label": label, "lw": 1.6} if trained else {"ls": ":"}
        axes.plot(epochs, mean, **{"marker": marker, "ms": 4, **style, **more})
        if trained and len(histories) > 1:
            low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
            axes.fill_between(epochs, low, high, color=style["color"], alpha=0.15, lw=0)


def _draw_measure(axes, rows, colours):
    """Draw each variant's mean with its interval, the first one on top."""
    names = [_shown(row.variant) for row in rows]
    for place, row in enumerate(rows):
        if row.mean is not None:
            axes.errorbar(
                row.mean,
                place,
                xerr=row.half_width_95 or None,
                fmt="o",
                color=colours[row.variant],
                capsize=3,
            )
        if row.published is not None:
            axes.scatter(row.published, place, **_PAPERS)
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.locator_params(axis="x", nbins=5)
    axes.grid(axis="x")
