"""Precision, recall, density and coverage of features."""

from typing import Literal, NamedTuple

import numpy as np

from keras_spectral.gan.metrics.statistics import checked_features
from keras_spectral.validation import check_choice, check_integer

Ties = Literal["closed", "open"]
# Squared distances nearer to a radius than this share of the squared lengths are
# computed once more from differences: x.x + y.y - 2 x.y cannot tell a tie.
_CLOSE = 1e-9


class Manifold(NamedTuple):
    """What generated samples and data share.

    Args:
        precision: Float, the share of generated samples within a ball of the data.
        recall: Float, the share of data within a ball of the generated samples.
        density: Float, how many balls of the data a generated sample is in, over
            `neighbours`; above 1 where they crowd.
        coverage: Float, the share of data in whose ball a generated sample is.
        neighbours: Integer.
        ties: String.
    """

    precision: float
    recall: float
    density: float
    coverage: float
    neighbours: int
    ties: str


def precision_recall_density_coverage(
    generated,
    reference,
    neighbours: int = 3,
    ties: Ties = "closed",
    block: int = 1024,
) -> Manifold:
    """Return precision, recall, density and coverage.

    The ball of a sample reaches to the `neighbours`-th nearest other sample of its own
    side. Precision and recall were usually computed with 3 neighbours, density and
    coverage with 5. Versions of torch-fidelity before 0.4 have precision and recall
    swapped.

    Args:
        generated: Features (samples, dimensions).
        reference: Features of the data, likewise.
        neighbours: Integer >= 1.
        ties: `"closed"`: what is as far as the radius is inside, as in torch-fidelity;
            `"open"`: it is not, as in prdc. They differ for samples that occur twice.
        block: Integer >= 1, how many rows of distances are held at once.

    Returns:
        `Manifold`.

    Raises:
        ValueError: If a side has no more samples than neighbours, or dimensions differ.

    Example:
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(50, 2))
    >>> precision_recall_density_coverage(x + 100.0, x).precision
    0.0

    Source: [kynkaanniemi2019], precision and recall; [naeem2020], density and coverage.
    """
    check_integer("neighbours", neighbours, least=1)
    check_choice("ties", ties, Ties)
    check_integer("block", block, least=1)
    generated = checked_features("generated", generated, least=neighbours + 1)
    reference = checked_features("reference", reference, least=neighbours + 1)
    if generated.shape[1] != reference.shape[1]:
        raise ValueError(
            "`generated` and `reference` must have the same dimensions. Received: "
            f"{generated.shape[1]} and {reference.shape[1]}"
        )
    # Lengths then say how far apart samples are, and rounding with them.
    centre = reference.mean(axis=0)
    generated, reference = generated - centre, reference - centre
    inside = np.less_equal if ties == "closed" else np.less
    ours = _squared_radii(generated, neighbours, block)
    theirs = _squared_radii(reference, neighbours, block)
    balls = np.zeros(len(generated), int)
    recalled = np.zeros(len(reference), bool)
    covered = np.zeros(len(reference), bool)
    for start in range(0, len(reference), block):
        part = slice(start, start + block)
        squares, close = _squares(reference[part], generated)
        radii = theirs[part, None]
        within = inside(
            _sharp(squares, radii, close, reference[part], generated), radii
        )
        balls += within.sum(axis=0)
        covered[part] = within.any(axis=1)
        sharp = _sharp(squares, ours, close, reference[part], generated)
        recalled[part] = inside(sharp, ours).any(axis=1)
    return Manifold(
        float(np.mean(balls > 0)),
        float(recalled.mean()),
        float(balls.mean() / neighbours),
        float(covered.mean()),
        neighbours,
        ties,
    )


def _squares(x, y):
    """Return squared distances, and how far rounding may have moved each."""
    lengths = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1)
    return np.maximum(lengths - 2 * x @ y.T, 0), _CLOSE * lengths


def _differences(x, y):
    return ((x - y) ** 2).sum(axis=-1)


def _sharp(squares, radii, close, x, y):
    """Return squared distances of which those near a radius are exact."""
    rows, columns = np.nonzero(np.abs(squares - radii) <= close)
    squares = squares.copy()
    for start in range(0, len(rows), 1024):
        pairs = rows[start : start + 1024], columns[start : start + 1024]
        squares[pairs] = _differences(x[pairs[0]], y[pairs[1]])
    return squares


def _squared_radii(x, neighbours, block):
    """Return squared distances to the k-th nearest other sample."""
    radii = np.empty(len(x))
    for start in range(0, len(x), block):
        part = x[start : start + block]
        squares, close = _squares(part, x)
        squares[np.arange(len(part)), start + np.arange(len(part))] = np.inf
        kth = np.partition(squares, neighbours - 1, axis=1)[:, neighbours - 1, None]
        # Which sample is the k-th, exact distances decide among those near it.
        sharp = _sharp(squares, kth, close, part, x)
        radii[start : start + block] = np.partition(sharp, neighbours - 1, axis=1)[
            :, neighbours - 1
        ]
    return radii
