"""The one way to make a table, for a terminal, a notebook and a page."""

import csv
import dataclasses
import io
import math
import re
import sys
from typing import NamedTuple

from keras_spectral.markup import Markup, asset, element, text
from keras_spectral.printable import printable

_WIDTH, _HEIGHT = 96, 20
# Heads of columns that need none in a terminal; who listens to a page does.
_UNNAMED = {"number": "#", "name": "name", "text": "what", "spectrum": "spectrum"}
# More points than pixels are not seen.
_MOST_POINTS = 48
_LARGEST = sys.float_info.max


class Cell(NamedTuple):
    """A cell.

    Args:
        text: String, what it shows.
        value: What it is sorted by where this is another thing.
        anchor: String, the name of what it leads to in a page, or `None`.
    """

    text: str
    value: object = None
    anchor: str | None = None


@dataclasses.dataclass(frozen=True)
class Column:
    """A column.

    Args:
        label: String, its head.
        kind: `"text"`; `"name"`, broken where a layer's name may be; `"number"`, on the
            right; or `"spectrum"`, whose cells hold positive numbers, largest first,
            that are drawn: a terminal has no such column.
        fixed: Boolean, whether its lines are never broken.
    """

    label: str
    kind: str = "text"
    fixed: bool = False


def cell(value, form=None) -> Cell:
    """Return the cell of a value.

    Args:
        value: Number, string, tuple of numbers, or `None`, shown as a dash like NaN.
        form: String, a format specification; default `.4g` of a float.

    Example:
    >>> cell(0.51234, ".1%").text
    '51.2%'
    >>> cell(None).text
    '-'
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return Cell("-")
    if isinstance(value, float) or (form and _is_number(value)):
        return Cell(format(value, form or ".4g"), value)
    if isinstance(value, (int, tuple, list)):
        return Cell(str(value), value)
    # Names are a stranger's.
    return Cell(printable(str(value)))


@dataclasses.dataclass(frozen=True)
class Table:
    """A table: it prints itself (`rich`), and turns into HTML and CSV.

    Args:
        title: String, above it.
        columns: List of `Column`.
        rows: List of lists of `Cell`, one a column.
        caption: Optional string, below it: what a reader must know.
        compact: Boolean, whether it is drawn with few lines, for many columns.

    Example:
    >>> table = Table("Sizes", [Column("name"), Column("n", "number")], [[cell("a"),
    ...     cell(3)]])
    >>> print(table.to_csv().split())
    ['name,n', 'a,3']
    """

    title: str
    columns: list
    rows: list
    caption: str | None = None
    compact: bool = False

    def __rich__(self):
        from rich.box import HEAVY_HEAD, SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        if not self.rows:
            return Text(f"{printable(self.title)}: no rows")
        table = Table(
            title=Text(printable(self.title)),
            caption=self.caption,
            title_justify="left",
            caption_justify="left",
            box=SIMPLE_HEAD if self.compact else HEAVY_HEAD,
            padding=(0, 1, 0, 0) if self.compact else (0, 1),
        )
        for column in self.columns:
            if column.kind != "spectrum":
                table.add_column(
                    # A head may have lines.
                    Text("\n".join(map(printable, column.label.split("\n")))),
                    justify="right" if column.kind == "number" else "left",
                    no_wrap=column.fixed,
                    # A long word goes on below: names differ at their ends.
                    overflow="ellipsis" if column.fixed else "fold",
                )
        for row in self.rows:
            # `Text` reads no markup, on whatever console.
            table.add_row(
                *(
                    (_Name if column.kind == "name" else Text)(found.text)
                    for column, found in zip(self.columns, row, strict=True)
                    if column.kind != "spectrum"
                )
            )
        return table

    def to_html(self, anchors: str | None = None) -> Markup:
        """Return a `<table>` in a box that scrolls, its caption and what is below it.

        Args:
            anchors: String, how the anchors of cells begin in the page; `None` where
                they lead nowhere.
        """
        if not self.rows:
            return element("p", f"{self.title}: no rows")
        heads = [
            element(
                "th",
                column.label.replace("\n", " ") or _UNNAMED[column.kind],
                scope="col",
                class_=column.kind if column.kind != "text" else None,
            )
            for column in self.columns
        ]
        # HTML knows where rows and cells end.
        lines = []
        for row in self.rows:
            pairs = zip(self.columns, row, strict=True)
            lines.append("<tr>" + "".join(_data(*pair, anchors) for pair in pairs))
        table = element(
            "table",
            element("caption", self.title) if self.title else None,
            element("thead", element("tr", heads)),
            element("tbody", Markup("".join(lines))),
        )
        note = element("p", self.caption, class_="note") if self.caption else None
        # What scrolls can be reached by the keyboard.
        box = element(
            "div",
            table,
            class_="scrolls",
            tabindex="0",
            role="group",
            aria_label=self.title or "Table",
        )
        return element("div", box, note, class_="rows")

    def to_csv(self) -> str:
        """Return the numbers themselves, with a line of heads, as CSV."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        shown = [i for i, c in enumerate(self.columns) if c.kind != "spectrum"]
        writer.writerow(
            [
                # They may be the keys of somebody's JSON.
                _inert(printable(self.columns[i].label.replace("\n", " ")))
                for i in shown
            ]
        )
        for row in self.rows:
            writer.writerow(
                [
                    _inert(row[i].text) if row[i].value is None else row[i].value
                    for i in shown
                ]
            )
        return stream.getvalue()


