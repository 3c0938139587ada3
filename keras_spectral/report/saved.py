"""Results that verbs have left in files."""

import base64
import json
from pathlib import Path

from keras_spectral.printable import printable

# What verbs write into their folders; a recipe's file has the recipe's name.
_NAMES = (
    *("analysis.json", "compression.json", "evaluation.json"),
    *("results.json", "table.json"),
)
# The spectra of a model of 70 billion numbers take a tenth of it.
_LARGEST = 2**28
_CELL = ("network", "variant", "seed", "error", "history")
# A page is to stay small, and a grid of 64 images is a hundred kilobytes.
_MOST_IMAGES, _LARGEST_IMAGE = 6, 2**18


def read_result(path: str | Path):
    """Return what a verb has left: what its `--json` prints.

    Args:
        path: Path of a `.json` file, or of the folder that a verb was given as
            `--output`.

    Returns:
        Dict or list; that of a recipe has its learning curves under `cells` and the
        images of its GANs under `images`, where they are in the folder.

    Raises:
        ValueError: If there is no result, or more than one.
        OSError: If a file cannot be read.
    """
    path = Path(path)
    file = _file_in(path) if path.is_dir() else path
    content = _read(file)
    if isinstance(content, dict) and {"rows", "claims"} <= content.keys():
        content = {**content, **_beside(file.parent, content)}
    return content


def _read(path):
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"{path} is larger than any result: {_LARGEST:,} bytes.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is no JSON ({type(error).__name__}). Name a file that a verb has "
            "left, such as analysis.json, or its folder."
        ) from None
    if not isinstance(content, (dict, list)):
        raise ValueError(f"{path} holds no result, but {printable(str(content), 40)}.")
    return content


def _file_in(folder):
    found = [folder / name for name in _NAMES if (folder / name).is_file()]
    if not found:
        found = [file for file in sorted(folder.glob("*.json")) if _is_recipe(file)]
    if len(found) == 1:
        return found[0]
    what = "no result" if not found else ", ".join(file.name for file in found)
    raise ValueError(
        "`runs` must be a file of a result, or a folder with one. Received: "
        f"runs={folder}, which holds {what}. Name the file."
    )


def _is_recipe(file):
    try:
        content = _read(file)
    except (ValueError, OSError):
        return False
    return isinstance(content, dict) and "rows" in content and "recipe" in content


def _beside(folder, content):
    """Return the curves and images that lie beside a recipe's table."""
    keys = [key for key in content.get("cells") or () if isinstance(key, str)]
    keys = [key for key in keys if Path(key).name == key]
    cells = []
    for key in keys:
        file = folder / "cells" / f"{key}.json"
        if file.is_file():
            row = _read(file)
            cells.append({name: row.get(name) for name in _CELL} | {"key": key})
    return {"cells": cells, "images": images_of(folder, keys)} if keys else {}


def images_of(folder, keys) -> list:
    """Return the grids of images of a run's cells: (title, data URI).

    Args:
        folder: Path of the run.
        keys: List of strings, the cells' keys.
    """
    found = []
    for key in keys:
        file = Path(folder) / "samples" / f"{key}.png"
        if file.is_file() and file.stat().st_size <= _LARGEST_IMAGE:
            found.append((f"Images of {key}", data_uri(file.read_bytes())))
    return found[:_MOST_IMAGES]


def data_uri(png: bytes) -> str:
    """Return a PNG file as a page holds it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
