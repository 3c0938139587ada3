"""Standard streams that are closed, full, or of few characters."""

import codecs
import contextlib
import io
import os
import signal
import sys

from keras_spectral.printable import printable

_NULL = {"stdin": "r", "stdout": "w", "stderr": "w"}
# What tables are made of and a terminal of old may lack; columns keep their width.
_ASCII = {"\N{HORIZONTAL ELLIPSIS}": "~"}


class _Open(io.FileIO):
    """A standard stream whose reader may go, as `head` does: the rest is dropped.

    The work goes on, for it may write files, and ends with the code that it has.
    """

    def write(self, data):
        try:
            return super().write(data)
        except BrokenPipeError:
            _drop(self.fileno())
            return len(data)


def _replaced(error):
    text = error.object[error.start : error.end]
    return "".join(_ASCII.get(character, "?") for character in text), error.end


codecs.register_error("keras_spectral.replaced", _replaced)


@contextlib.contextmanager
def usable():
    """Let the body print, whatever the streams are.

    A closed stream gets the null device: the first file that is opened would take its
    number, and what libraries print would be written into it. A character that a
    terminal has not is replaced. What a reader that has gone would have read is
    dropped; a full stream is dropped in the end, for Python would end with a code of
    its own when it cannot empty it.

    Example:
    >>> with usable():
    ...     print("a table")
    a table
    """
    for number, (name, mode) in enumerate(_NULL.items()):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # Of the lowest free number, this one.
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))
    for number, name in ((1, "stdout"), (2, "stderr")):
        _keep_open(name, number)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="keras_spectral.replaced")
    try:
        yield
    finally:
        _flush_or_drop(sys.stdout, 1)
        _flush_or_drop(sys.stderr, 2)


def tell(message):
    """Print a line on stderr, if anybody can be told."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"keras-spectral: {message}\n")
        sys.stderr.flush()


def interrupted(where=""):
    """End the process after Ctrl-C; what is to be written is written by then.

    Args:
        where: String, what is kept and how to go on.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # It ends already.
    tell("interrupted" + (f"; {printable(where)}" if where else ""))
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    # The backend's own shutdown takes a second more.
    os._exit(130)


def _keep_open(name, number):
    """Give a text stream of the process itself a file that outlives its reader."""
    stream = getattr(sys, name)
    own = getattr(sys, f"__{name}__")
    if stream is not own or type(stream) is not io.TextIOWrapper:
        return  # A test's or a notebook's.
    stream.flush()
    buffered = io.BufferedWriter(_Open(number, "w", closefd=False))
    kept = io.TextIOWrapper(
        buffered,
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering or number == 2,
    )
    setattr(sys, name, kept)


def _flush_or_drop(stream, number):
    try:
        stream.flush()
    except OSError:
        _drop(number)


def _drop(number):
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)
