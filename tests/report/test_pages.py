"""Pages as text: what they say of each verb's results, and what they refuse."""

import base64
import dataclasses
import hashlib
import json
import math
import re

import pytest

from keras_spectral import report
from keras_spectral.report import charts, comparisons, saved
from keras_spectral.report.findings import findings_of
from keras_spectral.results import Rows
from keras_spectral.tables import Cell, Column, Table, cell
from tests.report import made


def statuses(findings):
    return {check.what: check.status for check in findings.checks}


def test_the_policy_allows_what_is_there_and_nothing_else():
    text = report.page(made.everything())
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    allowed = dict(part.split(" ", 1) for part in policy.split("; "))
    assert allowed["default-src"] == "'none'"
    for tag, name in (("script", "script-src"), ("style", "style-src")):
        (found,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(found.encode()).digest()).decode()
        assert allowed[name] == f"'sha256-{digest}'"
    # Nothing that the policy would have to stop.
    assert "style=" not in text and not re.search(r'\son\w+="', text)
    assert not re.search(r'(?:src|href)="(?!data:|#)', text)


def test_a_page_of_a_hundred_layers_has_a_megabyte():
    content = made.analysis([f"encoder.layer.{i}.projection" for i in range(100)])
    for row in content["tensors"]:
        row["eigenvalues"] = [4.0 * 0.99**i for i in range(1000)]
    assert len(report.page(content).encode()) <= 1_000_000


def test_an_analysis_alerts_in_the_order_of_severity():
    content = made.analysis(["a", "b", "c"])
    for row, alpha, rank in zip(
        content["tensors"], (1.5, 9.0, 3.0), (5, 1.0, 5), strict=True
    ):
        row |= {
            "eigenvalue_alpha": alpha,
            "stable_rank": rank,
            "eigenvalue_status": "ok",
        }
    content["tensors"][2]["spectral_norm"] = 0.0
    content["skipped"]["d"] = "all zero"
    found = findings_of(content, "x")
    alerts = {alert.what.partition(":")[0]: alert.where for alert in found.alerts}
    assert alerts["not measured"] == ["d"]
    assert alerts["nearly zero"] == ["c"] and alerts["stable rank 1"] == ["b"]
    assert alerts["alpha of W'W below 2"] == ["a"]
    assert alerts["alpha of W'W above 6"] == ["b"]
    assert statuses(found)["Every matrix of the file is measured"] == "FAIL"
    text = report.page(content)
    places = [text.index(f">{word}<") for word in ("Serious", "Warning", "Note")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    "bytes, mean, accuracy, expected",
    [(900, 0.99, 0.985, ["PASS"] * 3), (1000, 0.95, 0.9, ["FAIL"] * 3)],
)
def test_a_compression_is_judged_by_its_controls(bytes, mean, accuracy, expected):
    content = made.compression() | {"bytes": bytes, "accuracy": accuracy}
    content["replacements"][0]["compressed_accuracy_mean"] = mean
    assert list(statuses(findings_of(content, "x")).values()) == expected


def test_claims_are_verdicts():
    content = made.recipe()
    words = {"holds": "PASS", "does not hold": "FAIL", "undecided": "UNTESTED"}
    for verdict, status in words.items():
        content["claims"][0]["verdict"] = verdict
        assert statuses(findings_of(content, "x"))["net: SN is better"] == status
    text = report.page(content)
    assert "no space left" in text and "data:image/gif" in text


def test_a_vacuous_certificate_is_serious():
    row = {"radius": 0.5, "radius_255": 127.5, "certified_accuracy": 0.0, "samples": 0}
    content = {"accuracy": 0.9, "samples": 100, "pixel_scale": 1.0,
               "lipschitz_constant": 1e9, "certified": [row]}  # fmt: skip
    found = findings_of(content, "x")
    assert found.kind == "certify" and found.alerts[0].severity == "serious"
    assert statuses(found)["The bound certifies something"] == "FAIL"
    row["certified_accuracy"] = 0.4
    assert not findings_of(content, "x").alerts


