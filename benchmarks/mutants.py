"""How many changes of one token in the code do the tests notice?

    pip install --target build/mutants cosmic-ray==8.7.0
    PYTHONPATH=build/mutants python benchmarks/mutants.py

Of each package a random sample of positions, a change each: by module, in proportion,
two at least. After every change the tests that concern the module run (`TESTS`), until
one fails or the time is over. The repository is not changed: each process has a copy,
with everything imported but `keras_spectral`, and forks (on Linux only, and before
TensorFlow has threads).

Rows go to `--out` as they come, in no order: an interrupted run is a sample, too, and
goes on where it was. `--again` runs those that survived once more, after a test was
written. Survivors that compute the same are in `equivalent_mutants.json`, with reasons.
`--unchanged` shows that without a change all tests survive.

Not sampled: docstrings, annotations, `Literal`s and what stands in a `raise`, for these
compute nothing; comparisons by `is`, bit operations, and floor division in place of
another operation, for most of these fail wherever they are called.
"""

import argparse
import ast
import collections
import compileall
import concurrent.futures
import difflib
import importlib
import json
import os
import py_compile
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from cosmic_ray.commands.init import init
from cosmic_ray.mutating import use_mutation
from cosmic_ray.plugins import get_operator
from cosmic_ray.work_db import WorkDB, use_db
from scipy.stats import binomtest

ROOT = Path(__file__).resolve().parents[1]
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.json")
TIMEOUT = 600
UNLIKELY = re.compile("Bit|Shift|_Is|ReplaceBinaryOperator_.*_FloorDiv")

# Which tests concern a module, the most telling first; by default those of its name.
# A module of functions that a backend does its own way is tested on three.
TESTS = {
    "theory/approximation": "theory/test_theorems compression/test_approximation",
    "theory/bounds": "theory/test_bounds",
    "theory/projection": "theory/test_theorems compression/test_projection",
    "theory/sparsity": "theory/test_sparsity",
    "theory/theorems": "theory/test_theorems",
    "theory/truncation": "theory/test_theorems compression/test_low_rank",
    "measures/alpha_stable": "measures/test_alpha_stable",
    "measures/chains": "measures/test_cushions measures/test_cushions_backends",
    "measures/cushions": "measures/test_cushions measures/test_cushions_backends",
    "measures/eigenvalues": "measures/test_eigenvalues",
    "measures/extremes": "measures/test_cushions measures/test_cushions_backends",
    "measures/linear_mixture": "measures/test_linear_mixture",
    "measures/margins": "theory/test_theorems theory/test_bounds",
    "measures/power_law": "measures/test_power_law measures/test_eigenvalues",
    "measures/power_law_search": "measures/test_power_law measures/test_eigenvalues",
    "measures/lipschitz_local": "measures/test_lipschitz_local "
    "measures/test_lipschitz_local_kinds",
    "measures/lipschitz_slopes": "measures/test_lipschitz_local "
    "measures/test_lipschitz_local_kinds",
    "measures/spectrum": "measures/test_spectrum measures/test_measures_backends",
    "measures/steps": "measures/test_cushions measures/test_cushions_backends",
    "linalg/block_iteration": "linalg/test_block_iteration layers/test_methods "
    "layers/test_spectral_normalization layers/test_layers_backends",
    "linalg/certificates": "linalg/test_certificates linalg/test_norms "
    "linalg/test_linalg_backends",
    "linalg/certified_norms": "linalg/test_certified_norms",
    "linalg/frequencies": "linalg/test_certificates linalg/test_linalg_backends",
    "linalg/converged": "linalg/test_converged measures/test_spectrum "
    "layers/test_operator_norms layers/test_bounds_hold layers/test_export",
    "linalg/convolutions": "linalg/test_convolutions linalg/test_spectra "
    "linalg/test_linalg_backends",
    "linalg/norms": "linalg/test_norms linalg/test_linalg_backends "
    "linalg/test_spectral_functions_backends",
    "linalg/operators": "linalg/test_operators linalg/test_convolutions "
    "linalg/test_linalg_backends",
    "linalg/power_iteration": "linalg/test_power_iteration linalg/test_linalg_backends "
    "layers/test_spectral_normalization",
    "linalg/projections": "linalg/test_projections linalg/test_linalg_backends "
    "linalg/test_spectral_functions_backends",
    "linalg/spectra": "linalg/test_spectra linalg/test_linalg_backends",
    "linalg/spectral_functions": "linalg/test_spectral_functions_backends "
    "linalg/test_projections",
    "linalg/stable_rank_projections": "linalg/test_projections "
    "linalg/test_spectral_functions_backends",
    "linalg/structured_operators": "linalg/test_operators",
    "linalg/tracing": "linalg/test_power_iteration "
    "layers/test_second_derivatives_backends layers/test_threads_backends",
    "linalg/turning": "linalg/test_linalg_backends "
    "layers/test_second_derivatives_backends test_regularizers",
    "linalg/turning_backends": "linalg/test_linalg_backends "
    "layers/test_second_derivatives_backends test_regularizers_backends",
}
BACKENDS = {
    "linalg/norms", "linalg/power_iteration", "linalg/spectral_functions",
    "linalg/tracing", "linalg/turning", "linalg/turning_backends",
}  # fmt: skip


