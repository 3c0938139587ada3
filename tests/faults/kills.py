"""SIGKILL at random points of what writes: `python -m tests.faults.kills --kills 200`.

Each command is run once to its end, for its results and the time it takes to write. It
is then run again and again over results of an earlier run, and killed. What lies under
a final name must be whole: of the earlier run, or of this one. At the end one run must
give the same results once more, and nothing else may lie beside them.
"""

import argparse
import dataclasses
import hashlib
import io
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
import zipfile
from pathlib import Path

# Its operations start no threads, which a fork would miss; demo trains in TensorFlow.
os.environ["KERAS_BACKEND"] = "numpy"

import h5py
import keras
import numpy as np
import safetensors.numpy
import tensorflow  # noqa: F401  (here, so that no child spends its time on imports)
import torch  # noqa: F401

from keras_spectral import cli, compression, convert, zoo

WEIGHTS = str(zoo.checkpoint("resnet20_digits").weights)
TEMPORARY = re.compile(r"\.[0-9a-f]{16}-[0-9a-f]{16}")


def _network():
    layers = [keras.Input((30,)), keras.layers.Dense(40), keras.layers.Dense(5)]
    return keras.Sequential(layers, name="small")


def _classifier():
    layers = [keras.Input((8, 8, 1)), keras.layers.Flatten()]
    layers += [keras.layers.Dense(10, name="head")]
    return keras.Sequential(layers, name="small")


def _command(*arguments):
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        if stop.code:
            raise RuntimeError(f"exit code {stop.code}") from None


def _convert(sources, output):
    given = sources / "small.safetensors"
    model = convert.from_torch(given, keras.models.load_model(sources / "small.keras"))
    convert.save_model(model, output / "a.keras")


def _convert_command(sources, output):
    more = ["--model", "resnet20_digits", "--no-verify"]
    _command("convert", WEIGHTS, "--output", output / "a.keras", *more)


def _export(sources, output):
    source = sources / "small.keras"
    for suffix in ("pth", "safetensors"):
        _command("export", source, "--output", output / f"a.{suffix}")


def _compress(sources, output):
    more = ["--trials", "2", "--output", output]
    _command("compress", sources / "small.keras", *more)


def _save_compressed(sources, output):
    model = keras.models.load_model(sources / "small.keras")
    small = compression.compress(model, seed=0)
    compression.save_compressed(small, output / "a.safetensors")


def _analyze(sources, output):
    _command("analyze", sources / "small.safetensors", "--output", output)


def _sweep(sources, output):
    more = ["--models", "all", "--checkpoints", sources / "sweep", "--trials", "2"]
    _command("sweep", *more, "--workers", "0", "--output", output)


def _demo(sources, output):
    command = [sys.executable, "-m", "keras_spectral.cli", "demo", "--epochs", "1"]
    command += ["--output", str(output)]
    os.execve(sys.executable, command, {**os.environ, "KERAS_BACKEND": "tensorflow"})


# Of each: what writes, and how often it is killed for once of the others.
TARGETS = {
    "convert": (_convert, 4),
    "convert command": (_convert_command, 1),
    "export": (_export, 4),
    "save_compressed": (_save_compressed, 4),
    "analyze": (_analyze, 3),
    "compress": (_compress, 2),
    "sweep": (_sweep, 2),
    "demo": (_demo, 1),
}


def make_sources(folder):
    """Write what the commands read."""
    keras.utils.set_random_seed(0)
    model = _network()
    model.save(folder / "small.keras")
    convert.to_torch(model, folder / "small.safetensors")
    (folder / "sweep").mkdir()
    for seed in range(2):
        keras.utils.set_random_seed(seed)
        _classifier().save(folder / "sweep" / f"small_digits-{seed}.keras")


def _content(path):
    """Return what a file says, without what no two runs share: dates and names."""
    data = path.read_bytes()
    if path.suffix == ".keras" or path.suffix == ".pth":
        archive = zipfile.ZipFile(io.BytesIO(data))
        if archive.testzip() is not None:
            raise ValueError("a damaged member")
        if path.suffix == ".keras":
            return {key: values.tolist() for key, values in _weights(archive)}
        return {name: archive.read(name).hex() for name in archive.namelist()}
    if path.suffix == ".safetensors":
        tensors = safetensors.numpy.load(data)
        return {key: value.tolist() for key, value in tensors.items()}
    if path.suffix == ".json":
        return json.loads(data)
    if path.suffix == ".png":
        if not (data.startswith(b"\x89PNG") and data.endswith(b"IEND\xaeB`\x82")):
            raise ValueError("half a figure")
        return "a figure"
    return data.decode()


