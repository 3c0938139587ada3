"""The command line: `keras-spectral demo`, `convert`, `compress`.

Keras and its backend take seconds to import, so every command imports what it
needs itself; `--help` loads none of it.
"""

import contextlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import keras_spectral

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
Model = Annotated[
    str | None,
    typer.Option(help="Architecture of a PyTorch file, such as resnet20_cifar10."),
]
Data = Annotated[
    str | None,
    typer.Option(help="Test data: `digits`, or an .npz file with arrays x and y."),
]


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


@contextlib.contextmanager
def _native_messages_kept():
    """Hold back what C++ libraries print to stderr; show it if the body fails."""
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(saved, 2)
            held.seek(0)
            sys.stderr.write(held.read().decode(errors="replace"))
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def _start_keras(console):
    """Import Keras and start its backend, with a word on why it takes time."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with console.status("Starting Keras ..."), _native_messages_kept():
        import keras

        import keras_spectral.layers  # noqa: F401  (registers the layers)

        # The first operation is what looks for devices.
        keras.ops.zeros(())


def _load_keras(source, name):
    import keras

    if name is not None:
        raise ValueError(
            "`--model` belongs to a PyTorch checkpoint; a .keras file knows its "
            f"architecture. Received: --model={name} for {source}. Leave it out."
        )
    try:
        return keras.models.load_model(source)
    except Exception as error:  # Keras raises nearly anything on a foreign file.
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"{source} is no Keras model that can be loaded here ({reason}). Save it "
            "with the layers of Keras and keras_spectral alone."
        ) from error


def _load_model(source, name):
    """Return the Keras model of a `.keras` file or of a PyTorch checkpoint."""
    import zipfile

    from keras_spectral import convert, zoo

    if name is not None:
        zoo.entry(name)
    if source.is_file() and zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            if "config.json" in archive.namelist():
                return _load_keras(source, name)
    if name is None:
        # An unreadable file is the first thing to say.
        convert.read_checkpoint(source)
        raise ValueError(
            "`--model` must name the architecture of a PyTorch checkpoint. "
            f"Received: no --model for {source}. Known: " + ", ".join(zoo.list_models())
        )
    return convert.from_torch(source, name)


def _test_data(name, model):
    """Return the data set of `name`, checked against the model's input."""
    from keras_spectral import data

    shape = tuple(model.input_shape[1:])
    if len(shape) != 3 or None in shape:
        raise ValueError(
            "`--data` needs a model that takes images of a fixed size (height, "
            f"width, channels). Received: '{model.name}' with the input shape {shape}."
        )
    if name == "digits":
        dataset = data.load("digits", image_size=shape[0], channels=shape[2])
    else:
        dataset = data.load(name)
    if tuple(dataset.x_test.shape[1:]) != shape:
        raise ValueError(
            f"`--data` must hold images of the model's input shape {shape}. "
            f"Received: images of shape {tuple(dataset.x_test.shape[1:])} in {name}."
        )
    return dataset


def _evaluator(dataset):
    """Return a function that gives a model's accuracy on the test images."""
    import numpy as np

    def evaluate(model):
        logits = model.predict(dataset.x_test, batch_size=64, verbose=0)
        return float(np.mean(np.argmax(logits, axis=-1) == dataset.y_test))

    return evaluate


def _writable(path, suffixes):
    """Check an output file before any work is done for it."""
    if path.suffix not in suffixes:
        raise ValueError(
            f"`--output` must end in one of {', '.join(suffixes)}. "
            f"Received: --output={path}"
        )
    from keras_spectral.files import output_folder

    output_folder(path.parent)
    return path


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
    _start_keras(console)
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
def convert(
    source: Source,
    output: Annotated[
        Path,
        typer.Option(help="File to write: .keras, or .safetensors / .pth for PyTorch."),
    ],
    model: Model = None,
    data: Data = None,
):
    """Carry weights from PyTorch to Keras (.keras) or back (.safetensors, .pth)."""
    _writable(output, (".keras", ".safetensors", ".pth", ".pt"))
    if output.exists() and source.exists() and output.samefile(source):
        raise ValueError(
            "`--output` must not be the source file. "
            f"Received: --output={output}. Choose another name."
        )
    console = Console()
    _start_keras(console)
    from keras_spectral import convert as converter
    from keras_spectral.files import replacing

    network = _load_model(source, model)
    if data is not None:
        accuracy = _evaluator(_test_data(data, network))(network)
        console.print(f"Accuracy on {data}: {accuracy:.4f}")
    if output.suffix == ".keras":
        with replacing(output) as temporary:
            network.save(temporary)
    else:
        converter.to_torch(network, output)
    console.print(
        f"{source} -> {output}: {network.count_params():,} parameters of "
        f"{network.name}, every tensor used once."
    )


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
    _start_keras(console)
    from keras_spectral import compression, report
    from keras_spectral.files import replacing, write_json

    network = _load_model(source, model)
    evaluate = None
    if data is not None:
        evaluate = _evaluator(_test_data(data, network))
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

    Errors that a user can mend are one line on stderr and exit code 2, or the
    traceback with `--debug`, which may stand anywhere. Ctrl-C is exit code 130.

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
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
