"""Results that verbs have left in files."""

import base64
import os
from pathlib import Path

from keras_spectral.json_text import LONGEST, parse_json

# What verbs write into their folders; a recipe's file has the recipe's name.
_NAMES = (
    *("analysis.json", "compression.json", "evaluation.json"),
    *("results.json", "table.json"),
)
# Times a config; spectra of a model of 70 billion numbers take a tenth of it.
_TIMES = 16
_CELL = ("network", "variant", "seed", "error", "history")
# A page is to stay small, and a grid of 64 images is a hundred kilobytes.
_MOST_IMAGES, _LARGEST_IMAGE = 6, 2**18
_PNG = b"\x89PNG\r\n\x1a\n"


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
    # A pipe has no size before it is read.
    with path.open("rb") as file:
        text = file.read(_TIMES * LONGEST + 1)
    if text.lstrip()[:1] not in (b"{", b"["):
        raise ValueError(
            f"{path} is no result. Name a file that a verb has left, such as "
            "analysis.json, or its folder."
        )
    try:
        return parse_json(text, "result", times=_TIMES)
    except ValueError as error:
        raise ValueError(
            f"{path} {error}. Name a file that a verb has left, such as "
            "analysis.json, or its folder."
        ) from None


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
    keys = content.get("cells")
    keys = keys if isinstance(keys, list) else []
    keys = [key for key in keys if isinstance(key, str) and Path(key).name == key]
    cells = []
    for key in keys:
        file = folder / "cells" / f"{key}.json"
        row = _read(file) if os.path.isfile(file) else None
        if isinstance(row, dict):
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
        if os.path.isfile(file) and file.stat().st_size <= _LARGEST_IMAGE:
            png = file.read_bytes()
            # A page is shown around, and a link may lead to what is none of it.
            if png.startswith(_PNG):
                found.append((f"Images of {key}", data_uri(png)))
    return found[:_MOST_IMAGES]


def data_uri(png: bytes) -> str:
    """Return a PNG file as a page holds it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
