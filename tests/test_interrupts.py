"""Ctrl-C ends the work, whatever a library makes of it."""

import gc
import signal
import sys
import threading

import pytest

from keras_spectral.experiments import demo
from keras_spectral.interrupts import interrupts_heeded, interrupts_ignored


def interrupted_library():
    """What TensorFlow does where an interrupt comes while it converts a shape."""
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise TypeError("failed to convert") from None


def test_an_error_that_follows_an_interrupt_is_the_interrupt():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as caught, interrupts_heeded():
        interrupted_library()
    assert isinstance(caught.value.__cause__, TypeError)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_swallowed_interrupt_is_found_by_the_next_check():
    with interrupts_heeded() as check:
        check()
        with pytest.raises(TypeError):
            interrupted_library()
        with pytest.raises(KeyboardInterrupt):
            check()


def test_an_interrupt_in_the_garbage_collector_prints_nothing(monkeypatch):
    printed = []
    monkeypatch.setattr(sys, "unraisablehook", printed.append)

    def callback(phase, _):
        if phase == "start":
            signal.raise_signal(signal.SIGINT)

    with interrupts_heeded() as check:
        gc.callbacks.append(callback)
        try:
            gc.collect()
        finally:
            gc.callbacks.remove(callback)
        with pytest.raises(KeyboardInterrupt):
            check()
    assert not printed and sys.unraisablehook == printed.append


def test_other_errors_stay_what_they_are():
    with pytest.raises(TypeError), interrupts_heeded():
        raise TypeError


def test_ignored_interrupts_stay_ignored():
    with interrupts_ignored(), interrupts_heeded() as check:
        signal.raise_signal(signal.SIGINT)
        check()


def test_threads_may_enter():
    entered = []

    def body():
        with interrupts_heeded() as check, interrupts_ignored():
            check()
            entered.append(True)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert entered


def test_demo_calls_it_an_interrupt(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "train", lambda *_, **__: (interrupted_library(), [0.0]))
    with pytest.raises(KeyboardInterrupt):
        demo.run_demo(tmp_path, epochs=1)
    assert '"interrupted"' in (tmp_path / "results.json").read_text()
