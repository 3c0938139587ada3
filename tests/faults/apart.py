"""Parts of the full run that each have a process of their own."""

import concurrent.futures
import multiprocessing
import tempfile
from pathlib import Path

_KILLS, _DISKS = 200, 32


def apart(function, *arguments):
    """Call a function in a process of its own: each brings another backend."""
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(function, *arguments).result()


def kills():
    from tests.faults import kills

    return kills.shared(_KILLS)


def killed(name, times):
    from tests.faults import kills

    ((_, count),) = kills.run(times, names=[name])
    return count.kills, count.wrong


def savers():
    from tests.faults import disks

    return list(disks.SAVERS)


def filled(saver):
    from tests.faults import disks

    with tempfile.TemporaryDirectory() as folder:
        try:
            return disks.fill(Path(folder), saver, _DISKS), []
        except AssertionError as error:
            return 0, [repr(error)]