def _weights(archive):
    with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
        found = []
        file.visititems(
            lambda name, item: (
                found.append((name, np.array(item)))
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    return sorted(found, key=lambda pair: pair[0])


def results(output):
    """Return (content by final name, names of temporaries), or raise on half a file."""
    found, temporaries = {}, []
    for path in sorted(output.rglob("*")):
        parts = path.relative_to(output).parts
        if any(TEMPORARY.fullmatch(part) for part in parts):
            if len(parts) == 1 or not TEMPORARY.fullmatch(parts[-2]):
                temporaries.append("/".join(parts))
        elif path.is_file():
            text = json.dumps(_content(path), sort_keys=True, default=str)
            text = re.sub(r'"(train_)?seconds[a-z_]*": [0-9.e-]+', "", text)
            found["/".join(parts)] = hashlib.sha256(text.encode()).hexdigest()
    return found, temporaries


@dataclasses.dataclass
class Count:
    """What was seen: `wrong` must stay empty."""

    kills: int = 0
    ended_before: int = 0
    left_behind: int = 0
    wrong: list = dataclasses.field(default_factory=list)


def _started(work, sources, output):
    """Fork a child that does the work; a fork saves the imports."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1)
        if "KILLS_SHOWN" not in os.environ:
            os.dup2(null, 2)
        work(sources, output)
        code = 0
    finally:
        os._exit(code)


def _hidden(output):
    """Return what is hidden below a folder, in which somebody else is at work."""
    return {
        os.path.join(folder, name)
        for folder, folders, files in os.walk(output)
        for name in (*folders, *files)
        if name.startswith(".")
    }


def _wait_for_writing(output, deadline):
    """Most of the time nothing is written: half of the kills come when something is."""
    before = _hidden(output)
    while time.monotonic() < deadline and _hidden(output) <= before:
        time.sleep(0.0005)


def kill_at_random(work, sources, output, kills, seed, count):
    """Kill `work` so many times, and look at what it left behind each time."""
    generator = random.Random(seed)  # noqa: S311
    for again in range(2):
        start = time.monotonic()
        if os.waitpid(_started(work, sources, output), 0)[1]:
            raise RuntimeError("it fails without being killed")
        seconds = time.monotonic() - start
        if not again:
            expected, _ = results(output)
    for _ in range(kills):
        for path in output.glob("rows/*.json"):
            path.unlink()  # A sweep would have nothing to do.
        child = _started(work, sources, output)
        if generator.random() < 0.5:
            time.sleep(generator.uniform(0.0, seconds))
        else:
            _wait_for_writing(output, time.monotonic() + 2 * seconds)
            time.sleep(generator.uniform(0.0, 0.01))
        os.kill(child, signal.SIGKILL)  # Not waited for yet: it is still ours.
        killed = os.waitpid(child, 0)[1] == signal.SIGKILL
        count.kills += killed
        count.ended_before += not killed
        try:
            found, temporaries = results(output)
        except Exception as error:
            count.wrong.append(f"half a file: {error!r}")
            continue
        count.left_behind += bool(temporaries)
        strangers = found.keys() - expected.keys()
        if strangers:
            count.wrong.append(f"{sorted(strangers)} beside the results")
    if os.waitpid(_started(work, sources, output), 0)[1]:
        count.wrong.append("a run after the kills fails")
    found, temporaries = results(output)
    different = {key for key in expected if found.get(key) != expected[key]}
    if found.keys() != expected.keys() or different or temporaries:
        count.wrong.append(
            f"after a whole run: {sorted(different)} differ, {temporaries} are left"
        )


def shared(kills, names=tuple(TARGETS)):
    """Return how often each target is killed, by weight."""
    whole = sum(TARGETS[name][1] for name in names)
    return {name: -(-kills * TARGETS[name][1] // whole) for name in names}


def run(kills, seed=0, names=tuple(TARGETS)):
    """Yield (name, `Count`) of each target; kills are shared out by weight."""
    shares = shared(kills, names)
    with tempfile.TemporaryDirectory() as folder:
        sources = Path(folder, "sources")
        sources.mkdir()
        make_sources(sources)
        for number, name in enumerate(names):
            work, _ = TARGETS[name]
            output = Path(folder, name)
            output.mkdir()
            count = Count()
            kill_at_random(work, sources, output, shares[name], seed + number, count)
            yield name, count


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=TARGETS, nargs="*", default=list(TARGETS))
    options = parser.parse_args()
    whole = Count()
    for name, count in run(options.kills, options.seed, options.only):
        print(
            f"{name}: {count.kills} killed, {count.ended_before} ended before, "
            f"{count.left_behind} with leftovers, {len(count.wrong)} wrong",
            *count.wrong,
            flush=True,
        )
        whole.kills += count.kills
        whole.ended_before += count.ended_before
        whole.left_behind += count.left_behind
        whole.wrong += count.wrong
    print(
        f"in all: {whole.kills} kills, {whole.left_behind} with leftovers, "
        f"{len(whole.wrong)} wrong"
    )
    sys.exit(bool(whole.wrong))


if __name__ == "__main__":
    main()
