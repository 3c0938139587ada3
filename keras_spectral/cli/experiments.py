"""The commands that run experiments: demo and sweep."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from keras_spectral.experiments.inputs import start_keras
from keras_spectral.printable import printable
from keras_spectral.terminal import Console


def demo(
    output: Annotated[
        Path, typer.Option(help="Folder for models, results.json and demo.png.")
    ] = Path("keras-spectral-demo"),
    epochs: Annotated[int, typer.Option(help="Epochs for each classifier.")] = 40,
    trials: Annotated[int, typer.Option(help="Compressions a replacement.")] = 10,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
):
    """Train, import and compress on bundled data: the whole road in minutes."""
    from keras_spectral.files import output_folder

    output_folder(output)
    console = Console()
    start_keras(console)
    from keras_spectral.experiments import Demo

    try:
        Demo(output, epochs=epochs, trials=trials, seed=seed, console=console).run()
    except KeyboardInterrupt:
        typer.echo(
            "keras-spectral: interrupted; what was finished so far is in "
            f"{printable(str(output.resolve()))}",
            err=True,
        )
        sys.stdout.flush()
        # Everything is written; the backend's own shutdown takes a second more.
        os._exit(130)
    console.print(f"Models, results.json and demo.png are in {output.resolve()}")


def sweep(
    models: Annotated[
        list[str] | None,
        typer.Option(
            help="Networks: names, patterns such as 'resnet*_svhn', `paper` for its "
            "43, `all` for what is in the folder. Repeat, or separate by commas."
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
            "one .npz file or `digits` for all networks."
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option(help="Folder for rows, table.json, table.md, figure3.png.")
    ] = Path("keras-spectral-sweep"),
    trials: Annotated[
        int, typer.Option(help="Compressions a rule and replacement.")
    ] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the replacements.")] = 0,
    workers: Annotated[
        int | None,
        typer.Option(help="Local processes. Default: one a core. 0: no Dask."),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(help="Address of a Dask scheduler, such as tcp://host:8786."),
    ] = None,
):
    """Table 1 and Figure 3 over many checkpoints; a rerun goes on where it was."""
    words = [
        word.strip()
        for option in models or ["all" if checkpoints else "resnet20_digits"]
        for word in option.split(",")
        if word.strip()
    ]
    from keras_spectral.files import output_folder

    output_folder(output)
    console = Console()
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
        typer.echo(
            "keras-spectral: interrupted; finished rows are in "
            f"{printable(str(output.resolve()))}, and the same command goes on "
            "from there",
            err=True,
        )
        sys.stdout.flush()
        # Everything is written; the backend's own shutdown takes a second more.
        os._exit(130)
    console.print(f"Tables and figure are in {output.resolve()}", soft_wrap=True)
    if any(row.error for row in rows):
        raise typer.Exit(1)


COMMANDS = (demo, sweep)
