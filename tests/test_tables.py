import csv
import dataclasses
import io
import math
import re
import sys
from html.parser import HTMLParser

import rich.console
import rich.jupyter
from rich.progress import Progress

from keras_spectral import markup
from keras_spectral.results import Rows
from keras_spectral.tables import Cell, Column, Table, cell
from keras_spectral.terminal import Console

HOSTILE = "</script><script>alert(1)</script><!-- \" ' &lt; \x1b[2J \u202e"


@dataclasses.dataclass
class Row:
    name: str
    norm: float | None
    values: tuple = dataclasses.field(metadata={"spectrum": True, "label": "drawn"})


class Read(HTMLParser):
    """What a reader without scripts has: texts by tag, and the tags."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.texts = [], {}
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.setdefault(self.tags[-1][0], []).append(data)


def test_markup_escapes_all_but_itself():
    made = markup.element("p", "<b>", markup.element("b", "&"), None, [1, "<"], id="<")
    assert made == '<p id="&lt;">&lt;b&gt;<b>&amp;</b>1&lt;</p>'
    assert markup.element("path", d="M0") == '<path d="M0"/>'


def test_a_notebook_shows_the_rows_and_hostile_names_are_text():
    rows = Rows([Row(HOSTILE, 1.5, (4.0, 2.0, 1.0)), Row("b", None, ())], title=HOSTILE)
    read = Read(rows._repr_html_())
    tags = [tag for tag, _ in read.tags]
    # One script, ours; the name is in one cell, and obeys nobody.
    assert tags.count("script") == 1 and tags.count("svg") == 1
    # Names may be broken after a separator, with nothing in between.
    shown = "".join(read.texts["td"] + read.texts["wbr"])
    assert "alert(1)" in shown and "\x1b" not in shown and "\u202e" not in shown
    assert read.texts["th"] == ["name", "norm", "drawn"]
    assert {"1.5", "-"} <= set(read.texts["td"])
    assert ("th", {"scope": "col", "class": "number"}) in read.tags


def test_no_rows_are_told_of():
    assert "Nothing: no rows" in Rows([], title="Nothing")._repr_html_()


def test_a_spectrum_is_drawn_from_the_largest_down():
    html = Rows([Row("a", 1.0, (100.0, 10.0, 1.0, 1e-20, 0.0))])._repr_html_()
    points = dict(next(x for x in Read(html).tags if x[0] == "polyline")[1])["points"]
    # 10 is half way between 100 and 1; what is rounding is no spectrum.
    assert points == "1,1 48,10 95,19"


def test_csv_holds_the_numbers_and_no_formulas():
    columns = [Column("name"), Column("share", "number"), Column("x", "spectrum")]
    rows = [[Cell("=1+1"), cell(1 / 3, ".1%"), cell((1.0,))], [cell("a,b"), cell(None),
            cell(())]]  # fmt: skip
    text = Table("", columns, rows).to_csv()
    assert list(csv.reader(io.StringIO(text))) == [
        ["name", "share"],
        ["'=1+1", str(1 / 3)],
        ["a,b", "-"],
    ]
    # Heads may be keys of somebody's JSON.
    head = Table("", [Column("=\x1b[2J\u202e")], rows[:0]).to_csv()
    assert head == "'=\\x1b[2J\\u202e\n"


def test_infinity_sorts_where_a_script_reads_it():
    html = Table("", [Column("x", "number")], [[cell(math.inf)], [cell(-math.inf)]])
    assert re.findall(r'data-value="([^"]*)"', html.to_html()) == [
        "Infinity",
        "-Infinity",
    ]


def test_long_names_break_after_separators_and_stay_whole():
    name = "encoder.blocks.11.attention.query_projection.kernel"
    table = Table("", [Column("tensor", "name"), Column("n", "number")], [])
    table.rows.append([Cell(name), cell(12345)])
    stream = io.StringIO()
    Console(file=stream, width=44).print(table)
    lines = [
        line.split("│")[1] for line in stream.getvalue().splitlines() if "│" in line
    ]
    pieces = [line.strip() for line in lines]
    assert "".join(pieces) == name and len(pieces) > 1
    assert all(piece[-1] in ".-/_" for piece in pieces[:-1])


def test_no_word_is_cut_however_narrow_the_terminal():
    """Two tensors whose names begin alike could not be told apart."""
    words = ["stage.of.a.network.kernel", "a" * 30 + "b"]
    columns = [Column("tensor", "name"), Column("what"), Column("n", "number")]
    table = Table("", columns, [[*map(Cell, words), cell(10**12)]])
    stream = io.StringIO()
    Console(file=stream, width=30).print(table)
    lines = [x.split("│") for x in stream.getvalue().splitlines() if "│" in x]
    shown = ["".join(x.strip() for x in column) for column in zip(*lines, strict=True)]
    assert shown[1:-1] == [*words, str(10**12)]


def test_in_a_pipe_names_are_whole(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    name = "encoder.blocks.11.attention.query_projection.kernel" * 3
    Console().print(Table("", [Column("tensor", "name")], [[Cell(name)]]))
    assert name in sys.stdout.getvalue()


def test_in_a_notebook_texts_are_returned_and_no_bar_is_shown(monkeypatch, capsys):
    monkeypatch.setattr(rich.console, "_is_jupyter", lambda: True)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    shown = []
    monkeypatch.setattr(rich.jupyter, "display", lambda *found: shown.append(found))
    rows = Rows([Row("conv1", 2.0, (2.0, 1.0))], title="Layers")
    assert "conv1" in str(rows)
    Console().print(rows)
    with Progress(console=Console()) as bar:
        bar.add_task("samples", total=2)
    printed = capsys.readouterr().out
    assert "conv1" in printed and "\x1b" not in printed and not shown
