"""Rows: the one form in which measures and compressions return results."""

import dataclasses
import json
import math
from collections.abc import Iterator
from typing import Literal

from keras_spectral.printable import printable

# What a run's results are of, as their files say.
RunStatus = Literal["running", "complete", "interrupted", "failed"]


def _plain(value):
    """Return `value` as a type that JSON has (NaN and infinity become null)."""
    if dataclasses.is_dataclass(value):
        return {
            field.name: _plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
        }
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _cell(value, form) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float):
        return format(value, form or ".4g")
    # Names are a stranger's.
    return printable(str(value))


class Rows:
    """A list of equal dataclass rows with a title.

    It prints itself as a table (`rich`), and turns into a pandas frame or JSON.

    Args:
        rows: List of instances of one dataclass. A field's metadata may hold
            what the printed table needs: `label`, `format` (a format
            specification such as ".1%"), and `table=False` to leave it out.
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
        return [_plain(row) for row in self.rows]

    def to_json(self, indent=2) -> str:
        """Return the rows as a JSON array; NaN and infinity become null."""
        return json.dumps(self.to_dicts(), indent=indent, allow_nan=False)

    def to_frame(self):
        """Return the rows as a `pandas.DataFrame`."""
        import pandas

        return pandas.DataFrame(self.to_dicts())

    def __rich__(self):
        from rich.table import Table
        from rich.text import Text

        if not self.rows:
            return Text(f"{printable(self.title)}: no rows")
        table = Table(
            title=Text(printable(self.title)),
            caption=self.caption,
            title_justify="left",
            caption_justify="left",
        )
        fields = [
            field
            for field in dataclasses.fields(self.rows[0])
            if field.metadata.get("table", True)
        ]
        for field in fields:
            numeric = isinstance(getattr(self.rows[0], field.name), (int, float))
            table.add_column(
                field.metadata.get("label") or field.name.replace("_", " "),
                justify="right" if numeric else "left",
            )
        for row in self.rows:
            table.add_row(
                *(
                    # `Text` reads no markup, on whatever console.
                    Text(_cell(getattr(row, field.name), field.metadata.get("format")))
                    for field in fields
                )
            )
        return table

    def __str__(self) -> str:
        import io

        from keras_spectral.terminal import Console

        stream = io.StringIO()
        Console(file=stream, width=110).print(self)
        return stream.getvalue().rstrip()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.title!r}: {len(self)} rows>"
