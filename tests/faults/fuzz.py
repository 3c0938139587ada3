"""Reads changed files for a bounded time, and reports what is neither read nor refused.

    python -m tests.faults.fuzz --seconds 60 --format zip

With `--engine atheris` (installed) files are changed by what the readers' code does
with them; else at random, by `mutations`, the same for the same `--seed`. A worker, a
process under limits, reads many files; one that dies is replaced, and that is reported.
"""

import argparse
import functools
import importlib
import json
import os
import pkgutil
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from pathlib import Path

from tests.faults.cases import CPU_SECONDS, SPARE_BYTES

FORMATS = ("pickle", "zip", "safetensors", "hdf5", "npz", "keras", "compressed")
# Larger seeds take time, and what they hold is in the smaller ones too.
_LARGEST_SEED = 2**16
_BATCH = 2000
_PATIENCE = 180


class _Overrun(BaseException):
    """A file took more than its time."""


def kind_of(content):
    """Return which of `FORMATS` a file is, or `None`."""
    if content[:4] == b"PK\x03\x04":
        try:
            with tempfile.TemporaryFile() as file:
                file.write(content)
                names = zipfile.ZipFile(file).namelist()
        except Exception:
            return "zip"
        if "config.json" in names:
            return "keras"
        return "npz" if all(name.endswith(".npy") for name in names) else "zip"
    if content[:4] == b"\x89HDF":
        return "hdf5"
    if content[8:9] == b"{":
        compressed = b"keras_spectral.compressed" in content[:20_000]
        return "compressed" if compressed else "safetensors"
    return "pickle" if content[:1] in (b"\x80", b"(", b"c") else None


def write_seeds(folder, kind, crafted):
    """Write files of a kind to begin with, and return how many there are."""
    found = list(_seeds(kind, crafted))
    chosen = {x for x in found if kind_of(x) == kind and len(x) <= _LARGEST_SEED}
    for number, content in enumerate(sorted(chosen)):
        (folder / f"{number:04}").write_bytes(content)
    return len(chosen)


def _seeds(kind, crafted):
    if kind == "compressed":
        yield from _compressed_seeds()
        return
    yield from _corpus()
    if not crafted:
        return
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.name.endswith("_files") and module.name != "test_files":
            cases = importlib.import_module(f"tests.faults.{module.name}").CASES
            for case in cases.values():
                with tempfile.TemporaryDirectory() as place:
                    path = case.write(Path(place))
                    if path.is_file() and path.stat().st_size <= _LARGEST_SEED:
                        yield path.read_bytes()


@functools.cache
def _corpus():
    from tests.convert import corpus
    from tests.faults import names

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [content for content, _, _ in corpus.files().values()]
        for name in ("w", names.COMMANDS):
            found += names.files(name).values()
    return [content for content in found if len(content) <= _LARGEST_SEED]


def _compressed_seeds():
    import keras

    from keras_spectral import compression

    layers = keras.layers
    for inner in (
        [keras.Input((3,)), layers.Dense(4, name="a"), layers.Dense(2, name="b")],
        [keras.Input((4, 4, 1)), layers.Conv2D(2, 3), layers.BatchNormalization()],
    ):
        model = keras.Sequential(inner)
        for values in ("int8", "float16", "float32"):
            with tempfile.TemporaryDirectory() as place:
                small = compression.compress(model, seed=1)
                path = Path(place) / "a.safetensors"
                compression.save_compressed(small, path, values=values)
                yield path.read_bytes()


def _target(kind):
    """Return (function that reads a path, its error)."""
    if kind == "compressed":
        from keras_spectral import compression

        return compression.load_compressed, ValueError
    from keras_spectral.convert import CheckpointError, read_checkpoint

    def read(path):
        state = read_checkpoint(path)
        for key in state:
            state[key]

    return read, CheckpointError


def _judged(read, error, path):
    """Return "read" or "refused", or what is wrong as a longer text."""
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        read(path)
        return "read"
    except error as refusal:
        said = str(refusal)
        if not said.isprintable() or len(said) > 1200:
            return f"says {ascii(said)[:500]} ({len(said)} characters)"
        return "refused"
    except _Overrun:
        return f"takes more than {CPU_SECONDS} s"
    except Exception as crash:
        return f"ends in {ascii(crash)[:500]}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _limited(kind):
    """Limit this process as a reader is promised to need; a backend needs more."""

    def overrun(*_):
        raise _Overrun

    signal.signal(signal.SIGPROF, overrun)
    if kind != "compressed":
        import h5py  # noqa: F401
        import ml_dtypes  # noqa: F401

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + SPARE_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def work(arguments):
    """Read a batch of changed files, telling the number of each before it is read."""
    from tests.faults.mutations import changed

    read, error = _target(arguments.format)
    seeds = [path.read_bytes() for path in sorted(Path(arguments.seeds).iterdir())]
    _limited(arguments.format)
    counts = {"read": 0, "refused": 0}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        for number in range(arguments.first, arguments.first + arguments.cases):
            source = random.Random(f"{arguments.seed} {arguments.format} {number}")
            content = changed(
                arguments.format, source.choice(seeds), source, source.choice(seeds)
            )
            path.write_bytes(content)
            print(number, flush=True)
            outcome = _judged(read, error, path)
            if outcome in counts:
                counts[outcome] += 1
            else:
                print(json.dumps([number, outcome, content.hex()[:4000]]), flush=True)
            if time.time() > arguments.until:
                break
    print(json.dumps(counts), flush=True)


