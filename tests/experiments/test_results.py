"""The committed results: pages say what their rows say; a recipe's figure."""

import json
import re
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest

from keras_spectral.experiments import load_recipe
from keras_spectral.experiments.recipe_table import recipe_table
from keras_spectral.experiments.recipes import recipe_path
from keras_spectral.report import recipe_figure

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def test_the_front_page_is_of_the_rows(tmp_path):
    # In a copy: where pages and rows differ, the checkout stays as it was.
    figures = shutil.ignore_patterns("*-evidence.png")
    folder = shutil.copytree(RESULTS, tmp_path / "results", ignore=figures)
    text = runpy.run_path(str(folder / "make.py"))["page"]()
    assert text == (RESULTS / "README.md").read_text(encoding="utf-8")
    # Each table is written anew, to the same bytes.
    tables = [*RESULTS.glob("*.md"), *RESULTS.glob("gan/*.md")]
    assert len(tables) >= 35
    for path in tables:
        again = folder / path.relative_to(RESULTS)
        assert again.read_bytes() == path.read_bytes(), path.name
    cells = list((RESULTS / "cells").glob("*.json"))
    assert len(cells) >= 17 and "\n| C2" in text


def test_what_is_said_of_mimicry_is_of_its_rows():
    text = " ".join((RESULTS / "front.md").read_text(encoding="utf-8").split())
    told = re.search(
        r"distances of ([\d.]+), ([\d.]+) and ([\d.]+), mimicry at ([\d.]+), ([\d.]+) "
        r"and ([\d.]+): \*\*within the range of our seeds",
        text,
    )
    rows = json.loads((RESULTS / "gan" / "mimicry_parity.json").read_text())
    ours, theirs = (
        [row["results"]["frechet_distance"] for row in rows if row["side"] == side]
        for side in ("ours", "mimicry")
    )
    assert [f"{x:.1f}" for x in (*ours, *theirs)] == list(told.groups())
    assert min(ours) <= min(theirs) and max(theirs) <= max(ours)
    forms = [{**row["settings"], "seed": None} for row in rows]
    assert forms.count(forms[0]) == len(forms) == 6


def test_a_figure_has_a_row_of_panels_a_network_that_was_run():
    recipe = load_recipe(recipe_path("stable_rank/table_6"), "evidence")
    assert recipe_figure(recipe_table(recipe, [])) is None
    history = [{"epoch": n, "accuracy": n / 4, "test_accuracy": 0.1} for n in (1, 2, 3)]
    cells = [
        {
            "network": "conv net",
            "variant": variant,
            "seed": seed,
            "error": None,
            "history": history[: 3 - seed],
            "results": {"train_error": 0.1 * seed, "mean_train_error": None},
        }
        for variant in ("vanilla", "SN")
        for seed in (0, 1)
    ]
    figure = recipe_figure(recipe_table(recipe, cells))
    curves, error, *_ = figure.axes
    assert len(figure.axes) == 1 + len(recipe.measures)
    # A network, and the paper's four numbers beside its means.
    assert curves.get_title(loc="left") == "conv net"
    mean = curves.get_lines()[0]
    assert mean.get_xdata().tolist() == [1, 2, 3]
    assert mean.get_ydata().tolist() == [25, 50, 75]
    assert [text.get_text() for text in error.get_yticklabels()] == [
        *("vanilla", "SN", "SRN-50", "SRN-30")
    ]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["vanilla", "SN", "as trained", "test", "the paper's"]


def test_percentiles_of_one_measure_are_a_histogram():
    """The share of images in each bar, of all seeds, whatever their ranges."""
    recipe = load_recipe(recipe_path("stable_rank/figure_1"))
    shown = {"vanilla": np.linspace(0, 1, 101), "SN": np.linspace(1, 3, 101)}
    cells = [
        {
            "network": "ResNet-110",
            "variant": variant,
            "seed": seed,
            "error": None,
            "history": [{"epoch": 1, "accuracy": 0.5, "test_accuracy": 0.1}],
            "results": {"noise_sensitivity_50": 0.5, "test_accuracy": 0.1},
            "distributions": {"noise_sensitivity": (samples + seed / 10).tolist()},
        }
        for variant, samples in shown.items()
        for seed in (0, 1)
    ]
    figure = recipe_figure(recipe_table(recipe, cells))
    _, spread, accuracy = figure.axes
    assert spread.get_title(loc="left") == "noise sensitivity"
    assert accuracy.get_yticklabels()[0].get_text() == recipe.variants[0].name
    for patch, samples in zip(spread.patches, shown.values(), strict=True):
        heights, edges, _ = patch.get_data()
        both = np.concatenate([samples, samples + 0.1])
        inside = ((both >= edges[0]) & (both <= edges[-1])).mean()
        assert heights.sum() == pytest.approx(inside) and inside > 0.9


def test_a_network_without_distributions_has_its_percentile():
    recipe = load_recipe(recipe_path("stable_rank/figure_1"), "evidence")
    cells = [
        {
            "network": network.name,
            "variant": "vanilla",
            "seed": 0,
            "error": None,
            "history": [{"epoch": 1, "accuracy": 0.5, "test_accuracy": 0.1}],
            "results": {"noise_sensitivity_50": 0.5, "test_accuracy": 0.1},
            "distributions": found,
        }
        for network, found in zip(
            recipe.networks, ({"noise_sensitivity": [0.1, 0.5]}, {}), strict=False
        )
    ]
    figure = recipe_figure(recipe_table(recipe, cells))
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    first, second = (titles.index(cell["network"]) for cell in cells)
    assert titles[first + 1] == "noise sensitivity" and figure.axes[first + 1].patches
    assert titles[second + 1] == "noise sensitivity 50"
    assert figure.axes[second + 1].containers and not figure.axes[second + 1].patches
