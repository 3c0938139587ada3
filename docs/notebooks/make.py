"""Notebooks of the scripts in `examples/`, each run from its first cell to its last.

    python docs/notebooks/make.py [NAME ...]

A notebook is the script: its head in Markdown, a cell a function, and in the end a call
of `main` in place of the command line. They are run in an empty folder with what
`pip install '.[test]'` brings.
"""

import argparse
import ast
import os
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
EXAMPLES = FOLDER.parents[1] / "examples"

_IMAGE = 'from IPython.display import Image\n\nImage("{}", width=600)'
# What each ends in: the call, and what is shown of what it has written.
CALLS = {
    "certify_fashion_mnist": [
        'table = main(["--data", "digits", "--epochs", "10"])',
        "table",
    ],
    "sweep_digits": [
        'main(["--seeds", "1", "--workers", "0"])',
        _IMAGE.format("sweep_digits/figure3.png"),
    ],
    "train_srn_gan": ["main([])", _IMAGE.format("srn-gan/samples/epoch_0045.png")],
    "train_torch_resnet20": ["main([])"],
}


def cells_of(name):
    """Return a script's cells, pairs of the kind and the text.

    Args:
        name: String, the script's name without `.py`.
    """
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    lines, (head, *nodes) = text.splitlines(), ast.parse(text).body
    cells = [("markdown", _markdown(name, ast.literal_eval(head.value)))]
    start, joins = head.end_lineno, False
    for node in nodes:
        if isinstance(node, ast.If):  # Of the command line.
            break
        code = "\n".join(lines[start : node.end_lineno])
        alone = isinstance(node, (ast.FunctionDef, ast.ClassDef))
        if joins and not alone:  # Imports and constants stand together.
            cells[-1] = "code", f"{cells[-1][1]}\n{code}"
        else:
            cells.append(("code", code.strip("\n")))
        start, joins = node.end_lineno, not alone
    return cells + [("code", call) for call in CALLS[name]]


def _markdown(name, text):
    """Return a module's docstring with a title and its commands as blocks of code."""
    title, *rest = text.strip().split("\n\n")
    parts = [f"# {title.rstrip('.')}", f"The script is `examples/{name}.py`:"]
    for part in rest:
        lines = part.splitlines()
        if all(line.startswith("    ") for line in lines):
            part = "\n".join(["```bash", *(line[4:] for line in lines), "```"])
        parts.append(part)
    return "\n\n".join(parts)


def executed(name):
    """Return a notebook with its outputs, as text."""
    import nbformat
    from nbclient import NotebookClient

    new = nbformat.v4
    kinds = {"markdown": new.new_markdown_cell, "code": new.new_code_cell}
    cells = []
    for number, (kind, text) in enumerate(cells_of(name)):
        cells.append(kinds[kind](text, id=f"cell-{number}"))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = new.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook, timeout=None, kernel_name="python3", record_timing=False,
            resources={"metadata": {"path": folder}},
        )  # fmt: skip
        client.execute()
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = _shown(cell.outputs, folder)
    notebook.metadata.pop("language_info", None)
    return nbformat.writes(notebook) + "\n"


def _shown(outputs, folder):
    """Return outputs without what TensorFlow says of itself, and without paths."""
    found = []
    for output in outputs:
        text = output.get("text", "")
        if output.get("name") == "stderr" or text.startswith("WARNING:tensorflow"):
            continue
        if "text" in output:
            output.text = text.replace(os.path.realpath(folder), "FOLDER")
        found.append(output)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", default=list(CALLS), metavar="NAME")
    for name in parser.parse_args().names:
        text = executed(name)
        (FOLDER / f"{name}.ipynb").write_text(text, encoding="utf-8")
        print(FOLDER / f"{name}.ipynb", flush=True)
