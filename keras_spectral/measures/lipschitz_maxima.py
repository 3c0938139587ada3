"""Which inputs of a window can be its largest on a ball, and what then moves it."""

import numpy as np
from keras import layers as kl

from keras_spectral.measures.lipschitz_spread import LARGEST_SPREAD

POOLINGS = (kl.MaxPooling1D, kl.MaxPooling2D, kl.MaxPooling3D)
GLOBAL = (kl.GlobalMaxPooling1D, kl.GlobalMaxPooling2D, kl.GlobalMaxPooling3D)


def windows(layer, shape, output_shape):
    """Return the places that each number of a maximum pooling is the largest of.

    Args:
        layer: One of `POOLINGS` or `GLOBAL`.
        shape: Tuple, of one sample.
        output_shape: Tuple.

    Returns:
        Integer array (window, numbers that come out), of places in what goes in, one
        after the other; -1 outside of it.
    """
    places = np.arange(np.prod(shape)).reshape(shape)
    first = layer.data_format == "channels_first"
    spatial = range(1, len(shape)) if first else range(len(shape) - 1)
    for at, axis in enumerate(spatial):
        size = window = stride = shape[axis]
        count, before = 1, 0
        if isinstance(layer, POOLINGS):
            window, stride = layer.pool_size[at], layer.strides[at]
            count = output_shape[axis]
            if layer.padding == "same":
                before = max((count - 1) * stride + window - size, 0) // 2
        taps = stride * np.arange(count) + np.arange(window)[:, None] - before
        taps[(taps < 0) | (taps >= size)] = -1
        # The windows' own axes are gathered in front.
        edge = np.full_like(np.take(places, [0], axis + at), -1)
        places = np.take(np.concatenate([places, edge], axis + at), taps, axis + at)
        places = np.moveaxis(places, axis + at, 0)
    return places.reshape(np.prod(places.shape[: len(spatial)]), -1)


class Maxima:
    """The windows of a maximum pooling where a tensor lies in a box.

    Args:
        places: As `windows` returns them.
        where: `Enclosure` of the tensor.

    Attributes:
        places: The same, the largest of each window at the center first.
        contends: Boolean array, of which some point of the box may be the largest.
        radii: Array, how far each maximum moves at most.
    """

    def __init__(self, places, where):
        center = np.append(where.center, -np.inf)[places]
        order = np.argsort(-center, axis=0, kind="stable")
        self.places = np.take_along_axis(places, order, 0)
        self.center = np.take_along_axis(center, order, 0)
        self._reach = np.append(where.radii, 0.0)[self.places] * (1 + 1e-9)
        low = np.where(self.places < 0, -np.inf, self.center - self._reach)
        high = self.center + self._reach
        self.contends = ~(high < low.max(0)) & (self.places >= 0)
        self.radii = np.where(self.contends, self._reach, 0.0).max(0)
        self._error = 2 * where.error

    @property
    def fixed(self):
        """Whether no window's largest place can change."""
        return not self.contends[1:].any()

    def counts(self, size):
        """Return in how many windows each place may be the largest."""
        return np.bincount(self.places[self.contends], minlength=size)

    def add(self, spread, rows, radius):
        """Add the maxima to a `Spread`, as max(a, b) = a + relu(b - a).

        Args:
            spread: A `Spread`.
            rows: The tensor's R in it.
            radius: Float, of the ball of inputs.

        Returns:
            Boolean, whether it could be done.
        """
        size = rows.shape[1] + int(self.contends[1:].sum()) + len(self.places[0])
        if size > LARGEST_SPREAD:
            return False
        largest = rows[self.places[0]]
        reach = self._reach[0].copy()
        for at in range(1, len(self.places)):
            active = np.flatnonzero(self.contends[at])
            beyond = rows[self.places[at, active]] - largest[active]
            gaps = self.center[at, active] - self.center[0, active]
            apart = spread.deviations(beyond) * radius + self._error
            apart = np.fmin(apart, reach[active] + self._reach[at, active])
            wins = gaps + apart * (1 + 1e-9) >= 0
            active, beyond = active[wins], beyond[wins]
            if not len(active):
                continue
            ones = np.ones(len(active))
            gained = spread.bend(beyond, 0 * ones, ones)
            if gained is None:
                return False
            more = gained.shape[1] - rows.shape[1]
            rows, largest = (np.pad(r, ((0, 0), (0, more))) for r in (rows, largest))
            largest[active] += gained
            reach[active] = np.maximum(reach[active], self._reach[at, active])
        spread.join(largest)
        return True
