"""Ctrl-C: heeded whatever a library makes of it, and kept from worker processes."""

import contextlib
import signal
import sys
import threading


@contextlib.contextmanager
def interrupts_heeded():
    """Let Ctrl-C end the body as `KeyboardInterrupt`, even where a library catches it.

    TensorFlow turns an interrupt that comes while it converts a shape into a
    `TypeError`. An exception that follows an interrupt is the interrupt here. One that
    comes in a callback of the garbage collector is dropped by Python with a traceback;
    here without one, for `check` tells.

    Yields:
        A function without arguments that raises `KeyboardInterrupt` if an interrupt
        came and was swallowed; for the body to call between two pieces of work.

    Example:
    >>> with interrupts_heeded() as check:
    ...     check()
    """
    came = False

    def note(number, frame):
        nonlocal came
        came = True
        before(number, frame)

    def check():
        if came:
            raise KeyboardInterrupt

    def dropped(unraisable):
        if not (came and issubclass(unraisable.exc_type, KeyboardInterrupt)):
            hook(unraisable)

    before = signal.getsignal(signal.SIGINT)
    if not (_in_main_thread() and callable(before)):
        # Only the main thread has handlers; ignored interrupts stay ignored.
        yield check
        return
    signal.signal(signal.SIGINT, note)
    hook, sys.unraisablehook = sys.unraisablehook, dropped
    try:
        yield check
    except Exception as error:
        if came:
            raise KeyboardInterrupt from error
        raise
    finally:
        sys.unraisablehook = hook
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def interrupts_ignored():
    """Start processes that Ctrl-C does not reach.

    A terminal sends it to all of them, and each would print where it was; this process
    ends them. What ignores a signal hands that down; while the body runs, this process
    ignores it, too.
    """
    if not _in_main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _in_main_thread():
    return threading.current_thread() is threading.main_thread()
