"""The command line: `keras-spectral demo`, `inspect`, `convert`, `compress` ...

Keras and its backend take seconds to import, so every command imports what it
needs itself; `--help` loads none of it.
"""

import contextlib
import sys
from typing import Annotated

import typer
import typer.core

import keras_spectral
from keras_spectral.cli import (
    checkpoints,
    compression,
    experiments,
    gan,
    measures,
    streams,
)
from keras_spectral.convert.files.errors import MismatchError, UnsafeCheckpointError
from keras_spectral.printable import printable

# What a message of ours may hold of a file, and words around it.
_MESSAGE = 1000
_UsageError = typer.BadParameter.__base__


@contextlib.contextmanager
def _printable_usage():
    """Make an error's message printable: arguments may be a stranger's file names."""
    try:
        yield
    except _UsageError as error:
        message = printable(error.format_message(), _MESSAGE)
        error.format_message = lambda: message
        raise


class _Group(typer.core.TyperGroup):
    """The verbs."""

    def parse_args(self, context, arguments):
        with _printable_usage():
            return super().parse_args(context, arguments)

    def invoke(self, context):
        with _printable_usage():
            return super().invoke(context)


app = typer.Typer(
    cls=_Group,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Control, measure and compress the singular values of a network's weights.",
)

for group in (checkpoints, measures, compression, gan, experiments):
    for command in group.COMMANDS:
        app.command()(command)


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


def main(arguments=None):
    """Run the command line.

    Errors that a user can mend are one line on stderr, or the traceback with `--debug`,
    which may stand anywhere. The exit code is 0 if all went well, 1 for a checkpoint
    that does not match (in a sweep: for any row that failed), 2 for one that cannot be
    read, for wrong arguments and for what cannot be written or printed, 3 for one that
    is refused as unsafe, 130 for Ctrl-C.

    Args:
        arguments: Optional list of strings; default `sys.argv[1:]`.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    with streams.usable() as lost:
        try:
            try:
                app(arguments)
            finally:
                sys.stdout.flush()  # A full disk may tell only now.
        except BrokenPipeError:
            raise SystemExit(2) from None
        except (ValueError, OSError, ImportError) as error:
            if debug:
                raise
            streams.tell(printable(" ".join(str(error).split()), _MESSAGE))
            raise SystemExit(_exit_code(error)) from None
        except SystemExit:
            if lost():
                raise SystemExit(2) from None
            raise


def _exit_code(error):
    if isinstance(error, UnsafeCheckpointError):
        return 3
    return 1 if isinstance(error, MismatchError) else 2
