"""Heavy-tailed matrices as large entries plus noise: how often that fails."""

import math

from keras_spectral.validation import check_choice, check_positive

# Name -> (divisor of epsilon^2 / (tau^2 + t) in the exponent, factor before it). The
# corrected one is a sub-Gaussian tail; the three others are what the paper prints.
_VARIANTS = {
    "corrected": (2.0, 2.0),
    "proposition_1.1": (1.0, 3.0),
    "appendix_a": (0.5, 3.0),
    "proposition_2.1": (4.0, 3.0),
}


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

    Source: [shin2021], Proposition 1.1 and appendix A.
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

    Source: [shin2021], Algorithm 1, step 1.
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
