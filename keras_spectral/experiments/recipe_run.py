"""Runs of recipes: every cell once, then the paper's table with ours beside it."""

import contextlib
import dataclasses
import json
from pathlib import Path

import msgspec

import keras_spectral
from keras_spectral.experiments.cell_results import missing_measures
from keras_spectral.experiments.cells import (
    Cell,
    CellRow,
    failed_cell,
    images_of,
    train_in_worker,
)
from keras_spectral.experiments.devices import devices_of, process_of
from keras_spectral.experiments.engine import (
    check_scheduler,
    checked_workers,
    computing,
    shown,
)
from keras_spectral.experiments.recipe_measures import run_measures
from keras_spectral.experiments.recipe_settings import GanRecipe, MeasureRecipe
from keras_spectral.experiments.recipe_table import RecipeTable, recipe_table
from keras_spectral.experiments.recipes import load_recipe, recipe_path
from keras_spectral.files import claimed, output_folder, write_json, write_text
from keras_spectral.interrupts import interrupts_heeded
from keras_spectral.results import Rows, RunStatus
from keras_spectral.terminal import Console
from keras_spectral.validation import check_integer

# Of an output: rows, what unfinished cells go on from, networks.
_FOLDERS = ("cells", "state", "models")


def run_recipe(
    recipe,
    size: str | None = None,
    seeds: int | None = None,
    changes=(),
    output: str | Path | None = None,
    directory: str | Path | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    devices: int | str | None = None,
    train: bool = True,
    console=None,
) -> RecipeTable | Rows:
    """Run an experiment of a paper: each network, variant and seed.

    A cell is trained by `fit` in a process of its own. It is saved after each
    epoch, and each minute within one, and a run that was killed goes on from there;
    the numbers are those of an uninterrupted one, on CPUs bit by bit, with the same
    versions, devices and numbers of threads. Finished cells are kept in
    `output/cells`, learning curves in `output/curves` as JSON lines and, under
    TensorFlow, in `output/tensorboard`, networks in `output/models`. Recipes that
    are given one folder share the cells that they have in common. A cell that
    failed has its error in its row, and is tried again by the next run.

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
        devices: Integer, or `"all"`: each cell is trained on so many devices of its
            process, by `tf.distribute.MirroredStrategy` or JAX's data parallelism, and
            cells come one after another. Default: one.
        train: Boolean; `False` computes nothing: the table is of the cells that are
            there, also while another process trains more.
        console: Optional `rich.console.Console`.

    Returns:
        A `RecipeTable`; of a recipe for which nothing is trained other `Rows`.

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
    path = recipe_path(recipe).resolve()
    found = load_recipe(path, size, changes)
    console = console or Console()
    if directory is not None:
        directory = Path(directory).expanduser().resolve()
    name = "-".join([path.parent.name, path.stem, size or "paper"])
    output = Path(output or Path("keras-spectral-runs") / name)
    workers = checked_workers(workers, scheduler)
    if isinstance(found, MeasureRecipe):
        for argument, given in ("seeds", seeds), ("train", None if train else False):
            if given is not None:
                raise ValueError(
                    f"`{argument}` must be left out where nothing is trained, as by "
                    f"{path}. Received: {argument}={given}"
                )
        check_scheduler(scheduler)
        with claimed(output_folder(output)):
            return run_measures(
                *(found, path, name, output, directory), workers, scheduler, console
            )
    if seeds is not None:
        check_integer("seeds", seeds, least=1)
        found = msgspec.structs.replace(found, seeds=list(range(seeds)))
    plain = msgspec.to_builtins(found)
    common: dict = {
        "folder": str(output.resolve()),
        "directory": None if directory is None else str(directory),
        "devices": devices,
    }
    cells = [
        Cell(plain, network.name, variant.name, seed, **common)
        for seed in found.seeds
        for network in found.networks
        for variant in found.variants
        if variant.seeds is None or seed in variant.seeds
    ]
    if not train:
        return _shown_table(found, cells, output)
    if devices is not None and workers:
        raise ValueError(
            "`devices` and `workers` exclude each other: processes would share the "
            f"devices. Received: devices={devices}, workers={workers}"
        )
    if isinstance(found, GanRecipe):
        _check_gans(found, devices)
    process, _ = process_of(devices)
    if scheduler is None:
        devices_of(devices)
    _check_data(found, directory)
    if any(_finished(output, cell) is None for cell in cells):
        check_scheduler(scheduler)
    output_folder(output, *(f"{name}.{kind}" for kind in ("json", "md", "png")))
    folders = {part: output_folder(output / part) for part in _FOLDERS}
    if devices is not None and scheduler is None:
        workers = 0
    # Of several hosts, all see the folder and one writes.
    writes = process == 0
    with claimed(output) if writes else contextlib.nullcontext():
        rows, images = {}, _Images()
        for cell in cells:
            row = _finished(output, cell)
            if row is not None and images.are_of(cell, row):
                rows[cell.key] = row
        waiting = [
            dataclasses.replace(cell, row=rows.get(cell.key))
            for cell in cells
            if cell.key not in rows or missing_measures(rows[cell.key], found)
        ]
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
                        row = json.loads(json.dumps(row))
                        if row["error"] is not None and cell.row is not None:
                            # What was trained stays, and the next run measures it.
                            row = {**cell.row, "error": row["error"]}
                        elif writes:
                            _keep(folders, cell, row)
                        rows[cell.key] = row
            status = "complete"
        finally:
            if rows or status == "complete":
                named = [{**row, "key": key} for key, row in rows.items()]
                table = recipe_table(found, named)
                if writes:
                    write_table(output / name, table, found, path, size, status)
    return table


def _shown_table(recipe, cells, output):
    """Return the table of the cells that are there; nothing is written."""
    if not output.is_dir():
        raise FileNotFoundError(
            "`output` must be the folder of a run that was begun, where nothing is "
            f"trained. Received: output={output}, which is not there. Run the recipe "
            "first, or name its folder."
        )
    rows = []
    for cell in cells:
        row = _finished(output, cell, failed=True)
        if row is not None:
            # What is of other probes is not what was asked for.
            lacking = missing_measures(row, recipe)
            kept = {x: y for x, y in row["results"].items() if x not in lacking}
            rows.append({**row, "results": kept, "key": cell.key})
    return recipe_table(recipe, rows)


class _Images:
    """Whether rows are of the images that are there now, looked at once a seed."""

    def __init__(self):
        self._known = {}

    def are_of(self, cell, row):
        if cell.seed not in self._known:
            self._known[cell.seed] = list(images_of(cell).provenance().sha256)
        return row["provenance"].get("sha256") == self._known[cell.seed]


def _check_data(recipe, directory):
    """Say at once what cannot be loaded, before any process is started."""
    from keras_spectral import data

    settings = recipe.data
    data.load(settings.name, settings.image_size, settings.channels, directory)


def _check_gans(recipe, devices):
    """Say at once what no GAN of a recipe can be trained or measured with."""
    if devices is not None:
        raise ValueError(
            "`devices` must be left out for a recipe of GANs, which are trained on one "
            f"device. Received: devices={devices}"
        )
    path = recipe.probes.inception
    if path is not None and not Path(path).is_file():
        raise FileNotFoundError(
            "`probes.inception` must be the file of the Inception's weights. "
            f"Received: {path}, which is not there. Check the path."
        )


def _named(row):
    return f"{row['network']} {row['variant']} seed {row['seed']}"


def _finished(output, cell, failed=False):
    """Return the row of an earlier run, or `None`; a damaged file is none.

    Args:
        output: `pathlib.Path` of the run.
        cell: A `Cell`.
        failed: Boolean, whether the row of an error counts.
    """
    path = output / "cells" / f"{cell.key}.json"
    try:
        row = msgspec.json.decode(path.read_bytes(), type=dict)
        row = {**dataclasses.asdict(msgspec.convert(row, CellRow)), **row}
    except (OSError, msgspec.MsgspecError):
        return None
    if row["settings"] != cell.settings() or (row["error"] is not None and not failed):
        return None
    # As this recipe has them: another one may have called the same training otherwise.
    return {**row, "network": cell.network, "variant": cell.variant, "seed": cell.seed}


def _keep(folders, cell, row):
    write_json(folders["cells"] / f"{cell.key}.json", row)
    if row["error"] is None:
        # Row and network are all that is needed from now on.
        (folders["state"] / f"{cell.key}.npz").unlink(missing_ok=True)


def write_table(start, table, recipe, path, size, status: RunStatus):
    """Write a table as JSON, text and a figure.

    Args:
        start: `pathlib.Path` of the files, without their suffix.
        table: A `RecipeTable`.
        recipe: The `Recipe`, and `path` its file, and `size` which of its sizes.
        path: `pathlib.Path`.
        size: String, or `None`.
        status: A `RunStatus`.
    """
    write_json(
        start.with_name(f"{start.name}.json"),
        {
            "keras_spectral": keras_spectral.__version__,
            "status": status,
            "recipe": path.name,
            "size": size,
            "settings": msgspec.to_builtins(recipe),
            "rows": table.to_dicts(),
            "claims": table.claims.to_dicts(),
            # Whose files lie in `cells`, `curves` and `samples`.
            "cells": [cell["key"] for cell in table.cells if "key" in cell],
        },
    )
    from keras_spectral import report

    claims = f"\n\n{table.claims}" if table.claims.rows else ""
    shows = f"In the paper: {recipe.shows.strip()}"
    text = f"# {table.title}\n\n{shows}\n\n```\n{table}{claims}\n```\n"
    figure = report.recipe_figure(table)
    if figure is not None:
        report.save(figure, start.with_name(f"{start.name}.png"))
        text += f"\n![{table.title}]({start.name}.png)\n"
    write_text(start.with_name(f"{start.name}.md"), text)
