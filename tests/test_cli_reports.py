"""`--report` of every verb that ends in numbers, and the verb `report`."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

from keras_spectral.cli import app
from tests.test_cli import run

GROUP = typer.main.get_command(app.app)
WITHOUT = {"recipes", "export", "report"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two checkpoints of which one tensor differs."""
    folder = tmp_path_factory.mktemp("reports")
    rng = np.random.default_rng(0)
    arrays = {f"{name}.weight": rng.normal(size=(30, 20)) for name in ("body", "head")}
    np.savez(folder / "a.npz", **arrays)
    arrays["head.weight"] *= 2
    np.savez(folder / "b.npz", **arrays)
    return folder


@pytest.mark.parametrize("verb", app.VERBS)
def test_every_verb_that_ends_in_numbers_makes_a_page(verb):
    options = {o for p in GROUP.commands[verb].params for o in p.opts}
    assert ("--report" in options) == (verb not in WITHOUT)


def test_a_page_says_how_it_is_made_again(files, tmp_path, capfd):
    page = tmp_path / "two words.html"
    arguments = ["analyze", files / "a.npz", "--json", "--report", page]
    assert run(*arguments) == 0
    out, error = capfd.readouterr()
    assert json.loads(out)["tensors"][1]["name"] == "head.weight"
    assert str(page) in error
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>") and "head.weight" in text
    command = shlex.join(["keras-spectral", *map(str, arguments)])
    assert command.replace("'", "&#x27;") in text


def test_a_failing_comparison_has_a_page_and_its_code(files, tmp_path, capfd):
    page = tmp_path / "page.html"
    assert run("verify", files / "a.npz", files / "b.npz", "--report", page) == 1
    text = page.read_text(encoding="utf-8")
    assert "FAIL" in text and "1 of 2" in text and "head.weight" in text
    assert run("verify", files / "a.npz", files / "a.npz", "-q", "--report", page) == 0
    assert "PASS" in page.read_text(encoding="utf-8")


def test_saved_results_are_set_side_by_side(files, tmp_path, capfd):
    for name in "ab":
        arguments = ["--output", tmp_path / name, "--quiet"]
        assert run("analyze", files / f"{name}.npz", *arguments) == 0
    page = tmp_path / "page.html"
    runs = [tmp_path / "a", tmp_path / "b" / "analysis.json"]
    assert run("report", *runs, "--output", page, "--json") == 0
    out = json.loads(capfd.readouterr().out)
    assert out == {"output": str(page), "runs": [str(path) for path in runs]}
    text = page.read_text(encoding="utf-8")
    assert "B − A" in text and "a.npz" in text and "b.npz" in text


@pytest.mark.parametrize(
    "verb, option, value, message",
    [
        ("analyze", "--report", "page.pdf", "`--report` must end in .html"),
        ("report", "--output", "page", "`--output` must end in .html"),
    ],
)
def test_a_page_that_cannot_be_is_refused_first(
    verb, option, value, message, files, tmp_path, capfd
):
    assert run(verb, files / "a.npz", option, tmp_path / value) == 2
    out, error = capfd.readouterr()
    assert out == "" and message in error and not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="a folder nobody writes into")
def test_a_folder_that_cannot_be_written_is_told_of_before_the_work(files, capfd):
    missing = files / "a.npz", "--layout", "none"  # Would be the work's error.
    assert run("analyze", *missing, "--report", "/proc/page.html") == 2
    error = capfd.readouterr().err
    assert "`--report` must be in a folder that can be written" in error
    assert error.endswith("--report=/proc/page.html. Choose another folder.\n")


def test_what_is_no_result_and_what_is_not_there(files, tmp_path, capfd):
    page = tmp_path / "page.html"
    assert run("report", files, "--output", page) == 2
    assert "which holds no result. Name the file" in capfd.readouterr().err
    assert not page.exists()
    assert run("report", "missing", "--output", page) == 2
    assert capfd.readouterr().err.endswith("missing does not exist. Check the path.\n")
    assert run("report", files / "a.npz", "--output", page) == 2
    assert "is no result" in capfd.readouterr().err


def test_saved_results_need_no_framework(files, tmp_path):
    (tmp_path / "rows.json").write_text('[{"name": "a", "n": 1}]')
    code = (
        "import sys; from keras_spectral.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(sorted({'keras', 'tensorflow', 'torch', 'matplotlib'}"
        " & set(sys.modules)))"
    )
    arguments = ["report", tmp_path / "rows.json", "--output", tmp_path / "page.html"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
