"""The exact search for the start of a power-law tail, without trying every start.

A candidate is refuted by one point at which its distribution function is farther from
the data than the best candidate's is anywhere. Where one candidate is worst, its
neighbours are bad too, so a few hundred points refute millions of candidates. Nothing
is sampled: the candidate that is left is the best of all.
"""

from typing import NamedTuple

import numpy as np

# Points a candidate is first tried at, as shares of its tail.
_FIRST_POINTS = 16
# Candidates that are evaluated first.
_PILOTS = 24
# Candidates or points that are treated at once, so that memory stays small.
_CHUNK = 1 << 18
# Length of the blocks whose maxima are bounded before they are looked at.
_BLOCK = 512
# Mean logarithms are off by some of this.
_ROUNDING = 1e-14
# Distances that differ by less are equal up to rounding.
_SLACK = 1e-13


class Tail(NamedTuple):
    """The best tail: exponent of the density, start, its size, distance."""

    alpha_pdf: float
    xmin: float
    size: int
    ks_distance: float


class _Data:
    """Different values of a sample in order, and the fit of each one's tail.

    Args:
        x: Float array of positive numbers.
    """

    def __init__(self, x):
        x = np.sort(x)
        different = np.empty(x.size, bool)
        different[0] = True
        np.not_equal(x[1:], x[:-1], out=different[1:])
        # How many numbers are below each value, as a float for the arithmetic.
        self.below = np.flatnonzero(different).astype("float64")
        self.values = x if self.below.size == x.size else x[different]
        self.total = x.size
        self.logs = np.log(self.values)
        largest = max(abs(float(self.logs[0])), abs(float(self.logs[-1])), 1.0)
        counts = np.diff(self.below, append=x.size)
        # Around the mean, where sums of logarithms cancel least.
        center = float(np.dot(self.logs, counts)) / x.size
        self.logs -= center
        sums = np.cumsum((self.logs * counts)[::-1])[::-1]
        sizes = x.size - self.below
        with np.errstate(divide="ignore", invalid="ignore"):
            excess = sums - sizes * self.logs
            # Exponents of the survival functions, alpha_pdf - 1.
            self.exponents = sizes / excess
        # Tails whose numbers are equal but for rounding have none.
        self.fitted = excess[:-2] > _ROUNDING * largest * sizes[:-2]

    def deviations(self, start, points):
        """Return fitted minus empirical distribution function at some points.

        Args:
            start: Integer or integer array, candidates.
            points: Integer array, values not below the candidates.
        """
        reach = self.logs[points] - self.logs[start]
        fitted = -np.expm1(-self.exponents[start] * reach)
        share = self.below[points] - self.below[start]
        share /= self.total - self.below[start]
        return fitted - share

    def farthest(self, start):
        """Return (largest and smallest deviation's points, largest distance)."""
        last = self.values.size - 1
        edges = np.arange(start, last, _BLOCK)
        edges = np.append(edges, last)
        at_edges = self.deviations(start, edges)
        if edges.size < 4:
            points = np.arange(start, last + 1)
            return self._extremes(points, self.deviations(start, points))
        # Both functions increase, so within a block the one is at most what it is at
        # the right edge while the other is at least what it is at the left edge.
        empirical = (self.below[edges] - self.below[start]) / (
            self.total - self.below[start]
        )
        fitted = at_edges + empirical
        highest = fitted[1:] - empirical[:-1]
        lowest = fitted[:-1] - empirical[1:]
        reached = np.abs(at_edges).max()
        chosen = np.flatnonzero((highest >= reached) | (-lowest >= reached))
        points = (edges[chosen][:, None] + np.arange(_BLOCK)).ravel()
        points = np.concatenate([edges, points[points <= last]])
        return self._extremes(points, self.deviations(start, points))

    @staticmethod
    def _extremes(points, deviations):
        high, low = deviations.argmax(), deviations.argmin()
        distance = max(deviations[high], -deviations[low])
        return (points[high], points[low]), float(distance)


def find_tail(x):
    """Return the tail whose fitted power law is nearest to the data.

    The candidates are all values but the two largest, as in `powerlaw`; the exponent
    of each is the maximum of the likelihood, and the distance is Kolmogorov's and
    Smirnov's, with the left limits of the empirical distribution function.

    Args:
        x: Float array of at least four different positive numbers.

    Returns:
        A `Tail`; NaN and of size 0 if in every tail the numbers are equal but for
        rounding.

    Source: [clauset2009], sections 3.1 and 3.3.
    """
    data = _Data(x)
    alive = np.flatnonzero(data.fitted)
    if not alive.size:
        return Tail(np.nan, np.nan, 0, np.nan)
    best, chosen = np.inf, -1
    # A first good distance, from tails of all sizes, refutes most of the others.
    sizes = np.geomspace(2, alive.size + 1, _PILOTS)
    for place in np.unique(alive.size + 1 - np.round(sizes)).astype(int):
        start = int(alive[place])
        _, distance = data.farthest(start)
        if distance < best:
            best, chosen = distance, start
    bounds = np.zeros(alive.size)
    for number in range(_FIRST_POINTS):
        _raise(data, alive, bounds, (number + 0.5) / _FIRST_POINTS)
        alive, bounds = _kept(alive, bounds, best)
    while alive.size:
        place = bounds.argmin()
        start = int(alive[place])
        witnesses, distance = data.farthest(start)
        if distance < best or (distance == best and start < chosen):
            best, chosen = distance, start
        # An evaluated candidate needs no second look.
        bounds[place] = np.inf
        for point in witnesses:
            # Candidates are in order; those after the point do not reach it.
            count = int(np.searchsorted(alive, point, side="right"))
            _raise(data, alive[:count], bounds[:count], int(point))
        alive, bounds = _kept(alive, bounds, best)
    xmin = float(data.values[chosen])
    tail = x[x >= xmin]
    alpha = 1 + tail.size / float((np.log(tail) - np.log(xmin)).sum())
    return Tail(alpha, xmin, tail.size, best)


def _kept(candidates, bounds, best):
    """Return the candidates that may still be better than the best."""
    kept = bounds < best + _SLACK
    return (candidates, bounds) if kept.all() else (candidates[kept], bounds[kept])


def _raise(data, candidates, bounds, point):
    """Raise the bounds of candidates by what one point says of them.

    Args:
        data: `_Data`.
        candidates: Integer array.
        bounds: Float array, changed in place.
        point: Integer, a value; or a float, a share of each candidate's tail.
    """
    last = data.values.size - 1
    for begin in range(0, candidates.size, _CHUNK):
        part = candidates[begin : begin + _CHUNK]
        where = point
        if isinstance(point, float):
            where = part + ((last - part) * point).astype(np.intp)
        bound = bounds[begin : begin + _CHUNK]
        np.maximum(bound, np.abs(data.deviations(part, where)), out=bound)
