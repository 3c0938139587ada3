"""Heavy-tailed matrices as large entries plus noise: the paper's Algorithm 1."""

import math

import numpy as np

from keras_spectral.compression.gaussian import normals
from keras_spectral.validation import check_choice, check_integer, check_positive

# Name -> (divisor of epsilon^2 / (tau^2 + t) in the exponent, factor before it). The
# corrected one is a sub-Gaussian tail; the three others are what the paper prints.
_VARIANTS = {
    "corrected": (2.0, 2.0),
    "proposition_1.1": (1.0, 3.0),
    "appendix_a": (0.5, 3.0),
    "proposition_2.1": (4.0, 3.0),
}
_RULES = ("magnitude", "signed")


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

    Source: papers/heavy-tail-compression.md, section 3.2 (A and B).
    """
    check_choice("rule", rule, _RULES)
    if not math.isfinite(threshold):
        raise ValueError(
            f"`threshold` must be a number. Received: threshold={threshold}"
        )
    weights = np.asarray(weights)
    small = (np.abs(weights) if rule == "magnitude" else weights) <= threshold
    zero = np.zeros((), weights.dtype)
    return np.where(small, weights, zero), np.where(small, zero, weights)


def failure_probability(epsilon, threshold, variance=0.0, variant="corrected"):
    """Bound P(|u'(W - W(t))v| > epsilon |u| |v|) for one pair of vectors.

    It holds for independent, sign-symmetric (or centred) small entries, at most the
    threshold in magnitude: 2 exp(-epsilon^2 / (2 (threshold^2 + variance))).

    Args:
        epsilon: Float > 0.
        threshold: Float >= 0, the paper's tau.
        variance: Float >= 0, of the noise, the paper's t.
        variant: `"corrected"`, or what the paper prints: `"proposition_1.1"` (false),
            `"appendix_a"` (false), `"proposition_2.1"` (true, and weaker).

    Returns:
        Float, not clipped at 1.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> round(failure_probability(3.0, 1.0), 4)
    0.0222

    Source: papers/heavy-tail-compression.md, Proposition 1.1 and appendix A.
    """
    check_choice("variant", variant, tuple(_VARIANTS))
    check_positive("epsilon", epsilon)
    size = _size(threshold, variance)
    divisor, factor = _VARIANTS[variant]
    if not size:
        return 0.0
    ratio = epsilon / size
    # Above that the exponential is 0, and the square may overflow.
    return factor * math.exp(-(ratio**2) / divisor) if ratio < 1e9 else 0.0


def _size(threshold, variance):
    """Return sqrt(threshold^2 + variance), also where the square would vanish."""
    if not 0 <= threshold < math.inf:
        raise ValueError(
            f"`threshold` must be a number >= 0. Received: threshold={threshold}"
        )
    if not 0 <= variance < math.inf:
        raise ValueError(
            f"`variance` must be a number >= 0. Received: variance={variance}"
        )
    return math.hypot(threshold, math.sqrt(variance))


def approximation_threshold(epsilon, eta, variance=0.0, variant="corrected"):
    """Return the largest threshold for an error and a probability of failure.

    Args:
        epsilon: Float > 0.
        eta: Float in (0, 1), probability of failure for one pair of vectors.
        variance: Float >= 0, of the noise; 0 leaves the most for the threshold.
        variant: See `failure_probability`.

    Returns:
        Float, the paper's tau.

    Raises:
        ValueError: If an argument is out of range, or the noise alone fails as often.

    Example:
    >>> tau = approximation_threshold(1.0, 0.01)
    >>> round(failure_probability(1.0, tau), 6)
    0.01

    Source: papers/heavy-tail-compression.md, Algorithm 1, step 1.
    """
    check_choice("variant", variant, tuple(_VARIANTS))
    check_positive("epsilon", epsilon)
    if not 0 < eta < 1:
        raise ValueError(f"`eta` must be in (0, 1). Received: eta={eta}")
    noise = _size(0.0, variance)
    divisor, factor = _VARIANTS[variant]
    size = epsilon / math.sqrt(divisor * math.log(factor / eta))
    if size < noise:
        raise ValueError(
            f"`variance` must be at most {size * size:.4g}, or the noise alone fails "
            f"with probability above {eta}. Received: variance={variance}"
        )
    return math.sqrt((size - noise) * (size + noise)) if noise else size


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

    Source: papers/heavy-tail-compression.md, Algorithm 1 and section 3.2.
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
