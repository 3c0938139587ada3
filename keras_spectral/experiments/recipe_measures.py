"""Recipes for which nothing is trained: plots of formulas, sweeps over checkpoints."""

import dataclasses
import inspect

import msgspec
import numpy as np

from keras_spectral.files import output_folder, write_json
from keras_spectral.printable import printable
from keras_spectral.results import Rows, column


@dataclasses.dataclass(frozen=True)
class CheckpointComparison:
    """A row of the heavy-tail paper's Table 1, and ours; accuracies in %.

    Args:
        checkpoint: String, the file's name without its ending.
        paper_alpha, alpha: Floats, exponents of the density.
        paper_before, before: Floats, accuracies of the network.
        paper_after, after: Floats, with the replaced weights drawn from the normal law
            of all weights.
        deviation: Float, of `after` over the trials.
        zero: Float, with them zero, the control.
        error: String, or `None`.
    """

    checkpoint: str
    paper_alpha: float | None = column("paper")
    alpha: float | None
    paper_before: float | None = column("paper")
    before: float | None
    paper_after: float | None = column("paper")
    after: float | None
    # What does not fit into 80 columns; the sweep's own tables have it.
    deviation: float | None = column(table=False)
    zero: float | None = column(table=False)
    error: str | None = column(table=False)


@dataclasses.dataclass(frozen=True)
class DensityRow:
    """A point of the heavy-tail paper's Figure 1."""

    alpha: float
    x: float
    density: float


class FigureData(Rows):
    """The numbers of a figure; they print where the figure is."""

    def __rich__(self):
        from rich.text import Text

        return Text(printable(f"{self.title}. {self.caption}", 1000))


def run_measures(
    recipe, path, name, output, directory, workers, scheduler, console
) -> Rows:
    """Run a `MeasureRecipe`, and write `NAME.json`, and a figure as `NAME.png`.

    Args:
        recipe: A `MeasureRecipe`.
        path: `pathlib.Path` of its file.
        name: String, how its files begin.
        output: `pathlib.Path`, the run's folder.
        directory: Folder with `cifar10.npz` and so on, or `None`.
        workers: See `run_recipe`.
        scheduler: See `run_recipe`.
        console: A `Console`.

    Returns:
        `Rows`: of `CheckpointComparison`, `DensityRow` or `theory.BracketRow`.
    """
    if recipe.figure is not None:
        rows = _figure(recipe, output / f"{name}.png")
    else:
        rows = _sweep(recipe, output, directory, workers, scheduler, console)
    write_json(
        output / f"{name}.json",
        {"recipe": path.name, "item": recipe.item, "rows": rows.to_dicts()},
    )
    return rows


def _figure(recipe, path):
    from keras_spectral import report

    settings = recipe.figure
    make = {"figure_1": _densities, "figure_2": _brackets}[settings.function]
    known = inspect.signature(make).parameters
    for name, value in settings.arguments.items():
        if name not in known:
            raise ValueError(
                f"`figure.arguments` of {settings.function} must be of "
                f"{', '.join(known)}. Received: {name}={value!r}"
            )
        try:
            msgspec.convert(value, known[name].annotation)
        except msgspec.ValidationError as error:
            raise ValueError(
                f"`figure.arguments.{name}` {error}. Received: {name}={value!r}"
            ) from error
    figure = getattr(report, settings.function)(**settings.arguments)
    report.save(figure, path)
    return FigureData(
        make(**settings.arguments),
        title=f"{recipe.item}: {recipe.title}",
        caption=f"The figure is {path}",
    )


def _densities(alphas: tuple[float, ...] = (2.0, 1.5, 1.0, 0.5), reach: float = 100.0):
    from keras_spectral.measures import alpha_stable_density

    x = np.concatenate([np.linspace(0, 5, 21), np.geomspace(5, reach, 10)[1:]])
    return [
        DensityRow(alpha, float(at), float(density))
        for alpha in alphas
        for at, density in zip(x, alpha_stable_density(x, alpha), strict=True)
    ]


def _brackets(scale: float = 1.3, levels: int = 5, columns: int = 64, steps: int = 59):
    from keras_spectral.theory import resilient_classification

    edges = np.linspace(0.1, 2, steps + 1)
    alphas = tuple((edges[:-1] + edges[1:]) / 2)
    return resilient_classification(alphas, scale, levels, columns)


def _sweep(recipe, output, directory, workers, scheduler, console):
    from keras_spectral.experiments.sweep import run_sweep

    settings, trained = recipe.sweep, output / "models"
    checkpoints = settings.checkpoints
    if checkpoints is None and any(trained.glob("*.keras")):
        checkpoints = trained
    if checkpoints is None and "all" in settings.models:
        raise ValueError(
            f"`output` must hold trained networks in models/. Received: output={output}"
            ", which has none. Run a recipe that trains, such as stable_rank/table_1, "
            "with this --output first, or name a folder by --set "
            "sweep.checkpoints=FOLDER."
        )
    found = run_sweep(
        settings.models,
        checkpoints,
        output_folder(output / "sweep"),
        settings.data or directory,
        settings.trials,
        settings.seed,
        workers,
        scheduler,
        console,
        directory,
    )
    printed = {row.model: row for row in recipe.published}
    return Rows(
        [_compared(row, printed.get(row.model)) for row in found],
        title=f"{recipe.item}: {recipe.title}",
        caption="The paper's number stands before ours. Rule: w <= sd, the paper's "
        "words. Tables of both rules and the figure of stable ranks are in "
        f"{output / 'sweep'}",
    )


def _compared(row, paper):
    noise, zero = (row.compression("signed", name) for name in ("gaussian", "zero"))
    return CheckpointComparison(
        checkpoint=row.name,
        paper_alpha=paper and paper.alpha,
        alpha=row.alpha_pdf,
        paper_before=paper and paper.original_accuracy,
        before=_percent(row.original_accuracy),
        paper_after=paper and paper.compressed_accuracy,
        after=noise and _percent(noise.compressed_accuracy_mean),
        deviation=noise and _percent(noise.compressed_accuracy_sd),
        zero=zero and _percent(zero.compressed_accuracy_mean),
        error=row.error,
    )


def _percent(value):
    return None if value is None else 100 * value
