"""Forked and spawned processes, and threads: what a process keeps, and reading."""

import ast
import json
import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import safetensors.numpy
import torch

import keras_spectral
from keras_spectral.experiments import engine

ROOT = Path(keras_spectral.__file__).parent
WAYS = ("fork", "spawn", "threads")

# All that a process keeps at module level, and how it bears forks and threads. Dicts
# and caches are changed under the interpreter's lock, and what is found twice is equal.
KEPT = {
    "compression/masks.py:_COMPRESSIONS": "by model: a child has its own",
    "convert/cards.py:_CARDS": "by model: a child has its own",
    "convert/dialects.py:_pattern": ("{i}.weight",),
    "convert/files/hdf5_files.py:_ONE_AT_A_TIME": "made anew in a child",
    "convert/files/records.py:numpy_dtype": ("float32",),
    "experiments/engine.py:_ONE_AT_A_TIME": "made anew in a child",
    "experiments/devices.py:_mirrored": "TensorFlow's, which no child may use",
    "files.py:_MADE": "a context's own",
    "layers/vector_state.py:_HELD": "a context's own",
    "layers/vector_state.py:_UNCOUNTED": "a context's own",
    "linalg/threads.py:_libraries": "of the process: a child has the same",
    "linalg/tracing.py:_registered": "once a process: see the test below",
    "linalg/tracing.py:_shared": "a context's own",
    "linalg/turning_backends.py:jax_functions": "functions: found twice, used alike",
    "linalg/turning_backends.py:torch_functions": "functions: found twice, used alike",
    "measures/alpha_stable.py:_grid": (),
    "measures/kernel_certificates.py:_KNOWN": "a context's own",
    "terminal.py:_quiet": "a context's own",
    "zoo/registry.py:_entries": (),
}
KEEPS = (
    "cache lru_cache Lock RLock ThreadPoolExecutor ProcessPoolExecutor Pool local "
    "ContextVar WeakKeyDictionary WeakValueDictionary Semaphore Condition Event Queue"
).split()


def name_of(node):
    node = node.func if isinstance(node, ast.Call) else node
    return getattr(node, "attr", getattr(node, "id", None))


