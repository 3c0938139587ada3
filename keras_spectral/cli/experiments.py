"""The commands that run experiments: demo, recipes, run and sweep."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from keras_spectral.cli.checkpoints import AsJson, known_data, known_models
from keras_spectral.cli.verbs import Found, among
from keras_spectral.experiments.inputs import start_keras
from keras_spectral.printable import printable
from keras_spectral.terminal import Console

Workers = Annotated[
    int | None,
    typer.Option(help="Local processes; 0: this one. Default: one a core, by Dask."),
]
Scheduler = Annotated[
    str | None,
    typer.Option(help="Address of a Dask scheduler, such as tcp://host:8786."),
]


def demo(
    output: Annotated[
        Path, typer.Option(help="Folder for models, results.json, demo.html.")
    ] = Path("keras-spectral-demo"),
    epochs: Annotated[int, typer.Option(help="Epochs of each of six trainings.")] = 60,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    as_json: AsJson = False,
) -> Found:
    """The whole road on bundled data, in a minute.

    Networks with and without spectral layers learn noise and digits, one is imported
    from PyTorch and made small; no download.

    Examples:
        keras-spectral demo
        keras-spectral demo --epochs 5 --output /tmp/demo
    """
    from keras_spectral.files import output_folder

    output_folder(output)
    console = Console(stderr=as_json)
    start_keras(console)
    from keras_spectral.experiments import Demo

    try:
        results = Demo(output, epochs=epochs, seed=seed, console=console).run()
    except KeyboardInterrupt:
        told = f"what was finished so far is in {output.resolve()}"
        raise KeyboardInterrupt(told) from None
    folder = output.resolve()
    console.print(f"Models, results.json and demo.png are in {folder}", soft_wrap=True)
    console.print(f"Open {folder / 'demo.html'}", soft_wrap=True)
    return Found(results)


def recipes(as_json: AsJson = False):
    """List the recipes: a paper's figure or table each.

    Examples:
        keras-spectral recipes
        keras-spectral recipes --json
    """
    from keras_spectral.experiments.recipes import (
        list_recipes,
        load_recipe,
        recipe_path,
    )
    from keras_spectral.results import Rows

    found = []
    for name in list_recipes():
        recipe = load_recipe(recipe_path(name))
        found.append(RecipeName(name, recipe.source, recipe.item, recipe.title))
    rows = Rows(found, title="Recipes: keras-spectral run NAME --small")
    if as_json:
        typer.echo(rows.to_json())
    else:
        Console().print(rows)


@dataclasses.dataclass
class RecipeName:
    """A line of the list."""

    name: str
    paper: str
    item: str
    title: str


def _recipes():
    from keras_spectral.experiments.recipes import list_recipes

    return list_recipes()


def run(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A recipe's name, such as stable_rank/table_6, or file.",
            autocompletion=among(_recipes),
        ),
    ],
    small: Annotated[
        bool, typer.Option("--small", help="Minutes: the recipe's small settings.")
    ] = False,
    evidence: Annotated[
        bool, typer.Option("--evidence", help="Hours: its settings for evidence.")
    ] = False,
    seeds: Annotated[
        int | None, typer.Option(help="How many seeds, in place of the recipe's.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Another value: optimizer.learning_rate=0.01. Repeat."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder. Default: keras-spectral-runs/NAME."),
    ] = None,
    directory: Annotated[
        Path | None, typer.Option(help="Folder with the data's files.")
    ] = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    show: Annotated[
        bool, typer.Option("--show", help="Train nothing; show what is there by now.")
    ] = False,
    devices: Annotated[
        str | None,
        typer.Option(help="Devices a cell is trained on: a number, or all. Default: 1"),
    ] = None,
    as_json: AsJson = False,
) -> Found:
    """Run a recipe, an experiment of a paper.

    A rerun goes on where it was; the exit code is 1 if a network failed.

    Examples:
        keras-spectral run stable_rank/table_6 --small
        keras-spectral run stable_rank/table_6 --small --show
        keras-spectral run mine.toml --seeds 3 --set optimizer.learning_rate=0.01
    """
    if small and evidence:
        raise ValueError(
            "`--small` and `--evidence` exclude each other. Received: both."
        )
    console = Console(stderr=as_json)
    start_keras(console, backend=False)
    from keras_spectral.experiments import RecipeTable, run_recipe

    size = "small" if small else "evidence" if evidence else None
    try:
        table = run_recipe(
            recipe,
            size,
            seeds=seeds,
            changes=changes or (),
            output=output,
            directory=directory,
            workers=workers,
            scheduler=scheduler,
            train=not show,
            devices=int(devices) if devices and devices.isdecimal() else devices,
            console=console,
        )
    except KeyboardInterrupt:
        told = "finished epochs are kept, and the same command goes on from there"
        raise KeyboardInterrupt(told) from None
    if not isinstance(table, RecipeTable):
        if not as_json:
            console.print(table)
        code = 1 if any(getattr(row, "error", None) for row in table) else 0
        return Found(table.to_dicts(), code, lambda: table)
    if not as_json:
        console.print(table)
        if table.claims.rows:
            console.print(table.claims)
    failed = [cell for cell in table.cells if cell["error"]]
    for cell in failed:
        typer.echo(
            f"keras-spectral: {cell['network']} {cell['variant']} seed {cell['seed']} "
            f"failed: {printable(cell['error'])}",
            err=True,
        )
    content = {"rows": table.to_dicts(), "claims": table.claims.to_dicts()}
    return Found(content, 1 if failed else 0, lambda: table)


def sweep(
    models: Annotated[
        list[str] | None,
        typer.Option(
            help="Networks: names, patterns such as 'resnet*_svhn', `paper` for its "
            "43, `all` for what is in the folder. Repeat, or separate by commas.",
            autocompletion=known_models,
        ),
    ] = None,
    checkpoints: Annotated[
        Path | None,
        typer.Option(help="Folder of weights. Default: the bundled ones."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Test data: a folder with cifar10.npz, cifar100.npz, svhn.npz, or "
            "for all networks one .npz file or a name such as fashion_mnist.",
            autocompletion=known_data,
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option(help="Folder for rows, table.json, table.md, figure3.png.")
    ] = Path("keras-spectral-sweep"),
    trials: Annotated[
        int, typer.Option(help="Compressions a rule and replacement.")
    ] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the replacements.")] = 0,
    workers: Workers = None,
    scheduler: Scheduler = None,
    as_json: AsJson = False,
) -> Found:
    """Measure and compress many checkpoints.

    Table 1 and Figure 3 of the heavy-tail paper. A rerun goes on where it was; the exit
    code is 1 if a row failed.

    Examples:
        keras-spectral sweep --models resnet20_digits --workers 0
        keras-spectral sweep --models paper --checkpoints weights --data images
    """
    words = [
        word.strip()
        for option in models or ["all" if checkpoints else "resnet20_digits"]
        for word in option.split(",")
        if word.strip()
    ]
    from keras_spectral.files import output_folder

    output_folder(output)
    console = Console(stderr=as_json)
    start_keras(console)
    from keras_spectral.experiments import run_sweep

    try:
        rows = run_sweep(
            words,
            checkpoints,
            output,
            data=data,
            trials=trials,
            seed=seed,
            workers=workers,
            scheduler=scheduler,
            console=console,
        )
    except KeyboardInterrupt:
        if not any(output.glob("rows/*.json")):
            raise
        raise KeyboardInterrupt(
            f"finished rows are in {output.resolve()}, and the same command goes on "
            "from there"
        ) from None
    console.print(f"Tables and figure are in {output.resolve()}", soft_wrap=True)
    failed = any(row.error for row in rows)
    from keras_spectral.report.saved import read_result

    return Found(rows.to_dicts(), int(failed), lambda: read_result(output))


COMMANDS = (recipes, run, sweep)
