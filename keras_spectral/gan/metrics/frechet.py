"""Fréchet distances of features, without a square root of a matrix."""

import dataclasses
import functools
import warnings
from typing import NamedTuple

import numpy as np
import scipy.linalg

from keras_spectral.gan.metrics.statistics import (
    Statistics,
    check_one_network,
    checked_features,
)
from keras_spectral.results import Rows
from keras_spectral.validation import check_integer


class Side:
    """Mean, and a factor R of the covariance, S = R' R, of one side.

    Args:
        name: String, the argument's name.
        given: Features (samples, dimensions), or `Statistics` of them.
    """

    def __init__(self, name, given):
        self.given = given if isinstance(given, Statistics) else None
        if self.given is None:
            self.features = checked_features(name, given, least=2)
            self.count, self.mean = len(self.features), self.features.mean(axis=0)
        else:
            self.features = given.features
            self.count, self.mean = given.count, given.mean
            if self.count is not None and self.count < 2:
                raise ValueError(
                    f"`{name}` must have at least 2 samples. Received: {self.count}"
                )
        # A covariance of n samples has rank n - 1.
        self.few = self.count is not None and self.count <= len(self.mean)
        # Of few samples the features themselves are the shorter factor.
        self.low_rank = self.few and self.features is not None

    @functools.cached_property
    def covariance(self):
        given = self.given or Statistics.of(self.features)
        return given.covariance

    @functools.cached_property
    def factor(self):
        if self.low_rank:
            return (self.features - self.mean) / np.sqrt(self.count - 1)
        values, vectors = np.linalg.eigh(self.covariance)
        return np.sqrt(np.maximum(values, 0))[:, None] * vectors.T

    @property
    def trace(self):
        return np.sum(self.factor**2) if self.low_rank else np.trace(self.covariance)


def frechet_distance(generated, reference) -> float:
    """Return the squared Fréchet distance of two Gaussians with features' moments.

    |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2), with n - 1 in the covariances. On
    the features of the Inception network this is FID.

    No matrix is rooted. With more samples than dimensions the last trace is the sum of
    the roots of the eigenvalues of S1 S2, which are those of a symmetric matrix:
    R S1 R', where S2 = R' R. With as many or fewer, and the features at hand, it is
    the nuclear norm of A B', where A and B are the centred features: exact where
    covariances are singular.

    The value falls with the number of samples, in proportion to 1 / n where nothing
    else differs: only numbers of the same counts can be compared.

    Args:
        generated: Features (samples, dimensions), or `Statistics` of them.
        reference: Likewise, of the data.

    Returns:
        Float, not below 0.

    Raises:
        ValueError: If the dimensions differ, features are not finite, or both are
            statistics and say that two networks made them.

    Example:
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(500, 2))
    >>> round(frechet_distance(x + [3.0, 4.0], x), 6)
    25.0

    Source: [heusel2017], the Fréchet inception distance.
    """
    ours, theirs = sides_of(generated, reference)
    warn_of_few(ours, theirs)
    return distance_of(ours, theirs)


def sides_of(generated, reference):
    """Return both sides, checked to have the same dimensions.

    Args:
        generated: Features or `Statistics`.
        reference: Likewise.
    """
    if isinstance(generated, Statistics) and isinstance(reference, Statistics):
        check_one_network(generated, reference)
    sides = Side("generated", generated), Side("reference", reference)
    _check_dimensions(*sides)
    return sides


def _check_dimensions(ours, theirs):
    if len(ours.mean) != len(theirs.mean):
        raise ValueError(
            "`generated` and `reference` must have the same dimensions. Received: "
            f"{len(ours.mean)} and {len(theirs.mean)}. Were both made by one network?"
        )


def warn_of_few(*sides):
    """Warn the caller's caller if a side has no more samples than dimensions.

    Args:
        *sides: `Side`s.
    """
    few = [side.count for side in sides if side.few]
    if few:
        warnings.warn(
            f"The Fréchet distance is of {min(few):,} samples in {len(sides[0].mean):,}"
            " dimensions: the covariance is singular and the distance mostly bias. "
            "Compare it with nothing but distances of the same counts.",
            stacklevel=3,
        )


def distance_of(ours, theirs):
    """Return the distance of two `Side`s, without a warning.

    Args:
        ours: `Side` of generated samples.
        theirs: `Side` of the reference, whose factor is made once.
    """
    if ours.low_rank or theirs.low_rank:
        product = ours.factor @ theirs.factor.T
        roots = np.linalg.svd(product, compute_uv=False)
    else:
        roots = np.sqrt(np.maximum(_product_eigenvalues(ours, theirs), 0))
    shift = ours.mean - theirs.mean
    value = shift @ shift + ours.trace + theirs.trace - 2 * roots.sum()
    return max(float(value), 0.0)


def _product_eigenvalues(ours, theirs):
    try:
        # A Cholesky factor is had for a fifteenth of the time of an eigenvector's.
        return scipy.linalg.eigh(
            ours.covariance, theirs.covariance, type=2, eigvals_only=True
        )
    except np.linalg.LinAlgError:  # A singular one has none.
        inner = theirs.factor @ ours.covariance @ theirs.factor.T
        return np.linalg.eigvalsh((inner + inner.T) / 2)


class Extrapolation(NamedTuple):
    """A Fréchet distance at infinitely many generated samples.

    Args:
        intercept: Float, the distance there; by noise it may be below 0.
        slope: Float: the distance of n samples is about intercept + slope / n.
        counts: Array of integers, the samples of each distance.
        distances: Array of floats.
    """

    intercept: float
    slope: float
    counts: np.ndarray
    distances: np.ndarray


