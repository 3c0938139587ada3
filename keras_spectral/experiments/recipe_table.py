"""The paper's table with ours beside it: intervals, paired differences, verdicts."""

import dataclasses
from typing import Literal

import msgspec
import numpy as np

from keras_spectral.experiments.recipe_settings import GanRecipe
from keras_spectral.results import Rows
from keras_spectral.tables import Cell, Column, Table, cell

Verdict = Literal["holds", "does not hold", "undecided"]

# What a page needs of a cell.
_CURVES = ("network", "variant", "seed", "key", "error", "history")


@dataclasses.dataclass
class RecipeRow:
    """A number of the paper's table, over the seeds that were run.

    Args:
        network, variant, measure: Strings.
        published: Float, or `None`.
        mean: Float, over the seeds.
        half_width_95, half_width_75: Floats, of the intervals of the mean by Student's
            t; `None` with one seed.
        difference: Float, the mean paired difference from the first variant.
        difference_half_width: Float, of its 95 % interval.
        seeds: Integer, how many.
    """

    network: str
    variant: str
    measure: str
    published: float | None
    mean: float | None
    half_width_95: float | None
    half_width_75: float | None
    difference: float | None
    difference_half_width: float | None
    seeds: int


@dataclasses.dataclass
class ClaimRow:
    """What a run says of a claim.

    Args:
        name, network: Strings.
        says: String, the claim and its measure.
        verdict: `"holds"` where the 95 % interval of each paired difference between
            neighbours of the claimed order is above 0, `"does not hold"` where one is
            below, else `"undecided"`.
        differences: String, the mean differences and their 95 % intervals.
    """

    name: str
    network: str
    says: str
    verdict: Verdict
    differences: str


class RecipeTable(Rows):
    """Rows of `RecipeRow`, and what was run for them.

    Args:
        rows: List of `RecipeRow`.
        claims: `Rows` of `ClaimRow`.
        cells: List of dicts, one a cell; see `CellRow`.
        **kwargs: `title` and `caption`, see `Rows`.
    """

    def __init__(self, rows, claims, cells, **kwargs):
        super().__init__(rows, **kwargs)
        self.claims, self.cells = claims, cells

    def content(self):
        return {
            "title": self.title,
            "caption": self.caption,
            "rows": self.to_dicts(),
            "claims": self.claims.to_dicts(),
            "cells": [{key: cell.get(key) for key in _CURVES} for cell in self.cells],
        }

    def tables(self):
        """A table a network and measure: all numbers fit into 80 columns."""
        groups: dict = {}
        for row in self.rows:
            groups.setdefault((row.network, row.measure), []).append(row)
        # Of a run in progress, what has no number yet only hides what has.
        known = {x: y for x, y in groups.items() if any(r.mean is not None for r in y)}
        parts: list = [self.title]
        for (network, measure), rows in (known or groups).items():
            first = rows[0].variant
            labels = "paper", "ours, 95 %", "75 %", f"less {first}, 95 %", "seeds"
            columns = [
                Column("", "name"),
                *(Column(x, "number") for x in labels),
            ]
            cells = [
                [
                    cell(row.variant),
                    _number(row.published),
                    _number(row.mean, row.half_width_95),
                    _number(row.half_width_75, sign="+- "),
                    _number(row.difference, row.difference_half_width, form="+.4f"),
                    cell(row.seeds),
                ]
                for row in rows
            ]
            parts.append(Table(f"{network}: {measure}", columns, cells))
        return [*parts, self.caption]


def _number(value, half_width=None, form=".4f", sign=""):
    if value is None:
        return cell(None)
    largest = max(abs(value), half_width or 0.0)
    if isinstance(value, int) or largest >= 100:
        form = form.replace(".4f", ",.0f")
    elif largest >= 10:
        form = form.replace(".4f", ".2f")
    around = form.removeprefix("+")
    text = f"{sign}{value:{form}}" + (
        f" +- {half_width:{around}}" if half_width else ""
    )
    return Cell(text, value)


def _values(cells, network, variant, measure):
    """Return a dict from seeds to numbers."""
    return {
        cell["seed"]: cell["results"][measure]
        for cell in cells
        if (cell["network"], cell["variant"]) == (network, variant)
        and cell["results"].get(measure) is not None
    }


