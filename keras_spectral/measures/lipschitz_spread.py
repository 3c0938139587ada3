"""How differences of several tensors of a network lie together."""

import numpy as np

from keras_spectral.measures.kernel_certificates import LARGEST_SIDE, matrix_norm

# How many numbers the tensors may have, together, whose spread is followed.
LARGEST_SPREAD = 2048
# What sums may lose, as a share of a tensor's trace.
_ROUNDING = 4e-12
# The magnitudes of R within which nothing overflows or is too small for a float, those
# of P being squares; and what the least numbers may add up to then.
_LEAST, _LARGEST, _LOST = 1e-60, 1e60, 1e-210


class Spread:
    """A matrix P with s s' <= P for every difference s of some tensors' numbers.

    That is for inputs at distance one. It begins as the identity of the input's.

    Args:
        joint: Boolean, whether earlier tensors stay, which tells how branches that
            meet again work together; or each replaces the one before.

    Attributes:
        blocks: List of pairs of an object (of what; `None` for nothing more) and its
            size, in their order in P.
    """

    def __init__(self, base, size, joint):
        self.joint, self.blocks = joint, [(base, size)]
        self.matrix = None  # The identity.
        self._last = (None, None, None)

    def rows(self, value):
        """Return R where a value is R s, an array (numbers, all of s), or `None`."""
        last, rows, _ = self._last
        if last is value:
            return rows
        at, places = 0, {}
        for base, size in self.blocks:
            places[id(base)] = slice(at, at + size)
            at += size
        count = int(np.prod(value.shape, dtype=int))
        if count > LARGEST_SPREAD:
            return None
        if any(id(base) not in places for base, _ in value.terms):
            return None
        rows = np.zeros((count, at))
        for base, map in value.terms:
            matrix = map.formed()
            place = places[id(base)]
            if matrix is None or min(len(matrix), count) > LARGEST_SIDE:
                return None
            rows[:, place] += matrix.reshape(len(matrix), -1).T
        sizes = [np.abs(rows).max(initial=0.0)]
        if self.matrix is not None:  # Its largest number is on its diagonal.
            sizes.append(np.sqrt(np.diag(self.matrix).max(initial=0.0)))
        if not all(size == 0 or _LEAST <= size <= _LARGEST for size in sizes):
            return None
        self._last = (value, rows, self.with_all(rows))
        return rows

    def with_all(self, rows):
        """Return P R'."""
        if rows is self._last[1]:
            return self._last[2]
        return rows.T if self.matrix is None else self.matrix @ rows.T

    def of(self, rows):
        """Return R P R', of a value's own differences."""
        among = rows @ self.with_all(rows)
        among = (among + among.T) / 2
        # By cancellation it may be far below what it is the sum of.
        among[np.diag_indices_from(among)] += self._lost_in(rows)
        return among

    def deviations(self, rows):
        """Return how much each number moves at most."""
        squares = np.einsum("ij,ji->i", rows, self.with_all(rows))
        return np.sqrt(np.maximum(squares, 0.0) + self._lost_in(rows, 1))

    def bend(self, rows, least, largest):
        """Add what slopes between two arrays make of a value; return its R, or `None`.

        What comes out is A v + B z, A and B the least slopes and the ranges, and z some
        part of v, of the entries u whose slope is not fixed: c z'(u - z) >= 0. With
        s s' <= P, by the S-procedure (s, z) lies within the matrix
        [[P + c^2 P_u X P_u', c P_u X], [c X P_u', X]], P_u = P R_u' and
        X = (2 c I - c^2 S_uu)^-1, for any c below 2 / |S_uu|. ECLipsE-Fast has A = 0,
        B = I and c = 1 / |S_uu|; where the ranges B are small, or what was there
        before is needed too, a smaller c is better. Entries may have weights of c.
        """
        crossed = self.with_all(rows)
        spread = self.of(rows)
        if not np.isfinite(spread).all():
            return None
        free = np.flatnonzero(largest > least)
        own, before = np.zeros((len(rows), 0)), np.zeros((rows.shape[1], 0))
        widths, variances = (largest - least)[free], np.diag(spread)[free]
        if variances.any():
            weights = [np.ones(len(free))]
            if np.ptp(widths):
                weights.append(widths / (variances + 1e-12 * variances.max()))
            found = [
                self._multiplied(crossed, spread, least, free, widths, weight)
                for weight in weights
            ]
            cost, own, before = min(found, key=lambda triple: triple[0])
            if not np.isfinite(cost):
                return None
        corner = least[:, None] * spread * least + own @ own.T
        side = crossed * least + before @ own.T
        return self._grown(before, side, corner, rows)

    def _multiplied(self, crossed, spread, least, free, widths, weights):
        """Return what one choice of c, times weights, adds: its cost, and two factors.

        The weights g scale the constraints: g u in the place of u, z / g in that of z.
        """
        roots = np.sqrt(weights / weights.max())
        among = roots[:, None] * spread[np.ix_(free, free)] * roots
        norm = matrix_norm(among)
        if not _LEAST**2 <= norm <= _LARGEST**2:
            return np.inf, None, None
        values, vectors = np.linalg.eigh(among)
        values = np.clip(values, 0, norm)
        fixed = least[:, None] * (spread[:, free] @ (roots[:, None] * vectors))
        ranges = np.zeros_like(fixed)
        ranges[free] = (widths / roots)[:, None] * vectors
        earlier = crossed[:, free] @ (roots[:, None] * vectors)
        # What each choice adds to the traces, column by column.
        parts = [np.sum(a * b, 0) for a, b in ((fixed, fixed), (fixed, ranges))]
        parts.append(np.sum(ranges**2, 0))
        share = self._weights() @ earlier**2 if self.joint else 0.0
        scale = np.trace(spread) if self.joint else 1.0
        best, chosen = np.inf, 1 / norm
        for c in np.logspace(-9, 0, 37) / norm:
            added = c**2 * parts[0] + 2 * c * parts[1] + parts[2]
            added = (added / scale + c**2 * share) / (2 * c - c**2 * values)
            if added.sum() < best:
                best, chosen = added.sum(), c
        root = np.sqrt(2 * chosen - chosen**2 * values)
        return best, (chosen * fixed + ranges) / root, chosen * earlier / root

    def join(self, rows):
        """Add a value; return its R."""
        crossed = self.with_all(rows)
        return self._grown(np.zeros((rows.shape[1], 0)), crossed, self.of(rows), rows)

    def stack(self, values, join):
        """Add values side by side, by a function of arrays; return whether it could."""
        parts = [self.rows(value) for value in values]
        if any(part is None for part in parts):
            return False
        pairs = zip(parts, values, strict=True)
        joined = join([part.T.reshape(-1, *value.shape) for part, value in pairs])
        self.join(joined.reshape(len(joined), -1).T)
        return True

    def named(self, base):
        """Say what was added last; forget what was added before it without a name."""
        self.blocks[-1] = (base, self.blocks[-1][1])
        kept = [self.joint and block[0] is not None for block in self.blocks[:-1]]
        self._keep([*kept, True])
        # The oldest first.
        while sum(size for _, size in self.blocks) > LARGEST_SPREAD:
            self._keep([False] + [True] * (len(self.blocks) - 1))

    def restart(self, base, size, constant):
        """Begin again with one tensor of which only the norm is known."""
        self.blocks, self._last = [(base, size)], (None, None, None)
        self.matrix = None
        if size <= LARGEST_SPREAD:
            self.matrix = np.eye(size) * constant**2
        else:
            self.blocks = []

    def _lost(self):
        """Return what sums of products with P may lose, for factors of norm one."""
        count = sum(size for _, size in self.blocks)
        size = 1.0 if self.matrix is None else np.linalg.norm(self.matrix)
        return count * np.finfo("float64").eps * size

    def _lost_in(self, rows, axis=None):
        """Return what R P R' may lose, or with axis 1 each number of its diagonal."""
        lost = self._lost() * np.sum(rows**2, axis)
        return lost + _LOST if rows.any() else lost

    def _weights(self):
        """Return one over the trace of each number's own tensor."""
        if self.matrix is None:
            return np.full(self.blocks[0][1], 1 / self.blocks[0][1])
        traces, at, diagonal = [], 0, np.diag(self.matrix)
        for _, size in self.blocks:
            total = diagonal[at : at + size].sum()
            traces.append(np.full(size, 1 / total if total > 0 else 0.0))
            at += size
        return np.concatenate(traces)

    def _grown(self, before, side, corner, rows):
        count, new = side.shape
        lost, lost_in = self._lost(), self._lost_in(rows)
        if count > LARGEST_SPREAD:  # Too large an input: what follows is for itself.
            self.blocks, before, side = [], before[:0], side[:0]
            count = 0
        matrix = np.zeros((count + new, count + new))
        matrix[:count, :count] = np.eye(count) if self.matrix is None else self.matrix
        matrix[:count, :count] += before @ before.T
        matrix[:count, count:], matrix[count:, :count] = side, side.T
        matrix[count:, count:] = corner
        self.blocks = [*self.blocks, (None, new)]
        at, diagonal = 0, matrix.reshape(-1)[:: count + new + 1]
        diagonal[:count] += lost
        diagonal[count:] += lost_in
        for _, size in self.blocks:
            diagonal[at : at + size] += _ROUNDING * diagonal[at : at + size].sum()
            at += size
        self.matrix, self._last = matrix, (None, None, None)
        rows = np.zeros((new, count + new))
        rows[:, count:] = np.eye(new)
        return rows

    def _keep(self, kept):
        where = np.repeat(kept, [size for _, size in self.blocks])
        self.matrix = self.matrix[np.ix_(where, where)]
        self.blocks = [b for b, keeps in zip(self.blocks, kept, strict=True) if keeps]
        self._last = (None, None, None)
