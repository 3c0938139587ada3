"""How many random projections keep inner products."""

import math
from typing import Literal

from keras_spectral.validation import (
    Variant,
    check_choice,
    check_integer,
    check_positive,
    check_probability,
)

MatrixVariant = Literal[Variant, "gaussian_tail"]


def vector_projections(margin, eta, variant="corrected", rounding=False):
    """Return the number k of coefficients that Vector-Project needs.

    Half of the margin is for the projection and half for rounding. The notes take
    16 log(1/eta) / margin^2, from a one-sided bound and as if the tail were normal.
    But the mean is a weighted difference of two chi-squares; it is off by t with
    probability at most 2 exp(-k t^2 / (4 (1 + t))), so that 16 (1 + margin/2)
    log(2/eta) / margin^2 suffice; log(3/eta) where rounding may fail too. What is
    printed misses small eta: twice as many failures for margin 1 and eta 1e-6.

    Args:
        margin: Float > 0, the paper's gamma.
        eta: Float in (0, 1), probability of failure for any one vector u.
        variant: `"corrected"`, or `"as_printed"`.
        rounding: Boolean, whether the coefficients will be rounded.

    Returns:
        Integer >= 1. Above the vector's size nothing is compressed.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> vector_projections(0.5, 0.1), vector_projections(0.5, 0.1, "as_printed")
    (240, 148)

    Source: [orton2018], Algorithm 1 and Lemma 2.
    """
    check_positive("margin", margin)
    check_probability("eta", eta)
    check_choice("variant", variant, Variant)
    if variant == "as_printed":
        return math.ceil(16 * math.log(1 / eta) / margin**2)
    events = 3 if rounding else 2
    return math.ceil(16 * (1 + margin / 2) * math.log(events / eta) / margin**2)


def rounding_quantum(margin, eta, size, variant="corrected"):
    """Return what Vector-Project rounds its coefficients to multiples of.

    The notes print margin / (2 sqrt(h k)), which they need for every u at once and
    with a sum in place of a mean. For one u rounding by q changes the product by at
    most q / 2 sqrt(chi^2_k / k), so that q may be nearly the margin, whatever h is.

    Args:
        margin: Float > 0.
        eta: Float in (0, 1).
        size: Integer h >= 1, of the vector.
        variant: `"corrected"`, or `"as_printed"`.

    Returns:
        Float.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> round(rounding_quantum(0.5, 0.1, 100), 3)
    0.432

    Source: [orton2018], Algorithm 1 and Lemma 2.
    """
    check_integer("size", size, least=1)
    count = vector_projections(margin, eta, variant, rounding=True)
    if variant == "as_printed":
        return margin / (2 * math.sqrt(size * count))
    # chi^2_k / k <= (1 + sqrt(2 x / k))^2 but for exp(-x) (Laurent and Massart).
    return margin / (1 + math.sqrt(2 * math.log(3 / eta) / count))


def matrix_projections(epsilon, eta, variant="corrected"):
    """Return the number k of coefficients that Matrix-Project needs.

    The notes print log(1/eta) / epsilon^2, too few by a factor of 4 and more. With
    W = <A, M> <uv', M> of norms 1 and mean r, E W^2 <= 1 + 2 r^2 and E|W|^p <=
    (2p - 1)!! (Khintchine), so log E exp(l (W - r)) <= l^2 / (1 - 4 l) and the tail
    is 2 exp(-k epsilon^2 / (4 (1 + 2 epsilon))): 4 (1 + 2 epsilon) log(2/eta) /
    epsilon^2 suffice. Without 2 epsilon, as if the tail were normal, they do not:
    for epsilon = 1, eta = 1e-6 and A = uv' that fails 8 times as often as eta.

    Args:
        epsilon: Float > 0, error relative to |A|_F |u| |v|.
        eta: Float in (0, 1), probability of failure for one pair (u, v).
        variant: `"corrected"`; `"as_printed"`; or `"gaussian_tail"`,
            4 log(2/eta) / epsilon^2, right for a small epsilon and an eta that is
            not tiny.

    Returns:
        Integer >= 1. Above the number of entries nothing is compressed.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> variants = ("corrected", "as_printed", "gaussian_tail")
    >>> [matrix_projections(0.5, 0.1, variant) for variant in variants]
    [96, 10, 48]

    Source: [orton2018], Algorithm 2 and Lemma 8.
    """
    check_positive("epsilon", epsilon)
    check_probability("eta", eta)
    check_choice("variant", variant, MatrixVariant)
    if variant == "as_printed":
        return math.ceil(math.log(1 / eta) / epsilon**2)
    factor = 4 * (1 + 2 * epsilon) if variant == "corrected" else 4
    return math.ceil(factor * math.log(2 / eta) / epsilon**2)
