"""Pages name a function and a test for each statement of the papers: they exist."""

import importlib
import inspect
import operator
import re
from pathlib import Path

import pytest

import keras_spectral as ks

ROOT = Path(__file__).parents[1]
ROWS = [
    row
    for page in ("heavy_tails.md", "measures.md", "gans.md")
    for row in re.findall(
        r"^\| (\S+) \| .* \| (`.*`) \| `(.*)::(.*)` \|$",
        (ROOT / "docs" / page).read_text(),
        re.MULTILINE,
    )
]
EXPECTED = (
    "P0 T1 S1 S2 F1 P2 P3 P1 K1 K2 K3 A1 T2 L1 C1 C2 C3 C4 L2 L3 L4 D1 J1 R1 R2 R3 "
    "X1 X2 X3 T1' T1z V1 V2 N1 N2 N3 N4 M1 M2 M3 M4 "
    "G1 G2 G3 G4 G5 G6 G7 G8 G9 G10 G11 B.2 LR1 "
    "GA1 GA2 GA3 GA4 GA5 GA6 GA7 GA8 GA9 GA10 GA11 GA12 GA13 GA14 GA15 GA16 GA17 GA18"
).split()


def test_every_row_of_the_facts_is_there():
    assert [row[0] for row in ROWS] == EXPECTED


@pytest.mark.parametrize("row", ROWS, ids=EXPECTED)
def test_functions_and_tests_exist(row):
    _, functions, file, test = row
    for name in re.findall("`(.*?)`", functions):
        package, _, function = name.rpartition(".")
        found = operator.attrgetter(package)(ks)
        assert callable(getattr(found, function))
        module = importlib.import_module(found.__name__)
        assert function in getattr(module, "__all__", dir(module))
    assert (
        f"\ndef {test}(" in (ROOT / "tests" / file.removeprefix("tests/")).read_text()
    )


def test_every_printed_variant_of_the_errata_is_an_option():
    page = (ROOT / "docs" / "errata.md").read_text()
    calls = re.findall(r'`(\w+)\((variant|rule|method)="(.*?)"', page)
    assert len(calls) > 8
    for name, option, value in calls:
        packages = (ks.compression, ks.measures, ks.theory)
        (function,) = (getattr(p, name) for p in packages if hasattr(p, name))
        assert option in inspect.signature(function).parameters
        # An unknown value is refused with the known ones: the printed one is not new.
        source = inspect.getsource(inspect.getmodule(function))
        assert f'"{value}"' in source, (name, value)
