"""Rows: the one form in which measures and compressions return results."""

import dataclasses
import json
from collections.abc import Iterator
from typing import Literal

from keras_spectral.json_text import plain, python_scalar
from keras_spectral.printable import printable
from keras_spectral.tables import Column, Table, cell, notebook

# What a run's results are of, as their files say.
RunStatus = Literal["running", "complete", "interrupted", "failed"]
# Captions say how the numbers are to be read.
_PARAGRAPH = 1000


def column(label: str | None = None, form: str | None = None, table: bool = True):
    """Return a field of a dataclass of rows, with what its table needs.

    Args:
        label: String, the column's head; default the field's name.
        form: String, a format specification such as ".1%".
        table: Boolean; `False` leaves it out of tables, not of JSON.

    Returns:
        A field, without a default.

    Example:
    >>> @dataclasses.dataclass
    ... class Row:
    ...     accuracy: float = column("right", ".1%")
    >>> all(word in str(Rows([Row(0.5)])) for word in ("right", "50.0%"))
    True
    """
    return dataclasses.field(metadata={"label": label, "format": form, "table": table})


class Rows:
    """A list of equal dataclass rows with a title.

    It prints itself as a table (`rich`), is a sortable one in a notebook, and turns
    into a pandas frame or JSON.

    Args:
        rows: List of instances of one dataclass. A field's metadata may hold
            what the table needs: `label`, `format` (a format specification such as
            ".1%"), `table=False` to leave it out, and `spectrum=True` of numbers,
            largest first, which a notebook draws and a terminal leaves out.
        title: String, printed above the table.
        caption: Optional string, printed below the table: what a reader must
            know to read the numbers.

    Example:
    >>> import dataclasses
    >>> @dataclasses.dataclass
    ... class Row:
    ...     name: str
    ...     stable_rank: float
    >>> rows = Rows([Row("dense", 2.5)], title="Spectrum")
    >>> rows.to_dicts()
    [{'name': 'dense', 'stable_rank': 2.5}]
    >>> rows.to_frame().shape
    (1, 2)
    """

    def __init__(self, rows, title="", caption=None):
        self.rows = list(rows)
        self.title = title
        self.caption = caption

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator:
        return iter(self.rows)

    def __getitem__(self, index):
        return self.rows[index]

    def to_dicts(self) -> list[dict]:
        """Return one JSON-ready dict a row."""
        return [plain(row) for row in self.rows]

    def to_json(self, indent=2) -> str:
        """Return the rows as a JSON array; NaN and infinity become null."""
        return json.dumps(self.to_dicts(), indent=indent, allow_nan=False)

    def content(self):
        """Return what a file of the result holds, JSON-ready; a page is made of it."""
        return {"title": self.title, "caption": self.caption, "rows": self.to_dicts()}

    def to_frame(self):
        """Return the rows as a `pandas.DataFrame`."""
        import pandas

        return pandas.DataFrame(self.to_dicts())

    def tables(self) -> list:
        """Return what is shown: `tables.Table`s, and strings, which are paragraphs."""
        if not self.rows:
            return [Table(self.title, [], [])]
        fields = [
            field
            for field in dataclasses.fields(self.rows[0])
            if field.metadata.get("table", True)
        ]
        forms = [(field.name, field.metadata.get("format")) for field in fields]
        rows = [
            [cell(python_scalar(getattr(row, name)), form) for name, form in forms]
            for row in self.rows
        ]
        columns = [self._column(field) for field in fields]
        return [Table(self.title, columns, rows, self.caption)]

    def _column(self, field):
        kind, values = "text", (getattr(row, field.name) for row in self.rows)
        known = python_scalar(next((x for x in values if x is not None), None))
        if field.metadata.get("spectrum"):
            kind = "spectrum"
        elif isinstance(known, (int, float)) and not isinstance(known, bool):
            kind = "number"
        elif field.name in ("name", "node"):
            kind = "name"
        return Column(field.metadata.get("label") or field.name.replace("_", " "), kind)

    def __rich__(self):
        from rich.console import Group
        from rich.text import Text

        return Group(
            *(
                part if isinstance(part, Table) else Text(printable(part, _PARAGRAPH))
                for part in self.tables()
            )
        )

    def _repr_html_(self) -> str:
        return notebook(self.tables())

    def __str__(self) -> str:
        import io

        from keras_spectral.terminal import Console

        stream = io.StringIO()
        Console(file=stream, width=110).print(self)
        return stream.getvalue().rstrip()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.title!r}: {len(self)} rows>"
