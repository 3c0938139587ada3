"""Standard streams that are closed, full, or of few characters."""

import codecs
import contextlib
import os
import sys

_NULL = {"stdin": "r", "stdout": "w", "stderr": "w"}
# What tables are made of and a terminal of old may lack; columns keep their width.
_ASCII = {"\N{HORIZONTAL ELLIPSIS}": "~"}


def _replaced(error):
    text = error.object[error.start : error.end]
    return "".join(_ASCII.get(character, "?") for character in text), error.end


codecs.register_error("keras_spectral.replaced", _replaced)


@contextlib.contextmanager
def usable():
    """Let the body print, whatever the streams are.

    A closed stream gets the null device: the first file that is opened would take its
    number, and what libraries print would be written into it. A character that a
    terminal has not is replaced. A stream that is full or whose reader has gone is
    dropped, for Python would end with a code of its own when it cannot empty it.

    Yields:
        Function without arguments: whether what was printed is lost.

    Example:
    >>> with usable() as lost:
    ...     lost()
    False
    """
    for number, (name, mode) in enumerate(_NULL.items()):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # Of the lowest free number, this one.
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))
    stdout, file = sys.stdout, os.fstat(1)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="keras_spectral.replaced")

    def lost():
        # Both are what typer and rich do when a reader has gone.
        return sys.stdout is not stdout or not os.path.samestat(os.fstat(1), file)

    try:
        yield lost
    finally:
        _flush_or_drop(sys.stdout, 1)
        _flush_or_drop(sys.stderr, 2)


def tell(message):
    """Print a line on stderr, if anybody can be told."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"keras-spectral: {message}\n")
        sys.stderr.flush()


def _flush_or_drop(stream, number):
    try:
        stream.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, number)
        os.close(null)
