"""SIGKILL at random points of `run`: `python -m tests.experiments.kills --count 50`.

A recipe is run once to its end. It is then run in other folders, killed again and again
at random points once the first state is there, and started once more each time. What
ends must be what was not killed, bit by bit: rows, learning curves and networks.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import warnings
import zipfile
from pathlib import Path

# As in the processes of Dask: one thread each.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TF_NUM_INTRAOP_THREADS"] = "1"
os.environ["TF_NUM_INTEROP_THREADS"] = "1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import h5py
import numpy as np

# Imports alone: a fork saves their time, and misses threads that operations start.
from keras_spectral.experiments import training_state
from tests.experiments import tiny

# Twenty batches in each of four epochs, and masks to draw.
CHANGES = ["data.count=480", "schedule.batch_size=24", "schedule.epochs=4"]
CHANGES += ["data.labels=random", "optimizer.nesterov=true"]
DROPOUT = 'builder = "tiny", arguments = { dropout = 0.3 }'


def noted(restore, output):
    """Return `Checkpoint.restore`, which notes in a file that it found a state."""

    def restoring(self, model):
        progress = restore(self, model)
        if progress.history or progress.step:
            with output.with_suffix(".resumed").open("a") as file:
                file.write("1")
        return progress

    return restoring


def started(output):
    """Fork a child that runs the recipe; return its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        warnings.simplefilter("ignore")  # What a network this small is told.
        # Most batches have a file to go on from.
        training_state.PERIOD = 0.02
        kind = training_state.Checkpoint
        kind.restore = noted(kind.restore, output)
        error = tiny.run(output, changes=CHANGES)["error"]
        if error is None:
            code = 0
        else:
            print(error, file=sys.stderr)
    finally:
        os._exit(code)


def kept(archive):
    """Return the tensors of a `.keras` file, by name."""
    with zipfile.ZipFile(archive) as file, file.open("model.weights.h5") as stream:
        found = {}

        def visit(name, item):
            if isinstance(item, h5py.Dataset):
                found[name] = np.array(item)

        with h5py.File(stream) as tensors:
            tensors.visititems(visit)
    return found


def numbers(value):
    """Yield the numbers of a row, by position, but not how long anything took."""
    if isinstance(value, dict):
        for key in value:
            if "seconds" not in key:
                yield from numbers(value[key])
    elif isinstance(value, list):
        for item in value:
            yield from numbers(item)
    elif isinstance(value, (int, float)):
        yield value


def content(output):
    """Return all that a finished run has: lists and arrays of numbers by name."""
    found = {}
    for path in sorted(output.glob("cells/*.json")):
        found[path.name] = list(numbers(json.loads(path.read_text())))
    for path in sorted(output.glob("curves/*.jsonl")):
        lines = map(json.loads, path.read_text().splitlines())
        found[path.name] = list(numbers(list(lines)))
    for path in sorted(output.glob("models/*.keras")):
        for name, tensor in kept(path).items():
            found[f"{path.name} {name}"] = tensor
    events = sorted(path.name for path in output.glob("tensorboard/*/*"))
    found["events"] = list(range(len(events)))
    return found


def compare(one, other):
    """Return how many numbers two runs have in common, to the last bit."""
    if one.keys() != other.keys():
        raise AssertionError(f"{one.keys() ^ other.keys()} are in one run alone")
    count = 0
    for name, values in one.items():
        first, second = np.asarray(values), np.asarray(other[name])
        if first.shape != second.shape or first.tobytes() != second.tobytes():
            raise AssertionError(f"{name} differs")
        count += first.size
    return count


def whole_files(output):
    """Read what lies under a final name: half a file raises an error."""
    content(output)
    for path in output.glob("state/*.npz"):
        with np.load(path) as file:
            for name in file.files:
                file[name]


def ended(child):
    """Wait for a child that is not killed."""
    if os.waitpid(child, 0)[1]:
        raise AssertionError("a run fails that was not killed")


def has_ended(child):
    """Return whether a child has ended; `waitpid` still tells how."""
    flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, child, flags) is not None


def state_comes(child, output):
    """Wait for the first file of state, or the child's end."""
    while not list(output.glob("state/*.npz")) and not has_ended(child):
        time.sleep(0.005)


def kill(count, seconds, seed, a_run=10):
    """Return (kills, runs that ended, numbers compared, states that went on)."""
    tiny.RECIPE = tiny.RECIPE.replace('builder = "tiny"', DROPOUT)
    end, generator = time.monotonic() + seconds, random.Random(seed)  # noqa: S311
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "whole")
        begun = time.monotonic()
        child = started(whole)
        state_comes(child, whole)
        first = time.monotonic()
        ended(child)
        length, trained = (time.monotonic() - since for since in (begun, first))
        expected = content(whole)
        kills = runs = compared = resumed = 0
        # Runs that only ever begin anew would be bit-equal, too.
        wanted = max(1, count // 2)
        while (kills < count or resumed < wanted) and time.monotonic() < end:
            output = Path(folder, f"killed-{runs}")
            for _ in range(max(1, min(a_run, count - kills))):
                child = started(output)
                # One that goes on may be killed before it has begun to.
                fresh = not list(output.glob("state/*.npz"))
                state_comes(child, output)
                time.sleep(generator.uniform(0, trained if fresh else length))
                os.kill(child, signal.SIGKILL)  # Not waited for yet: it is ours.
                killed = os.waitpid(child, 0)[1] == signal.SIGKILL
                kills += killed
                if not killed:  # The machine was busier before.
                    length, trained = 0.7 * length, 0.7 * trained
                whole_files(output)
                if list(output.glob("cells/*.json")) or time.monotonic() > end:
                    break
            ended(started(output))
            compared += compare(expected, content(output))
            runs += 1
            note = output.with_suffix(".resumed")
            resumed += len(note.read_text()) if note.exists() else 0
            print(f"{runs} runs after {kills} kills: bit-equal", flush=True)
    return kills, runs, compared, resumed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    kills, runs, compared, resumed = kill(options.count, options.seconds, options.seed)
    print(
        f"{kills} kills, {resumed} starts that went on from a state; {runs} runs ended "
        f"after them, {compared} numbers compared, all bit-equal"
    )
    sys.exit(kills < options.count or resumed < max(1, options.count // 2))


if __name__ == "__main__":
    main()