def mean_and_half_width(values, confidence=0.95):
    """Return the mean of numbers and half the width of its interval, by Student's t.

    Args:
        values: Sequence of floats.
        confidence: Float in (0, 1).

    Returns:
        Tuple of two floats; the second is `None` for fewer than two numbers, and the
        first for none.

    Example:
    >>> mean, half_width = mean_and_half_width([1.0, 2.0, 3.0])
    >>> mean, round(half_width, 4)
    (2.0, 2.4841)
    """
    values = np.asarray(list(values), float)
    if not len(values):
        return None, None
    mean = float(values.mean())
    if len(values) < 2:
        return mean, None
    from scipy.stats import t

    error = values.std(ddof=1) / np.sqrt(len(values))
    return mean, float(t.ppf((1 + confidence) / 2, len(values) - 1) * error)


def _paired(one, other):
    """Return the differences of two dicts from seeds, at the seeds of both."""
    return [one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())]


def recipe_table(recipe, cells) -> RecipeTable:
    """Return the table of a `Recipe` and of the rows of its cells, dicts."""
    rows, claims = [], []
    printed = {(p.network, p.variant, p.measure): p.value for p in recipe.published}
    papers = {p.network for p in recipe.published}
    own = {network.name for network in recipe.networks}
    for network in (network.name for network in recipe.networks):
        # A smaller network stands beside the paper's, where there is but one.
        (paper,) = papers if len(papers) == 1 and not papers & own else {network}
        for measure in recipe.measures:
            first = _values(cells, network, recipe.variants[0].name, measure)
            for variant in (variant.name for variant in recipe.variants):
                values = _values(cells, network, variant, measure)
                mean, wide = mean_and_half_width(values.values())
                _, narrow = mean_and_half_width(values.values(), 0.75)
                apart, around = mean_and_half_width(_paired(values, first))
                if variant == recipe.variants[0].name:
                    apart = around = None
                rows.append(
                    RecipeRow(
                        network,
                        variant,
                        measure,
                        printed.get((paper, variant, measure)),
                        mean,
                        wide,
                        narrow,
                        apart,
                        around,
                        len(values),
                    )  # fmt: skip
                )
        for claim in recipe.claims:
            claims.append(_claim(claim, network, cells))
    assumed = f" Assumed, as the paper does not say: {', '.join(recipe.assumed)}."
    return RecipeTable(
        rows,
        Rows(claims, title="Claims"),
        cells,
        # The paper's title may name its own data, and the sizes have others.
        title=f"{recipe.item}: {recipe.title}, here on {recipe.data.name}",
        caption="Paired differences by seed."
        + (assumed if recipe.assumed else "")
        + _narrow(cells)
        + _probed(recipe)
        + f" Data: {recipe.data.name}; the paper's numbers are of its own data.",
    )


def _probed(recipe):
    """Say what numbers of GANs depend on, as only those of the same compare."""
    if not isinstance(recipe, GanRecipe):
        return ""
    probes = msgspec.to_builtins(recipe.probes)
    known = (f"{name} {value}" for name, value in probes.items() if value is not None)
    return f" Probes: {', '.join(known)}."


def _narrow(cells):
    """Name the layers whose target of the stable rank is below 2: nearly rank one."""
    layers = {
        f"{cell['variant']}: {layer['name']}"
        for cell in cells
        for layer in cell.get("layers", ())
        if (cell["settings"]["stable_rank_ratio"] or 2) * layer["shorter_side"] < 2
    }
    if not layers:
        return ""
    return f" Layers whose target of the stable rank is below 2: {_listed(layers)}."


def _listed(names, count=10):
    names = sorted(names)
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


def _claim(claim, network, cells):
    verdicts, texts = [], []
    for larger, smaller in zip(claim.order, claim.order[1:], strict=False):
        differences = _paired(
            _values(cells, network, larger, claim.measure),
            _values(cells, network, smaller, claim.measure),
        )
        mean, half = mean_and_half_width(differences)
        if mean is None or half is None:
            verdicts.append("undecided")
            texts.append(f"{larger} - {smaller}: {len(differences)} pairs")
            continue
        # Differences that cancel leave 1e-17 of rounding.
        shown = 0.0 if abs(mean) < 1e-9 * half else mean
        texts.append(f"{larger} - {smaller}: {shown:+.3g} +- {half:.2g}")
        low, high = mean - half, mean + half
        verdicts.append(
            "holds" if low > 0 else "does not hold" if high < 0 else "undecided"
        )
    verdict: Verdict = "undecided"
    if "does not hold" in verdicts:
        verdict = "does not hold"
    elif all(word == "holds" for word in verdicts):
        verdict = "holds"
    # A recipe may claim the same of several measures.
    says = f"{claim.says}: {claim.measure}"
    return ClaimRow(claim.name, network, says, verdict, "; ".join(texts))
