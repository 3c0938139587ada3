"""The inequalities behind cushions, batch by batch: the worst case of each."""

import numpy as np
from keras import ops

from keras_spectral.linalg.norms import scaled_squares
from keras_spectral.measures.affine_layers import array

# Numbers in the largest tensor that is carried through the network at once.
_BUDGET = 2**22
# What the rounding of a layer's outputs may be, in units of its dtype.
_ROUNDING = 64


def _norms(vectors, axes=2):
    """Return the norms (probes, batch) of vectors, NumPy float64."""
    found = scaled_squares(vectors, tuple(range(axes, len(vectors.shape))))
    largest, squares = map(array, found)
    return largest * np.sqrt(squares)


def _ratios(numerator, denominator, free):
    """Return the ratio; `free` where the denominator is zero."""
    safe = np.where(denominator > 0, denominator, 1.0)
    return np.where(denominator > 0, numerator / safe, free)


class CushionExtremes:
    """The numbers of `cushions`, over the batches seen so far.

    Args:
        at: `Linearization` of the network.
        layers: List of `AffineLayer`.
        noise: Float, |eta| / |x^i|.
        draws: Integer, of the noise.
        probes: Integer, see `cushions`.
        seed: Integer.

    Attributes:
        follows: Boolean array (layers, layers), whether j depends on i, itself apart.
        readers: List of lists of integers: the layers that read what a layer makes,
            with no other layer between.
    """

    def __init__(self, at, layers, noise, draws, probes, seed):
        self.at, self.layers = at, layers
        reached = [at.program.reached(layer.made) for layer in layers]
        made = [layer.made for layer in layers]
        self.follows = np.array([[slot in found for slot in made] for found in reached])
        np.fill_diagonal(self.follows, False)
        own = [layer.call for layer in layers]
        reached = [at.program.reached(slot, own) for slot in made]
        self.readers = [
            [j for j, layer in enumerate(layers) if layer.read in found]
            for found in reached
        ]
        self.noise, self.probes, self.seed = noise, probes, seed
        depth = len(layers)
        self.sizes = None
        self.layer_cushions = np.full(depth, np.inf)
        self.contractions = np.zeros(depth)
        self.cushions = np.full((depth, depth), np.inf)
        self.errors = np.zeros((depth, depth))
        self.margins = np.full((draws, depth), np.inf)

    def add(self, x):
        """Take in a batch; return whether all tensors of it are finite."""
        reads = [layer.read for layer in self.layers]
        made = [layer.made for layer in self.layers]
        values = self.at.values(x, [*reads, *made])
        reads, values = values[: len(made)], values[len(made) :]
        if self.sizes is None:
            for layer, read in zip(self.layers, reads, strict=True):
                layer.meet(tuple(read.shape[1:]))
            self.sizes = [layer.size for layer in self.layers]
            shapes = [x.shape for x in (*reads, *values)]
            largest = max(int(np.prod(shape[1:])) for shape in shapes)
            self.at.batch_size = max(1, _BUDGET // largest)
        read_norms = [_norms(read, 1) for read in reads]
        norms = [_norms(value, 1) for value in values]
        if not np.isfinite([*read_norms, *norms]).all():
            return False
        for i, layer in enumerate(self.layers):
            linear = _norms(values[i] - layer.offset, 1)
            whole = layer.frobenius_norm * read_norms[i]
            ratio = _ratios(linear, whole, np.inf).min()
            self.layer_cushions[i] = min(self.layer_cushions[i], ratio)
            for j in self.readers[i]:
                free = np.where(norms[i] > 0, np.inf, 0.0)
                ratio = _ratios(norms[i], read_norms[j], free).max()
                self.contractions[i] = max(self.contractions[i], ratio)
        squares, deviations = self._jacobian_norms(x, values)
        for i in range(len(self.layers)):
            self._add_cushion(i, i, norms[i], norms[i], squares, deviations)
            if self.follows[i].any():
                self._add_source(i, x, values, norms, squares, deviations)
        return True

    def is_exact(self, i, j):
        """Whether |J_ij|_F is the sum over a basis."""
        return i == j or min(self.sizes[i], self.sizes[j]) <= self.probes

    def _add_cushion(self, i, j, image, norm, squares, deviations):
        """Take in the norms of J_ij x^i."""
        ratios = _ratios(image, np.sqrt(squares[i, j]) * norm, np.inf)
        worst = int(ratios.argmin())
        if ratios[worst] < self.cushions[i, j]:
            self.cushions[i, j] = ratios[worst]
            # d log |J|_F is half of d log |J|_F^2.
            relative = deviations[i, j, worst] / squares[i, j, worst] / 2
            self.errors[i, j] = relative * ratios[worst]

    def _jacobian_norms(self, x, values):
        """Return |J_ij|_F^2 for each sample and its standard error."""
        depth, batch = len(values), len(values[0])
        sums, fourths = np.zeros((2, depth, depth, batch))
        for i in range(depth):
            sums[i, i] = self.sizes[i]
        for j, target in enumerate(self.layers):
            narrow = self.sizes[j] <= self.probes
            wanted = [
                i
                for i in np.flatnonzero(self.follows[:, j])
                if narrow or not self.is_exact(i, j)
            ]
            points = [self.layers[i].made for i in wanted]
            for vectors in self._vectors(j, narrow, values) if wanted else ():
                found = self.at.vjp(x, vectors, points, target.made)
                for i, pulled in zip(wanted, found, strict=True):
                    squares = _norms(pulled) ** 2
                    sums[i, j] += squares.sum(0)
                    fourths[i, j] += (squares**2).sum(0)
        for i, source in enumerate(self.layers):
            wanted = [
                j
                for j in np.flatnonzero(self.follows[i])
                if self.sizes[j] > self.probes
            ]
            if self.sizes[i] > self.probes or not wanted:
                continue
            points = [self.layers[j].made for j in wanted]
            for vectors in self._vectors(i, True, values):
                found = self.at.jvp(x, vectors, source.made, points)
                for j, image in zip(wanted, found, strict=True):
                    sums[i, j] += (_norms(image) ** 2).sum(0)
        deviations = np.zeros_like(sums)
        for i, j in np.argwhere(self.follows):
            if not self.is_exact(i, j):
                sums[i, j] /= self.probes
                spread = fourths[i, j] / self.probes - sums[i, j] ** 2
                variance = np.maximum(spread, 0) / (self.probes - 1)
                deviations[i, j] = np.sqrt(variance)
        return sums, deviations

    def _chunks(self, total, batch):
        """Yield the ranges in which `total` vectors a sample are carried."""
        size = max(1, self.at.batch_size // batch)
        parts = -(-total // size)
        size = -(-total // parts)
        for start in range(0, total, size):
            yield range(start, min(start + size, total))

    def _vectors(self, index, basis, values):
        """Yield vectors at a layer: its basis, or random signs."""
        size, shape = self.sizes[index], values[index].shape[1:]
        total = size if basis else self.probes
        for chunk in self._chunks(total, len(values[index])):
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
            yield vectors.reshape(len(chunk), 1, *shape)

    def _add_source(self, i, x, values, norms, squares, deviations):
        """Take in the cushions from a layer, and what its noise does after it."""
        after = np.flatnonzero(self.follows[i])
        source, shape = self.layers[i].made, tuple(values[i].shape[1:])
        points = [self.layers[j].made for j in after]
        length = (self.noise * norms[i]).reshape(-1, *[1] * len(shape))
        for chunk in self._chunks(len(self.margins), len(norms[i])):
            directions = []
            for draw in chunk:
                rng = np.random.default_rng([self.seed, 1, i, draw])
                direction = rng.standard_normal(shape)
                directions.append(direction / np.linalg.norm(direction))
            eta = length * np.stack(directions)[:, None]
            moved = self.at.moved(x, eta, source, points)
            # What is compiled for the noise serves the values as well.
            tangents = np.concatenate([eta, array(values[i])[None]])
            along = self.at.jvp(x, tangents, source, points)
            for j, noisy, images in zip(after, moved, along, strict=True):
                image = _norms(images)[-1]
                self._add_cushion(i, j, image, norms[i], squares, deviations)
                error = _error(noisy, images[:-1], values[j], norms[j], j - i)
                # |eta| / |x^i| is the noise level.
                margin = _ratios(self.noise * norms[j], error, np.inf).min(1)
                rows = self.margins[chunk.start : chunk.stop, i]
                np.minimum(rows, margin, out=rows)


def _error(noisy, linear, clean, norm, distance):
    """Return |x^j(x^i + eta) - x^j - J eta|, 0 where it may be rounding alone."""
    difference = noisy - clean - linear
    unit = np.finfo(ops.convert_to_numpy(difference[:0]).dtype).eps
    size = _norms(noisy) + _norms(linear) + norm
    error = _norms(difference)
    return np.where(error > _ROUNDING * distance * unit * size, error, 0.0)
