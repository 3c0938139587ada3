"""Results side by side: A, B and their difference, a table a measure."""

import collections
import dataclasses

from keras_spectral.markup import element
from keras_spectral.report.charts import chart, dots
from keras_spectral.tables import Cell, Column, Table

# A figure of more lines is no figure.
_MOST_LINES = 40


def comparisons(named) -> list:
    """Return HTML that compares tables of one kind, row by row of the same names.

    Args:
        named: List of (letter, `Table`), two or more.

    Example:
    >>> from keras_spectral.tables import cell
    >>> tables = [
    ...     (letter, Table("", [Column("name", "name"), Column("norm", "number")],
    ...                    [[Cell("dense"), cell(norm)]]))
    ...     for letter, norm in (("A", 2.0), ("B", 3.5))
    ... ]
    >>> "1.5" in comparisons(tables)[0]
    True
    """
    first = named[0][1]
    labels = _telling(named)
    parts = []
    for column in first.columns:
        if column.kind == "number" and column.label:
            found = {letter: _values(table, column, labels) for letter, table in named}
            if len({key for values in found.values() for key in values}):
                parts.append(_compared(column.label.replace("\n", " "), found))
    return [
        element("details", element("summary", label), content, open=not number)
        for number, (label, content) in enumerate(parts)
    ]


def overlays(named) -> list:
    """Return figures of the curves that layers of one name have in several results.

    Args:
        named: List of (letter, dict from names to `charts.Series`).

    Example:
    >>> from keras_spectral.report.charts import Series
    >>> curves = {"dense": Series("eigenvalues", [2.0, 1.0], [0.5, 1.0], "step")}
    >>> len(overlays([("A", curves), ("B", curves)])), overlays([("A", curves)])
    (1, [])
    """
    lines: dict = {}
    for letter, curves in named:
        for name, curve in curves.items():
            found = lines.setdefault(name, [])
            found.append(dataclasses.replace(curve, label=letter))
    shared = {name: found for name, found in lines.items() if len(found) > 1}
    if not shared:
        return []
    figures = [
        chart(
            name, found, "eigenvalue", "share above", (True, True),
            note="eigenvalues of W'W.",
        )
        for name, found in list(shared.items())[:_MOST_LINES]
    ]  # fmt: skip
    left = len(shared) - len(figures)
    more = element("p", f"{left} more layers are not drawn.") if left else None
    summary = element("summary", "Spectra of the same layers, over each other")
    box = element("div", figures, class_="figures")
    return [element("details", summary, box, more)]


def _telling(named):
    """Return the labels of the columns by which rows are told apart, in all tables.

    These are names, and of texts as many as it takes; yes and no name nothing.
    """
    first = named[0][1]
    names = [column.label for column in first.columns if column.kind == "name"]
    texts = [
        column.label
        for place, column in enumerate(first.columns)
        if column.kind == "text"
        and not any(isinstance(row[place].value, bool) for row in first.rows)
    ]
    # Where there is neither, radii, say: the first number.
    labels = names or texts[:1] or [first.columns[0].label]
    for text in texts:
        keys = [_keys(table, labels) for _, table in named]
        if all(len(set(each)) == len(each) for each in keys):
            break
        if text not in labels:
            labels.append(text)
    return labels


def _keys(table, labels):
    """Return the words of each row."""
    places = [i for i, each in enumerate(table.columns) if each.label in labels]
    return [", ".join(row[i].text for i in places) for row in table.rows]


def _values(table, column, labels):
    """Return a dict from the words of each row to its cell of a column."""
    places = [i for i, each in enumerate(table.columns) if each.label == column.label]
    if not places:
        return {}
    found: dict = {}
    met: collections.Counter = collections.Counter()
    for key, row in zip(_keys(table, labels), table.rows, strict=True):
        met[key] += 1
        found[key if met[key] == 1 else f"{key} ({met[key]})"] = row[places[0]]
    return found


def _compared(label, found):
    letters = list(found)
    first, *others = letters
    keys = dict.fromkeys(key for values in found.values() for key in values)
    columns = [
        Column("name", "name"),
        *(Column(letter, "number") for letter in letters),
        *(Column(f"{letter} − {first}", "number") for letter in others),
    ]
    rows = []
    for key in keys:
        cells = [found[letter].get(key, Cell("-")) for letter in letters]
        rows.append([Cell(key), *cells, *(_less(cells[0], x) for x in cells[1:])])
    table = Table(
        label,
        columns,
        rows,
        "Differences sort by their size, whatever their sign. - where a result has no "
        "such row.",
    ).to_html()
    points = [
        (key, [_point(found[letter].get(key)) for letter in letters]) for key in keys
    ]
    shown = [(key, each) for key, each in points if any(each)]
    figure = None
    if 0 < len(shown) <= _MOST_LINES:
        figure = dots(label, shown, letters, label)
    return label, element("div", table, figure, class_="pair")


def _point(cell):
    value = None if cell is None else cell.value
    return (value, None) if isinstance(value, (int, float)) and value == value else None


def _less(first, other):
    if _point(first) is None or _point(other) is None:
        return Cell("-")
    difference = other.value - first.value
    text = f"{difference:+.4g}"
    if "%" in first.text:
        text = f"{100 * difference:+.2f} %"
    return Cell(text, abs(difference))
