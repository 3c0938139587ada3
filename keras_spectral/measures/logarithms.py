"""Sums of numbers too large to be written, by their logarithms."""

import math
import sys

import numpy as np


def log(x):
    """Return the natural logarithm, `-inf` of zero."""
    if not x >= 0:
        raise ValueError(f"`model` must have finite constants. Received: {x}")
    return math.log(x) if x else -math.inf


def exp(x):
    """Return the exponential, rounded to no less than the least normal number.

    It is zero for `-inf` alone, and infinite where it overflows.
    """
    if x > 709:
        return math.inf
    return max(math.exp(x), sys.float_info.min) if x > -math.inf else 0.0


def log_sum(parts):
    """Return log of the sums of exp, entry by entry."""
    table = np.stack(parts)
    top = table.max(axis=0)
    usable = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return usable + np.log(np.exp(table - usable).sum(axis=0))


def log_norm(logs):
    """Return the logarithm of the Euclidean norm of what has these logarithms."""
    return float(log_sum([np.array([2 * value]) for value in logs])[0] / 2)
