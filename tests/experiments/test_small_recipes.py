"""Three recipes as they stand, at their small size: one of each paper."""

import pytest

from keras_spectral.data import load
from keras_spectral.experiments import run_recipe
from keras_spectral.terminal import Console


def run(name, output, **settings):
    return run_recipe(
        name, "small", output=output, workers=0, console=Console(quiet=True), **settings
    )


@pytest.mark.slow
def test_table_6_of_the_stable_rank_paper(tmp_path):
    table = run("stable_rank/table_6", tmp_path, seeds=1)
    assert [cell["error"] for cell in table.cells] == [None] * 3
    assert all(len(cell["history"]) == 12 for cell in table.cells)
    # Labels are random, and still learned.
    for cell in table.cells:
        assert cell["history"][-1]["accuracy"] > 2 * cell["history"][0]["accuracy"]
    names = {path.name for path in tmp_path.glob("*-small.*")}
    kinds = "json", "md", "png"
    assert names == {f"stable_rank-table_6-small.{kind}" for kind in kinds}


@pytest.mark.slow
def test_table_1_of_the_low_rank_paper(tmp_path):
    try:
        load("fashion_mnist")
    except FileNotFoundError:
        pytest.skip("Fashion-MNIST is not installed: apt install dataset-fashion-mnist")
    table = run("low_rank/table_1", tmp_path)
    counts = [row.mean for row in table if row.measure == "parameters"]
    assert counts == [33580, 36663, 26837, 18373, 8547]
    for cell in table.cells:
        assert ("orthogonality_error" in cell["history"][0]) == (
            cell["variant"] != "plain"
        )


def test_figure_2_of_the_heavy_tail_paper(tmp_path):
    run("heavy_tail/figure_2", tmp_path)
    assert list(tmp_path.glob("heavy_tail-figure_2-small*.png"))
