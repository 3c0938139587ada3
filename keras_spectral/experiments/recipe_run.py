"""Runs of recipes: every cell once, then the paper's table with ours beside it."""

import dataclasses
import json
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from rich.table import Table

import keras_spectral
from keras_spectral.experiments.cells import Cell, failed_cell, train_in_worker
from keras_spectral.experiments.engine import computing, shown
from keras_spectral.experiments.recipes import load_recipe, recipe_path
from keras_spectral.files import claimed, output_folder, replacing, write_json
from keras_spectral.interrupts import interrupts_heeded
from keras_spectral.printable import printable
from keras_spectral.results import Rows, RunStatus
from keras_spectral.terminal import Console
from keras_spectral.validation import check_integer

Verdict = Literal["holds", "does not hold", "undecided"]


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
        name, network, says: Strings.
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

    def __rich__(self):
        """A table a network and measure: all numbers fit into 80 columns."""
        from rich.console import Group
        from rich.text import Text

        groups: dict = {}
        for row in self.rows:
            groups.setdefault((row.network, row.measure), []).append(row)
        parts = [Text(printable(self.title), style="bold")]
        for (network, measure), rows in groups.items():
            first = rows[0].variant
            table = Table(title=Text(printable(f"{network}: {measure}")))
            table.title_justify = "left"
            columns = "", "paper", "ours, 95 %", "75 %", f"less {first}, 95 %", "seeds"
            for number, label in enumerate(columns):
                table.add_column(
                    printable(label), justify="right" if number else "left"
                )
            for row in rows:
                cells = (
                    row.variant,
                    _number(row.published),
                    _number(row.mean, row.half_width_95),
                    _number(row.half_width_75, sign="+- "),
                    _number(row.difference, row.difference_half_width, form="+.4f"),
                    str(row.seeds),
                )
                table.add_row(*(Text(printable(cell)) for cell in cells))
            parts.append(table)
        return Group(*parts, Text(printable(self.caption, 1000)))


def _number(value, half_width=None, form=".4f", sign=""):
    if value is None:
        return "-"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{sign}{value:{form}}" + (f" +- {half_width:.4f}" if half_width else "")


def run_recipe(
    recipe,
    size: str | None = None,
    seeds: int | None = None,
    changes=(),
    output: str | Path | None = None,
    directory: str | Path | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    console=None,
) -> RecipeTable:
    """Run an experiment of a paper: each network, variant and seed.

    A cell is trained by `fit` in a process of its own. It is saved after each epoch,
    and a run that was killed goes on from there; the numbers are those of an
    uninterrupted one, bit by bit, with the same versions, device and numbers of
    threads. Finished cells are kept in `output/cells`, learning curves in
    `output/curves` as JSON lines. A cell that failed has its error in its row, and is
    tried again by the next run.

    Args:
        recipe: Name of a recipe, such as `"stable_rank/table_6"`, or path of a file.
        size: `None` for the paper's settings, `"small"` for minutes, `"evidence"` for
            hours on two cores.
        seeds: Integer >= 1, how many in place of the recipe's: 0, 1, ...
        changes: List of strings such as `"optimizer.learning_rate=0.01"`.
        output: Folder; default `keras-spectral-runs/NAME-SIZE`.
        directory: Folder with the data; see `data.load`.
        workers: Integer, local processes; default one a core. 0 computes here.
        scheduler: Address of a Dask scheduler, whose workers see the same paths.
        console: Optional `rich.console.Console`.

    Returns:
        A `RecipeTable`.

    Raises:
        ValueError: On a recipe that cannot be.
        FileNotFoundError: If there is no such recipe, or no data.
        OSError: If the folder cannot be written, or another run writes into it.

    Example:
    >>> import tempfile
    >>> table = run_recipe(
    ...     "stable_rank/table_6", "small", seeds=1, output=tempfile.mkdtemp(),
    ...     changes=["schedule.epochs=1", "data.count=64", "data.test_count=64"],
    ...     workers=0, console=Console(quiet=True),
    ... )
    >>> [(row.variant, row.seeds) for row in table]
    [('vanilla', 1), ('SN', 1), ('SRN-30', 1)]
    """
    path = recipe_path(recipe)
    found = load_recipe(path, size, changes)
    if seeds is not None:
        check_integer("seeds", seeds, least=1)
        found = msgspec.structs.replace(found, seeds=list(range(seeds)))
    if workers is not None:
        check_integer("workers", workers, least=0)
    _check_data(found, directory)
    console = console or Console()
    name = "-".join([path.parent.name, path.stem, size or "paper"])
    output = output_folder(output or Path("keras-spectral-runs") / name)
    folders = {
        part: output_folder(output / part) for part in ("cells", "curves", "state")
    }
    plain = msgspec.to_builtins(found)
    state = str(folders["state"].resolve())
    where = None if directory is None else str(Path(directory).resolve())
    cells = [
        Cell(plain, network.name, variant.name, seed, state, where)
        for seed in found.seeds
        for network in found.networks
        for variant in found.variants
    ]
    with claimed(output):
        rows = {cell.key: _finished(folders["cells"], cell) for cell in cells}
        waiting = [cell for cell in cells if rows[cell.key] is None]
        if len(waiting) < len(cells):
            console.print(f"{len(cells) - len(waiting)} cells are there already.")
        status: RunStatus = "interrupted"
        try:
            if waiting:
                with (
                    interrupts_heeded() as check,
                    computing(
                        waiting, train_in_worker, failed_cell, workers, scheduler
                    ) as results,
                ):
                    for cell, row in shown(
                        console, results, len(waiting), "Cells", _named
                    ):
                        check()
                        # As its file has it, wherever it was computed.
                        row = rows[cell.key] = json.loads(json.dumps(row))
                        _keep(folders, cell, row)
            status = "complete"
        finally:
            done = [row for row in rows.values() if row is not None]
            table = _table(found, done)
            _write(output, table, found, path, size, status)
    return table