def arguments_of(module, backend="tensorflow"):
    """Return pytest's arguments for what concerns a module."""
    files = [f"tests/{name}.py" for name in TESTS[module].split()]
    if backend == "tensorflow":
        example = "tests/test_package.py::test_docstring_examples"
        files.append(f"{example}[keras_spectral.{module.replace('/', '.')}]")
    else:
        files = [file for file in files if file.endswith("_backends.py")]
    return ["-x", "-p", "no:cacheprovider", "--hypothesis-profile=ci", *files]


def silent_lines(path):
    """Return the ranges of positions that compute nothing."""
    nodes = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Raise):
            nodes.append(node)
        elif isinstance(node, ast.AnnAssign):
            nodes.append(node.annotation)
        elif isinstance(node, (ast.FunctionDef, ast.arg)):
            field = "returns" if isinstance(node, ast.FunctionDef) else "annotation"
            nodes.append(getattr(node, field))
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal":
            nodes.append(node)
    return [
        ((n.lineno, n.col_offset), (n.end_lineno, n.end_col_offset)) for n in nodes if n
    ]


def positions(path):
    """Return {(start, end): changes} of a module, in its order."""
    silent = silent_lines(path)
    found = collections.defaultdict(list)
    with use_db(":memory:", WorkDB.Mode.create) as database:
        init([path], database, {})
        specs = [item.mutations[0] for item in database.work_items]
    for spec in specs:
        start, end = tuple(spec.start_pos), tuple(spec.end_pos)
        if UNLIKELY.search(spec.operator_name):
            continue
        if not any(first <= start and end <= last for first, last in silent):
            found[start, end].append(spec)
    return {
        key: sorted(found[key], key=lambda spec: (spec.operator_name, spec.occurrence))
        for key in sorted(found)
    }


def sample(package, count, seed):
    """Draw positions of each module in proportion, two at least, and a change each."""
    modules = {
        name: positions(ROOT / "keras_spectral" / f"{name}.py")
        for name in TESTS
        if name.startswith(package + "/")
    }
    total = sum(map(len, modules.values()))
    drawn = []
    for name, places in sorted(modules.items()):
        share = min(len(places), max(2, round(count * len(places) / total)))
        generator = random.Random(f"{seed} {name}")
        order = sorted(places)
        generator.shuffle(order)
        for key in order[:share]:
            spec = generator.choice(places[key])
            drawn.append((name, spec.operator_name, spec.occurrence))
    print(f"{package}: {len(drawn)} of {total} positions", flush=True)
    return drawn


def begin(parent):
    """Give this process a copy of the repository to change, and what tests import."""
    folder = Path(parent, str(os.getpid()))
    ignored = shutil.ignore_patterns(".*", "build", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, folder, ignore=ignored)
    os.chdir(folder)
    # By content, not by time: a change may come within the clock's second.
    by_content = py_compile.PycInvalidationMode.CHECKED_HASH
    compileall.compile_dir("keras_spectral", quiet=1, invalidation_mode=by_content)
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(folder))
    os.environ.update(PYTHONPATH=os.pathsep.join(sys.path), PYTHONDONTWRITEBYTECODE="1")
    # One thread until TensorFlow's first operation, so that a fork is safe.
    os.environ.update(
        OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", TF_CPP_MIN_LOG_LEVEL="3"
    )
    for name in ("scipy.stats", "hypothesis", "torch", "powerlaw", "keras", "pytest"):
        importlib.import_module(name)
    threads = re.search(r"Threads:\s*(\d+)", Path("/proc/self/status").read_text())
    if threads[1] != "1":
        raise RuntimeError(f"a fork is not safe with {threads[1]} threads")


