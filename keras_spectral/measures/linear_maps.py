"""Linear maps of one sample: what a network does between its nonlinearities."""

import math
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from keras_spectral.measures.kernel_certificates import (
    LARGEST_SIDE,
    Kernel,
    matrix_norm,
)

# Entries of a matrix that is formed.
LARGEST_MATRIX = 2**22
# What the steps of a map that is formed may multiply up to, after each of them. A
# number that has been too small for a float then comes to less than the second.
_LARGEST_GAIN, _LOST = 1e60, 1e-150
# What sums and roots of a few numbers may lose.
_OUTWARDS = 1 + 1e-12


class Step(NamedTuple):
    """What one layer does, its offset left out.

    Args:
        apply: Function of a NumPy array (batch, *shape), float64, that is linear.
        output_shape: Tuple, without the batch.
        bound: Float, a certified bound of the norm; `None` for that of `kernel`, which
            is dear and found when it is asked for.
        how: `"exact"` or `"certified"`.
        kernel: A `Kernel` that the step consists of, or `None`.
        folds: Boolean, whether scales of the last axis can go into the kernel.
        scale: Array (channels,) where the step scales each channel of the last axis.
        one_sign: Boolean, whether no two numbers that it adds up have factors of
            different signs: then numbers that change by r at most make ones that change
            by |apply(r)| at most.
        ceiling: Float, what the norm of `kernel` is known not to exceed.
    """

    apply: Callable[[Any], Any]
    output_shape: tuple
    bound: float | None
    how: str = "certified"
    kernel: Kernel | None = None
    folds: bool = False
    scale: np.ndarray | None = None
    one_sign: bool = False
    ceiling: float = math.inf

    def gain(self):
        """Return a bound of the norm that costs nothing, and may be loose."""
        if self.bound is not None:
            return self.bound
        taps = self.kernel.array.reshape(-1, math.prod(self.kernel.array.shape[-2:]))
        if self.kernel.kind == "dense":
            taps = taps.reshape(1, -1)
        # Squares leave the range of floats long before the norm does.
        largest = float(np.abs(taps).max(initial=0.0))
        scale = 1.0 if 1e-60 < largest < 1e60 else largest or 1.0
        return float(np.linalg.norm(taps / scale, axis=1).sum() * scale)

    def norm(self):
        """Return a certified bound of the norm, and how it is known."""
        if self.bound is None and self.kernel is not None:
            return min(self.kernel.norm(), (self.ceiling, "certified"))
        return self.bound, self.how