def test_what_could_not_be_compared_is_untested():
    verification = dict(scope="layers", reason="a nested model", layers=3,
                        layers_in_all=4, precision="float64", reference="PyTorch's",
                        relative_error=1e-15, unchecked=["head"],
                        why_unchecked={"head": "a Lambda"})  # fmt: skip
    content = {"source": "a.pth", "verification": verification, "notes": ["read as x"]}
    found = findings_of(content, "x")
    name = "Every layer computes what the reference does"
    assert found.kind == "convert" and statuses(found)[name] == "UNTESTED"
    assert found.alerts[0].where == ["head"]
    verification |= {"unchecked": [], "why_unchecked": {}}
    assert statuses(findings_of(content, "x"))[name] == "PASS"


def test_rows_and_what_nobody_knows_become_tables():
    row = dataclasses.make_dataclass("Row", ["name", "norm"])("dense", math.inf)
    rows = Rows([row], title="Norms", caption="of mine")
    rows.alerts = ["vacuous"]
    text = report.page(rows)
    assert all(word in text for word in ("Norms", "of mine", "vacuous", "inf"))
    found = findings_of(
        {"status": "interrupted", "rows": [{"name": "a", "x": None}]}, "y"
    )
    assert statuses(found)["The run came to its end"] == "FAIL"
    assert report.page([{"name": "a"}, {"name": "b", "more": 1}])


def test_differences_are_those_of_the_rows_of_one_name():
    columns = [Column("name", "name"), Column("share", "number"), Column("n", "number")]
    one = Table("", columns, [[Cell("a"), cell(0.5, ".1%"), cell(3)],
                              [Cell("b"), cell(0.1, ".1%"), cell(None)]])  # fmt: skip
    two = Table("", columns, [[Cell("c"), cell(0.1, ".1%"), cell(1)],
                              [Cell("a"), cell(0.25, ".1%"), cell(4)]])  # fmt: skip
    share, count = comparisons.comparisons([("A", one), ("B", two)])
    assert "-25.00 %" in share and "data-value=0.25" in share.replace('"', "")
    assert "+1" in count and "B − A" in count


def test_saved_results_are_found_in_their_folders(tmp_path):
    (tmp_path / "analysis.json").write_text(json.dumps(made.analysis(["a"])))
    assert saved.read_result(tmp_path)["tensors"][0]["name"] == "a"
    (tmp_path / "compression.json").write_text("{}")
    with pytest.raises(ValueError, match="analysis.json, compression.json. Name"):
        saved.read_result(tmp_path)
    run = tmp_path / "run"
    for name in ("cells", "samples"):
        (run / name).mkdir(parents=True)
    recipe = made.recipe()
    cells, keys = recipe.pop("cells"), ["one", "two", "../secret"]
    for key, row in zip(keys, cells, strict=False):
        (run / "cells" / f"{key}.json").write_text(json.dumps({**row, "layers": [1]}))
    (run / "samples/one.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    table = {**recipe, "recipe": "x.toml", "cells": keys, "images": []}
    (run / "x-small.json").write_text(json.dumps(table))
    found = saved.read_result(run)
    assert [cell["key"] for cell in found["cells"]] == ["one", "two"]
    assert found["cells"][0]["history"] == cells[0]["history"]
    assert found["images"] == [("Images of one", "data:image/png;base64,iVBORw0KGgo=")]
    assert "no space left" in report.page_of_files([run, tmp_path / "analysis.json"])


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("3", "is no result"),
        ('{"source": 1, "tensors": [], "skipped": {}}', "but not its values"),
        ('{"rows": [{"a": 1}], "claims": []}', "but not its values"),
        ('{"source": {}, "tensors": [{"eigenvalues": "x"}], "skipped": {}}', "values"),
    ],
)
def test_what_is_no_result_is_refused(text, message, tmp_path):
    file = tmp_path / "file.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        report.page_of_files([file])


def test_none_and_too_many_results_are_refused():
    with pytest.raises(ValueError, match="from 1 to 26 results"):
        report.page({"results": {}})
    with pytest.raises(ValueError, match="Received: 27"):
        report.page({"results": {str(i): [] for i in range(27)}})


def test_an_image_is_whole_and_no_address():
    """It lies in the page; a longest text, which is cut, was shorter than a grid."""
    source = "data:image/png;base64," + "iVBORw0K" * 2000
    assert f'src="{source}"' in report.page(
        {**made.recipe(), "images": [["x", source]]}
    )
    for address in ("https://example.org/a.png", 'data:image/png;base64,"onload=x'):
        with pytest.raises(ValueError, match="but not its values"):
            report.page({**made.recipe(), "images": [["x", address]]})


