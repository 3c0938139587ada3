"""Norms of Jacobians at samples, between pairs of them and between layers."""

import dataclasses
import math

import keras
import numpy as np

from keras_spectral.measures.distributions import Distributions
from keras_spectral.measures.jacobians import Linearization
from keras_spectral.measures.pairs import ORDERS
from keras_spectral.measures.samples import Samples, check_model, floats, forward
from keras_spectral.models.keras_internals import functional_graph
from keras_spectral.results import Rows
from keras_spectral.terminal import progress_bar
from keras_spectral.validation import check_choice, check_integer

# Up to how many numbers, of what goes in or comes out, the matrix is formed.
LARGEST_SIDE = 64
_STEPS = 40


class JacobianNorms:
    """Computes the norms of a model's Jacobians, a batch at a time.

    Args:
        model: A built `keras.Sequential` or functional `keras.Model` with one input of
            floats and one output.
        order: 1, 2 or infinity, the norm of inputs; that of outputs is Euclidean.
        batch_size: Integer, samples times probes that run at once.

    Attributes:
        moving: Integer, which input is that of floats.
        how: String, how the norms are known.
    """

    def __init__(self, model, order=2, batch_size=128):
        check_choice("order", order, ORDERS)
        check_model(model)
        inputs, _, outputs = functional_graph(model) or ((), (), ())
        moving = [
            at
            for at, tensor in enumerate(inputs)
            if keras.backend.is_float_dtype(tensor.dtype)
        ]
        if len(moving) != 1 or len(outputs) != 1:
            raise ValueError(
                "`model` must be a `keras.Sequential` or functional model with one "
                f"input of floats and one output. Received: {model!r}."
            )
        self.order, (self.moving,) = order, moving
        self.ends = [inputs[self.moving], outputs[0]]
        self.at = Linearization(model, dtype="own", batch_size=batch_size)
        shape = self.ends[1].shape[1:]
        self.how = "Exact norms" if None not in shape else "Exact norms where small"
        if order == np.inf and math.prod(size or 2 for size in shape) != 1:
            raise ValueError(
                "`order` must be 1 or 2 for a model of several outputs: the norm of a "
                "matrix from the largest entry is not to be had. Received: order=inf "
                f"for outputs of shape {tuple(shape)}."
            )

    def __call__(self, inputs):
        """Return a float64 array (samples,) for a list of arrays, one an input."""
        return self.between(inputs, *self.ends)

    def between(self, inputs, source, target):
        """Return the norms of the Jacobians of a target by a source.

        Args:
            inputs: List of arrays (samples, ...), one an input of the model.
            source: A point, see `Linearization`.
            target: A point.
        """
        x = inputs[0] if len(inputs) == 1 else inputs
        shapes = [tuple(v.shape[1:]) for v in self.at.values(x, [source, target])]
        smaller = min(math.prod(shape) for shape in shapes)
        if self.order == 2 and smaller > LARGEST_SIDE:
            self.how = (
                f"Norms of large Jacobians by {_STEPS} power iterations, from below"
            )
            return self._iterated(x, source, target, (len(inputs[0]), *shapes[0]))
        rows = self._matrix(x, source, target, shapes)
        if self.order == 1:
            return np.linalg.norm(rows, axis=1).max(1)
        if self.order == np.inf:
            return np.abs(rows).sum((1, 2))
        return np.linalg.norm(rows, 2, axis=(1, 2))

    def _matrix(self, x, source, target, shapes):
        """Return J as an array (samples, outputs, inputs)."""
        inputs, outputs = (math.prod(shape) for shape in shapes)
        by_rows = outputs <= inputs
        size, shape = (outputs, shapes[1]) if by_rows else (inputs, shapes[0])
        probes = np.eye(size, dtype="float32").reshape(size, 1, *shape)
        if by_rows:
            found = self.at.vjp(x, probes, [source], target)[0]
        else:
            found = self.at.jvp(x, probes, source, [target])[0]
        found = keras.ops.convert_to_numpy(found).astype("float64")
        found = found.reshape(*found.shape[:2], -1).transpose(1, 0, 2)
        return found if by_rows else found.transpose(0, 2, 1)

    def _iterated(self, x, source, target, shape):
        random = np.random.default_rng(0)
        v = _unit(random.standard_normal((1, *shape)))[0]
        for _ in range(_STEPS):
            u, norms = _unit(_array(self.at.jvp(x, v, source, [target])[0]))
            v, _ = _unit(_array(self.at.vjp(x, u, [source], target)[0]))
        return norms


def _array(tensor):
    return keras.ops.convert_to_numpy(tensor).astype("float64")


def _unit(vectors):
    """Return vectors (1, samples, ...) of norm one, or zero, and their norms."""
    flat = vectors.reshape(vectors.shape[1], -1)
    norms = np.linalg.norm(flat, axis=1)
    flat = flat / np.where(norms > 0, norms, 1)[:, None]
    return flat.reshape(vectors.shape), norms


