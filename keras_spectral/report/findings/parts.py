"""What a page says of one result, whatever verb it is of."""

import dataclasses
import math
import re
from typing import Literal, NamedTuple

from keras_spectral.markup import Markup, element
from keras_spectral.printable import printable
from keras_spectral.report.charts import Series
from keras_spectral.results import RunStatus
from keras_spectral.tables import Column, Table, cell

CheckStatus = Literal["PASS", "FAIL", "UNTESTED"]
Severity = Literal["serious", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("serious", "warning", "note")
_NAMES = ("name", "layer", "tensor", "node", "checkpoint", "variant")
_MOST_NAMED = 5
_IMAGE = re.compile(r"data:image/(?:png|gif);base64,[A-Za-z0-9+/]+={0,2}")


class Check(NamedTuple):
    """Something that was checked, or could not be.

    Args:
        status: A `CheckStatus`.
        what: String.
        why: String, one line: what was found, or why nothing was.
    """

    status: CheckStatus
    what: str
    why: str


class Alert(NamedTuple):
    """Something that a reader should know before the numbers.

    Args:
        severity: `"serious"`: numbers are missing or mean nothing; `"warning"`: they
            are to be read with care; `"note"`: something stands out.
        what: String.
        where: List of strings, names of layers.
    """

    severity: Severity
    what: str
    where: list = []  # noqa: RUF012 - never changed


class Detail(NamedTuple):
    """Something that opens.

    Args:
        anchor: String, what a table's row links to.
        title: String.
        content: `Markup`.
    """

    anchor: str
    title: str
    content: Markup


@dataclasses.dataclass
class Findings:
    """What a page says of one result.

    Args:
        title: String.
        content: What JSON has of the result: what a page gives away.
        checks: List of `Check`.
        alerts: List of `Alert`.
        tables: List of `Table`.
        compared: `Table` that is compared with that of other results; default the
            first one.
        figures: List of `Markup`.
        details: List of `Detail`.
        curves: Dict from names of layers to `charts.Series`, drawn over those of the
            same names of other results.
        source: Dict from strings to what is shown: where the numbers are from.
        kind: String, of the result: those of one kind are compared.
    """

    title: str
    content: object
    checks: list[Check] = dataclasses.field(default_factory=list)
    alerts: list[Alert] = dataclasses.field(default_factory=list)
    tables: list[Table] = dataclasses.field(default_factory=list)
    compared: Table | None = None
    figures: list[Markup] = dataclasses.field(default_factory=list)
    details: list[Detail] = dataclasses.field(default_factory=list)
    curves: dict[str, Series] = dataclasses.field(default_factory=dict)
    source: dict = dataclasses.field(default_factory=dict)
    kind: str = ""

    def check(self, holds, what, why, otherwise=None):
        """Add a `Check`; a truth of `None` is untested.

        Args:
            holds: Boolean, or `None`.
            what: String.
            why: String.
            otherwise: String, why not, where that is another sentence.
        """
        status: CheckStatus = "UNTESTED"
        if holds is not None:
            status = "PASS" if holds else "FAIL"
        self.checks.append(Check(status, what, why if holds else otherwise or why))

    def alert(self, severity: Severity, what, where=(), whenever=True):
        """Add an `Alert`, if there is a name, or it holds whatever the names are."""
        where = [str(name) for name in where]
        if where or whenever:
            self.alerts.append(Alert(severity, what, where))

    def finished(self, status: RunStatus | None):
        """Add the check that a run came to its end."""
        if status is not None:
            self.check(status == "complete", "The run came to its end", status)


def named(names) -> str:
    """Return some of many names as text.

    Example:
    >>> named(["a", "b", "c", "d", "e", "f", "g"])
    'a, b, c, d, e and 2 more'
    """
    names = [str(name) for name in names]
    rest = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def table_of(title: str, rows, columns=None, caption: str | None = None) -> Table:
    """Return the table of dicts, such as JSON has them.

    Args:
        title: String.
        rows: List of dicts.
        columns: Dict from keys to (label, format) in their order; default all keys
            whose values are no lists and no dicts. One without a value is left out.
        caption: String, or `None`.

    Example:
    >>> table_of("Sizes", [{"name": "a", "n": 1}]).columns[1]
    Column(label='n', kind='number', fixed=False)
    """
    rows = list(rows)
    if columns is None:
        keys = dict.fromkeys(key for row in rows for key in row)
        plain = [
            key
            for key in keys
            if not any(isinstance(row.get(key), (list, dict)) for row in rows)
        ]
        columns = {key: (str(key).replace("_", " "), _form(key)) for key in plain}
    filled = {key for row in rows for key in row if row[key] not in (None, "")}
    columns = {key: column for key, column in columns.items() if key in filled}
    heads = []
    for key, (label, _) in columns.items():
        known = next((row[key] for row in rows if row.get(key) is not None), None)
        number = isinstance(known, (int, float)) and not isinstance(known, bool)
        text = "name" if key in _NAMES else "text"
        heads.append(Column(label, "number" if number else text))
    cells = [
        [cell(row.get(key), form) for key, (_, form) in columns.items()] for row in rows
    ]
    return Table(title, heads, cells, caption)


def restored(kind, values):
    """Return a row of a dataclass from JSON, which has no NaN.

    Of another version's row it takes what it knows; numbers may be unknown, names not.

    Args:
        kind: Dataclass.
        values: Dict.
    """
    row = {}
    for field in dataclasses.fields(kind):
        known = values.__getitem__ if field.type is str else values.get
        value = known(field.name)
        row[field.name] = math.nan if value is None and field.type is float else value
    return kind(**row)


def _form(key):
    return ".2%" if str(key).endswith("accuracy") else None


def percent(value) -> str:
    """Return a share as text.

    Example:
    >>> percent(0.981), percent(None)
    ('98.10 %', 'unknown')
    """
    return "unknown" if value is None else f"{100 * value:.2f} %"


def facts(values) -> Markup:
    """Return a list of what is known, from a dict."""
    return element(
        "dl",
        [
            [element("dt", str(key).replace("_", " ")), element("dd", _fact(value))]
            for key, value in values.items()
            if value is not None
        ],
        class_="facts",
    )


def _fact(value):
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_fact(x)}" for key, x in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_fact, value))
    return str(value)


def picture(title, source) -> Markup:
    """Return a figure of an image.

    Args:
        title: String.
        source: String, the image as a data URI.

    Raises:
        ValueError: If it is anything else: a page asks for nothing.
    """
    if not _IMAGE.fullmatch(source):
        raise ValueError(f"no image of a page: {printable(source, 60)}")
    image = element("img", alt=f"Grid of generated images: {title}")
    return element(
        "figure",
        element("figcaption", element("b", title), ", never chosen by how they look."),
        # It is longer than any text, which would be cut.
        Markup(f'{image[:-2]} src="{source}"/>'),
        class_="chart",
    )
