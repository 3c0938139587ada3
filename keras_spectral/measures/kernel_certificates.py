"""Kernels that are applied at every position, and certified norms of them."""

import contextlib
import contextvars
import hashlib
import math
from typing import NamedTuple

import numpy as np

from keras_spectral.linalg.certified_norms import certified_norm

# The smaller side of a matrix that is factored.
LARGEST_SIDE = 1024
# By what share a certificate may exceed a kernel's norm, and where the smaller side has
# at most so many channels, where it costs little.
_TOLERANCE, _TIGHT, _FEW_CHANNELS = 0.01, 0.002, 128
# The smaller side up to which singular values are computed without a Gram matrix.
_SMALL_SIDE = 128
_TINY = float(np.finfo("float64").tiny)
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
        """Return the norms of the map's rows, one a channel of its output."""
        squares = np.square(self.array)
        if self.kind == "depthwise":
            rows = squares.sum(axis=tuple(range(squares.ndim - 2))).reshape(-1)
        elif self.kind == "transposed":
            rows = squares.sum(axis=(*range(squares.ndim - 2), -1))
        else:
            rows = squares.sum(axis=tuple(range(squares.ndim - 1)))
        return np.sqrt(rows) * (1 + 1e-12)

    def scaled(self, scale, axis):
        """Return the kernel with its inputs (axis 0) or outputs (axis 1) scaled.

        `None` where there is none, or floats cannot hold it.
        """
        if self.kind == "dense" or self.kind == "convolution":
            at = axis - 2
        elif self.kind == "transposed":
            at = -1 - axis
        else:
            at = -2
            if axis:
                shape = self.array.shape[-2:]
                return self.times(scale.reshape(shape))
        shape = [1] * self.array.ndim
        shape[at] = -1
        if len(scale) != self.array.shape[at]:
            return None  # Groups: each input stands for several.
        return self.times(scale.reshape(shape))

    def times(self, factors):
        """Return the kernel times an array; `None` where floats cannot hold that."""
        with np.errstate(over="ignore", under="ignore"):
            array = self.array * factors
        kept = (np.abs(array) >= _TINY) | (self.array == 0) | (factors == 0)
        if not kept.all() or not np.isfinite(array).all():
            return None
        return self._replace(array=array)

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


def matrix_norm(matrix):
    """Return the largest singular value, its rounding taken outwards."""
    if not matrix.size or not matrix.any():
        return 0.0
    if not np.isfinite(matrix).all():
        return math.nan if np.isnan(matrix).any() else math.inf
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
