"""Recipes for which nothing is trained: what they draw, and what they compare."""

import json

import numpy as np
import pytest
from scipy import stats

from keras_spectral import data
from keras_spectral.compression.heavy_tail import CompressionRow
from keras_spectral.experiments import SweepRow, recipe_measures, run_recipe, sweep
from keras_spectral.results import Rows
from keras_spectral.terminal import Console
from tests.experiments.sweeps import small

QUIET = Console(quiet=True)


def test_densities_are_drawn_and_written(tmp_path):
    changes = ["figure.arguments.alphas=[2.0, 1.0]"]
    rows = run_recipe(
        "heavy_tail/figure_1", "small", changes=changes, output=tmp_path, console=QUIET
    )
    laws = {2.0: stats.norm(scale=np.sqrt(2)), 1.0: stats.cauchy}
    assert {row.alpha for row in rows} == set(laws)
    for row in rows:
        # Far out SciPy integrates a normal law that is zero.
        expected = laws[row.alpha].pdf(row.x)
        assert row.density == pytest.approx(expected, rel=1e-4, abs=1e-9)
    start = tmp_path / "heavy_tail-figure_1-small"
    assert start.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"
    assert "Figure 1" in str(rows) and "small.png" in str(rows)
    written = json.loads(start.with_suffix(".json").read_text())
    assert written["rows"] == rows.to_dicts() and written["item"] == "Figure 1"


def test_probabilities_are_drawn_and_written(tmp_path):
    rows = run_recipe("heavy_tail/figure_2", "small", output=tmp_path, console=QUIET)
    assert len(rows) == 12 * 6 and (tmp_path / "heavy_tail-figure_2-small.png").exists()
    with pytest.raises(ValueError, match="`seeds` must be left out"):
        run_recipe("heavy_tail/figure_2", seeds=3, output=tmp_path, console=QUIET)


def test_checkpoints_stand_beside_the_papers(tmp_path, monkeypatch):
    asked = []

    def swept(*arguments):
        asked.append(arguments)
        fields = {"alpha_pdf": 3.1, "original_accuracy": 0.9, "settings": {}}
        return Rows(
            [
                SweepRow(
                    *("resnet20_svhn", "resnet20_svhn-1.pth", ""), **fields,
                    compressions=[made("gaussian", 0.8), made("zero", 0.7)],
                ),
                SweepRow("other", "other.keras", "", {}, error="OSError: gone"),
            ]
        )  # fmt: skip

    monkeypatch.setattr(sweep, "run_sweep", swept)
    name = "heavy_tail/table_1"
    changes = ["sweep.checkpoints=here"]
    rows = run_recipe(name, changes=changes, output=tmp_path, workers=0, console=QUIET)
    first, other = rows
    assert (first.paper_alpha, first.alpha) == (3.34, 3.1)
    assert (first.paper_before, first.paper_after) == (96.60, 94.60)
    assert (first.before, first.after, first.zero) == (90, 80, 70)
    assert (other.paper_alpha, other.error) == (None, "OSError: gone")
    models, checkpoints, output, named, trials, seed, workers, *_ = asked[0]
    assert len(models) == 12 and (checkpoints, named) == ("here", None)
    assert (output, trials, seed, workers) == (tmp_path / "sweep", 10, 0, 0)
    # By default what recipes have trained into the same folder.
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "small.keras").touch()
    run_recipe(name, "evidence", output=tmp_path, console=QUIET)
    assert asked[1][0] == ["all"] and asked[1][1] == tmp_path / "models"
    assert asked[1][3] == "fashion_mnist"


@pytest.mark.parametrize("made", [False, True])
def test_without_trained_networks_it_says_what_to_run_first(tmp_path, made):
    if made:
        (tmp_path / "models").mkdir()
    with pytest.raises(ValueError, match=r"Run a recipe that trains.*--output first"):
        run_recipe("heavy_tail/table_1", "evidence", output=tmp_path, console=QUIET)


def test_named_data_is_taken_from_the_directory(tmp_path, monkeypatch):
    load, asked = data.load, []

    def loaded(name, *sizes, directory=None):
        asked.append((name, directory))
        return load("digits", *sizes)

    monkeypatch.setattr(data, "load", loaded)
    (tmp_path / "models").mkdir()
    small().save(tmp_path / "models" / "small.keras")
    (row,) = run_recipe(
        "heavy_tail/table_1", "evidence", changes=["sweep.trials=2"], output=tmp_path,
        directory=tmp_path, workers=0, console=QUIET,
    )  # fmt: skip
    assert row.error is None and row.before is not None
    assert asked == [("fashion_mnist", str(tmp_path.resolve()))] * 2


@pytest.mark.parametrize(
    "argument, match",
    [
        ("foo=1", "alphas, reach. Received: foo=1"),
        ("alphas=3", "`figure.arguments.alphas` Expected `array`, got `int`"),
        ("alphas=['a']", "Received: alphas="),
        ("reach=far", "`figure.arguments.reach` Expected `float`"),
    ],
)
def test_arguments_that_a_figure_has_not_are_told(argument, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        run_recipe(
            "heavy_tail/figure_1", changes=[f"figure.arguments.{argument}"],
            output=tmp_path, console=QUIET,
        )  # fmt: skip


def made(replacement, accuracy):
    return CompressionRow(
        *("head", "signed", replacement, 10, None, None, 0.1, 0.2, 0.9), accuracy, 0.01
    )


def test_there_are_no_accuracies_without_data():
    row = SweepRow("net", "net.keras", "", {}, alpha_pdf=2.0)
    found = recipe_measures._compared(row, None)
    assert (found.alpha, found.before, found.after, found.zero) == (2.0, *[None] * 3)
