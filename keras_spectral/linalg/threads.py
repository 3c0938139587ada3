"""One thread of BLAS, where several would only wait for each other."""

import contextlib
import functools
import os
import threading

from threadpoolctl import ThreadpoolController


class _Users:
    """How many use one thread now, and what was before the first of them."""

    def __init__(self):
        self.lock, self.count, self.before = threading.Lock(), 0, None


_USERS = _Users()


def _forget():
    """Give a forked child users of its own: those of this process are not in it."""
    global _USERS
    _USERS = _Users()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@functools.cache
def _libraries():
    # To look for them takes longer than a small kernel.
    return ThreadpoolController()


@contextlib.contextmanager
def one_thread():
    """Let products and factorizations not be shared out among threads.

    Of small ones threads take ten to thirty times as long where they wait for a core
    that others have, and as much CPU time. The limit is the process' own: of several
    users in threads the last one to leave takes it off.

    Example:
    >>> import numpy as np
    >>> with one_thread():
    ...     float(np.linalg.norm(np.eye(3), 2))
    1.0
    """
    users = _USERS
    with users.lock:
        if not users.count:
            users.before = _libraries().limit(limits=1, user_api="blas")
        users.count += 1
    try:
        yield
    finally:
        with users.lock:
            users.count -= 1
            if not users.count:
                users.before.restore_original_limits()
