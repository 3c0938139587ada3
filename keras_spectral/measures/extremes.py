"""The inequalities behind cushions, batch by batch: the worst case of each."""

import functools
import operator

import numpy as np
from keras import ops

from keras_spectral.linalg import repeated_operator
from keras_spectral.linalg.norms import scaled_squares

# Numbers in the largest tensor that is carried through the network at once.
_BUDGET = 2**24


def _norms(vectors):
    """Return the norms (probes, batch) of vectors, NumPy float64."""
    axes = tuple(range(2, len(vectors.shape)))
    found = scaled_squares(vectors, axes)
    largest, squares = (ops.convert_to_numpy(x).astype("float64") for x in found)
    return largest * np.sqrt(squares)


def _ratios(numerator, denominator, free):
    """Return the ratio; `free` where the denominator is zero."""
    safe = np.where(denominator > 0, denominator, 1.0)
    return np.where(denominator > 0, numerator / safe, free)


class CushionExtremes:
    """The numbers of `cushions`, over the batches seen so far.

    Args:
        chain: A `Chain`.
        noise: Float, |eta| / |x^i|.
        draws: Integer, of the noise.
        probes: Integer, see `cushions`.
        seed: Integer.
    """

    def __init__(self, chain, noise, draws, probes, seed):
        self.chain, self.noise, self.probes, self.seed = chain, noise, probes, seed
        depth = len(chain.layers)
        shapes = [layer.operator.shape for layer in chain.layers]
        self.sizes = [outputs for outputs, _ in shapes]
        self.largest = max(map(max, shapes))
        self.layer_cushions = np.full(depth, np.inf)
        self.contractions = np.zeros(depth)
        self.cushions = np.full((depth, depth), np.inf)
        self.errors = np.zeros((depth, depth))
        self.margins = np.full((draws, depth), np.inf)

    def add(self, x):
        """Take in a batch; return what the last layer computes for it."""
        chain, last = self.chain, len(self.chain.layers) - 1
        # What each layer and each step is for this batch, as operators.
        values, weighted, between = [], [], []
        vectors = chain.read(x)
        for index, layer in enumerate(chain.layers):
            weighted.append(repeated_operator(layer.operator, (len(x),)))
            read = _norms(vectors)[0]
            linear = weighted[-1] @ vectors
            ratios = _ratios(_norms(linear)[0], layer.frobenius_norm * read, np.inf)
            self.layer_cushions[index] = min(self.layer_cushions[index], ratios.min())
            values.append(linear + layer.bias)
            if index == last:
                break
            vectors = values[-1]
            between.append([])
            for step in chain.between[index]:
                between[-1].append(step.at(vectors))
                vectors = between[-1][-1] @ vectors
            norms, after = _norms(values[-1])[0], _norms(vectors)[0]
            ratios = _ratios(norms, after, np.where(norms > 0, np.inf, 0.0))
            self.contractions[index] = max(self.contractions[index], ratios.max())
        norms = [_norms(value)[0] for value in values]
        # From what a layer computes to what the next does.
        jacobians = [
            functools.reduce(operator.matmul, [layer, *reversed(steps)])
            for layer, steps in zip(weighted[1:], between, strict=True)
        ]
        self._add_cushions(values, norms, jacobians)
        self._add_margins(values, norms, weighted, between)
        return values[-1]

    def _chunks(self, total, batch):
        """Yield the ranges in which `total` vectors a sample are carried."""
        size = max(1, _BUDGET // (batch * self.largest))
        for start in range(0, total, size):
            yield range(start, min(start + size, total))

    def _add_cushions(self, values, norms, jacobians):
        depth, batch = len(values), len(norms[0])
        squares, deviations = self._jacobian_norms(batch, jacobians)
        for i in range(depth):
            vectors = values[i]
            for j in range(i, depth):
                if j > i:
                    vectors = jacobians[j - 1] @ vectors
                norm = np.sqrt(squares[i, j])
                ratios = _ratios(_norms(vectors)[0], norm * norms[i], np.inf)
                worst = int(ratios.argmin())
                if ratios[worst] < self.cushions[i, j]:
                    self.cushions[i, j] = ratios[worst]
                    # d log |J|_F is half of d log |J|_F^2.
                    relative = deviations[i, j, worst] / squares[i, j, worst] / 2
                    self.errors[i, j] = relative * ratios[worst]

    def is_exact(self, i, j):
        """Whether |J_ij|_F is the sum over a basis."""
        return i == j or min(self.sizes[i], self.sizes[j]) <= self.probes

    def _jacobian_norms(self, batch, jacobians):
        """Return |J_ij|_F^2 for each sample and its standard error."""
        depth = len(self.sizes)
        sums, fourths = np.zeros((2, depth, depth, batch))
        for i in range(depth):
            sums[i, i] = self.sizes[i]
        for j in range(1, depth):
            narrow = self.sizes[j] <= self.probes
            wanted = [i for i in range(j) if narrow or not self.is_exact(i, j)]
            if not wanted:
                continue
            for vectors in self._sources(j, narrow, batch):
                for i in range(j - 1, min(wanted) - 1, -1):
                    vectors = jacobians[i].T @ vectors
                    if i in wanted:
                        squares = _norms(vectors) ** 2
                        sums[i, j] += squares.sum(0)
                        fourths[i, j] += (squares**2).sum(0)
        for i in range(depth - 1):
            wanted = [j for j in range(i + 1, depth) if self.sizes[j] > self.probes]
            if self.sizes[i] > self.probes or not wanted:
                continue
            for vectors in self._sources(i, True, batch):
                for j in range(i + 1, max(wanted) + 1):
                    vectors = jacobians[j - 1] @ vectors
                    if j in wanted:
                        sums[i, j] += (_norms(vectors) ** 2).sum(0)
        deviations = np.zeros_like(sums)
        for i, j in zip(*np.triu_indices(depth, 1), strict=True):
            if not self.is_exact(i, j):
                sums[i, j] /= self.probes
                spread = fourths[i, j] / self.probes - sums[i, j] ** 2
                variance = np.maximum(spread, 0) / (self.probes - 1)
                deviations[i, j] = np.sqrt(variance)
        return sums, deviations

    def _sources(self, index, basis, batch):
        """Yield vectors at a layer: its basis, or random signs."""
        size = self.sizes[index]
        shape = self.chain.layers[index].operator.output_shape
        for chunk in self._chunks(size if basis else self.probes, batch):
            if basis:
                vectors = np.zeros((len(chunk), size))
                vectors[np.arange(len(chunk)), list(chunk)] = 1
            else:
                # Each probe has its own seed, so that chunks do not matter.
                uniform = [
                    np.random.default_rng([self.seed, 0, index, probe]).random(size)
                    for probe in chunk
                ]
                vectors = np.where(np.stack(uniform) < 0.5, -1.0, 1.0)
            vectors = vectors.reshape(len(chunk), *shape)
            tensor = ops.convert_to_tensor(vectors, self.chain.dtype)
            yield ops.repeat(tensor, batch, axis=1)

    def _add_margins(self, values, norms, weighted, between):
        """Take in the smoothness that each draw of noise allows."""
        batch = len(norms[0])
        for i, value in enumerate(values[:-1]):
            shape = value.shape[2:]
            length = ops.convert_to_tensor(self.noise * norms[i], self.chain.dtype)
            length = ops.reshape(length, (1, batch, *[1] * len(shape)))
            for chunk in self._chunks(len(self.margins), batch):
                directions = []
                for draw in chunk:
                    rng = np.random.default_rng([self.seed, 1, i, draw])
                    direction = rng.standard_normal(shape)
                    directions.append(direction / np.linalg.norm(direction))
                direction = np.stack(directions)[:, None]
                eta = length * ops.convert_to_tensor(direction, self.chain.dtype)
                worst = self._worst_margin(i, value + eta, norms, weighted, between)
                rows = self.margins[chunk.start : chunk.stop, i]
                np.minimum(rows, worst, out=rows)

    def _worst_margin(self, i, y, norms, weighted, between):
        """Return the largest rho for noisy vectors y at layer i, one a draw.

        The error of the linear map is carried along by itself and not as a
        difference, so it is zero, not rounding, where no slope changes.
        """
        error = ops.zeros_like(y)
        worst = np.full(y.shape[0], np.inf)
        for j in range(i + 1, len(norms)):
            steps = self.chain.between[j - 1]
            for step, fixed in zip(steps, between[j - 1], strict=True):
                if step.linear:
                    y, error = fixed @ y, fixed @ error
                    continue
                after = step(y)
                error = fixed @ error + (after - fixed @ y)
                y = after
            y = weighted[j] @ y + self.chain.layers[j].bias
            error = weighted[j] @ error
            # |eta| / |x^i| is the noise level.
            margin = _ratios(self.noise * norms[j], _norms(error), np.inf)
            worst = np.minimum(worst, margin.min(1))
        return worst
