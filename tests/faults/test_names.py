"""Whatever names a file holds, what is shown of it is printable and short."""

import contextlib
import dataclasses
import io
import json
import random
import subprocess
import sys
import warnings

import keras
import matplotlib.text
import numpy as np
import pytest
import rich.console

from keras_spectral import cli
from keras_spectral.convert import (
    CheckpointError,
    MismatchError,
    UnsafeCheckpointError,
    provenance,
)
from keras_spectral.experiments.analysis_rows import Analysis
from keras_spectral.printable import printable
from keras_spectral.results import Rows
from keras_spectral.terminal import Console
from tests.faults import mutations, names
from tests.test_results import Row

# Words of ours and a few hundred characters; a table's line is as wide in a pipe.
LONGEST_LINE, MOST_LINES = 1200, 60


def command(*arguments):
    """Run a command and return (exit code, stdout, stderr)."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main([str(argument) for argument in arguments])
            code = 0
        except SystemExit as stop:
            code = stop.code
    return code, out.getvalue(), err.getvalue()


def check(text, longest=LONGEST_LINE):
    lines = text.split("\n")
    assert all(line.isprintable() for line in lines), ascii(text)[:2000]
    assert len(lines) < MOST_LINES and max(map(len, lines)) <= longest, text[:2000]


@pytest.mark.parametrize("kind", names.NAMES)
def test_commands_that_read(kind, tmp_path):
    path = tmp_path / "a"
    outcomes = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        contents = names.files(names.NAMES[kind])
    for place, content in contents.items():
        path.write_bytes(content)
        for verb in (["inspect", path], ["analyze", path], ["verify", path, path]):
            code, out, err = command(*verb)
            assert code in (0, 1, 2, 3), (place, verb, code)
            outcomes.add((code, verb[0]))
            check(out), check(err)
            code_json, out, err = command(*verb, "--json")
            assert code_json == code
            check(err)
            if code < 2:
                assert out.isascii() and json.loads(out)
                if kind != "a megabyte":
                    assert all(line.isprintable() for line in out.split("\n"))
    # Each kind is refused somewhere, and for most of them something is read.
    assert {code for code, _ in outcomes} >= {2, 3}


def test_markup_is_shown_as_it_stands(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(names.header(key="[red]x[/red] :skull:"))
    assert "[red]x[/red] :skull:" in command("inspect", path)[1]
    content = names.files("[red]x[/red] :skull:")["torch, key"]
    path.write_bytes(content)
    assert "[red]x[/red] :skull:" in command("analyze", path)[1]


@pytest.mark.parametrize("kind", names.NAMES)
def test_commands_that_start_keras(kind, tmp_path):
    path, output = tmp_path / "a.keras", tmp_path / "o"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        contents = names.files(names.NAMES[kind])
    for place in ("layer", "class", "variable", "card", "dialect", "torch, key"):
        path.write_bytes(contents[place])
        for verb in (
            ["convert", path, "--output", f"{output}.keras"],
            ["convert", path, "--model", "resnet20_cifar10", "--output", "o.keras"],
            ["export", path, "--output", f"{output}.safetensors"],
            ["compress", path, "--output", output, "--trials", 2],
            ["bound", path, "--data", "digits"],
        ):
            code, out, err = command(*verb)
            assert code in (0, 1, 2, 3), (place, verb, code)
            check(out), check(err)


@pytest.mark.parametrize("name", ["$\\frac{", "$x$", "a\x1b[2J\u202e$", "b" * 5000])
def test_figures(name, tmp_path):
    from keras_spectral import report
    from keras_spectral.experiments import analyze_checkpoint

    np.savez(tmp_path / "a.npz", w=np.random.default_rng(0).standard_normal((20, 20)))
    (row,) = analyze_checkpoint(tmp_path / "a.npz").rows
    figure = report.analysis_figure([dataclasses.replace(row, name=name)])
    figure.savefig(io.BytesIO(), format="svg")
    for artist in figure.findobj(matplotlib.text.Text):
        shown = artist.get_text()
        assert "1: " not in shown or (shown.isprintable() and len(shown) < 70)
        assert "frac" not in shown or "\\$" in shown


@pytest.mark.parametrize(
    "card", [3, {"notes": 3}, {"verification": {"scope": "all"}}, {"not_seen": [[]]}]
)
def test_a_card_that_is_none_says_nothing(card, tmp_path):
    path = tmp_path / "a.keras"
    path.write_bytes(names.keras_model(card=card))
    assert provenance(path) == {}
    code, out, err = command("convert", path, "--output", tmp_path / "b.keras")
    assert code == 0 and not err and "Not seen" not in out


def test_compressed_files(tmp_path):
    from keras_spectral import compression

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="fc")])
    small = compression.compress(model, seed=1)
    path = tmp_path / "a.safetensors"
    compression.save_compressed(small, path)
    content = path.read_bytes()
    for seed in range(60):
        source = random.Random(seed)
        path.write_bytes(mutations.compressed_changed(content, source, content))
        try:
            compression.load_compressed(path)
        except ValueError as error:
            check(str(error))


def test_sweeps_show_names_of_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "weights"
    folder.mkdir()
    for name in ("a\x1b[2J\u202e.pth", "resnet20_cifar10-\x1b[2J.pth", "b[red].keras"):
        (folder / name).write_bytes(names.files(names.COMMANDS)["torch, key"])
    code, out, err = command(
        "sweep", "--checkpoints", folder, "--workers", 0, "--output", "o"
    )
    assert code in (1, 2)
    check(out), check(err)
    check((tmp_path / "o" / "table.md").read_text(encoding="utf-8"))
    assert "\\x1b" in out and "b[red]" in out


@pytest.mark.parametrize("name", ["a\x1b[2J\u202e\n", "\udcff\x9b", "[red]x[bold]"])
def test_names_of_files_and_arguments(name, tmp_path):
    path = tmp_path / name
    for verb in ("inspect", "analyze"):
        for arguments in ([path], [path, name], [f"--{name}"]):
            code, out, err = command(verb, *arguments)
            assert code == 2
            check(out), check(err)
    check(command(name)[2]), check(command(f"--{name}")[2])
    path.write_bytes(names.files("w")["torch, key"])
    for verb in (["inspect", path], ["analyze", path], ["verify", path, path]):
        code, out, err = command(*verb)
        assert code == 0
        check(out), check(err)
    assert command("inspect", path, "--json")[1].isascii()


def test_a_process_of_its_own_shows_the_same(tmp_path):
    (tmp_path / "\x1b[2J").write_bytes(names.files(names.COMMANDS)["function"])
    done = subprocess.run(
        [sys.executable, "-m", "keras_spectral.cli", "inspect", "\x1b[2J"],
        cwd=tmp_path, capture_output=True, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 3 and "\\x1b[2J holds" in done.stderr
    check(done.stdout), check(done.stderr)


@pytest.mark.parametrize("kind", names.NAMES)
@pytest.mark.parametrize(
    "error", [CheckpointError, UnsafeCheckpointError, MismatchError]
)
def test_errors(error, kind):
    name = names.NAMES[kind]
    raised = error(f"holds `{name}` in int8. Convert it.", name)
    assert str(raised).isprintable() and raised.reason.isprintable()
    assert len(str(raised)) < 1000
    # What to do stands at the end.
    assert str(raised).endswith(" in int8. Convert it.")


@pytest.mark.parametrize("kind", names.NAMES)
def test_rows_on_any_console(kind):
    name = names.NAMES[kind]
    for rows in (
        Rows([Row(name, 1.0, 0.5)], title=name),
        Rows([], title=name),
        Analysis([], title=name),
    ):
        check(str(rows))
        stream = io.StringIO()
        # Not ours: it would read markup, and a terminal's takes colours.
        rich.console.Console(file=stream, width=80).print(rows)
        check(stream.getvalue())
    if kind == "markup":
        assert "[red]x[/red]" in str(Rows([Row(name, 1.0, 0.5)]))


def test_a_console_shows_one_plain_line():
    stream = io.StringIO()
    console = Console(file=stream, width=4000)
    console.print("[bold]a[/bold]\n\x1b[2J", "b" * 5000, 3)
    assert stream.getvalue().startswith("[bold]a[/bold]\\n\\x1b[2J bbb")
    assert len(stream.getvalue()) < 1200


@pytest.mark.parametrize("most", [15, 100, 300])
@pytest.mark.parametrize("sign", ["a", "\x1b", "\ud800", "\U000e0001", "\u0300"])
@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 29, 31, 300, 601, 10**6])
def test_printable(most, sign, count):
    text = f"{sign * count}end"
    shown = printable(text, most)
    assert shown.isprintable() and len(shown) <= most
    assert shown.endswith("end")
    if len(text) <= most and text.isprintable():
        assert shown == text
    elif len(shown) < most:
        # As Python writes it.
        assert ascii(text)[1:-1] == shown or " ... " in shown
