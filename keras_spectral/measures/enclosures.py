"""Where tensors lie on a ball of inputs."""

import functools
import math
from typing import NamedTuple

import numpy as np


class Enclosure(NamedTuple):
    """Where a tensor lies for all inputs of the ball.

    Args:
        center: Array, what was computed for the input at its center.
        radii: Array, how far each number may lie from the center.
        error: Float, how far, in Euclidean norm, rounding may have moved the center
            from what the tensor's bases' centers make.
    """

    center: np.ndarray
    radii: np.ndarray
    error: float = 0.0

    @property
    def largest(self):
        """The largest magnitude of each number."""
        return np.abs(self.center) + self.radii

    @classmethod
    def of(cls, center, radii, error=0.0):
        """Return it, without limits where floats hold no center, radius or error."""
        known = np.isfinite(center)
        if not known.all() or math.isnan(error):
            error = math.inf
        radii = np.where(known & ~np.isnan(radii), radii, math.inf)
        return cls(np.where(known, center, 0.0), radii, error)


def factor(where, shape, output_shape):
    """Return what a factor of one shape is multiplied by at most, in norm."""
    sizes = np.broadcast_to(where.largest, output_shape)
    rank = len(output_shape)
    form = (1,) * (rank - len(shape)) + tuple(shape)
    repeated = tuple(
        axis for axis in range(rank) if form[axis] == 1 and output_shape[axis] != 1
    )
    top = float(sizes.max(initial=0.0))
    if not 0 < top < math.inf:
        return top
    squares = np.square(sizes / top).sum(axis=repeated)
    return top * float(np.sqrt(squares.max()))


def length(x):
    """Return the norm of all numbers of an array, however small or large they are."""
    # Squares of what is far from one are zero or infinite.
    top = float(np.abs(x).max(initial=0.0))
    return top * float(np.linalg.norm(np.ravel(x) / top)) if 0 < top < math.inf else top


def least_of(*bounds):
    """Return the least of bounds, entry by entry; what is not a number is none."""
    least = functools.reduce(np.fmin, bounds)
    return np.where(np.isnan(least), math.inf, least)
