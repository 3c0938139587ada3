"""The program that runs the benchmarks again, without running one."""

import importlib.util

import pytest

from tests.documentation import ROOT


@pytest.fixture(scope="module")
def run_all():
    file = ROOT / "benchmarks" / "run_all.py"
    spec = importlib.util.spec_from_file_location("run_all", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_written_by_hand_stays_and_a_section_is_replaced_whole(run_all):
    hand = "# Measured\n\n## By hand\n\ntext\n"
    first = run_all.written(hand, {"scale": "## `scale`\n\nold\n"})
    both = run_all.written(first, {"layers": "## `layers`\n\none\n"})
    again = run_all.written(both, {"scale": "## `scale`\n\nnew\n"})
    assert again.startswith(hand.rstrip()) and again.count(run_all.START) == 1
    assert "old" not in again and "new" in again and "one" in again
    assert again.index("`layers`") < again.index("`scale`")
    assert run_all.written(again, {}) == again


def test_each_benchmark_is_there(run_all):
    for script, *_ in run_all.COMMANDS.values():
        assert (ROOT / "benchmarks" / f"{script}.py").exists(), script