def notebook(parts) -> str:
    """Return what a notebook shows: HTML that sorts and follows its theme.

    Without scripts it is plain tables, in the notebook's own letters and colours.

    Args:
        parts: List of `Table` and strings, which are paragraphs.
    """
    style = element("style", asset("keras_spectral", "tables.css"))
    script = element("script", asset("keras_spectral", "tables.js"))
    found = [
        part.to_html() if isinstance(part, Table) else element("p", part)
        for part in parts
    ]
    return str(element("div", style, found, script, class_="keras-spectral"))


def _inert(text):
    """Return a text that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in tuple("=+-@") and text != "-" else text


def _data(column, found, anchors=None):
    """Return a `<td>`."""
    if column.kind == "spectrum":
        return f"<td>{_sparkline(found.value or ())}"
    start = "<td"
    if column.kind == "number":
        start += " class=number"
        if _is_number(found.value) and not _says(found.text, found.value):
            # Scripts read no `inf`.
            key = f"{found.value:.6g}".replace("inf", "Infinity")
            start += f' data-value="{key}"'
    elif column.kind == "name":
        start += " class=name"
    # A long name may break where a person would break it.
    shown = text(found.text.replace("+-", "±"))
    if column.kind == "name":
        shown = Markup(re.sub(r"(?<=[-./_])(?=.)", "<wbr>", shown))
    if found.anchor and anchors is not None:
        shown = element("a", shown, href=f"#{anchors}{found.anchor}")
    return f"{start}>{shown}"


def _is_number(value):
    # An integer may be longer than any float.
    return isinstance(value, float) or (
        isinstance(value, int) and abs(value) <= _LARGEST
    )


def _says(text, value):
    try:
        return math.isfinite(value) and math.isclose(float(text), value, rel_tol=1e-3)
    except ValueError:
        return False


def _sparkline(values):
    """Draw the logarithms of numbers, largest first."""
    values = [x for x in values if x and x > 0 and math.isfinite(x)]
    if len(values) < 2:
        return Markup()
    # Squares of rounding errors are no spectrum.
    logs = [math.log10(x) for x in values if x > 1e-12 * values[0]]
    low, span = min(logs), (max(logs) - min(logs)) or 1.0
    last = max(len(logs) - 1, 1)
    step = max(1, math.ceil(len(logs) / _MOST_POINTS))
    places = sorted({*range(0, len(logs), step), len(logs) - 1})
    points = " ".join(
        f"{1 + (_WIDTH - 2) * i / last:.3g},"
        f"{1 + (_HEIGHT - 2) * (1 - (logs[i] - low) / span):.3g}"
        for i in places
    )
    return element(
        "svg",
        element("polyline", points=points),
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        width=_WIDTH,
        height=_HEIGHT,
        class_="sparkline",
        role="img",
        aria_label=f"{len(values)} values over {span:.1f} decades",
    )


class _Name:
    """A layer's name in a terminal: whole, on as many lines as it needs.

    Lines end after a separator, where a person would break it.
    """

    def __init__(self, text):
        self.text = text
        self.pieces = re.findall(r"[^-./_ ]*[-./_ ]|[^-./_ ]+", text)

    def __rich_measure__(self, console, options):
        from rich.cells import cell_len
        from rich.measure import Measurement

        longest = max(map(cell_len, self.pieces), default=0)
        return Measurement(min(longest, 20), cell_len(self.text))

    def __rich_console__(self, console, options):
        from rich.cells import cell_len, chop_cells
        from rich.text import Text

        lines = [""]
        for piece in self.pieces:
            if cell_len(lines[-1] + piece) > options.max_width:
                parts = chop_cells(piece, options.max_width)
                lines = [*filter(None, lines), *parts]
            else:
                lines[-1] += piece
        yield Text("\n".join(lines))
