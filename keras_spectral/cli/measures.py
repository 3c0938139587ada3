"""The commands that measure: analyze a checkpoint, certify a classifier."""

import math
from pathlib import Path
from typing import Annotated

import typer

from keras_spectral.cli.checkpoints import AsJson, Entry, Model, known_data
from keras_spectral.cli.verbs import Found, among
from keras_spectral.printable import printable
from keras_spectral.terminal import Console


def analyze(
    file: Annotated[Path, typer.Argument(help="Any checkpoint.")],
    entry: Entry = None,
    layout: Annotated[
        str,
        typer.Option(
            help="Where filters are: torch, keras or auto.",
            autocompletion=among("torch", "keras", "auto"),
        ),
    ] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of the shuffled control.")] = 0,
    convolution: Annotated[
        str,
        typer.Option(
            help="Eigenvalues of convolutions: reshaped (the flattened kernel) or "
            "slices (one matrix a pixel, pooled as WeightWatcher does).",
            autocompletion=among("reshaped", "slices"),
        ),
    ] = "reshaped",
    workers: Annotated[
        int | None, typer.Option(help="Threads. Default: one a core.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for analysis.json and analysis.png.")
    ] = None,
    as_json: AsJson = False,
) -> Found:
    """Measure spectra and power laws of all matrices.

    No architecture is needed.

    Examples:
        keras-spectral analyze model.safetensors
        keras-spectral analyze net.pth --output analysis --workers 4
    """
    if output is not None:
        from keras_spectral.files import output_folder

        output_folder(output, "analysis.json", "analysis.png")
    console = Console(stderr=as_json)
    from keras_spectral import report
    from keras_spectral.experiments import analyze_checkpoint
    from keras_spectral.files import write_json

    with console.status("") as status:

        def progress(name, number, count):
            from rich.text import Text

            status.update(Text(printable(f"{number + 1} of {count}: {name}")))

        found = analyze_checkpoint(
            file, entry, layout, seed, progress, convolution, workers
        )
    if not as_json:
        console.print(found)
        for note, names in found.notes.items():
            console.print(f"* {note}: {_some(names)}", highlight=False)
        for reason, names in _by_reason(found.skipped).items():
            console.print(f"skipped, {reason}: {_some(names)}", highlight=False)
    if output is not None:
        write_json(output / "analysis.json", found.content())
        report.save(report.analysis_figure(found), output / "analysis.png")
        console.print(f"Results are in {output.resolve()}")
    return Found(found.content())


def _by_reason(skipped):
    reasons = {}
    for name, reason in skipped.items():
        reasons.setdefault(reason, []).append(name)
    return reasons


def _some(names, most=3):
    rest = len(names) - most
    return ", ".join(map(printable, names[:most])) + (
        f" and {rest} more" if rest > 0 else ""
    )


def certify(
    source: Annotated[
        Path,
        typer.Argument(help="A .keras model, or a PyTorch .pth or .safetensors file."),
    ],
    data: Annotated[
        str,
        typer.Option(
            help="Test data: digits, fashion_mnist ..., an .npz file, a folder.",
            autocompletion=known_data,
        ),
    ],
    model: Model = None,
    radii: Annotated[
        str,
        typer.Option(help="Radii, by commas, in pixels from 0 to 1; 36/255 is one."),
    ] = "36/255,72/255,108/255,255/255",
    pixel_scale: Annotated[
        float | None,
        typer.Option(
            help="By how much an input moves when a pixel in [0, 1] moves by one. "
            "Default: 2 for images by name or from a folder, which are taken to "
            "[-1, 1], and 1 for an .npz file."
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="How the network is bounded: merged; product, which is looser; or "
            "local: on a ball of each radius around each image, which takes up to "
            "tens of seconds a ball.",
            autocompletion=among("merged", "product", "local"),
        ),
    ] = "merged",
    samples: Annotated[
        int | None, typer.Option(help="Only the first so many images.", min=1)
    ] = None,
    as_json: AsJson = False,
) -> Found:
    """Certify a classifier's accuracy within balls.

    An image counts where no change within the radius can change the answer.

    Examples:
        keras-spectral certify net.keras --data digits
        keras-spectral certify net.keras --data cifar10 --radii 36/255,1 \
            --method local --samples 100
    """
    sizes = _radii(radii)
    console = Console(stderr=as_json)
    from keras_spectral.experiments.inputs import load_model, start_keras, test_data

    start_keras(console)
    from keras_spectral import measures

    with console.status("Reading the network ..."):
        network = load_model(source, model)
    test = test_data(data, network).test[:samples]
    if pixel_scale is None:
        pixel_scale = 2.0 if test.images.dtype == "uint8" else 1.0
    found = measures.certify(
        network,
        test.inputs(),
        test.labels,
        sizes,
        pixel_scale,
        method,  # type: ignore[arg-type]
    )
    if not as_json:
        console.print(found)
    return Found(
        {
            "accuracy": found.accuracy,
            "samples": len(test),
            "pixel_scale": pixel_scale,
            "lipschitz_constant": found.lipschitz_constant,
            "certified": found.to_dicts(),
        }
    )


def _radii(text):
    """Return the numbers of a text such as "0.5,36/255"."""
    found = []
    for part in text.split(","):
        top, slash, bottom = part.partition("/")
        try:
            found.append(float(top) / float(bottom if slash else 1))
        except (ValueError, ZeroDivisionError):
            found.append(math.nan)
    if not all(map(math.isfinite, found)):
        raise ValueError(
            "`--radii` must be numbers or fractions, separated by commas, and finite. "
            f"Received: --radii={text}"
        )
    return found


COMMANDS = (analyze, certify)