def kept(path):
    """Yield the names that a file binds, outside of functions, to what is kept."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bodies = [tree.body]
    bodies += [node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    for node in (node for body in bodies for node in body):
        if isinstance(node, ast.FunctionDef):
            if any(name_of(each) in KEEPS for each in node.decorator_list):
                yield node.name
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            calls = [n for n in ast.walk(node.value) if isinstance(n, ast.Call)]
            if any(name_of(each) in KEEPS for each in calls):
                target = node.targets[0] if hasattr(node, "targets") else node.target
                yield target.id


def test_the_list_of_what_is_kept_is_whole():
    found = {
        f"{path.relative_to(ROOT).as_posix()}:{name}"
        for path in ROOT.rglob("*.py")
        for name in kept(path)
    }
    assert found == set(KEPT)


@pytest.mark.parametrize("how", WAYS)
def test_caches_give_each_child_what_they_gave_here(how):
    cached = {key: value for key, value in KEPT.items() if isinstance(value, tuple)}
    code = (
        "import json, sys\nfrom tests.faults import children\n"
        "how, names = sys.argv[1], json.loads(sys.argv[2])\n"
        "if __name__ == '__main__':\n"
        "    for name, arguments in names.items():\n"
        "        module, _, function = name.rpartition('.')\n"
        "        __import__(module)\n"
        "        found = None\n"
        "        if how != 'threads':\n"
        "            found = repr(getattr(sys.modules[module], function)(*arguments))\n"
        "        wrong = children.side_by_side(\n"
        "            how, children.call, name, arguments, found)\n"
        "        if set(wrong) != {None}: print(name, wrong)\n"
    )
    names = {
        f"keras_spectral.{key.replace('.py:', '.').replace('/', '.')}": value
        for key, value in cached.items()
    }
    done = subprocess.run(
        [sys.executable, "-c", code, how, json.dumps(names)],
        capture_output=True,
        text=True,
        # What is cached does not depend on it, and spawned children start sooner.
        env={**os.environ, "KERAS_BACKEND": "numpy"},
    )
    assert (done.stdout, done.returncode) == ("", 0), done.stderr


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One file of each kind, with a tensor of more than a megabyte and small ones."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    sizes = {"large": (600, 600), **{f"w{i}": (40 + i, 30) for i in range(30)}}
    arrays = {
        name: rng.standard_normal(shape).astype("float32")
        for name, shape in sizes.items()
    }
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    torch.save(tensors, folder / "zip.pth")
    torch.save(tensors, folder / "old.pth", _use_new_zipfile_serialization=False)
    safetensors.numpy.save_file(arrays, folder / "a.safetensors")
    np.savez(folder / "stored.npz", **arrays)
    np.savez_compressed(folder / "packed.npz", **arrays)
    with h5py.File(folder / "a.h5", "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, chunks=True, compression="gzip")
    layers = [keras.layers.Dense(30) for _ in range(20)]
    keras.Sequential([keras.Input((30,)), *layers]).save(folder / "model.keras")
    return sorted(folder.iterdir())


@pytest.mark.parametrize("how", WAYS)
def test_children_read_what_the_parent_reads(how, files):
    """A thread pool was missing after a fork, and a position shared after one."""
    if how not in (*multiprocessing.get_all_start_methods(), "threads"):
        pytest.skip(f"no {how} here")
    command = [sys.executable, "-m", "tests.faults.children", how, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("", 0), done.stderr


def test_a_fork_while_a_worker_measures_leaves_no_lock_behind():
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("no fork here")
    code = (
        "import os, signal\nfrom keras_spectral.experiments import engine\n"
        "engine._ONE_AT_A_TIME.acquire()\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    signal.alarm(20)\n"
        "    engine._ONE_AT_A_TIME.acquire()\n"
        "    os._exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "assert engine._ONE_AT_A_TIME.locked()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not engine._ONE_AT_A_TIME.locked()


def test_threads_register_a_gradient_once():
    """TensorFlow refuses a name that another thread has registered meanwhile."""
    from keras_spectral.linalg import tracing

    def gradient(option, inputs, upstream):
        return upstream

    for option in range(20):
        arguments = (gradient, f"thread {option}", 1)
        outcomes = []
        start = threading.Barrier(4)

        def work(arguments=arguments, outcomes=outcomes, start=start):
            start.wait()
            try:
                outcomes.append(tracing._registered(*arguments))
            except Exception as error:
                outcomes.append(error)

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
        assert len(set(outcomes)) == 1, outcomes


def test_two_sweeps_in_one_folder_lose_no_row(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    layers = [keras.layers.Flatten(), keras.layers.Dense(10, name="head")]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers], name="small")
    for number in range(3):
        head = model.get_layer("head")
        head.kernel.assign(head.kernel * (number + 1.0))
        model.save(tmp_path / "checkpoints" / f"small_digits-{number}.keras")
    command = [sys.executable, "-m", "keras_spectral.cli", "sweep", "--trials", "2"]
    command += ["--checkpoints", "checkpoints", "--output", "out", "--workers", "0"]
    sweeps = [
        subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**os.environ, "KERAS_BACKEND": "numpy"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    errors = [sweep.communicate()[1] for sweep in sweeps]
    assert [sweep.returncode for sweep in sweeps] == [0, 0], errors
    out = tmp_path / "out"
    table = json.loads((out / "table.json").read_text())
    assert table["status"] == "complete" and len(table["rows"]) == 3
    rows = [json.loads(path.read_text()) for path in (out / "rows").iterdir()]
    assert sorted(row["file"] for row in rows) == sorted(
        row["file"] for row in table["rows"]
    )
    assert len({row["file"] for row in rows}) == len(rows) == 3
    names = {"rows", "table.json", "table.md", "figure3.png"}
    assert {path.name for path in out.iterdir()} == names
