"""Figures of a page as SVG: they follow its colours, print, and need no script.

A figure of matplotlib's takes ten times the bytes, and its colours do not change with a
dark page's. The table below each figure has its numbers; a script shows them where the
pointer is.
"""

import dataclasses
import math

from keras_spectral.markup import Markup, element, text

_WIDTH, _HEIGHT = 440, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 10, 40
# As many colours and dashes as the style has.
_STYLES = 6
_ROW = 38
# Differences of larger numbers are infinite.
_LARGEST = 1e300


@dataclasses.dataclass(frozen=True)
class Series:
    """Numbers that are drawn as one line, step or row of points.

    Args:
        label: String.
        x: List of numbers.
        y: List of numbers; `None` leaves a gap.
        kind: `"line"`, `"step"` or `"points"`.
    """

    label: str
    x: list
    y: list
    kind: str = "line"


@dataclasses.dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float
    logarithmic: bool

    def __call__(self, value):
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def describe(self):
        """Return what the script needs to find a number's place."""
        kind = "log" if self.logarithmic else "linear"
        ends = f"{self.low:.8g} {self.high:.8g} {self.start:g} {self.end:g}"
        return f"{kind} {ends}"


def _scale(values, start, end, logarithmic):
    usable = [x for x in values if not logarithmic or x > 0]
    low, high = (min(usable), max(usable)) if usable else (1.0, 10.0)
    if logarithmic:
        factor = (high / low) ** 0.03 if high > low else 2.0
        return _Scale(low / factor, high * factor, start, end, True)
    margin = 0.04 * (high - low) or abs(high) * 0.1 or 1.0
    return _Scale(low - margin, high + margin, start, end, False)


def ticks(low: float, high: float, logarithmic: bool) -> list[float]:
    """Return the few numbers that an axis names.

    Args:
        low: Float, where it begins.
        high: Float, where it ends.
        logarithmic: Boolean.

    Example:
    >>> ticks(0.02, 40, True), ticks(0, 1, False)
    ([0.1, 1.0, 10.0], [0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    """
    if logarithmic:
        first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
        if last - first >= 2:
            return [10.0**k for k in range(first, last + 1, 1 + (last - first) // 6)]
        found = [
            m * 10.0**k
            for k in range(first - 1, last + 1)
            for m in (1, 2, 5)
            if low <= m * 10.0**k <= high
        ]
        if len(found) > 1:
            return found
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(m for m in (1, 2, 5, 10) if m * power >= rough * 0.8)
    first = math.ceil(low / step - 1e-9)
    return [
        round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)
    ]


def _named(value):
    """Return a tick's text; powers of ten far from 1 stand as such."""
    if value and not 1e-3 <= abs(value) < 1e5:
        power = math.floor(math.log10(abs(value)) + 1e-9)
        digits = f"{value / 10.0**power:g}"
        start = "10" if digits == "1" else f"{digits}e"
        if digits == "1":
            return [start, element("tspan", power, dy="-4", font_size="8")]
        return f"{start}{power}"
    return f"{value:g}"


def _axes(x, y, x_label, y_label):
    parts = []
    for value in ticks(y.low, y.high, y.logarithmic):
        at = f"{y(value):.1f}"
        parts += [
            element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=at, y2=at, class_="grid"),
            element("text", _named(value), x=_LEFT - 6, y=f"{y(value) + 4:.1f}",
                    text_anchor="end"),
        ]  # fmt: skip
    foot = _HEIGHT - _BOTTOM
    for value in ticks(x.low, x.high, x.logarithmic):
        at = f"{x(value):.1f}"
        parts += [
            element("line", x1=at, x2=at, y1=foot, y2=foot + 4, class_="axis"),
            element("text", _named(value), x=at, y=foot + 17, text_anchor="middle"),
        ]
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    up = (_TOP + foot) / 2
    return [
        *parts,
        element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=foot, y2=foot, class_="axis"),
        element("text", x_label, x=middle, y=_HEIGHT - 6, text_anchor="middle"),
        element("text", y_label, x=-up, y=12, text_anchor="middle",
                transform="rotate(-90)"),
    ]  # fmt: skip


