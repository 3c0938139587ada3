"""The command that measures a checkpoint: analyze."""

import json
from pathlib import Path
from typing import Annotated

import typer

from keras_spectral.cli.checkpoints import AsJson, Entry
from keras_spectral.printable import printable
from keras_spectral.terminal import Console


def analyze(
    file: Annotated[Path, typer.Argument(help="Any checkpoint.")],
    entry: Entry = None,
    layout: Annotated[
        str, typer.Option(help="Where filters are: torch, keras or auto.")
    ] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of the shuffled control.")] = 0,
    convolution: Annotated[
        str,
        typer.Option(
            help="Eigenvalues of convolutions: reshaped (the flattened kernel) or "
            "slices (one matrix a pixel, pooled as WeightWatcher does)."
        ),
    ] = "reshaped",
    output: Annotated[
        Path | None, typer.Option(help="Folder for analysis.json and analysis.png.")
    ] = None,
    as_json: AsJson = False,
):
    """Measure spectra and power laws of all matrices. No architecture is needed."""
    if output is not None:
        from keras_spectral.files import output_folder

        output_folder(output, "analysis.json", "analysis.png")
    console = Console(stderr=as_json)
    if not console.is_terminal:
        # In a pipe each row is a line, and every name is whole.
        console.width = 400
    from keras_spectral import report
    from keras_spectral.experiments import analyze_checkpoint
    from keras_spectral.files import write_json

    with console.status("") as status:

        def progress(name, number, count):
            from rich.text import Text

            status.update(Text(printable(f"{number + 1} of {count}: {name}")))

        found = analyze_checkpoint(file, entry, layout, seed, progress, convolution)
    content = {
        "source": found.source,
        "tensors": found.to_dicts(),
        "skipped": found.skipped,
    }
    if as_json:
        typer.echo(json.dumps(content, indent=2, allow_nan=False))
    else:
        console.print(found)
        for note, names in found.notes.items():
            console.print(f"* {note}: {_some(names)}", highlight=False)
        for reason, names in _by_reason(found.skipped).items():
            console.print(f"skipped, {reason}: {_some(names)}", highlight=False)
    if output is not None:
        write_json(output / "analysis.json", content)
        report.save(report.analysis_figure(found), output / "analysis.png")
        console.print(f"Results are in {output.resolve()}")


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


COMMANDS = (analyze,)
