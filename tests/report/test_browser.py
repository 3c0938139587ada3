"""Pages in Chromium: what a reader meets, with scripts, without, and by keyboard."""

import csv
import io
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from keras_spectral import report
from keras_spectral.experiments.analysis_rows import Analysis, AnalysisRow
from tests.report import made

# Taken from their registry when the tests run: nothing of them is in the repository.
PACKAGES = ("playwright-core@1", "axe-core@4")


@pytest.fixture(scope="module")
def modules(request):
    """The folder of the packages, which stays from run to run."""
    for program in ("chromium", "node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    folder = request.config.cache.mkdir("browser")
    if not (folder / "node_modules/axe-core/axe.min.js").is_file():
        done = subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts",
             "--prefix", folder, *PACKAGES],
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"npm: {done.stderr.strip().splitlines()[-1:]}")
    return folder / "node_modules"


@pytest.fixture(scope="module")
def seen(modules, tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    page, notebook = folder / "page.html", folder / "notebook.html"
    page.write_text(report.page(made.everything(), "keras-spectral report a b"))
    content = made.analysis(made.NAMES)
    rows = [AnalysisRow(**{**row, "kurtosis": 0.0}) for row in content["tensors"]]
    # A notebook has a head and colours of its own.
    notebook.write_text(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Notebook</title>"
        "<style>@media (prefers-color-scheme: dark) "
        "{body {background: #111; color: #ddd}}"
        f"</style><main><h1>Notebook</h1>{Analysis(rows)._repr_html_()}</main>"
    )
    # A module is looked for beside the script.
    script = shutil.copy(Path(__file__).with_name("browser.mjs"), modules.parent)
    done = subprocess.run(
        ["node", script, page, notebook, folder / "page.pdf", modules],
        capture_output=True,
        text=True,
        env={**os.environ, "CHROMIUM": shutil.which("chromium")},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) | {"pdf": folder / "page.pdf"}


def test_nothing_is_asked_for_and_nothing_complains(seen):
    asked = {url.partition(":")[0] for url in seen["requests"]}
    assert asked <= {"file", "data"} and seen["noise"] == []
    assert sum(url.startswith("file:") for url in seen["requests"]) == 9


def test_names_from_a_file_do_nothing(seen):
    assert seen["hacked"] is False and seen["scripts"] == 1
    assert made.HOSTILE in seen["plain"].replace("\n", "")


def test_axe_finds_nothing(seen):
    assert seen["axe"] == []


def test_nothing_scrolls_sideways(seen):
    assert seen["sideways"] == []


def test_every_figure_has_a_caption_and_its_numbers(seen):
    assert len(seen["figures"]) > 20
    for figure in seen["figures"]:
        assert figure["caption"]
        assert figure.get("image") or (figure["numbers"] and figure["titled"])


def test_the_keyboard_sorts(seen):
    numbers = [float(text) for text in seen["ascending"]]
    assert len(set(numbers)) > 2 and numbers == sorted(numbers)
    assert seen["descending"] == seen["ascending"][::-1]
    assert seen["sort"] == "descending" and seen["focus"] != "none"


def test_words_filter(seen):
    assert seen["filtered"] and all("conv2" in name for name in seen["filtered"])
    assert seen["counted"] == f"{len(seen['filtered'])} of 10 rows"


def test_a_layer_opens_and_shows_what_is_under_the_pointer(seen):
    assert seen["opened"] == 1
    (text,) = seen["hover"]
    assert "eigenvalue: " in text and "eigenvalues: 0." in text


def test_the_numbers_can_be_taken_away(seen):
    found = json.loads(seen["downloads"]["result-1.json"])
    assert [row["name"] for row in found["tensors"]] == made.NAMES[:10]
    rows = list(csv.reader(io.StringIO(seen["downloads"]["result-1-1.csv"])))
    expected = made.analysis(made.NAMES[:10])["tensors"][0]["stable_rank"]
    assert float(rows[1][rows[0].index("stable rank")]) == expected


def test_without_scripts_all_is_there(seen):
    assert seen["buttons"] == 0
    for text in ("What was checked", "PASS", "UNTESTED", "stable rank", "SN is better"):
        assert text in seen["plain"]


def test_a_notebook_sorts_and_a_page_prints(seen):
    assert seen["notebook"] > 5
    assert seen["pdf"].read_bytes().startswith(b"%PDF")
