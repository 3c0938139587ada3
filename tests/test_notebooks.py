"""Notebooks are the examples, and were run."""

import json
import runpy

import pytest

from tests.documentation import ROOT

FOLDER = ROOT / "docs" / "notebooks"
MAKE = runpy.run_path(str(FOLDER / "make.py"))


@pytest.mark.parametrize(
    "name", sorted(p.stem for p in (ROOT / "examples").glob("*.py"))
)
def test_a_notebook_is_its_script_and_was_run(name):
    notebook = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    found = [(x["cell_type"], "".join(x["source"])) for x in notebook["cells"]]
    assert found == MAKE["cells_of"](name)
    # Cells are the whole script but for the call of the command line.
    script = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")
    code = [text for kind, text in found if kind == "code"]
    lines = [line for text in code for line in text.splitlines() if line]
    wanted = [line for line in script.splitlines() if line]
    assert set(wanted[wanted.index("import argparse") : -2]) - set(lines) <= {
        "# Dask's workers import this file: without the guard each would start a sweep."
    }
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [x["execution_count"] for x in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert outputs and not any(x["output_type"] == "error" for x in outputs)
    assert "/tmp" not in json.dumps(outputs)
