"""Table 1 and Figure 3 of the heavy-tail paper over any number of checkpoints."""

import dataclasses
import json
from pathlib import Path

import numpy as np

import keras_spectral
from keras_spectral import report
from keras_spectral.experiments import sweep_table
from keras_spectral.experiments.checkpoint_files import find_checkpoints
from keras_spectral.experiments.checkpoint_row import (
    SweepRow,
    failed_row,
    measure_checkpoint,
)
from keras_spectral.experiments.checkpoint_task import measure_in_worker
from keras_spectral.experiments.engine import (
    check_scheduler,
    checked_workers,
    computing,
    shown,
)
from keras_spectral.files import output_folder, write_json, write_text
from keras_spectral.interrupts import interrupts_heeded
from keras_spectral.results import Rows, RunStatus
from keras_spectral.terminal import Console
from keras_spectral.validation import check_integer

_FILES = ("table.json", "table.md", "figure3.png")


def run_sweep(
    models=("all",),
    checkpoints: str | Path | None = None,
    output: str | Path = "keras-spectral-sweep",
    data: str | Path | None = None,
    trials: int = 10,
    seed: int = 0,
    workers: int | None = None,
    scheduler: str | None = None,
    console=None,
    directory: str | Path | None = None,
) -> Rows:
    """Measure and compress the final dense layer of many checkpoints.

    A row is a checkpoint: the power law of its final layer's weights, the layer's
    stable rank, and the accuracy before and after compression by each rule and
    replacement, the control (zeros) among them. Rows are computed by processes of Dask.
    Each is a file in `output/rows` as soon as it is finished, so that a sweep that was
    killed goes on where it was; rows with an error are tried again. At the end
    `table.json`, `table.md` and `figure3.png` are written.

    Args:
        models: List of names of registered networks, of `.keras` files, shell patterns
            of either, `"paper"` (the 43 of `zoo.heavy_tail_models`) or `"all"`,
            whatever is in the folder.
        checkpoints: Folder of weights. A file belongs to the network that its name
            begins with, up to a dash or a dot. `None`: bundled weights alone.
        output: Folder for rows, tables and the figure.
        data: Folder with `cifar10.npz`, `cifar100.npz`, `svhn.npz`, `imagenet.npz`:
            arrays `x` (images, height, width, channels), as the networks take them,
            and `y` (images,). Or for every checkpoint one such file, or a name that
            `data.load` knows, such as `"fashion_mnist"`.
            Networks named `..._digits` need none. Without data there are no accuracies.
        trials: Integer >= 2, compressions a rule and replacement.
        seed: Integer >= 0, of the noise.
        workers: Integer, local processes; default one a core, not more than rows. 0
            computes in this process, without Dask.
        scheduler: Address of a Dask scheduler, such as `"tcp://host:8786"`, in place of
            local processes. Its workers must have this package, and see the files
            under the same paths.
        console: Optional `rich.console.Console` to print to.
        directory: Folder where data given by a name lies; see `data.load`.

    Returns:
        `Rows` of `SweepRow`, in the order of `models`.

    Raises:
        ValueError: On an unknown name, an argument out of range, or if no weights were
            found; what was looked for and where is in the message.
        ImportError: If Dask is needed and missing.
        OSError: If the folder cannot be written, or the scheduler not reached.

    Example:
    >>> import tempfile
    >>> rows = run_sweep(
    ...     ["resnet20_digits"], output=tempfile.mkdtemp(), trials=2, workers=0,
    ...     console=Console(quiet=True),
    ... )
    >>> rows[0].compressed, round(rows[0].share, 5)
    (640, 0.00235)

    Source: [shin2021], Table 1, Figure 3, appendices D and E.
    """
    check_integer("trials", trials, least=2)
    check_integer("seed", seed, least=0)
    workers = checked_workers(workers, scheduler)
    console = console or Console()
    found = find_checkpoints(models, checkpoints, data, trials, seed, directory)
    _tell(console, found)
    if not found.tasks:
        raise ValueError(
            found.where()
            if found.missing
            else f"`checkpoints` holds no weights of known networks. Received: "
            f"checkpoints={checkpoints}. Name files after networks, such as "
            "resnet20_cifar10.pth; keras_spectral.zoo.list_models() has the names."
        )
    folder = Path(output) / "rows"
    rows = {task.key: _finished(folder, task) for task in found.tasks}
    waiting = [task for task in found.tasks if rows[task.key] is None]
    if waiting:
        check_scheduler(scheduler)
    output_folder(output_folder(output, *_FILES) / "rows")
    if len(waiting) < len(found.tasks):
        console.print(f"{len(found.tasks) - len(waiting)} rows are there already.")
    status: RunStatus = "interrupted"
    try:
        if waiting:
            # In this process alone Keras runs already, as its user has set it.
            measure = _measured_here if workers == 0 and scheduler is None else None
            with (
                interrupts_heeded() as check,
                computing(
                    waiting, measure or measure_in_worker, _failed, workers, scheduler
                ) as results,
            ):
                for task, row in shown(
                    console, results, len(waiting), "Checkpoints", _name
                ):
                    # An interrupted row may be an error that a library made of it.
                    check()
                    rows[task.key] = SweepRow.from_dict(row)
                    write_json(folder / f"{task.key}.json", row)
        status = "complete"
    finally:
        finished = [row for row in rows.values() if row is not None]
        if finished:
            table = _write(folder.parent, finished, found, status)
    for part in sweep_table.tables(table):
        console.print(part)
    return table


def _measured_here(task):
    return measure_checkpoint(task).to_dict()


def _name(row):
    return SweepRow.from_dict(row).name


def _failed(task, error):
    return failed_row(task, error).to_dict()


def _tell(console, found):
    if found.missing and found.tasks:
        console.print(f"Note: {found.where()}")
    if found.unused:
        console.print(
            f"Note: not asked for, or not named after a network: "
            f"{', '.join(found.unused[:5])}{' ...' if found.unused[5:] else ''}"
        )
    for path in found.copies:
        console.print(f"Note: {path} is a copy of another file.")


def _finished(folder, task):
    """Return the row of an earlier run, or `None`; a damaged file is none."""
    path = folder / f"{task.key}.json"
    try:
        row = SweepRow.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None
    same = (row.sha256, row.settings) == (task.sha256, task.settings)
    if not same or row.error is not None:
        return None
    # The same contents may have another name by now, and other data be missing.
    return dataclasses.replace(
        row, file=task.file, dataset=task.dataset, note=task.note
    )


def _write(folder, rows, found, status: RunStatus):
    """Write the table and the figure, and return the table."""
    table = Rows(rows, title="Checkpoints", caption=None)
    points = [row for row in rows if row.alpha_pdf is not None and row.stable_rank]
    mixture = report.stable_rank_mixture(points)
    write_json(
        folder / "table.json",
        {
            "keras_spectral": keras_spectral.__version__,
            "status": status,
            "rows": table.to_dicts(),
            "missing": found.missing,
            "mixture": _mixture_dict(mixture),
        },
    )
    write_text(folder / "table.md", sweep_table.markdown(table, found, status))
    if points:
        report.save(report.figure_3(points, mixture), folder / "figure3.png")
    return table


def _mixture_dict(mixture):
    if mixture is None:
        return None
    lists = ("slopes", "intercepts", "deviations", "weights")
    return {
        "components": mixture.components,
        **{name: np.asarray(getattr(mixture, name)).tolist() for name in lists},
        "log_likelihood": mixture.log_likelihood,
        "bic": mixture.bic,
        "candidates": mixture.candidates.to_dicts(),
    }
