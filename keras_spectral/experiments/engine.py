"""Tasks computed in processes of Dask, local or a cluster's, or in this one."""

import contextlib
import importlib.util
import os
import threading
import uuid

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from keras_spectral.interrupts import interrupts_ignored
from keras_spectral.printable import printable
from keras_spectral.terminal import Console
from keras_spectral.validation import check_integer

# Seconds to find a cluster's scheduler in.
_PATIENCE = 10

# One process is one thread, of each library that it computes with.
_ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "TF_NUM_INTRAOP_THREADS",
        "TF_NUM_INTEROP_THREADS",
    ),
    "1",
)

# Keras' state is one for a process, and a cluster's worker may have several threads.
_ONE_AT_A_TIME = threading.Lock()


def _unlock():
    """Give a forked child a lock of its own: who holds this one is not in it."""
    global _ONE_AT_A_TIME
    _ONE_AT_A_TIME = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)


@contextlib.contextmanager
def computing(tasks, function, failed, workers, scheduler):
    """Yield an iterator of (task, row as a dict), in the order in which they finish.

    Args:
        tasks: List of tasks with a `key`, a string.
        function: Callable, task to dict, which a worker can import.
        failed: Callable, (task, exception) to dict, for a worker that was killed.
        workers: Integer, local processes; `None` for one a core, 0 for none: this
            process computes, without Dask.
        scheduler: Address of a Dask scheduler in place of local processes, or `None`.
    """
    if scheduler is None and workers == 0:
        yield ((task, _computed(function, task)) for task in tasks)
        return
    dask, distributed = _dask()
    with contextlib.ExitStack() as stack:
        if scheduler is None:
            spawned = {
                **dask.config.get("distributed.nanny.pre-spawn-environ"), **_ONE_THREAD
            }  # fmt: skip
            stack.enter_context(
                dask.config.set(
                    {
                        "distributed.nanny.pre-spawn-environ": spawned,
                        # A task that kills its worker does so once.
                        "distributed.scheduler.allowed-failures": 0,
                    }
                )
            )
            with interrupts_ignored():
                cluster = distributed.LocalCluster(
                    n_workers=min(workers or cores(), len(tasks)),
                    threads_per_worker=1,
                    processes=True,
                    dashboard_address=None,
                    # Without a dashboard it listens all the same, and where another
                    # run has the usual port it would warn.
                    scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
                    silence_logs="CRITICAL",
                )
            client = distributed.Client(stack.enter_context(cluster))
        else:
            client = _client(scheduler)
        stack.enter_context(client)
        # Of this run alone: a scheduler gives equal names one result.
        run = uuid.uuid4().hex
        futures = {
            client.submit(
                _unpacked,
                distributed.protocol.pickle.dumps((function, task)),
                key=f"{function.__name__}-{task.key}-{run}",
            ): task
            for task in tasks
        }
        yield _as_they_finish(distributed, futures, failed)


def check_scheduler(scheduler):
    """Raise an OSError, before anything is written, unless a scheduler is reached.

    Args:
        scheduler: Address of a Dask scheduler, or `None`, which is right.
    """
    if scheduler is not None:
        _client(scheduler).close()


def _client(scheduler):
    _, distributed = _dask()
    try:
        return distributed.Client(scheduler, timeout=_PATIENCE)
    except (OSError, ValueError) as error:
        raise OSError(
            "`scheduler` must be the address of a Dask scheduler. "
            f"Received: scheduler={scheduler} ({error}). Start one with "
            "`dask scheduler`, and workers with `dask worker ADDRESS`."
        ) from error


def _computed(function, task):
    """Return the row of a task, with Keras started and to itself."""
    from keras_spectral.experiments.inputs import start_keras

    with _ONE_AT_A_TIME:
        start_keras(Console(quiet=True))
        return function(task)


def _unpacked(packed):
    """Compute in a worker. Unpacking imports Keras, whose messages are held back."""
    from keras_spectral.experiments.inputs import start_keras

    with _ONE_AT_A_TIME:
        start_keras(Console(quiet=True))
    _, distributed = _dask()
    return _computed(*distributed.protocol.pickle.loads(packed))


def _as_they_finish(distributed, futures, failed):
    for future in distributed.as_completed(futures):
        task, error = futures[future], future.exception()
        # An error is what Python could not catch: a worker that was killed.
        yield task, future.result() if error is None else failed(task, error)
        # The scheduler would keep it, and a cluster's outlives this run.
        future.release()


def _dask():
    try:
        import dask
        import distributed
    except ImportError as error:
        raise ImportError(
            "`workers` and `scheduler` need Dask: pip install dask distributed. Or "
            "leave both out, and this process computes."
        ) from error
    return dask, distributed


def checked_workers(workers, scheduler):
    """Return the number of local processes: `None` for one a core, 0 for none.

    Where nothing is asked for and Dask is not installed, this process computes.

    Args:
        workers: Integer >= 0, or `None`.
        scheduler: Address of a Dask scheduler, or `None`.
    """
    if workers is not None:
        check_integer("workers", workers, least=0)
    elif scheduler is None and not importlib.util.find_spec("distributed"):
        return 0
    return workers


def cores():
    """Return how many cores this process may use.

    Example:
    >>> cores() > 0
    True
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def shown(console, results, total, title, name):
    """Pass results on, and show how many there are.

    Args:
        console: A `Console`.
        results: Iterator of (task, row as a dict with `error`).
        total: Integer.
        title: String, what is counted.
        name: Callable, row to the string that names it.
    """
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
    ) as progress:
        bar = progress.add_task(title, total=total, note="")
        for task, row in results:
            yield task, row
            outcome = "failed" if row["error"] else "done"
            progress.update(bar, advance=1, note=f"{printable(name(row))} {outcome}")
