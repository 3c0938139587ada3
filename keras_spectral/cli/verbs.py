"""What all verbs have in common: `--quiet`, examples, errors that name options."""

import functools
import inspect
import os
import re
import typing
from pathlib import Path
from typing import Annotated

import typer
from typer.models import ArgumentInfo, OptionInfo

from keras_spectral import terminal

Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Print errors alone, and what --json asks for."),
]
# Arguments of the functions that verbs call, where the option has another name.
_OPTIONS = {
    "where": "--layer",
    "rules": "--rule",
    "replacements": "--replacement",
    "name": "--data",
    "generated": "--samples",
}
_EXAMPLES = "\n\nExamples:\n"


def verb(function):
    """Return the command of a function: it takes `--quiet`, and looks for files first.

    Keras takes seconds to start, and a file that is not there is told before.

    Args:
        function: Function with a parameter for each argument and option.
    """

    @functools.wraps(function)
    def command(*, quiet=False, **arguments):
        with terminal.quieted(quiet):
            for name, (kind, info) in _parameters(function).items():
                if kind is Path and isinstance(info, ArgumentInfo):
                    _check_there(arguments[name])
            return function(**arguments)

    signature = inspect.signature(function)
    option = inspect.Parameter(
        "quiet", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Quiet
    )
    parameters = [*signature.parameters.values(), option]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {**function.__annotations__, "quiet": Quiet}
    return command


def among(*choices):
    """Return what completes an option that has few values.

    Args:
        *choices: Strings.

    Example:
    >>> among("magnitude", "signed")("s")
    ['signed']
    """

    def begun(incomplete: str):
        return [choice for choice in choices if choice.startswith(incomplete)]

    return begun


def text(function):
    """Return the help of a verb and, below its options, the examples.

    Args:
        function: Function whose docstring ends in examples, one a line.
    """
    help, _, examples = inspect.cleandoc(function.__doc__).partition(_EXAMPLES)
    lines = [" ".join(line.split()) for line in examples.splitlines()]
    # A paragraph is as wide as the screen, and in an epilog it is a line.
    help = "\n\n".join(" ".join(part.split()) for part in help.split("\n\n"))
    epilog = "\n\n".join(["Examples:", *lines])
    return {"help": help, "epilog": epilog if lines else None}


def in_options(message, function):
    """Return an error's message with options in place of Python's arguments.

    Args:
        message: String in the form of `keras_spectral.validation`.
        function: Function of the verb.

    Example:
    >>> from keras_spectral.cli.compression import compress
    >>> in_options("`rank_ratio` must be a number. Received: rank_ratio=x", compress)
    '`--rank-ratio` must be a number. Received: --rank-ratio=x'
    """
    options = {}
    for name, (_, info) in _parameters(function).items():
        if isinstance(info, OptionInfo):
            words = [word for word in info.param_decls or () if word.startswith("--")]
            options[name] = (words or ["--" + name.replace("_", "-")])[0]
    for name, option in _OPTIONS.items():
        if option in options.values():
            options.setdefault(name, option)

    def backquoted(found):
        return f"`{options.get(found[1], found[1])}`"

    def received(found):
        return f"{options.get(found[1], found[1])}="

    message = re.sub(r"`(\w+)`", backquoted, message)
    before, word, after = message.partition("Received: ")
    # Of a tuple or a list its words.
    before = re.sub(r"(?<=one of )[(\[]([^()\[\]]*?),?[)\]]", _listed, before)
    return before + word + re.sub(r"(?:^|(?<=, ))(\w+)=", received, after)


def _listed(found):
    return found[1].replace("'", "")


def _parameters(function):
    """Return {name: (type, what typer is told of it)} of a verb's function."""
    hints = typing.get_type_hints(function, include_extras=True)
    return {
        name: (hint.__origin__, hint.__metadata__[0])
        for name, hint in hints.items()
        if typing.get_origin(hint) is Annotated
    }


def _check_there(path):
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{path} does not exist. Check the path.") from None
    except (OSError, ValueError):
        pass  # Who opens it says more.
