"""Results that somebody wrote by hand: whatever is in them, a page or one sentence."""

import base64
import copy
import json
import math
import os
import re
from html.parser import HTMLParser

import pytest

from keras_spectral import report
from keras_spectral.report import saved
from keras_spectral.report.findings import findings_of
from tests.report import made

TEXT = (
    "</script><img src=x onerror=hack()>]]>--><!-- & \" ' \n\t\x00\x1b[2J"
    "\u202e\ud800 \U0001f600 =HYPERLINK(1)" + "x" * 10_000
)
VALUES = (None, math.nan, -math.inf, 1e308, 1e-320, 10**400, 0, TEXT, [],
          {"x": None})  # fmt: skip
LAYER = dict(name="fc", stable_rank=2.0, spectral_norm=1.0, singular_values=[2.0, 1.0])
SHARES = dict(train_accuracy=0.9, test_accuracy=0.9, lipschitz_bound=12.0)
RADIUS = dict(radius=0.1, radius_255=25.5, certified_accuracy=0.5, samples=10)
RESULTS = {
    "analyze": made.analysis(["a"]),
    "certify": {"accuracy": 0.9, "samples": 100, "pixel_scale": 1.0,
                "lipschitz_constant": 12.0, "certified": [RADIUS]},
    "verify": {"a": "a", "b": "b", "equal": False, "tensors": [
        {"name": "x", "status": "different", "relative_error": 0.5}]},
    "demo": {"training": [{"name": "net", **SHARES}], "memorization": {"net": [0.1, 1]},
             "certified": {"net": [RADIUS]}, "spectra": {"net": [LAYER]}, "import": [],
             "files": [], "status": "complete", "settings": {"radius": 0.1}},
    "run": made.recipe(),
    "compress": made.compression(),
    "rows": {"title": "mine", "rows": [{"name": "a", "n": 1.5}], "other": {"x": 1}},
}  # fmt: skip
# Short ones, for each number is tried.
RESULTS["analyze"]["tensors"][0]["eigenvalues"] = [4.0, 2.0, 1.0]
for network in RESULTS["run"]["cells"]:
    network["history"] = network["history"][:2]


class Inert(HTMLParser):
    """Collects what a page must not have."""

    def __init__(self, text):
        super().__init__()
        self.found, self.scripts = [], 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.scripts += tag == "script"
        for name, value in attributes:
            place = name in ("cx", "cy", "d", "points", "x", "y", "x1", "x2")
            if (
                name.startswith("on")
                or name == "style"
                or (name in ("src", "href") and not re.match("#|data:", value))
                or (place and re.search("nan|inf", value))
            ):
                self.found.append((tag, name, value[:40]))

    def handle_comment(self, text):
        self.found.append(text)

    handle_pi = unknown_decl = handle_comment


def leaves(value, path=()):
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in inside:
        yield (*path, key)
        if isinstance(item, (dict, list)):
            yield from leaves(item, (*path, key))


def downloads(text):
    return {
        name: base64.b64decode(data).decode()
        for name, data in re.findall(r'download="(\S+)" href="[^,]*,([^"]*)"', text)
    }


def no_number(name):
    raise AssertionError(name)


@pytest.mark.parametrize("verb", RESULTS)
def test_whatever_stands_in_a_result_ends_in_a_page_or_a_sentence(verb):
    for path in list(leaves(RESULTS[verb])):
        for value in VALUES:
            content = copy.deepcopy(RESULTS[verb])
            place = content
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = value
            try:
                text = report.page(content)
            except ValueError as error:
                assert "but not its values" in str(error), (path, value)
                continue
            inert = Inert(text)
            assert (inert.found, inert.scripts) == ([], 1), (path, value)
            assert not re.search("[\0-\x08\x0b-\x1f\u202e\ud800]", text)
            for name, data in downloads(text).items():
                if name.endswith(".json"):
                    json.loads(data, parse_constant=no_number)


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"rows": [{"name": "a"}], "x": ' + "[" * 900 + "]" * 900 + "}", "deeper"),
        ('[{"name": "a"}', "is damaged"),
        ("[" + "[]," * 17_000_000 + "[]]", "larger than any result"),
    ],
)
def test_a_file_is_read_within_bounds(text, message, tmp_path):
    file = tmp_path / "file.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=f"file.json .*{message}.*Name a file"):
        report.page_of_files([file])


def test_a_file_that_is_no_result_is_read_no_further_than_one_is_long(tmp_path):
    file = tmp_path / "file.json"
    file.write_text("[")
    os.truncate(file, 2**40)
    with pytest.raises(ValueError, match="larger than any result"):
        report.page_of_files([file])


def test_what_lies_beside_a_run_is_as_strange(tmp_path):
    for name in ("cells", "samples"):
        (tmp_path / name).mkdir()
    (tmp_path / "secret").write_text("of mine")
    (tmp_path / "samples/a.png").symlink_to(tmp_path / "secret")
    (tmp_path / "cells/a.json").write_text("[1]")
    table = {**made.recipe(), "recipe": "x", "cells": ["a", "x" * 10_000, "\0", 5]}
    file = tmp_path / "table.json"
    file.write_text(json.dumps(table))
    found = saved.read_result(tmp_path)
    assert found["cells"] == [] and found["images"] == []
    file.write_text(json.dumps({**table, "cells": 3}))
    with pytest.raises(ValueError, match="but not its values"):
        report.page_of_files([file])


def test_a_run_of_another_version_has_its_page():
    content = made.recipe()
    for row in content["rows"]:
        row["median"] = row.pop("half_width_75")
    assert "0.9000" in report.page(content)
    demo = {**RESULTS["demo"], "settings": {"epochs": 5}}
    assert "below a radius in the Euclidean norm" in report.page(demo)


def test_a_result_without_rows_says_so():
    for content in ([], {"name": "package", "version": "1.0"}, [None, 1]):
        assert findings_of(content, "x").alerts[0].what.startswith("no rows")
