"""What a crafted file is, and a child process that reads it under a budget.

Modules of this folder named `*_files.py` hold `CASES`, a dictionary from a name to a
`Case`. Nothing crafted is committed: a case writes its file when it is tried.
"""

import contextlib
import dataclasses
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

MEBIBYTE = 2**20
# Whether what takes seconds is tried too.
FULL = "FAULTS_FULL" in os.environ
# Files that each strategy builds.
EXAMPLES = int(os.environ.get("FAULTS_EXAMPLES", 100))
# The promise is 5 s and 256 MiB; machines are shared, and the clock gets a margin.
CPU_SECONDS, SPARE_BYTES = 15, 256 * MEBIBYTE


@dataclasses.dataclass(frozen=True)
class Case:
    """A crafted file and what must come of it.

    Args:
        write: Function of a folder that writes the file there and returns its path.
        outcome: `"refused"`, `"read"`, or `"either"` for what is made at random.
        says: What the refusal, or the names and shapes read, must contain.
        reader: A key of `READERS`.
        largest: Bytes of the largest tensor that the file really holds.
    """

    write: Callable[[Path], Path]
    outcome: str = "refused"
    says: str = ""
    reader: str = "checkpoint"
    largest: int = 0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came: `kind` is "refused", "read", or "crash"; `text` says what."""

    kind: str
    text: str
    cpu_seconds: float
    peak_bytes: int


def _checkpoint(path):
    from keras_spectral.convert import read_checkpoint

    state = read_checkpoint(path)
    shapes = state.shapes
    for key, shape in shapes.items():
        if shape is not None:
            state[key]
    return str(shapes) if state.aliases is not None else ""


def _analysis(path):
    from keras_spectral.convert import CheckpointError
    from keras_spectral.experiments import analyze_checkpoint

    try:
        return str([row.name for row in analyze_checkpoint(path).rows])
    except CheckpointError as error:
        if "a matrix to measure" not in str(error):
            raise
        return f"[] {error}"  # It was read, and says what was left out.


def _inspected(path):
    from keras_spectral.convert import read_checkpoint

    state = read_checkpoint(path)
    return f"{state.fingerprint()} {len(state.shapes)} {len(state.aliases)}"


def _compressed(path):
    """The description of a compressed file alone, which needs no backend."""
    from safetensors import SafetensorError, safe_open

    from keras_spectral.compression import reading
    from keras_spectral.convert import CheckpointError

    try:
        reading.check_header(path)
        with safe_open(path, "np") as file:
            config, stored = reading.read_description(file)
            reading.check_tensors(file, stored)
        return f"{len(stored)} {list(config)[:5]}"
    except (ValueError, SafetensorError) as error:
        raise CheckpointError(f"{error}") from error


READERS = {
    "checkpoint": _checkpoint,
    "analysis": _analysis,
    "inspected": _inspected,
    "compressed": _compressed,
}


def _serve():
    """Read requests, a JSON line each, and answer each from a process of its own."""
    import h5py  # noqa: F401  (the budget is measured after imports)
    import ml_dtypes  # noqa: F401
    import numpy  # noqa: F401

    from keras_spectral.convert import read_checkpoint  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        if request["reader"] == "compressed":
            import keras_spectral.compression  # noqa: F401  (with its backend)
        receiver, sender = os.pipe()
        child = os.fork()
        if not child:
            os.close(receiver)
            _answer(sender, **request)
        os.close(sender)
        text = _received(receiver, child, deadline=time.monotonic() + 8 * CPU_SECONDS)
        _, status, usage = os.wait4(child, 0)
        answer = json.loads(text) if text else ["crash", f"exit status {status}"]
        cpu = usage.ru_utime + usage.ru_stime
        print(json.dumps([*answer, cpu, usage.ru_maxrss * 1024]), flush=True)


def _answer(sender, path, reader, spare):
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + spare,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS,) * 2)
    from keras_spectral.convert import CheckpointError

    try:
        answer = ["read", READERS[reader](Path(path))[:2000]]
    except CheckpointError as error:
        answer = ["refused", str(error)]
    except BaseException as error:
        answer = ["crash", repr(error)[:2000]]
    with contextlib.suppress(OSError):
        os.write(sender, json.dumps(answer).encode())
    os._exit(0)


def _received(receiver, child, deadline):
    parts = []
    with os.fdopen(receiver, "rb") as file:
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([file], [], [], left)[0]:
                os.kill(child, signal.SIGKILL)
                return b""
            part = file.read1(65536)
            if not part:
                return b"".join(parts)
            parts.append(part)


@contextlib.contextmanager
def reading():
    """Yield a function of a path and a `Case` that returns an `Outcome`."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.faults.cases"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:

        def read(path, case):
            spare = SPARE_BYTES + 4 * case.largest
            request = dict(path=str(path), reader=case.reader, spare=spare)
            server.stdin.write(json.dumps(request) + "\n")
            server.stdin.flush()
            return Outcome(*json.loads(server.stdout.readline()))

        yield read
        server.stdin.close()


if __name__ == "__main__":
    _serve()
