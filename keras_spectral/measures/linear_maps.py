"""Linear maps of one sample: what a network does between its nonlinearities."""

import contextlib
import contextvars
import hashlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from keras_spectral.linalg.certified_norms import certified_norm

# Entries of a matrix that is formed, and the smaller side of one that is factored.
LARGEST_MATRIX, LARGEST_SIDE = 2**22, 1024
# By what share a certificate may exceed a kernel's norm, and where the smaller side has
# at most so many channels, where it costs little.
_TOLERANCE, _TIGHT, _FEW_CHANNELS = 0.01, 0.002, 128
# The smaller side up to which singular values are computed without a Gram matrix.
_SMALL_SIDE = 128
# What sums and roots of a few numbers may lose.
_OUTWARDS = 1 + 1e-12
_KNOWN: contextvars.ContextVar[dict | None] = contextvars.ContextVar(
    "_KNOWN", default=None
)


@contextlib.contextmanager
def remembered_norms():
    """Compute the norm of each kernel once, by its content, until the block ends."""
    token = _KNOWN.set({})
    try:
        yield
    finally:
        _KNOWN.reset(token)


class Kernel(NamedTuple):
    """A kernel that is applied at every position, zero padding and stride included.

    Args:
        array: NumPy array, float64.
        kind: A `linalg.KernelKind`.
        keeps_size: Whether it is a convolution without stride, whose output has the
            size of its input: one more tap at its centre adds the identity.
        groups: Integer, of a convolution.
    """

    array: np.ndarray
    kind: str
    keeps_size: bool = False
    groups: int = 1

    def norm(self):
        """Return a certified bound of the norm, and how it is known."""
        if self.kind == "dense" and min(self.array.shape) <= LARGEST_SIDE:
            return matrix_norm(self.array), "exact"
        known = _KNOWN.get()
        known = {} if known is None else known
        content = hashlib.blake2b(np.ascontiguousarray(self.array)).digest()
        key = (content, self.array.shape, self.kind, self.groups)
        if key in known:
            return known[key], "certified"
        few = self.kind == "depthwise" or min(self.array.shape[-2:]) <= _FEW_CHANNELS
        tolerance = _TIGHT if few and self.array.ndim < 5 else _TOLERANCE
        bound = certified_norm(self.array, self.kind, self.groups, tolerance)
        known[key] = bound
        return bound, "certified"

    def row_norms(self):
        """Return bounds of the norms of the map's rows, one a channel of its output."""
        squares = np.square(self.array)
        if self.kind == "depthwise":
            rows = squares.sum(axis=tuple(range(squares.ndim - 2))).reshape(-1)
        elif self.kind == "transposed":
            rows = squares.sum(axis=(*range(squares.ndim - 2), -1))
        else:
            rows = squares.sum(axis=tuple(range(squares.ndim - 1)))
        return np.sqrt(rows) * (1 + 1e-12)

    def scaled(self, scale, axis):
        """Return the kernel with its inputs (axis 0) or outputs (axis 1) scaled."""
        if self.kind == "dense" or self.kind == "convolution":
            at = axis - 2
        elif self.kind == "transposed":
            at = -1 - axis
        else:
            at = -2
            if axis:
                shape = self.array.shape[-2:]
                return self._replace(array=self.array * scale.reshape(shape))
        shape = [1] * self.array.ndim
        shape[at] = -1
        if len(scale) != self.array.shape[at]:
            return None  # Groups: each input stands for several.
        return self._replace(array=self.array * scale.reshape(shape))

    def plus(self, other):
        """Return the sum with another kernel of the same shape; `None` for others."""
        if self.keeps_size and other.keeps_size and self.kind == other.kind:
            if self.array.shape == other.array.shape:
                return self._replace(array=self.array + other.array)
        return None

    def plus_identity(self):
        """Return the kernel of x + K x; `None` where there is none."""
        if not self.keeps_size or self.array.shape[-2] != self.array.shape[-1]:
            return None
        array = self.array.copy()
        # Where the number of taps is even, "same" pads one more behind.
        centre = tuple((size - 1) // 2 for size in array.shape[:-2])
        array[centre] += np.eye(array.shape[-1])
        return self._replace(array=array)

    @classmethod
    def stacked(cls, maps):
        """Return the kernel of maps of one tensor side by side; `None` for others."""
        given = [map.kernel for map in maps]
        first = next((kernel for kernel in given if kernel is not None), None)
        if first is None or first.kind not in ("dense", "convolution"):
            return None
        if first.kind == "convolution" and not first.keeps_size:
            return None
        size = first.array.shape[-2]
        same = first._replace(
            array=np.zeros((*first.array.shape[:-1], size)), keeps_size=True
        ).plus_identity()
        found = [same if map.is_identity else map.kernel for map in maps]
        if any(
            kernel is None
            or kernel.kind != first.kind
            or kernel.array.shape[:-1] != first.array.shape[:-1]
            or not (kernel.keeps_size or first.kind == "dense")
            for kernel in found
        ):
            return None
        array = np.concatenate([kernel.array for kernel in found], axis=-1)
        keeps = first.kind == "convolution" or array.shape[0] == array.shape[1]
        return first._replace(array=array, keeps_size=keeps)


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
        return float(np.linalg.norm(taps, axis=1).sum())

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
    """

    shape: tuple
    output_shape: tuple
    bounds: tuple = (lambda: (1.0, "exact"),)
    matrix: np.ndarray | None = None
    kernel: Kernel | None = None
    scale: np.ndarray | None = None
    names: tuple = ()

    @classmethod
    def identity(cls, shape):
        """Return the map that changes nothing."""
        return cls(tuple(shape), tuple(shape))

    @property
    def is_identity(self):
        """Whether nothing has been composed yet."""
        return not self.names

    def then(self, step, name):
        """Return the map followed by a step."""
        new = LinearMap(
            shape=self.shape,
            output_shape=step.output_shape,
            bounds=(lambda: _product(self.norm(), step.norm()),),
            matrix=self._rows(step.apply, step.output_shape),
            names=(*self.names, name),
        )
        if self.is_identity:
            kernel = step.kernel if step.folds else None
            return new._replace(bounds=(step.norm,), kernel=kernel, scale=step.scale)
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
            return math.sqrt(sum(norm**2 for norm in norms)) * _OUTWARDS, "certified"

        new = cls(
            shape=maps[0].shape,
            output_shape=tuple(output_shape),
            bounds=(bound,),
            matrix=None if any(part is None for part in parts) else join(parts),
            names=tuple(names),
        )
        kernel = Kernel.stacked(maps) if on_channels else None
        if kernel is None:
            return new
        return new._replace(bounds=(bound, kernel.norm), kernel=kernel)

    def times(self, factor):
        """Return the map times a number."""
        matrix, kernel = self.formed(), self.kernel
        return self._replace(
            bounds=(lambda: _product(self.norm(), (abs(factor), "exact")),),
            matrix=None if matrix is None else matrix * factor,
            kernel=kernel and kernel._replace(array=kernel.array * factor),
            scale=None if self.scale is None else self.scale * factor,
            names=self.names or (f"{factor:.4g} x",),
        )

    def norm(self):
        """Return a bound of the norm, and how it is known."""
        matrix = self.factored
        if matrix is not None:
            return matrix_norm(matrix), "exact"
        return min((bound() for bound in self.bounds), key=lambda pair: pair[0])

    def row_norms(self):
        """Return bounds of the norms of the rows, by output, or `None`."""
        if self.is_identity:
            return np.ones(self.output_shape)
        if self.matrix is not None:
            return np.linalg.norm(self.matrix, axis=0) * (1 + 1e-12)
        if self.scale is not None:
            return np.broadcast_to(np.abs(self.scale), self.output_shape)
        if self.kernel is not None:
            rows = self.kernel.row_norms()
            return np.broadcast_to(rows, self.output_shape)
        return None

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
    return first[0] * second[0], second[1] if how == "exact" else how


def matrix_norm(matrix):
    """Return the largest singular value, its rounding taken outwards."""
    if not matrix.size or not matrix.any():
        return 0.0
    epsilon = np.finfo("float64").eps
    if min(matrix.shape) <= _SMALL_SIDE:
        norm = float(np.linalg.norm(matrix, 2))
        return norm * (1 + 8 * max(matrix.shape) * epsilon)
    # Several times cheaper. Sums of k products are within k eps / 2 of those of their
    # magnitudes, all of which together are at most the trace.
    scale = float(np.abs(matrix).max())
    matrix = matrix / scale
    wide = matrix.shape[0] < matrix.shape[1]
    gram = matrix @ matrix.T if wide else matrix.T @ matrix
    rounding = (max(matrix.shape) + 8 * len(gram)) * epsilon * np.trace(gram)
    largest = np.linalg.eigvalsh(gram)[-1] + rounding
    return float(np.sqrt(largest) * scale * (1 + 8 * epsilon))
