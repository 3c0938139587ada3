"""Heavy-tailed matrices as large entries plus noise: the paper's Algorithm 1."""

import math

import numpy as np

from keras_spectral.compression.masks import Rule
from keras_spectral.gaussian import normals
from keras_spectral.theory.approximation import approximation_threshold
from keras_spectral.validation import check_choice, check_integer


def split(weights, threshold, rule="magnitude"):
    """Split an array in its small and its large entries.

    Args:
        weights: Float array of any shape.
        threshold: Float, the paper's tau; entries equal to it are small.
        rule: `"magnitude"`, by |w|; `"signed"`, by w as the paper writes it, so that
            every negative weight is small.

    Returns:
        Tuple (small, large) of arrays with `small + large == weights`, bit for bit.

    Raises:
        ValueError: On an unknown rule, or a threshold that is no number.

    Example:
    >>> small, large = split(np.array([-3.0, 0.5, 2.0]), 1.0)
    >>> small.tolist(), large.tolist()
    ([0.0, 0.5, 0.0], [-3.0, 0.0, 2.0])

    Source: [shin2021], section 3.2 (A and B).
    """
    check_choice("rule", rule, Rule)
    if not math.isfinite(threshold):
        raise ValueError(
            f"`threshold` must be a number. Received: threshold={threshold}"
        )
    weights = np.asarray(weights)
    small = (np.abs(weights) if rule == "magnitude" else weights) <= threshold
    zero = np.zeros((), weights.dtype)
    return np.where(small, weights, zero), np.where(small, zero, weights)


def approximate_matrix(
    weights, epsilon, eta, variance=0.0, rule="magnitude", seed=0, variant="corrected"
):
    """Replace the small entries of a matrix by noise of a given variance everywhere.

    The threshold follows from epsilon, eta and the variance. The noise sqrt(t) G lies
    under the large entries too; `compress_matrix` puts it in place of the small ones
    only. It never helps in mean square: the best variance is zero.

    Args:
        weights: Float array (rows, columns), finite.
        epsilon: Float > 0, the error for unit vectors.
        eta: Float in (0, 1), its probability for one pair of vectors.
        variance: Float >= 0, the paper's t.
        rule: See `split`.
        seed: Integer >= 0, of the noise.
        variant: See `failure_probability`.

    Returns:
        Tuple (approximation, kept): W(t) = sqrt(t) G + B, and a boolean mask of B.

    Raises:
        ValueError: If an argument is out of range, or the threshold lies below all
            entries, so that nothing would be replaced.

    Example:
    >>> w = np.random.default_rng(0).standard_t(2, (40, 30))
    >>> approximation, kept = approximate_matrix(w, epsilon=3.0, eta=0.01)
    >>> bool(0 < kept.mean() < 1)
    True

    Source: [shin2021], Algorithm 1 and section 3.2.
    """
    check_integer("seed", seed, least=0)
    weights = np.asarray(weights)
    if weights.ndim != 2 or not weights.size or not np.isfinite(weights).all():
        raise ValueError(
            "`weights` must be a matrix of finite numbers. Received: shape "
            f"{weights.shape}"
        )
    threshold = approximation_threshold(epsilon, eta, variance, variant)
    small, large = split(weights, threshold, rule)
    kept = (np.abs(weights) if rule == "magnitude" else weights) > threshold
    if kept.all():
        raise ValueError(
            f"`epsilon` and `eta` allow a threshold of {threshold:.4g}, below every "
            f"entry: nothing would be replaced. Received: epsilon={epsilon}, eta={eta}"
        )
    if variance:
        noise = normals(weights.size, seed).reshape(weights.shape)
        large = large + (math.sqrt(variance) * noise).astype(weights.dtype)
    return large, kept