def _path(series, x, y):
    parts, drawing = [], False
    last = None
    for a, b in zip(series.x, series.y, strict=True):
        if b is None or (y.logarithmic and b <= 0) or (x.logarithmic and a <= 0):
            drawing = False
            continue
        across, up = f"{x(a):.1f}", f"{y(b):.1f}"
        if not drawing:
            parts.append(f"M{across} {up}")
        elif series.kind == "step":
            parts.append(f"H{across}V{up}")
        elif (across, up) != last:
            parts.append(f"L{across} {up}")
        drawing, last = True, (across, up)
    # Longer than any text, which would be cut.
    return Markup("".join(parts))


def _drawn(number, series, x, y):
    style = f"series-{number % _STYLES}"
    if series.kind != "points" and len(series.x) > 1:
        return element("path", d=_path(series, x, y), class_=f"curve {style}")
    return [
        element(
            "circle", cx=f"{x(a):.1f}", cy=f"{y(b):.1f}", r=3, class_=f"dot {style}"
        )
        for a, b in zip(series.x, series.y, strict=True)
        if b is not None and (b > 0 or not y.logarithmic)
    ]


def _legend(labels, marks=(), points=()):
    if len(labels) < 2 and not marks:
        return None
    samples = []
    for number, label in enumerate(labels):
        style = f"series-{number % _STYLES}"
        sample = element("path", d="M1 5H25", class_=f"curve {style}")
        if label in points:
            sample = element("circle", cx=13, cy=5, r=4, class_=f"dot {style}")
        samples.append((sample, label))
    samples += [(element("path", d="M13 0V10", class_="mark"), x) for _, x in marks]
    return element(
        "ul",
        [
            element(
                "li",
                element("svg", sample, viewBox="0 0 26 10", width=26, height=10,
                        aria_hidden="true"),
                label,
            )
            for sample, label in samples
        ],
        class_="legend",
    )  # fmt: skip


def _numbers(heads, rows):
    """Return the table of a figure, which is as good as the figure."""
    lines = "".join(
        "<tr>" + "".join(f"<td>{text(cell)}" for cell in row) for row in rows
    )
    head = element("tr", [element("th", x, scope="col") for x in heads])
    table = element(
        "table", element("thead", head), element("tbody", Markup(lines)), class_="data"
    )
    box = element(
        "div", table, class_="scrolls", tabindex="0", role="group",
        aria_label="Numbers of the figure",
    )  # fmt: skip
    return element("details", element("summary", "Numbers"), box)


def _figure(title, note, drawing, height, legend, numbers, **attributes):
    caption = element("figcaption", element("b", title), note and f" {note}")
    svg = element(
        "svg",
        element("title", title),
        drawing,
        viewBox=f"0 0 {_WIDTH} {height}",
        role="img",
        **attributes,
    )
    return element("figure", caption, svg, legend, numbers, class_="chart")


def _text(value):
    return "" if value is None else f"{value:.4g}"


def chart(
    title: str,
    series,
    x_label: str,
    y_label: str,
    logarithmic=(False, False),
    marks=(),
    note: str | None = None,
) -> Markup:
    """Return a figure of lines, with its caption, legend and numbers.

    Args:
        title: String.
        series: List of `Series`.
        x_label: String.
        y_label: String.
        logarithmic: Tuple of two booleans, of the axes.
        marks: List of (x, label), vertical lines.
        note: String, the caption's second sentence.
    """
    marks = [
        (x, label)
        for x, label in marks
        if _drawable(x) is not None and (x > 0 or not logarithmic[0])
    ]
    series = [_of_numbers(each) for each in series]
    across = [x for each in series for x in each.x] + [x for x, _ in marks]
    up = [y for each in series for y in each.y if y is not None]
    x = _scale(across, _LEFT, _WIDTH - _RIGHT, logarithmic[0])
    y = _scale(up, _HEIGHT - _BOTTOM, _TOP, logarithmic[1])
    drawing = [_axes(x, y, x_label, y_label)]
    for at, _ in marks:
        place = f"{x(at):.1f}"
        drawing.append(
            element("path", d=f"M{place} {_TOP}V{_HEIGHT - _BOTTOM}", class_="mark")
        )
    drawing += [_drawn(number, each, x, y) for number, each in enumerate(series)]
    labels = [each.label for each in series]
    points = [each.label for each in series if each.kind == "points"]
    rows: dict = {}
    for index, each in enumerate(series):
        for a, b in zip(each.x, each.y, strict=True):
            rows.setdefault(a, [None] * len(series))[index] = b
    numbers = _numbers(
        [x_label, *labels],
        [[_text(a), *map(_text, found)] for a, found in sorted(rows.items())],
    )
    return _figure(
        title, note, drawing, _HEIGHT, _legend(labels, marks, points), numbers,
        data_x=x.describe(),
    )  # fmt: skip