def frechet_distance_infinity(
    generated, reference, sizes: int = 15, smallest: int | None = None, seed: int = 0
) -> Extrapolation:
    """Extrapolate the Fréchet distance to infinitely many generated samples.

    A line in 1 / n through the distances of random subsets. It takes off the bias of
    the generated samples only: that of a finite reference stays. The original code
    uses another network (that of torchvision) and draws latents by a Sobol sequence, so
    its numbers are not those of FID's network.

    Args:
        generated: Features (samples, dimensions).
        reference: Features or `Statistics`.
        sizes: Integer >= 2, how many subsets, of evenly spaced sizes up to all.
        smallest: Integer >= 2, the smallest; default: a tenth of the samples.
        seed: Integer, of the subsets.

    Returns:
        `Extrapolation`.

    Raises:
        ValueError: If there are too few samples for the sizes.

    Example:
    >>> import numpy as np
    >>> x, y = np.random.default_rng(0).normal(size=(2, 2000, 2))
    >>> bool(abs(frechet_distance_infinity(x, y).intercept) < 0.01)
    True

    Source: [chong2020], FID infinity.
    """
    check_integer("sizes", sizes, least=2)
    generated = checked_features("generated", generated, least=3)
    smallest = max(2, len(generated) // 10) if smallest is None else smallest
    check_integer("smallest", smallest, least=2)
    counts = np.linspace(smallest, len(generated), sizes).astype(int)
    if smallest >= len(generated) or len(set(counts)) < sizes:
        raise ValueError(
            f"`sizes` must be that many different numbers from `smallest` to the "
            f"samples. Received: sizes={sizes}, smallest={smallest}, "
            f"{len(generated)} samples"
        )
    random = np.random.default_rng(seed)
    theirs = Side("reference", reference)
    distances = []
    for count in counts:
        chosen = random.permutation(len(generated))[:count]
        ours = Side("generated", generated[chosen])
        if not distances:
            _check_dimensions(ours, theirs)
            warn_of_few(ours, theirs)
        distances.append(distance_of(ours, theirs))
    slope, intercept = np.polyfit(1 / counts, distances, 1)
    return Extrapolation(float(intercept), float(slope), counts, np.array(distances))


@dataclasses.dataclass(frozen=True)
class ClassDistance:
    """The Fréchet distance of one class.

    Args:
        label: Integer.
        distance: Float.
        generated: Integer, samples of the class.
        reference: Integer, likewise.
    """

    label: int
    distance: float
    generated: int
    reference: int


class IntraDistance(Rows):
    """Fréchet distances by class.

    Args:
        rows: List of `ClassDistance`.
        title: String.
        caption: String.
    """

    @property
    def mean(self) -> float:
        """Float, the Intra-FID: the mean over classes, each counting the same."""
        return float(np.mean([row.distance for row in self.rows]))


def intra_frechet_distance(
    generated, generated_labels, reference, reference_labels
) -> IntraDistance:
    """Return the Fréchet distance of each class; their mean is Intra-FID.

    There is no standard for the counts: some generate 5,000 a class against all
    training images of the class, some as many as the class has. The rows name them.
    The stable-rank paper prints FID / |C|, without the sum over classes.

    Args:
        generated: Features (samples, dimensions).
        generated_labels: Integers (samples,).
        reference: Features, likewise.
        reference_labels: Integers.

    Returns:
        `IntraDistance`, rows of `ClassDistance` with `.mean`.

    Raises:
        ValueError: If the two sides have different classes, or one has below 2 samples.

    Example:
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(40, 2))
    >>> labels = np.arange(40) % 2
    >>> shifted = x + np.where(labels == 1, 2.0, 0.0)[:, None]
    >>> round(intra_frechet_distance(shifted, labels, x, labels).mean, 6)
    4.0

    Source: [miyato2018b], intra FID; [sanyal2020], appendix E.
    """
    sides = {
        "generated": (generated, generated_labels),
        "reference": (reference, reference_labels),
    }
    by_class = {name: _by_class(name, *side) for name, side in sides.items()}
    ours, theirs = by_class["generated"], by_class["reference"]
    if set(ours) != set(theirs):
        raise ValueError(
            "`generated_labels` and `reference_labels` must have the same classes. "
            f"Received: {sorted(set(ours) ^ set(theirs))} on one side only"
        )
    rows, few = [], []
    for label in sorted(ours):
        pair = sides_of(ours[label], theirs[label])
        few.append(min(pair, key=lambda side: side.count))
        distance = distance_of(*pair)
        rows.append(ClassDistance(label, distance, pair[0].count, pair[1].count))
    warn_of_few(*few)
    mean = np.mean([row.distance for row in rows])
    return IntraDistance(
        rows,
        title="Fréchet distance by class",
        caption=f"Mean over {len(rows)} classes: {mean:.6g}",
    )


def _by_class(name, features, labels):
    features, labels = checked_features(name, features), np.asarray(labels)
    if labels.shape != features.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(
            f"`{name}_labels` must be one integer a sample, {len(features)}. Received: "
            f"{labels.dtype} of shape {labels.shape}"
        )
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2:
        raise ValueError(
            f"`{name}_labels` must have at least 2 samples a class. Received: "
            f"{counts.min()} of class {classes[counts.argmin()]}"
        )
    return {int(label): features[labels == label] for label in classes}
