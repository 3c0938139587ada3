"""Everything that is tried against the readers and writers, and how many cases it was.

    python -m tests.faults                         what CI runs
    python -m tests.faults --full --log full.jsonl all of it: an hour or less

`--full` runs the tests of this folder and the files' corpus, thousands of examples of
each strategy, two hundred kills, full disks, and the fuzzer on every format, with
atheris too where that is installed. Each part is a line of the log when it ends, and a
run that is given a log leaves out the parts that are in it: one that was cut short goes
on where it was. Remove the log when the code has changed.
"""

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from tests.faults import fuzz
from tests.faults.apart import apart, filled, killed, kills, savers

# Changed files a format; those of compressed files each build a model.
_CHANGED, _CHANGED_COMPRESSED = 6_000, 300
_GUIDED, _SECONDS = 15_000, 600
_EXAMPLES = 500
_STRUCTURES = ("pickles", "tensors", "compressed")
_CRAFTED = (
    "tests/faults/test_files.py",
    "tests/faults/test_names.py",
    "tests/convert/test_bad_files.py",
    "tests/compression/test_storage_damage.py",
)
_MACHINES = tuple(
    f"tests/faults/test_{name}.py" for name in ("writing", "processes", "terminals")
)
_PYTEST = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rfE"]


def pytest(*files, examples=None):
    """Run tests; return (tests that passed, examples of strategies, what failed)."""
    more = {"FAULTS_FULL": "1"}
    if examples:
        more["FAULTS_EXAMPLES"] = str(examples)
    done = subprocess.run(
        [*_PYTEST, "--hypothesis-show-statistics", *files],
        env={**os.environ, **more}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    passed = re.search(r"(\d+) passed", done.stdout)
    built = sum(map(int, re.findall(r"(\d+) passing, ", done.stdout)))
    wrong = [x for x in done.stdout.splitlines() if x.startswith(("FAILED", "ERROR"))]
    if done.returncode and not wrong:
        wrong = [done.stdout[-3000:]]
    return int(passed[1]) if passed else 0, built, wrong


def crafted(path):
    """One test reads the whole corpus; the others each a file, or a few."""
    tests, _, wrong = pytest(path)
    if path.endswith("test_bad_files.py"):
        from tests.convert import corpus

        tests += len(corpus.files())
    return tests, wrong


def tests_of(path):
    tests, _, wrong = pytest(path)
    return tests, wrong


def structural(path):
    _, built, wrong = pytest(path, examples=_EXAMPLES)
    return built, wrong


def changed(kind, cases):
    found = fuzz.fuzz(kind, cases=cases, crafted=True)
    return found["cases"], found["findings"]


def guided(kind):
    found = fuzz.atheris(kind, _SECONDS, seed=1, runs=_GUIDED)
    return found["cases"], found["findings"]


def parts(cases):
    """Yield (kind, what, function that returns a count and findings, arguments)."""
    if importlib.util.find_spec("atheris"):
        for kind in fuzz.FORMATS[:-1]:
            yield "changed by atheris", kind, guided, kind
    for kind in fuzz.FORMATS:
        most = _CHANGED_COMPRESSED if kind == "compressed" else _CHANGED
        yield "changed at random", kind, changed, kind, min(most, cases or most)
    for name in _STRUCTURES:
        path = f"tests/faults/test_structures_{name}.py"
        yield "structural", path, structural, path
    for path in _CRAFTED:
        yield "crafted", path, crafted, path
    for saver in apart(savers):
        yield "full disks", saver, apart, filled, saver
    for name, times in apart(kills).items():
        yield "kills", name, apart, killed, name, times
    for path in _MACHINES:
        yield "tests", path, tests_of, path


def read_log(path):
    """Return the rows of parts that ended, by (kind, what)."""
    if path is None or not path.exists():
        return {}
    rows = map(json.loads, path.read_text().splitlines())
    return {(row["kind"], row["what"]): row for row in rows}


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--cases", type=int, help="most changed files a format")
    parser.add_argument("--log", type=Path, help="JSON lines, of each part that ended")
    given = parser.parse_args()
    if not given.full:
        return subprocess.call([*_PYTEST, "tests/faults", *_CRAFTED[2:]])
    rows, done = [], read_log(given.log)
    for kind, what, work, *arguments in parts(given.cases):
        row = done.get((kind, what))
        if row is None:
            start = time.time()
            count, wrong = work(*arguments)
            seconds = round(time.time() - start)
            row = dict(kind=kind, what=what, cases=count, wrong=wrong, seconds=seconds)
            print(json.dumps(row)[:3000], flush=True)
            if given.log:
                with given.log.open("a") as file:
                    file.write(json.dumps(row) + "\n")
        rows.append(row)
    table(rows)
    return int(any(row["wrong"] for row in rows))


def table(rows):
    """Print the counts by kind, and the parts of each."""
    print("| what | cases | findings | of which |\n|---|---|---|---|")
    for kind in dict.fromkeys(row["kind"] for row in rows):
        own = [row for row in rows if row["kind"] == kind]
        of = ", ".join(f"{Path(row['what']).stem} {row['cases']:,}" for row in own)
        line(kind, own, of)
    line("in all", rows, f"{sum(row['seconds'] for row in rows) / 60:.0f} minutes")


def line(name, rows, of):
    cases, wrong = (sum(values) for values in zip(
        *((row["cases"], len(row["wrong"])) for row in rows), strict=True
    ))  # fmt: skip
    print(f"| {name} | {cases:,} | {wrong} | {of} |")


if __name__ == "__main__":
    sys.exit(main())
