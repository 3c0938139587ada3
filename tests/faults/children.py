"""Reading a file, and calling what is cached, in children and threads of a process.

`python -m tests.faults.children HOW FILE ...`: the file is opened and read here, and
then once more by each of four forked or spawned processes, or threads. Each prints what
is wrong in what it sees.
"""

import importlib
import multiprocessing
import os
import random
import sys
import threading
import time
import zlib

CHILDREN, DEADLINE = 3, 30


def sums(state, keys):
    return {key: zlib.crc32(state[key].tobytes()) for key in keys}


def read(state, expected, seed):
    """Say what differs when a state is read in another order."""
    if isinstance(state, str):
        from keras_spectral.convert import read_checkpoint

        state = read_checkpoint(state)
    keys = list(expected)
    generator = random.Random(seed)  # noqa: S311
    for _ in range(4):
        generator.shuffle(keys)
        if sums(state, keys) != expected:
            raise ValueError("other values")


def call(name, arguments, expected, seed):
    """Call a function that keeps what it found, and compare with the parent's."""
    module, _, function = name.rpartition(".")
    found = repr(getattr(importlib.import_module(module), function)(*arguments))
    if expected not in (None, found):
        raise ValueError(f"{found[:80]} in place of {expected[:80]}")


def side_by_side(how, function, *arguments):
    """Return what became of `function` in each child: `None` if all was well."""
    if how == "threads":
        return _in_threads(function, *arguments)
    return _in_processes(how, function, *arguments)


def _in_threads(function, *arguments):
    outcomes, start = {}, threading.Barrier(CHILDREN)
    sys.setswitchinterval(1e-6)

    def work(seed):
        start.wait()
        try:
            outcomes[seed] = function(*arguments, seed)
        except Exception as error:
            outcomes[seed] = repr(error)[:300]

    threads = [
        threading.Thread(target=work, args=(seed,), daemon=True)
        for seed in range(CHILDREN)
    ]
    for thread in threads:
        thread.start()
    end = time.monotonic() + DEADLINE
    for thread in threads:
        thread.join(max(0, end - time.monotonic()))
    return [outcomes.get(seed, "hangs") for seed in range(CHILDREN)]


def _child(queue, function, arguments, seed):
    try:
        queue.put((seed, function(*arguments, seed)))
    except Exception as error:
        queue.put((seed, repr(error)[:300]))


def _in_processes(how, function, *arguments):
    context = multiprocessing.get_context(how)
    queue = context.SimpleQueue()
    children = [
        context.Process(target=_child, args=(queue, function, arguments, seed))
        for seed in range(CHILDREN)
    ]
    for child in children:
        child.start()
    end = time.monotonic() + DEADLINE
    for child in children:
        child.join(max(0, end - time.monotonic()))
        if child.is_alive():
            child.kill()
    outcomes = {}
    while not queue.empty():
        seed, outcome = queue.get()
        outcomes[seed] = outcome
    return [outcomes.get(seed, "hangs") for seed in range(CHILDREN)]


def main(how, *paths):
    """Print, a line a path, what went wrong; nothing if nothing did."""
    from keras_spectral.convert import read_checkpoint

    for path in paths:
        expected = sums(read_checkpoint(path), read_checkpoint(path))
        # A spawned child gets the path; the others an open file.
        state = path if how == "spawn" else read_checkpoint(path)
        wrong = set(side_by_side(how, read, state, expected)) - {None}
        if threading.active_count() > 1:
            wrong.add("a thread is left")
        if wrong:
            print(os.path.basename(path), *wrong, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
