"""Who may import whom: the floors of CONTRIBUTING.md."""

import ast
import re
from pathlib import Path

import pytest

import keras_spectral

PACKAGE = Path(keras_spectral.__file__).parent
CONTRIBUTING = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")


def rooms():
    """The floor of each file and folder, as CONTRIBUTING.md's table has it."""
    found = {}
    for floor, text in re.findall(r"^\| (\d) \| (.*) \|$", CONTRIBUTING, re.MULTILINE):
        for name in re.findall(r"`(\w+)(?:\.py|/)`", text):
            if (PACKAGE / name).exists() or (PACKAGE / f"{name}.py").exists():
                found[name] = int(floor)
    return found


ROOMS = rooms()
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE) + [
    path for path in sorted(PACKAGE.glob("*.py")) if path.stem != "__init__"
]


def imported(path):
    """The modules of the package that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(parts):
    return parts[0].removesuffix(".py")


def test_every_room_has_a_floor():
    assert {room(path.relative_to(PACKAGE).parts) for path in FILES} == set(ROOMS)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_come_from_below(path):
    parts = path.relative_to(PACKAGE).parts
    here = room(parts)
    for name in imported(path):
        if not name.startswith("keras_spectral."):
            continue
        there = name.split(".")[1]
        if there not in ROOMS:
            continue  # `keras_spectral.__version__`
        assert ROOMS[there] <= ROOMS[here], f"{here} imports {name} from above"
        above = here in ("cli", "__main__")
        assert there != "cli" or above, "nothing imports the command line"
        if parts[:2] == ("convert", "files"):
            pure = "convert.files", "printable.", "json_text."
            assert name.removeprefix("keras_spectral.").startswith(pure), name