def _check_data(recipe, directory):
    """Say at once what cannot be loaded, before any process is started."""
    from keras_spectral import data

    settings = recipe.data
    data.load(settings.name, settings.image_size, settings.channels, directory)


def _named(row):
    return f"{row['network']} {row['variant']} seed {row['seed']}"


def _finished(folder, cell):
    """Return the row of an earlier run, or `None`; a damaged file is none."""
    path = folder / f"{cell.key}.json"
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
        fits = row["settings"] == cell.settings() and row["error"] is None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return row if fits else None


def _keep(folders, cell, row):
    write_json(folders["cells"] / f"{cell.key}.json", row)
    if row["error"] is not None:
        return
    lines = "".join(json.dumps(epoch) + "\n" for epoch in row["history"])
    with replacing(folders["curves"] / f"{cell.key}.jsonl") as temporary:
        temporary.write_text(lines, encoding="utf-8")
    # The row is all that is needed from now on.
    (folders["state"] / f"{cell.key}.npz").unlink(missing_ok=True)


def _values(cells, network, variant, measure):
    """Return a dict from seeds to numbers."""
    return {
        cell["seed"]: cell["results"][measure]
        for cell in cells
        if (cell["network"], cell["variant"]) == (network, variant)
        and measure in cell["results"]
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


def _table(recipe, cells):
    rows, claims = [], []
    printed = {(p.network, p.variant, p.measure): p.value for p in recipe.published}
    papers = {p.network for p in recipe.published}
    for network in (network.name for network in recipe.networks):
        # A smaller network stands beside the paper's, where there is but one.
        paper = papers if network not in papers and len(papers) == 1 else {network}
        (paper,) = paper
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
        title=f"{recipe.item}: {recipe.title}",
        caption="Paired differences by seed."
        + (assumed if recipe.assumed else "")
        + f" Data: {recipe.data.name}; the paper's numbers are of its own data.",
    )


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
        texts.append(f"{larger} - {smaller}: {mean:+.3g} +- {half:.2g}")
        low, high = mean - half, mean + half
        verdicts.append(
            "holds" if low > 0 else "does not hold" if high < 0 else "undecided"
        )
    verdict: Verdict = "undecided"
    if "does not hold" in verdicts:
        verdict = "does not hold"
    elif all(word == "holds" for word in verdicts):
        verdict = "holds"
    return ClaimRow(claim.name, network, claim.says, verdict, "; ".join(texts))


def _write(folder, table, recipe, path, size, status: RunStatus):
    write_json(
        folder / "table.json",
        {
            "keras_spectral": keras_spectral.__version__,
            "status": status,
            "recipe": path.name,
            "size": size,
            "settings": msgspec.to_builtins(recipe),
            "rows": table.to_dicts(),
            "claims": table.claims.to_dicts(),
        },
    )
    text = f"# {table.title}\n\n{recipe.shows}\n\n```\n{table}\n\n{table.claims}\n```\n"
    with replacing(folder / "table.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
