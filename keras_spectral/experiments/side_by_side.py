"""Arrays worked on side by side, in threads, within a budget of memory."""

import contextlib
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from keras_spectral.linalg.threads import one_thread

# Bytes of all that is worked on side by side.
BUDGET = 1 << 28


def side_by_side(tasks, function, failed, takes, workers):
    """Return what a function makes of some arrays, in their order.

    Arrays are read here, one after the other, and worked on in threads: NumPy lets
    others work while it computes. BLAS has one thread for each, so that results are the
    same to the bit whatever the number of workers. An array that takes more than 256
    MiB is worked on alone, here, with all threads of BLAS; the others take no more
    together, besides the one that is read next.

    Args:
        tasks: Iterable of objects whose `read()` returns an array.
        function: Callable of a task and its array.
        failed: Callable, `ValueError` of either to what stands in the result's place.
            The error is not kept, for it would keep the array.
        takes: Callable, array to the bytes that it takes when it is worked on.
        workers: Integer >= 1, threads.

    Returns:
        List, one result a task.

    Example:
    >>> import io
    >>> files = [io.StringIO("12"), io.StringIO("x")]
    >>> side_by_side(files, lambda file, text: int(text), type, len, workers=2)
    [12, <class 'ValueError'>]
    """

    def outcome(task, array):
        try:
            return function(task, array)
        except ValueError as error:
            return failed(error)

    results, running = [], {}
    with contextlib.ExitStack() as limits, ThreadPoolExecutor(workers) as pool:
        for task in tasks:
            try:
                array = task.read()
            except ValueError as error:
                results.append(failed(error))
                continue
            size = takes(array)
            alone = size > BUDGET
            while running and (
                len(running) == workers or sum(running.values()) + size > BUDGET
            ):
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    del running[future]
            if not running:
                limits.close()
                if not alone:
                    limits.enter_context(one_thread())
            if alone:
                results.append(outcome(task, array))
            else:
                results.append(pool.submit(outcome, task, array))
                running[results[-1]] = size
            # Not held while the next one is read.
            del array
    return [each.result() if isinstance(each, Future) else each for each in results]
