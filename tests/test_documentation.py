"""What the pages show runs: Python in order, one namespace a page, and commands."""

import importlib.util
import re
import runpy
import shlex
import subprocess
import sys
import tomllib

import pytest
import typer

from keras_spectral import cli
from keras_spectral.cli import app
from tests.documentation import PAGES, ROOT, blocks

VERBS = typer.main.get_command(app.app).commands
README = ROOT / "README.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# What a page prints, somewhere.
SHOWN = {
    "gan_metrics": "train 400 / 200",
    "heavy_tails": "truncated_power_law",
    "measures": "Jac-Norm",
}
WITH_CODE = [
    page
    for page in PAGES
    if any(b.runs and b.language in ("python", "bash") for b in blocks(page))
]


def named(pages):
    return [pytest.param(page, id=page.stem) for page in pages]


def verb(words):
    """The arguments of a command of ours, or `None`."""
    words = [word for word in words if "=" not in word or word.startswith("-")]
    if not words:
        return None
    if words[0].rsplit("/", 1)[-1] == "keras-spectral":
        return words[1:]
    return words[3:] if words[1:3] == ["-m", "keras_spectral"] else None


def check_command(words):
    """A command is one that is there, with options that it has."""
    arguments = verb(words)
    if arguments is not None:
        if arguments and not arguments[0].startswith("-"):
            # Wrong options or missing ones raise.
            VERBS[arguments[0]].make_context(arguments[0], arguments[1:]).close()
        return
    extras = re.findall(r"(?:keras-spectral|\.)\[([\w,]+)\]", " ".join(words))
    for extra in ",".join(extras).split(",") if extras else ():
        assert extra in PROJECT["project"]["optional-dependencies"], extra
    if "-m" in words:
        module = words[words.index("-m") + 1]
        assert module in ("venv", "pip") or importlib.util.find_spec(module), module
    for word in words:
        if re.fullmatch(r"(tests|examples|benchmarks|docs|zoo|\.ci)/[\w/.]+", word):
            assert (ROOT / word).exists(), word


@pytest.mark.parametrize("page", named([*PAGES, README, CONTRIBUTING]))
def test_blocks_compile_and_commands_parse(page):
    for block in blocks(page):
        if block.language == "python":
            compile(block.text, page.name, "exec")
        elif block.language == "bash":
            for words in block.commands():
                check_command(words)


@pytest.mark.parametrize(
    "words",
    [
        ["keras-spectral", "nosuch"],
        ["keras-spectral", "demo", "--nosuch"],
        ["python", "examples/nosuch.py"],
        ["python", "-m", "tests.nosuch"],
        ["pip", "install", "keras-spectral[nosuch]"],
    ],
)
def test_a_command_that_is_none_is_found(words):
    with pytest.raises((KeyError, AssertionError, typer.BadParameter.__base__)):
        check_command(words)


def test_commands_of_the_release_s_check_parse():
    text = (ROOT / ".ci" / "release").read_text(encoding="utf-8")
    calls = re.findall(r"""/bin/keras-spectral"? ([^&|)>\n\\]+)""", text)
    assert len(calls) == 3
    for call in calls:
        check_command(["keras-spectral", *shlex.split(call)])


@pytest.mark.parametrize("page", named(WITH_CODE))
def test_a_page_runs(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"}
    for block in blocks(page):
        if not block.runs:
            continue
        if block.language == "python":
            # Blank lines before it, so that a traceback has the page's lines.
            text = "\n" * (block.line - 1) + block.text
            exec(compile(text, page.name, "exec"), names)
        elif block.language == "bash":
            for words in block.commands():
                arguments = verb(words)
                if arguments is not None:
                    with pytest.raises(SystemExit) as stop:
                        cli.main(arguments)
                    assert stop.value.code == 0, words
    assert SHOWN.get(page.stem, "") in capsys.readouterr().out


def test_the_site_is_built_and_loads_nothing(tmp_path):
    pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir"]
    built = subprocess.run(
        [*command, tmp_path], cwd=ROOT, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    # Names that are loaded when they are asked for are there, too.
    text = (tmp_path / "api" / "zoo.html").read_text(encoding="utf-8")
    assert 'id="keras_spectral.zoo.build"' in text
    assert "../references.html#sanyal2020" in text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('<script src="https://a.b/c.js"></script>', ["https://a.b/c.js"]),
        ('<link rel="stylesheet" href="//a.b/c.css">', ["//a.b/c.css"]),
        ("<img alt='' src='http://a.b/c.png'>", ["http://a.b/c.png"]),
        ("@import 'https://a.b/c.css';", ["https://a.b/c.css"]),
        ("src: url(https://a.b/c.woff2)", ["https://a.b/c.woff2"]),
        ('<a href="https://a.b">read</a> <img src="own.png">', []),
    ],
)
def test_what_a_page_loads_is_found(text, found):
    pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    hooks = runpy.run_path(str(ROOT / "docs" / "site_hooks.py"))
    assert hooks["requested"](text) == found


def test_the_quick_list_and_the_versions_stand():
    for line in (ROOT / "tests" / "quick.txt").read_text().split():
        assert (ROOT / line).exists(), line
    version = PROJECT["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text()