def dots(title: str, rows, labels, unit: str, note: str | None = None) -> Markup:
    """Return a figure of numbers with intervals, a line a name.

    Args:
        title: String.
        rows: List of (name, list of (value, half the width of its interval) or `None`,
            one a label).
        labels: List of strings.
        unit: String, what the numbers are.
        note: String, the caption's second sentence.
    """
    rows = [
        (
            name,
            [
                None
                if point is None or _drawable(point[0]) is None
                else (point[0], _drawable(point[1]))
                for point in found
            ],
        )
        for name, found in rows
    ]
    ends = [
        value + sign * (half or 0)
        for _, found in rows
        for value, half in filter(None, found)
        for sign in (-1, 1)
    ]
    x = _scale(ends, 8, _WIDTH - 24, False)
    foot = _TOP + _ROW * len(rows)
    drawing = []
    for value in ticks(x.low, x.high, False):
        at = f"{x(value):.1f}"
        drawing += [
            element("line", x1=at, x2=at, y1=_TOP, y2=foot, class_="grid"),
            element("text", _named(value), x=at, y=foot + 15, text_anchor="middle"),
        ]
    drawing.append(
        element("text", unit, x=_WIDTH / 2, y=foot + 32, text_anchor="middle")
    )
    for line, (name, found) in enumerate(rows):
        top = _TOP + _ROW * line
        drawing.append(element("text", name, x=0, y=top + 12, class_="name"))
        for number, point in enumerate(found):
            if point is None:
                continue
            value, half = point
            style = f"series-{number % _STYLES}"
            place, up = f"{x(value):.1f}", top + 26
            if half:
                path = f"M{x(value - half):.1f} {up}H{x(value + half):.1f}"
                drawing.append(element("path", d=path, class_=f"interval {style}"))
            drawing.append(
                element("circle", cx=place, cy=up, r=4, class_=f"dot {style}")
            )
    heads = ["name", *(f"{label}" for label in labels)]
    numbers = _numbers(
        heads,
        [
            [name, *("" if point is None else _point(*point) for point in found)]
            for name, found in rows
        ],
    )
    return _figure(
        title, note, drawing, foot + 40, _legend(labels, points=labels), numbers
    )  # fmt: skip


def _drawable(value):
    """Return a number that has a place on an axis, or `None`."""
    return value if value is not None and abs(value) < _LARGEST else None


def _of_numbers(series):
    pairs = zip(series.x, series.y, strict=True)
    pairs = [(x, _drawable(y)) for x, y in pairs if _drawable(x) is not None]
    x, y = zip(*pairs, strict=True) if pairs else ((), ())
    return dataclasses.replace(series, x=x, y=y)


def _point(value, half):
    return f"{value:.4g}" + (f" ± {half:.2g}" if half else "")


def thinned(count: int, most: int) -> list[int]:
    """Return places in a list, denser at its beginning, the first and the last.

    Args:
        count: Integer, the list's length.
        most: Integer >= 2, how many places at most.

    Example:
    >>> thinned(4, 9), thinned(1000, 5)
    ([0, 1, 2, 3], [0, 5, 31, 177, 999])
    """
    if count <= most:
        return list(range(count))
    return sorted({round(count ** (i / (most - 1))) - 1 for i in range(most)})