def test_a_column_that_nobody_filled_is_left_out():
    rows = [{"name": "a", "n": 0, "spread": None}, {"name": "b", "n": 1, "spread": ""}]
    (table,) = findings_of(rows, "x").tables
    assert [column.label for column in table.columns] == ["name", "n"]


def test_a_long_curve_is_drawn_to_its_end():
    values = [float(x) for x in range(1, 1001)]
    series = [charts.Series("a", values, values)]
    drawn = charts.chart("Line", series, "x", "y", (True, True))
    (path,) = re.findall(r'<path d="([^"]*)" class="curve', drawn)
    assert re.fullmatch(r"M[\d.]+ [\d.]+(L[\d.]+ [\d.]+)+", path)
    # The last point is the highest, at the right: inside of the axes.
    across, up = map(float, path.rpartition("L")[2].split())
    assert 400 < across < 440 and 0 < up < 20


def test_an_axis_names_more_than_its_ends():
    for high in (94.2, 1.04, 3.3, 7.7, 210):
        assert 4 <= len(charts.ticks(-0.04 * high, 1.04 * high, False)) <= 8


def test_spectra_of_the_same_layers_lie_over_each_other():
    one, two = made.analysis(["a", "b"]), made.analysis(["b", "c"], seed=1)
    text = report.page({"results": {"one": one, "two": two}})
    (box,) = re.findall(
        r"<summary>Spectra of the same layers.*?</div></details>", text, re.DOTALL
    )
    (figure,) = re.findall(r"<figcaption><b>(\w)</b>", box)
    assert figure == "b" and '<th scope="col">A</th>' in box
    # The largest numbers of both stand among the figure's.
    for content, place in ((one, 1), (two, 0)):
        largest = content["tensors"][place]["eigenvalues"][0]
        assert f"<td>{largest:.4g}<td>" in box
    assert "Spectra of the same layers" not in report.page(one)


def sweep(*gains):
    """The result of a sweep: of each checkpoint by how much noise beats zeros."""
    rows = []
    for place, gain in enumerate(gains):
        pair = made.compression()["replacements"]
        pair[0]["compressed_accuracy_mean"] = 0.95 + gain
        row = dict(file=f"{place}/net.keras", dataset="digits", compressed=1, share=0.1)
        row |= dict(alpha_pdf=3.0, standard_error=0.1, status="ok", stable_rank=2.0)
        row |= dict(original_accuracy=0.99, error=None, note=None, compressions=pair)
        rows.append(row)
    return {"rows": rows, "status": "complete", "missing": [], "mixture": None}


@pytest.mark.parametrize(
    ("gains", "status", "count"),
    [((0.03, 0.03, -0.1), "PASS", "2 of 3"), ((0.03, -0.1, -0.1), "FAIL", "1 of 3")],
)
def test_a_sweep_is_judged_by_all_its_checkpoints(gains, status, count):
    """It was by the last one alone."""
    found = findings_of(sweep(*gains), "x")
    (check,) = [x for x in found.checks if x.what.startswith("Noise beats zeros")]
    assert check.status == status and f"in {count}" in check.why


def test_rows_of_one_name_are_told_apart_by_what_else_they_say():
    """Of six rows one was left, and a bound's settings were named after `vacuous`."""
    rows = made.compression()["replacements"]
    findings = findings_of(made.compression(), "x")
    (after,) = [
        part
        for part in comparisons.comparisons([(x, findings.tables[0]) for x in "AB"])
        if "<summary>after<" in part
    ]
    for row in rows:
        assert f"magnitude, {row['replacement']}" in re.sub("<wbr>", "", after)
    columns = [Column("kept", "number"), Column("vacuous"), Column("bound", "number")]
    table = Table("", columns, [[cell(x, ".1%"), cell(False), cell(x)] for x in
                                (0.1, 0.3, 0.3)])  # fmt: skip
    _, bound = comparisons.comparisons([("A", table), ("B", table)])
    names = re.findall("<td class=name>([^<]*)<", bound.replace("<wbr>", ""))
    assert names == ["10.0%", "30.0%", "30.0% (2)"]
