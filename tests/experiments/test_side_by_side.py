"""Threads: the same results to the bit, in order, within a budget of memory."""

import os
import signal
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import threadpoolctl

from keras_spectral.experiments import analyze_checkpoint
from keras_spectral.experiments import side_by_side as module
from keras_spectral.experiments.side_by_side import side_by_side


def tasks(*sizes):
    return [SimpleNamespace(read=lambda size=size: size) for size in sizes]


def run(function, sizes, workers, failed=str):
    return side_by_side(
        tasks(*sizes), lambda _, size: function(size), failed, int, workers
    )


def blas_threads():
    info = threadpoolctl.threadpool_info()
    return {each["num_threads"] for each in info if each["user_api"] == "blas"}


def test_workers_work_at_once_and_results_keep_their_order():
    # Each waits for another one.
    barrier = threading.Barrier(3, timeout=60)
    found = run(lambda size: (barrier.wait() >= 0, size), range(1, 7), workers=3)
    assert found == [(True, size) for size in range(1, 7)]


def test_what_is_large_is_alone_and_the_rest_within_the_budget():
    """Large arrays have this thread, and BLAS its own number of threads."""
    budget, lock, running, most = module.BUDGET, threading.Lock(), [], []
    before = blas_threads()

    def work(size):
        with lock:
            running.append(size)
            most.append((sum(running), len(running)))
        threading.Event().wait(0.01)
        place = threading.current_thread() is threading.main_thread(), blas_threads()
        with lock:
            running.remove(size)
        return place

    third, large = budget // 3, budget + 1
    found = run(work, [third] * 5 + [large, large, 1, third], workers=8)
    small = [place for place in found if not place[0]]
    assert [place[0] for place in found] == [False] * 5 + [True] * 2 + [False] * 2
    assert all(threads == {1} for _, threads in small)
    assert found[5][1] == found[6][1] == before == blas_threads()
    assert max(total for total, count in most if count > 1) <= budget
    assert max(count for _, count in most) == 3


def test_errors_stand_in_their_place_and_others_end_the_work():
    def read():
        raise ValueError("unread")

    readers = [SimpleNamespace(read=read), *tasks(2, module.BUDGET + 2, 1)]

    def even_refused(_, size):
        if size % 2:
            return size
        raise ValueError(f"even {size}")

    found = side_by_side(readers, even_refused, str, int, 2)
    assert found == ["unread", "even 2", f"even {module.BUDGET + 2}", 1]
    with pytest.raises(ZeroDivisionError):
        run(lambda size: 1 / (size - 1), [1, 2], workers=2)


def test_an_interrupt_ends_the_work():
    before, begun = blas_threads(), []

    def work(size):
        begun.append(size)
        if len(begun) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(0.01)

    with pytest.raises(KeyboardInterrupt):
        run(work, [1] * 1000, workers=2)
    assert len(begun) < 1000
    assert blas_threads() == before


@pytest.mark.parametrize("convolution", ["reshaped", "slices"])
def test_an_analysis_is_the_same_to_the_bit(convolution, tmp_path):
    rng = np.random.default_rng(0)
    shapes = [(300, 200), (40, 70, 3, 3), (9, 1), (150, 260), (700, 500), (5, 5)]
    tensors = {
        f"layer{n}.weight": rng.standard_t(4, shape).astype("float32")
        for n, shape in enumerate(shapes)
    }
    tensors["layer3.weight"][0, 0] = np.nan
    np.savez(tmp_path / "net.npz", **tensors)
    one, four = (
        analyze_checkpoint(
            tmp_path / "net.npz", convolution=convolution, workers=workers
        )
        for workers in (1, 4)
    )
    assert [row.name for row in one] == [f"layer{n}.weight" for n in (0, 1, 4, 5)]
    assert list(one) == list(four)
    assert list(one.skipped.items()) == list(four.skipped.items())
    with pytest.raises(ValueError, match="`workers`"):
        analyze_checkpoint(tmp_path / "net.npz", workers=0)
