"""What commands and experiments print to."""

import rich.console
import rich.text

from keras_spectral.printable import printable

# Lists of names, such as of layers that could not be checked, are as long.
_LINE = 1000


class Console(rich.console.Console):
    r"""A console on which a text is one line of plain text, whoever wrote it.

    Names from files are in all that is printed: no markup or emoji is read in them,
    nothing unprintable passes, and what is too long loses its middle. A line break that
    is meant stands in a `rich.text.Text`.

    Args:
        **options: Those of `rich.console.Console`.

    Example:
    >>> Console().print("Note: [red]a\x1b[2J.")
    Note: [red]a\x1b[2J.
    """

    def __init__(self, **options):
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text, **options) -> rich.text.Text:
        """Return a string as it is shown; `rich` asks for each, cells too."""
        options.update(markup=False, emoji=False)
        return super().render_str(printable(text, _LINE), **options)
