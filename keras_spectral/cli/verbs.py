"""What verbs have in common: `--quiet`, `--report`, examples, errors of options."""

import functools
import inspect
import json
import os
import re
import shlex
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from typer.models import ArgumentInfo, OptionInfo

from keras_spectral import terminal

Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Print errors alone, and what --json asks for."),
]
Report = Annotated[
    Path | None,
    typer.Option(
        "--report", help="Page to write, .html: all that was found, in one file."
    ),
]
# Arguments of the functions that verbs call, where the option has another name.
_OPTIONS = {
    "where": "--layer",
    "rules": "--rule",
    "replacements": "--replacement",
    "name": "--data",
    "generated": "--samples",
}
# Options of one verb of which errors in others speak, too.
_ELSEWHERE = {"prefix": "convert", "ignore": "convert"}
# Options that name what is read; the others name what is written.
_READ = ("features", "checkpoints", "directory")
_EXAMPLES = "\n\nExamples:\n"


class Found(NamedTuple):
    """What a verb ends in.

    Args:
        content: What `--json` prints, and a page is made of.
        code: Integer, the exit code.
        page: Function without arguments that returns what a page is made of, where
            this is more than `content`.
    """

    content: dict | list
    code: int = 0
    page: Callable | None = None


def verb(function):
    """Return the command of a function: what verbs have in common is done here.

    It takes `--quiet`, and looks for files first: Keras takes seconds to start, and a
    file that is not there is told before. Where the function returns what it `Found`,
    and says so, it takes `--report`, and prints what `--json` asks for.

    Args:
        function: Function with a parameter for each argument and option.
    """
    signature = inspect.signature(function)
    reports = signature.return_annotation is Found

    @functools.wraps(function)
    def command(context: typer.Context, *, quiet=False, report=None, **arguments):
        with terminal.quieted(quiet):
            for name, (kind, info) in _parameters(function).items():
                given = arguments[name]
                if isinstance(info, ArgumentInfo) and kind in (Path, list[Path]):
                    for path in [given] if kind is Path else given:
                        _check_there(path)
                elif kind == (Path | None) and name in _READ and given is not None:
                    _check_there(given, f"{_option(name, info)}=")
            if report is not None:
                check_page(report)
            if "context" in signature.parameters:
                arguments["context"] = context
            found = function(**arguments)
            if not reports:
                return
            if arguments["as_json"]:
                typer.echo(json.dumps(found.content, indent=2, allow_nan=False))
            if report is not None:
                from keras_spectral.files import write_text
                from keras_spectral.report import page

                content = found.content if found.page is None else found.page()
                paths = [x for x in arguments.values() if isinstance(x, Path)]
                name = paths[0].name if paths else context.info_name
                text = page({"results": {name: content}}, command_of(context))
                write_text(report, text)
                terminal.Console(stderr=arguments["as_json"]).print(
                    f"The page is {report.resolve()}", soft_wrap=True
                )
            if found.code:
                raise typer.Exit(found.code)

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = {
        **signature.parameters,
        "context": inspect.Parameter("context", keyword, annotation=typer.Context),
        "quiet": inspect.Parameter("quiet", keyword, default=False, annotation=Quiet),
    }
    if reports:
        parameters["report"] = inspect.Parameter(
            "report", keyword, default=None, annotation=Report
        )
    in_order = sorted(parameters.values(), key=lambda parameter: parameter.kind)
    command.__signature__ = signature.replace(parameters=in_order)  # type: ignore[attr-defined]
    command.__annotations__ = {name: x.annotation for name, x in parameters.items()}
    return command


def command_of(context) -> str:
    """Return the command line that is running, as a shell reads it."""
    return shlex.join(["keras-spectral", *map(str, context.find_root().obj or ())])


def check_page(path, name="--report"):
    """Raise an error unless a page may be written there; make its folder.

    A page takes the place of a page of ours, and of no other file.
    """
    from keras_spectral.files import writable_file

    if path.suffix not in (".html", ".htm"):
        raise ValueError(f"`{name}` must end in .html. Received: {name}={path}")
    if writable_file(path, name).exists():
        from keras_spectral.report.pages import is_page

        if not is_page(path):
            raise ValueError(
                f"`{name}` must be new, or a page of this program to replace. "
                f"Received: {name}={path}, another file. Choose another name."
            )


def among(*choices):
    """Return what completes an option that has known values.

    Args:
        *choices: Strings, or a function that returns them, for what has to be imported.

    Example:
    >>> among("magnitude", "signed")("s")
    ['signed']
    """

    def begun(incomplete: str):
        known = choices[0]() if callable(choices[0]) else choices
        return [choice for choice in known if choice.startswith(incomplete)]

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
    parameters = _parameters(function)
    for name, (_, info) in parameters.items():
        if isinstance(info, OptionInfo):
            options[name] = _option(name, info)
    for name, option in _OPTIONS.items():
        if option in options.values():
            options.setdefault(name, option)
    if "source" in parameters:
        options["model"] = "source"  # A model in Python; --model is a name.

    def backquoted(found):
        name = found[1]
        if name not in options and name in _ELSEWHERE:
            return f"`--{name}` of `{_ELSEWHERE[name]}`"
        return f"`{options.get(name, name)}`"

    def received(found):
        return f"{options.get(found[1], found[1])}="

    message = re.sub(r"`(\w+)`", backquoted, message)
    before, word, after = message.partition("Received: ")
    # Of a tuple or a list its words.
    before = re.sub(r"(?<=one of )[(\[]([^()\[\]]*?),?[)\]]", _listed, before)
    return before + word + re.sub(r"(?:^|(?<=, ))(\w+)=", received, after)


def _option(name, info):
    """Return the long name of an option."""
    # typer takes the first of the words for a default until it makes the command.
    words = [info.default, *(info.param_decls or ())]
    words = [word for word in words if isinstance(word, str) and word.startswith("--")]
    return (words or ["--" + name.replace("_", "-")])[0]


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


def _check_there(path, option=""):
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{option}{path} does not exist. Check the path.") from None
    except (OSError, ValueError):
        pass  # Who opens it says more.
