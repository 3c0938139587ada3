"""The table of a recipe: intervals, verdicts, whose numbers stand beside whose."""

import pytest
from scipy import stats

from keras_spectral.experiments import load_recipe, recipe_table
from keras_spectral.experiments.recipes import recipe_path


def cell(variant, seed, value):
    results = {"test_error": value}
    return {"network": "n", "variant": variant, "seed": seed, "results": results}


@pytest.mark.parametrize(
    "differences, verdict",
    [
        ([0.1, 0.11, 0.12], "holds"),
        ([-0.1, -0.11, -0.12], "does not hold"),
        ([0.1, -0.1, 0.05], "undecided"),
        ([0.1], "undecided"),
    ],
)
def test_verdicts_are_of_paired_differences(differences, verdict, rng):
    from keras_spectral.experiments.recipe_settings import Claim

    # What varies between seeds is far larger than what is between variants.
    base = rng.standard_normal(len(differences)) * 10
    found = [cell("b", seed, value) for seed, value in enumerate(base)]
    found += [
        cell("a", seed, value + more)
        for seed, (value, more) in enumerate(zip(base, differences, strict=True))
    ]
    claim = Claim(name="C", says="", measure="test_error", order=["a", "b"])
    row = recipe_table._claim(claim, "n", found)
    assert row.verdict == verdict


def test_layers_of_nearly_rank_one_are_named():

    recipe = load_recipe(recipe_path("stable_rank/table_6"), "small")
    found = []
    for variant, ratio in ("vanilla", None), ("SN", None), ("SRN-30", 0.3):
        sides = {"narrow": 6, "wide": 7}
        layers = [{"name": x, "shorter_side": side} for x, side in sides.items()]
        found.append({**cell(variant, 0, 0.5), "layers": layers})
        found[-1]["settings"] = {"stable_rank_ratio": ratio}
    caption = recipe_table.recipe_table(recipe, found).caption
    assert "stable rank is below 2: SRN-30: narrow. Data" in caption
    found.pop()
    assert "below 2" not in recipe_table.recipe_table(recipe, found).caption


def test_large_numbers_have_their_intervals():
    assert recipe_table._number(8912.3, 35.2).text == "8,912 +- 35"
    assert recipe_table._number(1234.5, 20.0, form="+.4f").text == "+1,234 +- 20"
    assert recipe_table._number(0.5, 0.25, form="+.4f").text == "+0.5000 +- 0.2500"


def test_printed_numbers_stand_beside_their_network():
    """One of five has a printed number; a smaller network has it beside its own."""
    paper = load_recipe(recipe_path("stable_rank/figure_2"))
    rows = recipe_table.recipe_table(paper, [])
    assert {row.network for row in rows if row.published is not None} == {"ResNet-110"}
    small = load_recipe(recipe_path("stable_rank/figure_2"), "small")
    assert any(row.published for row in recipe_table.recipe_table(small, []))


def test_intervals_are_scipys(rng):
    values = rng.standard_normal(7)
    for confidence in 0.95, 0.75:
        mean, half = recipe_table.mean_and_half_width(values, confidence)
        low, high = stats.t.interval(
            confidence, 6, loc=values.mean(), scale=stats.sem(values)
        )
        assert (mean - half, mean + half) == pytest.approx((low, high))
