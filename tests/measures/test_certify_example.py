"""The worked example on the digits, in little."""

import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "certify_fashion_mnist.py"


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(EXAMPLE))


@pytest.mark.slow
def test_the_example_trains_attacks_and_certifies(example, capsys):
    arguments = ["--data", "digits", "--epochs", "4", "--width", "8", "--images", "100"]
    table = example["main"](arguments)
    assert "certified" in capsys.readouterr().out
    found = {(row.network, row.radius_255): row for row in table}
    assert len(found) == 12
    for row in table:
        # The example asserts it, too.
        assert row.certified <= row.attacked <= row.clean
        assert row.clean > 0.6
    # What has a norm of one is certified for many images; the plain network for fewer.
    for name in ("SN", "GroupSort"):
        assert found[name, 36].certified > found["plain", 36].certified + 0.1
        assert found[name, 36].lipschitz_constant < 1 + 1e-3
    # The attack is one: it finds what it should where nothing is certified.
    assert found["plain", 255].attacked < 0.3