def outcome_of(module):
    """Run what concerns a module; return an outcome, and the test that failed."""
    backends = ("tensorflow", "torch", "jax") if module in BACKENDS else ("tensorflow",)
    log = Path("mutants.log")
    for backend in backends:
        child = os.fork()
        if not child:
            os.setsid()
            for stream in (1, 2):
                os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
            arguments = arguments_of(module, backend)
            if backend == "tensorflow":
                os._exit(importlib.import_module("pytest").main(arguments))
            os.environ["KERAS_BACKEND"] = backend
            os.execv(sys.executable, [sys.executable, "-m", "pytest", *arguments])
        end = time.monotonic() + TIMEOUT
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > end:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return "timeout", ""
            time.sleep(0.1)
        if os.waitstatus_to_exitcode(ended[1]):
            output = log.read_text(errors="replace")
            found = re.search(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
            return "killed", found[1] if found else output[-200:]
    return "survived", ""


def run(module, operator, occurrence):
    """Make one change, run the tests, and undo it; return a row."""
    path = Path("keras_spectral", f"{module}.py")
    started = time.monotonic()
    change = get_operator(operator)()
    with use_mutation(path, change, occurrence) as (before, after):
        outcome, by = outcome_of(module)
    lines = list(difflib.unified_diff(before.split("\n"), after.split("\n"), n=0))[3:]
    return {
        "module": module,
        "operator": operator,
        "occurrence": occurrence,
        "before": " ".join(line[1:].strip() for line in lines if line[0] == "-"),
        "after": " ".join(line[1:].strip() for line in lines if line[0] == "+"),
        "outcome": outcome,
        "by": by,
        "seconds": round(time.monotonic() - started),
    }


def judged(rows):
    """Yield (row, outcome), `"equivalent"` for survivors that are known to be that."""
    known = json.loads(EQUIVALENT.read_text(encoding="utf-8"))
    same = {(each["module"], each["before"], each["after"]) for each in known}
    for row in rows:
        change = row["module"], row["before"], row["after"]
        equivalent = row["outcome"] != "killed" and change in same
        yield row, "equivalent" if equivalent else row["outcome"]


def report(rows):
    """Print a line a package: killed of those that compute something else."""
    packages = collections.defaultdict(collections.Counter)
    for row, kind in judged(rows):
        if kind != "killed":
            print(f"{kind}: {row['module']}: {row['before']}  ->  {row['after']}")
        for name in (row["module"].split("/")[0], "all"):
            packages[name][kind] += 1
    for name, counts in sorted(packages.items()):
        counted = counts.total() - counts["equivalent"]
        killed = counted - counts["survived"]
        low, high = binomtest(killed, counted).proportion_ci(method="wilson")
        numbers = ", ".join(f"{number} {kind}" for kind, number in counts.items())
        print(f"{name}: {numbers}; {killed / counted:.1%} ({low:.1%} to {high:.1%})")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    packages = ["theory", "measures", "linalg"]
    parser.add_argument("--packages", nargs="+", default=packages, choices=packages)
    parser.add_argument("--each", type=int, default=50, help="mutants of a package")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "mutants.jsonl")
    parser.add_argument("--again", action="store_true", help="those that survived")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--unchanged", action="store_true", help="do the tests pass?")
    arguments = parser.parse_args()
    rows = {}
    if arguments.out.exists():
        for line in arguments.out.read_text().splitlines():
            row = json.loads(line)
            rows[row["module"], row["operator"], row["occurrence"]] = row
    arguments.out.parent.mkdir(exist_ok=True)
    work = [
        key
        for package in arguments.packages
        for key in sample(package, arguments.each, arguments.seed)
    ]
    random.Random(arguments.seed).shuffle(work)
    outcomes = {
        key: outcome
        for key, (_, outcome) in zip(rows, judged(rows.values()), strict=True)
    }
    wanted = (None, "survived", "timeout") if arguments.again else (None,)
    todo = [key for key in work if outcomes.get(key) in wanted]
    todo = [] if arguments.report else todo
    with (
        tempfile.TemporaryDirectory() as folder,
        concurrent.futures.ProcessPoolExecutor(
            arguments.processes, initializer=begin, initargs=(folder,)
        ) as pool,
    ):
        if arguments.unchanged:
            modules = [
                name for name in TESTS if name.split("/")[0] in arguments.packages
            ]
            for name, found in zip(modules, pool.map(outcome_of, modules), strict=True):
                print(name, *found, flush=True)
            return
        tasks = [pool.submit(run, *key) for key in todo]
        for number, task in enumerate(concurrent.futures.as_completed(tasks), 1):
            row = task.result()
            rows[row["module"], row["operator"], row["occurrence"]] = row
            with arguments.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
            what = row["outcome"], row["module"], row["by"], f"{row['seconds']} s"
            print(f"{number} of {len(todo)}:", *what, flush=True)
    report([rows[key] for key in work if key in rows])


if __name__ == "__main__":
    main()
