"""The verbs of the command line, and how a run of one ends.

Keras and its backend take seconds to import, so every command imports what it
needs itself; `--help` and completion load none of it.
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
    reports,
    streams,
    verbs,
)
from keras_spectral.convert.files.errors import MismatchError, UnsafeCheckpointError
from keras_spectral.files import no_empty_folders
from keras_spectral.interrupts import interrupts_heeded
from keras_spectral.printable import printable

# What a message of ours may hold of a file, and words around it.
_MESSAGE = 1000
# As `sysexits.h` has it: nothing that a user did.
_FAULT = 70
_UsageError = typer.BadParameter.__base__
# In the order of use.
GROUPS = {
    "The first minute": [experiments.demo],
    "Checkpoints": checkpoints.COMMANDS,
    "Measures": measures.COMMANDS,
    "Compression": compression.COMMANDS,
    "GANs": gan.COMMANDS,
    "Experiments": experiments.COMMANDS,
    "Pages": reports.COMMANDS,
}


@contextlib.contextmanager
def _usage_told(arguments):
    """Tell what is wrong with arguments in a line, as other errors are told.

    Args:
        arguments: List of strings, as they were typed.
    """
    try:
        yield
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            raise  # Its message is the help.
        message = error.format_message() + _received(error, arguments)
        message += "" if message.endswith((".", "?")) else "."
        command = error.ctx.command_path if error.ctx else "keras-spectral"
        # Arguments may be a stranger's file names.
        streams.tell(f"{printable(message, _MESSAGE)} See `{command} -h`.")
        raise typer.Exit(error.exit_code) from None


def _received(error, arguments):
    """Return the option's value, of which the message has only the fault."""
    parameter = getattr(error, "param", None)
    for option in getattr(parameter, "opts", ()):
        for typed, value in zip(arguments, [*arguments[1:], ""], strict=True):
            if typed == option:
                return f". Received: {option} {value}"
            if typed.startswith(f"{option}="):
                return f". Received: {typed}"
    return ""


class _Group(typer.core.TyperGroup):
    """The verbs."""

    def parse_args(self, context, arguments):
        context.meta[__name__] = typed = list(arguments)
        with _usage_told(typed):
            return super().parse_args(context, arguments)

    def make_context(self, *arguments, **options):
        try:
            return super().make_context(*arguments, **options)
        except KeyboardInterrupt:  # Its libraries are imported as it reads options.
            streams.interrupted()

    def invoke(self, context):
        try:
            with (
                _usage_told(context.meta[__name__]),
                no_empty_folders(),
                interrupts_heeded() as check,
            ):
                result = super().invoke(context)
                check()
                return result
        except KeyboardInterrupt as error:  # typer has a word and a code of its own.
            # A verb says what is kept. By now what was made in vain is gone.
            streams.interrupted(str(error))


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Control, measure and compress the singular values of a network's weights.",
    epilog="`keras-spectral VERB --help` has examples of each.",
)
VERBS = {}

for panel, functions in GROUPS.items():
    for function in functions:
        name = function.__name__.replace("_", "-")
        VERBS[name] = function
        app.command(name, rich_help_panel=panel, **verbs.text(function))(
            verbs.verb(function)
        )


def _version(requested: bool):
    if requested:
        typer.echo(f"keras-spectral {keras_spectral.__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show the traceback of an error, of any verb."),
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version."
        ),
    ] = False,
):
    """Control, measure and compress the singular values of a network's weights."""


def run(arguments=None):
    """Run a verb and end the process, as `keras_spectral.cli.main` says.

    Args:
        arguments: Optional list of strings; default `sys.argv[1:]`.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    with streams.usable():
        try:
            try:
                app(arguments, prog_name="keras-spectral", obj=arguments)
            finally:
                sys.stdout.flush()  # A full disk may tell only now.
        except (ValueError, OSError, ImportError) as error:
            if debug:
                raise
            message = " ".join(str(error).split())
            if arguments and arguments[0] in VERBS:
                message = verbs.in_options(message, VERBS[arguments[0]])
            streams.tell(printable(message, _MESSAGE))
            raise SystemExit(_exit_code(error)) from None
        except Exception as error:
            if debug:
                raise
            message = " ".join(f"{type(error).__name__}: {error}".split())
            streams.tell(printable(message, _MESSAGE))
            streams.tell("this is a fault of the program; --debug shows where")
            raise SystemExit(_FAULT) from None


def _exit_code(error):
    if isinstance(error, UnsafeCheckpointError):
        return 3
    return 1 if isinstance(error, MismatchError) else 2