def fuzz(kind, seconds=None, cases=None, seed=0, crafted=False):
    """Read changed files until a time or number is reached.

    Returns:
        Dict of `format`, `cases`, `read`, `refused` and `findings`, a list of
        [number, what is wrong, the file's first bytes].
    """
    until = time.time() + (10**9 if seconds is None else seconds)
    left = 10**9 if cases is None else cases
    result = {"format": kind, "cases": 0, "read": 0, "refused": 0, "findings": []}
    with tempfile.TemporaryDirectory() as folder:
        write_seeds(Path(folder), kind, crafted)
        first = 0
        while left > 0 and time.time() < until:
            batch = min(_BATCH, left)
            worker = ["--worker", "--seeds", folder, "--format", kind, "--seed", seed]
            worker += ["--first", first, "--cases", batch, "--until", until]
            done = _batch(worker, result)
            first, left = first + done, left - done
    return result


def _batch(worker, result):
    """Run a worker, add what it found to `result` and return how many it read."""
    number, done, ended = None, 0, False
    with subprocess.Popen(
        [sys.executable, "-m", "tests.faults.fuzz", *map(str, worker)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    ) as process:  # fmt: skip
        for line in process.stdout:
            told = json.loads(line)
            if isinstance(told, int):
                number, done = told, done + 1
                # The clock of a file that keeps Python from its own.
                signal.signal(signal.SIGALRM, lambda *_: process.kill())
                signal.alarm(_PATIENCE)
            elif isinstance(told, list):
                result["findings"].append(told)
            else:
                ended = True
                result["read"] += told["read"]
                result["refused"] += told["refused"]
        signal.alarm(0)
        code = process.wait()
    result["cases"] += done
    if not ended:
        if number is None:
            raise RuntimeError(f"The worker does not start: exit code {code}.")
        result["findings"].append([number, f"the process dies ({code})", ""])
    return done


def atheris(kind, seconds, seed, runs=-1):
    """Let atheris change files so often or long; return what `fuzz` does."""
    with tempfile.TemporaryDirectory() as folder:
        write_seeds(Path(folder), kind, crafted=False)
        done = subprocess.run(
            [
                sys.executable, "-m", "tests.faults.fuzz", "--instrumented",
                "--format", kind, folder, f"-max_total_time={seconds}", f"-seed={seed}",
                f"-runs={runs}", "-max_len=65536", "-rss_limit_mb=4096",
                f"-timeout={CPU_SECONDS * 4}", f"-artifact_prefix={folder}/crash-",
            ],
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        )  # fmt: skip
    runs = re.findall(r"^(?:Done |#)(\d+)", done.stderr, re.MULTILINE)
    findings = [] if done.returncode == 0 else [[0, done.stderr[-3000:], ""]]
    count = max(map(int, runs), default=0)
    return {"format": kind, "cases": count, "findings": findings}


def instrumented(kind, rest):
    """Run atheris in this process; it does not return."""
    import atheris as engine

    watched = ["keras_spectral.convert.files", "pickletools"]
    with engine.instrument_imports(include=watched):
        read, error = _target(kind)
    path = Path(tempfile.mkdtemp()) / "a"

    def one(content):
        path.write_bytes(content)
        try:
            read(path)
        except error as refusal:
            said = str(refusal)
            if not said.isprintable() or len(said) > 1200:
                raise AssertionError(ascii(said)[:500]) from None

    engine.Setup([sys.argv[0], *rest], one)
    engine.Fuzz()


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m tests.faults.fuzz")
    parser.add_argument("--format", choices=FORMATS, action="append")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--cases", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=("random", "atheris"), default="random")
    parser.add_argument("--crafted", action="store_true", help="begin with *_files too")
    for hidden in ("--worker", "--instrumented"):
        parser.add_argument(hidden, action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--seeds", help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, default=0, help=argparse.SUPPRESS)
    given, rest = parser.parse_known_args(arguments)
    if given.worker or given.instrumented:
        (given.format,) = given.format
        return work(given) if given.worker else instrumented(given.format, rest)
    if rest:
        parser.error(f"unknown: {rest}")
    seconds = 60 if given.seconds is None and given.cases is None else given.seconds
    failed = False
    for kind in given.format or FORMATS:
        if given.engine == "atheris":
            found = atheris(kind, int(seconds or 60), given.seed + 1)
        else:
            found = fuzz(kind, seconds, given.cases, given.seed, given.crafted)
        print(json.dumps(found), flush=True)
        failed = failed or bool(found["findings"])
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