def jacobian_norms(
    model: keras.Model,
    x,
    *,
    order: float = 2,
    batch_size: int = 128,
    progress: bool = True,
) -> Distributions:
    """Return the norm of the network's Jacobian at each sample, its local constant.

    For distances of inputs in the norm `order`, and of outputs in the Euclidean: the
    largest |J v| for |v| = 1. Of one output J is a gradient, whose norm is the dual
    one: the largest entry for order 1, the sum for infinity.

    Args:
        model: A built `keras.Sequential` or functional `keras.Model` with one output
            and one input of floats; others, such as labels, stay as they are.
        x: Array of inputs, or a stream of batches of x or (x, y), such as a
            `tf.data.Dataset`.
        order: 1, 2 or infinity; infinity only for one output, as the norm of a matrix
            is not to be had otherwise.
        batch_size: Integer >= 1, samples at a time.
        progress: Boolean, whether a terminal shows a bar.

    Returns:
        `Distributions`: one row, and the values.

    Raises:
        ValueError: If the model is of another kind, not built or not finite, or inputs
            do not fit.

    Example:
    >>> layer = keras.layers.Dense(1, kernel_initializer="ones")
    >>> model = keras.Sequential([keras.Input((4,)), layer])
    >>> float(jacobian_norms(model, np.eye(4))[0].maximum)
    2.0

    Source: [sanyal2020], equation 2, Figures 15 and 16; [novak2018].
    """
    samples = Samples(model, x, batch_size=batch_size)
    norms = JacobianNorms(model, order, batch_size)
    values = [norms(inputs) for inputs, _ in samples.each("Jacobians", progress)]
    return Distributions(
        {"Jacobian norm": np.concatenate(values)},
        title=f"Jacobians of {model.name}",
        caption=f"{norms.how}; inputs in the {order:g}-norm, outputs in the Euclidean.",
    )


@dataclasses.dataclass(frozen=True)
class SegmentRow:
    """A pair of inputs, and the Jacobians between them.

    Args:
        ratio: Float, |f(x) - f(y)| / |x - y|; NaN where the inputs are equal.
        mean: Float, of the Jacobians' norms at the points of the segment.
        maximum: Float, their largest.
    """

    ratio: float
    mean: float
    maximum: float


def segment_norms(
    model: keras.Model,
    x,
    y,
    *,
    points: int = 65,
    order: float = 2,
    batch_size: int = 128,
    progress: bool = True,
) -> Rows:
    """Return a pair's Lipschitz ratio beside the Jacobians' norms between the two.

    Proposition B.1: the ratio is at most the largest norm on the segment, as f(x) -
    f(y) is the integral of J (x - y) along it; so it is at most their mean, too. It
    holds for vectors of outputs as well. Points are at the middles of equal parts: what
    lies between them is not seen, and the largest may be less than that of all.

    Args:
        model: As `jacobian_norms` takes it.
        x: Array of inputs (pairs, ...).
        y: Array of the same shape.
        points: Integer >= 1, how many on each segment.
        order: 1, 2 or infinity, see `jacobian_norms`.
        batch_size: Integer >= 1.
        progress: Boolean, whether a terminal shows a bar.

    Returns:
        `Rows` of `SegmentRow`, one a pair.

    Raises:
        ValueError: As `jacobian_norms`, or if the inputs are not as many.

    Example:
    >>> layer = keras.layers.Dense(1, kernel_initializer="ones")
    >>> model = keras.Sequential([keras.Input((4,)), layer])
    >>> row = segment_norms(model, np.zeros((1, 4)), np.eye(4)[:1])[0]
    >>> round(row.ratio, 6), round(row.maximum, 6)
    (1.0, 2.0)

    Source: [sanyal2020], Proposition B.1.
    """
    check_integer("points", points, least=1)
    first, _ = Samples(model, x, batch_size=batch_size).arrays(progress=False)
    second, _ = Samples(model, y, batch_size=batch_size, name="y").arrays(
        progress=False
    )
    if len(first[0]) != len(second[0]):
        raise ValueError(
            "`x` and `y` must be as many. Received: "
            f"{len(first[0])} and {len(second[0])} samples"
        )
    norms = JacobianNorms(model, order, batch_size)
    if any(
        a.dtype.kind != "f" and (a != b).any()
        for a, b in zip(first, second, strict=True)
    ):
        raise ValueError(
            "`x` and `y` must agree in what are no floats, such as labels. Received: "
            "inputs of integers that differ"
        )
    run, count = forward(norms.at.model), len(first[0])
    batches = [slice(at, at + batch_size) for at in range(0, count, batch_size)]

    def all_of(function, share):
        parts = []
        for rows in batches:
            inputs = [array[rows] for array in first]
            start, end = inputs[norms.moving], second[norms.moving][rows]
            inputs[norms.moving] = start + (share * (end - start)).astype(start.dtype)
            parts.append(function(inputs))
        return np.concatenate(parts)

    found = []
    with progress_bar("Segments", points, progress) as advance:
        for part in range(points):
            found.append(all_of(norms, (part + 0.5) / points))
            advance()
    moved = np.linalg.norm(all_of(run, 1.0) - all_of(run, 0.0), axis=1)
    distance = np.linalg.norm(floats(second) - floats(first), ord=order, axis=1)
    ratios = moved / np.where(distance > 0, distance, np.nan)
    along = np.stack(found)
    rows = zip(ratios, along.mean(0), along.max(0), strict=True)
    return Rows(
        [SegmentRow(*map(float, row)) for row in rows],
        title=f"Pairs and the Jacobians between them, {model.name}",
        caption=f"{points} points a pair. {norms.how}.",
    )
