"""Docstrings of public names are whole; `test_package` runs their examples."""

import ast
import dataclasses
import importlib
import inspect
import re
import textwrap

import pytest

from keras_spectral.results import Rows
from tests.documentation import public_names

# A minute's work, which `experiments/test_demo.py` runs.
DEMO = (
    "keras_spectral.experiments.Demo",
    "keras_spectral.experiments.run_demo",
    "keras_spectral.report.demo_figure",
)
NAMES = [
    f"{module}.{name}" for module, names in public_names().items() for name in names
]


def named(full):
    module, name = full.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)


def is_returned(value):
    """Whether users get such an object from a function, and do not make it."""
    return inspect.isclass(value) and (
        dataclasses.is_dataclass(value)
        or issubclass(value, (Exception, tuple, list))
        or hasattr(value, "__struct_fields__")
        or (issubclass(value, Rows) and value is not Rows)
    )


def tree(value):
    made = value.__init__ if inspect.isclass(value) else value
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(made)))
    except (OSError, TypeError):  # Python's own, or made by a decorator.
        return ast.Module([], [])


def raises(value):
    """Whether it raises by itself, or by a check of its arguments."""
    return any(
        (isinstance(node, ast.Raise) and node.exc is not None)
        or (
            isinstance(node, ast.Call)
            and getattr(node.func, "id", "").startswith("check_")
        )
        for node in ast.walk(tree(value))
    )


def returns(value):
    """Whether it returns something, as far as its source shows."""
    return any(
        isinstance(node, ast.Return) and node.value is not None
        for node in ast.walk(tree(value))
    )


def lacking(value):
    """What the docstring of a public function or class does not have."""
    text = inspect.getdoc(value) or ""
    _, _, arguments = text.partition("Args:\n")
    arguments = re.split(r"\n(?=\S)", arguments)[0]
    missing = [
        name
        for name in inspect.signature(value).parameters
        if not re.search(rf"^ +(?:[\w`*, ]+, )?`?\**{name}\b", arguments, re.MULTILINE)
    ]
    if text.split("\n")[0][-1:] not in (".", "!", "?"):
        missing.append("one line that is a sentence")
    if inspect.isfunction(value) and returns(value) and "Returns:\n" not in text:
        missing.append("Returns")
    if raises(value) and "Raises:\n" not in text:
        missing.append("Raises")
    if not is_returned(value) and ">>> " not in text:
        missing.append("Example")
    return missing


def sparse(first, second):
    """Add two numbers"""
    if first < 0:
        raise ValueError
    return first + second


def test_what_lacks_is_found():
    assert lacking(sparse) == [
        "first", "second", "one line that is a sentence", "Returns", "Raises", "Example"
    ]  # fmt: skip


@pytest.mark.parametrize("full", NAMES)
def test_a_docstring_is_whole(full):
    value = named(full)
    if (inspect.isclass(value) or inspect.isfunction(value)) and full not in DEMO:
        assert lacking(value) == []
