"""What commands and experiments print to."""

import contextlib
import contextvars

import rich.console
import rich.rule
import rich.text

from keras_spectral.printable import printable

# Lists of names, such as of layers that could not be checked, are as long.
_LINE = 1000
# Of a pipe or a file, which has no edge: a table's row is a line, its names are whole.
_PIPE = 400
_quiet = contextvars.ContextVar("quiet", default=False)


@contextlib.contextmanager
def quieted(quiet=True):
    """Let every `Console` that is made in the body print nothing.

    Args:
        quiet: Boolean; with `False` all is as it was.

    Example:
    >>> with quieted():
    ...     Console().print("not to be seen")
    """
    before = _quiet.set(quiet or _quiet.get())
    try:
        yield
    finally:
        _quiet.reset(before)


class Console(rich.console.Console):
    r"""A console on which a text is one line of plain text, whoever wrote it.

    Names from files are in all that is printed: no markup or emoji is read in them,
    nothing unprintable passes, and what is too long loses its middle. A line break that
    is meant stands in a `rich.text.Text`. In a pipe lines are 400 characters wide.

    Args:
        **options: Those of `rich.console.Console`.

    Example:
    >>> Console().print("Note: [red]a\x1b[2J.")
    Note: [red]a\x1b[2J.
    """

    def __init__(self, **options):
        quiet = options.pop("quiet", False) or _quiet.get()
        notebook = rich.console.Console().is_jupyter
        if notebook:
            # There `rich` shows what it was asked to return, wants a package for each
            # bar, and takes a cell for a terminal. Tables show themselves, as HTML.
            options = {"force_terminal": False, "force_jupyter": False, **options}
        super().__init__(markup=False, emoji=False, quiet=quiet, **options)
        if not (notebook or self.is_terminal or options.get("width")):
            self.width = _PIPE

    def render_str(self, text, **options) -> rich.text.Text:
        """Return a string as it is shown; `rich` asks for each, cells too."""
        options.update(markup=False, emoji=False)
        return super().render_str(printable(text, _LINE), **options)

    def rule(self, title="", **options):
        """Draw a line with a title across a screen; in a pipe it is one's width."""
        width = self.width if self.is_terminal else min(self.width, 80)
        self.print(rich.rule.Rule(title, **options), width=width)


@contextlib.contextmanager
def progress_bar(description, total=None, shown=True):
    """Yield a function that moves a bar by one, on a terminal.

    It is on the error stream, and gone when the work is done.

    Args:
        description: String.
        total: Integer, how many steps; `None` if it is not known.
        shown: Boolean; without a terminal there is none anyway.

    Example:
    >>> with progress_bar("samples", total=2) as advance:
    ...     advance()
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    hidden = console.quiet or not (shown and console.is_terminal)
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task(printable(description, _LINE), total=total)
        yield lambda: bar.advance(task)
