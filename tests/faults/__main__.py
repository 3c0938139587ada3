"""Everything that is tried against the readers and writers, and how many cases it was.

    python -m tests.faults          what CI runs
    python -m tests.faults --full   all of it: hours on two cores

`--full` runs the tests of this folder and the files' corpus, thousands of examples of
each strategy, two hundred kills, and the fuzzer on every format, with atheris too where
that is installed.
"""

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import time

from tests.faults import fuzz, kills

# Changed files a format; those of compressed files each build a model.
_CASES = {"compressed": 3_000}
_EACH = 18_000
_ATHERIS_SECONDS = 600
_EXAMPLES, _KILLS = 3_000, 200


def run_tests(full):
    """Run the tests; return (number of tests, of examples of strategies, exit code)."""
    more = {"FAULTS_EXAMPLES": str(_EXAMPLES)} if full else {}
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q",
            "--hypothesis-show-statistics", "tests/faults",
            "tests/convert/test_bad_files.py",
            "tests/compression/test_storage_damage.py",
        ],
        env={**os.environ, **more}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    print(done.stdout[-3000:])
    passed = re.search(r"(\d+) passed", done.stdout)
    examples = re.findall(r"(\d+) passing examples", done.stdout)
    tests = int(passed[1]) if passed else 0
    return tests, sum(map(int, examples)), done.returncode


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--cases", type=int, help="changed files a format")
    given = parser.parse_args()
    start = time.time()
    tests, examples, failed = run_tests(given.full)
    rows = [("tests", tests, failed), ("examples of strategies", examples, failed)]
    if given.full:
        for name, count in kills.run(_KILLS):
            rows.append((f"kills of {name}", count.kills, len(count.wrong)))
        for kind in fuzz.FORMATS:
            cases = given.cases or _CASES.get(kind, _EACH)
            found = fuzz.fuzz(kind, cases=cases, crafted=True)
            rows.append((f"changed {kind}", found["cases"], len(found["findings"])))
            print(json.dumps(found["findings"])[:3000], flush=True)
        if importlib.util.find_spec("atheris"):
            for kind in fuzz.FORMATS:
                if kind != "compressed":
                    found = fuzz.atheris(kind, _ATHERIS_SECONDS, seed=1)
                    wrong = len(found["findings"])
                    rows.append((f"atheris {kind}", found["cases"], wrong))
    print("| what | cases | findings |\n|---|---|---|")
    for row in rows:
        print("| {} | {:,} | {} |".format(*row))
    total = sum(count for _, count, _ in rows)
    print(f"| in all | {total:,} | {sum(row[2] for row in rows)} |")
    print(f"{(time.time() - start) / 60:.0f} minutes")
    return int(any(wrong for _, _, wrong in rows))


if __name__ == "__main__":
    sys.exit(main())
