"""The blocks of code of a page: what the tests and the pages agree on.

A block whose fence has a title that begins with "Not run" is compiled, or parsed, and
not run: the reader sees the reason.
"""

import dataclasses
import importlib
import inspect
import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
_FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block.

    Args:
        language: String, such as "python".
        runs: Boolean.
        line: Integer, the line of its first line of code.
        text: String.
    """

    language: str
    runs: bool
    line: int
    text: str

    def commands(self):
        """The commands of a block of the shell: lists of words, comments left out."""
        for line in self.text.replace("\\\n", " ").splitlines():
            for command in line.split("&&"):
                words = shlex.split(command, comments=True)
                if words:
                    yield words


def blocks(page):
    """The blocks of a page that name a language, in order."""
    text = page.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        language, title, code = match.groups()
        line = text.count("\n", 0, match.start(3)) + 1
        yield Block(language, 'title="Not run' not in title, line, code)


# Where public names stand; of those without `__all__`, what is made there.
MODULES = [
    "", "layers", "constraints", "regularizers", "losses", "callbacks", "measures",
    "linalg", "models", "compression", "theory", "convert", "zoo", "data", "gan",
    "gan.callbacks", "gan.metrics", "experiments", "report", "results",
]  # fmt: skip


def public_names():
    """The public names by their module: functions, classes and constants."""
    found = {}
    for name in MODULES:
        full = f"keras_spectral.{name}".rstrip(".")
        module = importlib.import_module(full)
        names = getattr(module, "__all__", None)
        if names is None:
            names = [
                listed
                for listed, value in vars(module).items()
                if getattr(value, "__module__", "") == full and listed[0] != "_"
            ]
        found[full] = sorted(
            listed
            for listed in names
            if not inspect.ismodule(getattr(module, listed)) and listed[0] != "_"
        )
    return found