class LinearMap(NamedTuple):
    """A composition of steps, from the tensor where it begins.

    Args:
        shape: Tuple, of what it reads.
        output_shape: Tuple.
        bounds: Tuple of functions without arguments to (bound, how it is known): the
            least bound holds.
        matrix: Array (numbers read, *output_shape), float64; `None` where too large.
        kernel: `Kernel` that it consists of, or `None`.
        scale: Array (channels,) or `None`, where it only scales channels.
        names: Tuple of strings, the layers.
        gain: Float, a bound of the norm from those of its steps, which costs nothing.
    """

    shape: tuple
    output_shape: tuple
    bounds: tuple = (lambda: (1.0, "exact"),)
    matrix: np.ndarray | None = None
    kernel: Kernel | None = None
    scale: np.ndarray | None = None
    names: tuple = ()
    gain: float = 1.0

    @classmethod
    def identity(cls, shape):
        """Return the map that changes nothing."""
        return cls(tuple(shape), tuple(shape))

    @property
    def is_identity(self):
        """Whether nothing has been composed yet."""
        return not self.names

    def holds(self, step):
        """Return whether floats hold the map followed by a step.

        Where they do not, the map is to be followed by another, and their norms
        multiplied by their logarithms.
        """
        return self.is_identity or _held(norm_product(self.gain, step.gain()))

    def then(self, step, name):
        """Return the map followed by a step."""
        gain = norm_product(self.gain, step.gain())
        held = _held(gain)
        new = LinearMap(
            shape=self.shape,
            output_shape=step.output_shape,
            bounds=(lambda: _product(self.norm(), step.norm()),),
            matrix=self._rows(step.apply, step.output_shape) if held else None,
            names=(*self.names, name),
            gain=gain,
        )
        if self.is_identity:
            kernel = step.kernel if step.folds else None
            return new._replace(bounds=(step.norm,), kernel=kernel, scale=step.scale)
        if not held:
            return new
        kernel = None
        if step.scale is not None and self.scale is not None:
            scale = self.scale * step.scale
            exact = float(np.abs(scale).max()), "exact"
            return new._replace(bounds=(lambda: exact,), scale=scale)
        if step.scale is not None and self.kernel is not None:
            kernel = self.kernel.scaled(step.scale, 1)
        elif step.folds and self.scale is not None:
            kernel = step.kernel.scaled(self.scale, 0)
        return new.known_as(kernel)

    def plus(self, other, name, sign=1.0):
        """Return the sum, or difference, of two maps of the same tensor."""
        first, second = self.formed(), other.formed()
        matrix = None
        if first is not None and second is not None:
            matrix = first + sign * second
        names = dict.fromkeys((*self.names, *other.names, name))
        new = LinearMap(
            shape=self.shape,
            output_shape=self.output_shape,
            bounds=(lambda: (self.norm()[0] + other.norm()[0], "certified"),),
            matrix=matrix,
            names=tuple(names),
            gain=self.gain + other.gain,
        )
        kernel = self._kernel_of_sum(other, sign)
        if kernel is None:
            return new
        # Not below the sum of the norms where the two work against each other's
        # padding: it is computed, too.
        return new._replace(kernel=kernel, bounds=(*new.bounds, kernel.norm))

    @classmethod
    def stacked(cls, maps, join, output_shape, name, on_channels):
        """Return the map to what several maps of one tensor make, side by side.

        Args:
            maps: List of `LinearMap`.
            join: Function of a list of arrays (batch, ...) to one.
            output_shape: Tuple.
            name: String, of what joins them.
            on_channels: Boolean, whether it is along the last axis.
        """
        parts = [map.formed() for map in maps]
        names = dict.fromkeys((*(n for map in maps for n in map.names), name))

        def bound():
            norms = [map.norm()[0] for map in maps]
            return math.hypot(*norms) * _OUTWARDS, "certified"

        new = cls(
            shape=maps[0].shape,
            output_shape=tuple(output_shape),
            bounds=(bound,),
            matrix=None if any(part is None for part in parts) else join(parts),
            names=tuple(names),
            gain=sum(map.gain for map in maps),
        )
        kernel = Kernel.stacked(maps) if on_channels else None
        if kernel is None:
            return new
        return new._replace(bounds=(bound, kernel.norm), kernel=kernel)

    def times(self, factor):
        """Return the map times a number."""
        gain = norm_product(self.gain, abs(factor))
        matrix = self.formed() if _held(gain) else None
        return self._replace(
            bounds=(lambda: _product(self.norm(), (abs(factor), "exact")),),
            matrix=None if matrix is None else matrix * factor,
            kernel=self.kernel and self.kernel.times(factor),
            scale=None if self.scale is None else self.scale * factor,
            names=self.names or (f"{factor:.4g} x",),
            gain=gain,
        )

    def norm(self):
        """Return a bound of the norm, and how it is known."""
        matrix = self.factored
        if matrix is not None:
            found = matrix_norm(matrix), "exact"
        else:
            found = min((bound() for bound in self.bounds), key=lambda pair: pair[0])
        lost = self._lost()
        return found if found[0] >= lost else (lost, "certified")

    def row_norms(self):
        """Return bounds of the norms of the rows, by output, or `None`."""
        if self.is_identity:
            return np.ones(self.output_shape)
        if self.matrix is not None:
            rows = np.linalg.norm(self.matrix, axis=0) * (1 + 1e-12)
        elif self.scale is not None:
            rows = np.abs(self.scale)
        elif self.kernel is not None:
            rows = self.kernel.row_norms()
        else:
            return None
        # Squares are lost, too.
        lost = _LOST if self.gain else 0.0
        return np.broadcast_to(rows, self.output_shape) + lost

    def _lost(self):
        """Return what numbers below the range of floats may have made at most.

        After each step the gain was within the limits, so that those that follow it
        have multiplied by their ratio at most what it had lost, below 1e-280.
        """
        return _LOST if self.gain and _held(self.gain) else 0.0

    @property
    def factored(self):
        """The matrix (numbers out, numbers in) where it is small enough to factor."""
        if self.matrix is None:
            return None
        matrix = self.matrix.reshape(len(self.matrix), -1).T
        return matrix if min(matrix.shape) <= LARGEST_SIDE else None

    def _rows(self, apply, output_shape):
        """Return the matrix after `apply`, or `None`."""
        count = math.prod(self.shape)
        if count * math.prod(output_shape) > LARGEST_MATRIX:
            return None
        if self.matrix is not None:
            return apply(self.matrix)
        if not self.is_identity or not count:
            return None
        chunk = max(1, LARGEST_MATRIX // count)
        parts = []
        for start in range(0, count, chunk):
            rows = np.zeros((min(chunk, count - start), count))
            rows[np.arange(len(rows)), start + np.arange(len(rows))] = 1
            parts.append(apply(rows.reshape(-1, *self.shape)))
        return np.concatenate(parts)

    def formed(self):
        """Return the matrix, of the identity too; `None` where it is too large."""
        if self.is_identity:
            return self._rows(lambda rows: rows, self.output_shape)
        return self.matrix

    def known_as(self, kernel):
        """Return the map with the bound of a kernel that it is, if there is one."""
        if kernel is None:
            return self
        # What is one kernel costs no more than its parts, and exceeds by less.
        return self._replace(kernel=kernel, bounds=(kernel.norm,))

    def _kernel_of_sum(self, other, sign):
        def signed(kernel):
            return kernel._replace(array=sign * kernel.array)

        if self.kernel and other.kernel:
            return self.kernel.plus(signed(other.kernel))
        if self.is_identity and other.kernel:
            return signed(other.kernel).plus_identity()
        if other.is_identity and self.kernel:
            # K - I = -(-K + I).
            kernel = signed(self.kernel).plus_identity()
            return kernel and signed(kernel)
        return None


def _product(first, second):
    how = "exact" if first == (1.0, "exact") else "certified"
    return norm_product(first[0], second[0]), second[1] if how == "exact" else how


def norm_product(first, second):
    """Return the product of two norms, zero only if one of them is."""
    return max(first * second, sys.float_info.min) if first and second else 0.0


def _held(gain):
    return gain == 0 or 1 / _LARGEST_GAIN <= gain <= _LARGEST_GAIN
