"""The command that makes a page of results that are there: report."""

import json
from pathlib import Path
from typing import Annotated

import typer

from keras_spectral.cli import verbs
from keras_spectral.cli.checkpoints import AsJson
from keras_spectral.terminal import Console


def report(
    context: typer.Context,
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Results of verbs: a file such as analysis.json, what --json printed, "
            "or a verb's --output folder. Several are compared."
        ),
    ],
    output: Annotated[Path, typer.Option(help="The page to write, .html.")] = Path(
        "report.html"
    ),
    as_json: AsJson = False,
):
    """Make one page of saved results, side by side.

    The page is a single file that asks for nothing. Of several runs of one verb each
    number stands beside the others', with their difference.

    Examples:
        keras-spectral report analysis --output page.html
        keras-spectral report before/analysis.json after/analysis.json
    """
    verbs.check_page(output, "--output")
    from keras_spectral.files import write_text
    from keras_spectral.report import page_of_files

    text = page_of_files(runs, verbs.command_of(context))
    write_text(output, text)
    if as_json:
        names = [str(path) for path in runs]
        typer.echo(json.dumps({"output": str(output), "runs": names}, indent=2))
        return
    Console().print(f"The page is {output.resolve()}", soft_wrap=True)


COMMANDS = (report,)
