"""The command line: `keras-spectral demo`, `inspect`, `convert`, `compress` ...

Keras and its backend take seconds to import, so every command imports what it
needs itself; `--help` loads none of it.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import keras_spectral
from keras_spectral import cli_checkpoints, cli_measures, cli_sweep
from keras_spectral.cli_checkpoints import Data, Model
from keras_spectral.convert.errors import MismatchError, UnsafeCheckpointError
from keras_spectral.terminal import evaluator, load_model, start_keras, test_data

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Control, measure and compress the singular values of a network's weights.",
)

Source = Annotated[
    Path,
    typer.Argument(help="A PyTorch .pth or .safetensors file, or a .keras model."),
]
for command in (*cli_checkpoints.COMMANDS, *cli_measures.COMMANDS):
    app.command()(command)
app.command()(cli_sweep.sweep)


def _version(requested: bool):
    if requested:
        typer.echo(f"keras-spectral {keras_spectral.__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True),
    ] = False,
):
    """Control, measure and compress the singular values of a network's weights."""


@app.command()
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
            f"{output.resolve()}",
            err=True,
        )
        sys.stdout.flush()
        # Everything is written; the backend's own shutdown takes a second more.
        os._exit(130)
    console.print(f"Models, results.json and demo.png are in {output.resolve()}")


@app.command()
def compress(
    source: Source,
    model: Model = None,
    data: Data = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(help="Layer to compress; repeat for more. Default: last Dense."),
    ] = None,
    trials: Annotated[int, typer.Option(help="Compressions a replacement.")] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the replacements.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for compression.json, figure and compressed.keras."),
    ] = None,
):
    """Replace the small weights of a layer by noise, and measure what it costs."""
    if output is not None:
        from keras_spectral.files import output_folder

        output_folder(output)
    console = Console()
    start_keras(console)
    from keras_spectral import compression, report
    from keras_spectral.files import replacing, write_json

    network = load_model(source, model)
    evaluate = None
    if data is not None:
        evaluate = evaluator(test_data(data, network))
    rows = compression.compress(
        network, layers=layer, trials=trials, seed=seed, evaluate=evaluate
    )
    console.print(rows)
    if output is None:
        return
    write_json(output / "compression.json", rows.to_dicts())
    if evaluate is not None:
        report.save(report.compression_figure(rows), output / "compression.png")
    compressed = compression.apply(
        network, layers=layer, replacement="matched", seed=seed
    )
    with replacing(output / "compressed.keras") as temporary:
        compressed.save(temporary)
    console.print(f"Results and the compressed model are in {output.resolve()}")


def main(arguments=None):
    """Run the command line.

    Errors that a user can mend are one line on stderr, or the traceback with `--debug`,
    which may stand anywhere. The exit code is 0 if all went well, 1 for a checkpoint
    that does not match (in a sweep: for any row that failed), 2 for one that cannot be
    read and for wrong arguments, 3 for one that is refused as unsafe, 130 for Ctrl-C.

    Args:
        arguments: Optional list of strings; default `sys.argv[1:]`.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        app(arguments)
    except (ValueError, OSError, ImportError) as error:
        if debug:
            raise
        message = " ".join(str(error).split())
        sys.stderr.write(f"keras-spectral: {message}\n")
        raise SystemExit(_exit_code(error)) from None


def _exit_code(error):
    if isinstance(error, UnsafeCheckpointError):
        return 3
    return 1 if isinstance(error, MismatchError) else 2


if __name__ == "__main__":
    main()
