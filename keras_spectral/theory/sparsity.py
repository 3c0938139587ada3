"""How many large weights there are: tails of the binomial law, and what they imply."""

import dataclasses
import math
from typing import Literal

import numpy as np

from keras_spectral.measures import alpha_stable_tail
from keras_spectral.results import Rows
from keras_spectral.validation import check_choice, check_integer

Method = Literal["chernoff", "exact", "as_printed"]
Sidedness = Literal["symmetric", "one_sided", "as_printed"]


def large_weight_probability(threshold, alpha_tail, xmin):
    """Return the probability (xmin / threshold)^alpha that a weight is kept.

    Args:
        threshold: Float >= xmin, the paper's tau.
        alpha_tail: Float > 0, exponent of the tail; one less than the density's.
        xmin: Float > 0, where the power law begins, the paper's w_m.

    Returns:
        Float in (0, 1].

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> large_weight_probability(2.0, 1.0, 1.0)
    0.5

    Source: [shin2021], equation 5.
    """
    if not alpha_tail > 0:
        raise ValueError(
            f"`alpha_tail` must be positive. Received: alpha_tail={alpha_tail}"
        )
    if not 0 < xmin <= threshold:
        raise ValueError(
            "`threshold` must be at least `xmin`, which must be positive. Received: "
            f"threshold={threshold}, xmin={xmin}. Below xmin nothing is known."
        )
    return (xmin / threshold) ** alpha_tail


def sparsity_probability(k, size, probability, method="chernoff"):
    """Bound the probability that at least k of `size` weights are large.

    Args:
        k: Number in [0, size]; a fraction is rounded up, but not as printed.
        size: Integer >= 1, the number n of weights, of a matrix or of a row.
        probability: Float in [0, 1], that one weight is large.
        method: `"chernoff"`, exp(-n D(k/n || p)) above the mean and 1 up to it;
            `"exact"`, the binomial tail; `"as_printed"`, the paper's formula
            wherever it is asked for, though up to the mean it bounds nothing.

    Returns:
        Float in [0, 1].

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> round(sparsity_probability(110, 1000, 0.1), 3)
    0.583
    >>> round(sparsity_probability(110, 1000, 0.1, "exact"), 3)
    0.158

    Source: [shin2021], equations 6 and 11, Proposition 1.2.
    """
    check_choice("method", method, Method)
    _check_counts(k, size, probability)
    if method != "as_printed":
        k = math.ceil(k)
    if k == 0:
        return 1.0
    if method == "exact":
        from scipy.stats import binom

        return float(binom.sf(k - 1, size, probability))
    if method == "chernoff" and k <= size * probability:
        return 1.0
    return math.exp(-size * _divergence(k / size, probability))


def _check_counts(k, size, probability):
    check_integer("size", size, least=1)
    if not 0 <= probability <= 1:
        raise ValueError(
            f"`probability` must be in [0, 1]. Received: probability={probability}"
        )
    if not 0 <= k <= size:
        raise ValueError(
            f"`k` must be between 0 and `size`. Received: k={k}, size={size}"
        )


def _divergence(q, p):
    """Return the relative entropy D(q || p) of two coins, in nats."""
    if q == p:
        return 0.0
    if p in (0, 1):
        return math.inf
    left = q * math.log(q / p) if q else 0.0
    return left + ((1 - q) * math.log((1 - q) / (1 - p)) if q < 1 else 0.0)


def sparsity_bound(size, probability, delta, method="chernoff"):
    """Return the smallest k that is reached with probability at most delta.

    Args:
        size: Integer >= 1, the number of weights.
        probability: Float in [0, 1], that one weight is large.
        delta: Float in (0, 1).
        method: `"chernoff"` or `"exact"`, see `sparsity_probability`.

    Returns:
        Integer k: with probability 1 - delta fewer than k weights are large. It is
        `size + 1` if not even all of them can be excluded.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> sparsity_bound(640, 0.3173, 0.01), sparsity_bound(640, 0.3173, 0.01, "exact")
    (240, 232)

    Source: [shin2021], Proposition 1.2, solved for k.
    """
    check_choice("method", method, ("chernoff", "exact"))
    _check_counts(0, size, probability)
    if not 0 < delta < 1:
        raise ValueError(f"`delta` must be in (0, 1). Received: delta={delta}")
    low, high = 0, size + 1
    # The probability falls as k grows.
    while high - low > 1:
        middle = (low + high) // 2
        if sparsity_probability(middle, size, probability, method) <= delta:
            high = middle
        else:
            low = middle
    return high


def spiked_second_moment(x, alpha_tail, xmin, threshold, variant="symmetric"):
    """Return E[(B x)_i^2] for the kept part B of a matrix of power-law weights.

    Args:
        x: Float array (columns,).
        alpha_tail: Float > 2; up to 2 the moment is infinite.
        xmin: Float > 0.
        threshold: Float >= xmin.
        variant: `"symmetric"`, weights of both signs: m2 |x|^2; `"one_sided"`,
            positive weights: m2 |x|^2 + m1^2 ((sum x)^2 - |x|^2);
            `"as_printed"`, equation 10, which replaces |x|^2 by the number of columns
            times one x_i^2, and so is an array with an entry for each i.

    Returns:
        Float, or an array for `"as_printed"`.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> spiked_second_moment(np.array([1.0, 0.0]), 3.0, 1.0, 1.0)
    3.0

    Source: [shin2021], equations 9 and 10.
    """
    check_choice("variant", variant, Sidedness)
    large_weight_probability(threshold, alpha_tail, xmin)
    x = np.asarray(x, "float64")
    if not alpha_tail > 2:
        return math.inf if variant != "as_printed" else np.full(x.shape, math.inf)
    scale = alpha_tail * xmin**alpha_tail
    second = scale * threshold ** (2 - alpha_tail) / (alpha_tail - 2)
    if variant == "as_printed":
        return x.size * second * x**2
    squares = float(x @ x)
    if variant == "symmetric":
        return second * squares
    first = scale * threshold ** (1 - alpha_tail) / (alpha_tail - 1)
    return second * squares + first**2 * (float(x.sum()) ** 2 - squares)


def bracket_probability(index, alpha, scale, method="as_printed"):
    """Return the probability that a weight lies in the bracket c^i < w < c^(i+1).

    Args:
        index: Integer >= 0, the bracket i.
        alpha: Float in (0, 2), of a symmetric alpha-stable law.
        scale: Float > 1, the paper's c, scale of the law and base of the powers.
        method: `"as_printed"`, by the tail's asymptote, which brackets 0 and 1 are not
            in; `"exact"`, by SciPy's distribution function.

    Returns:
        Float, of one side.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> round(bracket_probability(3, 1.9, 1.3), 4)
    0.0069
    >>> round(bracket_probability(3, 1.9, 1.3, "exact"), 3)
    0.054

    Source: [shin2021], equations 13 and 14.
    """
    check_choice("method", method, ("as_printed", "exact"))
    check_integer("index", index, least=0)
    if not 0 < alpha < 2:
        raise ValueError(f"`alpha` must be in (0, 2). Received: alpha={alpha}")
    if not scale > 1:
        raise ValueError(f"`scale` must be above 1. Received: scale={scale}")
    edges = np.array([scale**index, scale ** (index + 1)])
    if method == "as_printed":
        above = alpha_stable_tail(edges, alpha, scale)
    else:
        from scipy.stats import levy_stable

        # Without skewness all forms of the law are one.
        above = levy_stable.sf(edges, alpha, 0, loc=0, scale=scale)
    return float(above[0] - above[1])


@dataclasses.dataclass(frozen=True)
class BracketRow:
    """One bracket of one law: does a row hold as many weights as outweigh the next?

    Args:
        alpha: Float, of the alpha-stable law.
        index: Integer, the bracket i.
        needed: Float, kappa = c^(M - i); the exact probability rounds it up.
        expected: Float, mean number of weights of the bracket in a row.
        bound: Float, the printed formula of P(X >= kappa).
        valid: Boolean, whether kappa is above the mean, where the formula holds.
        exact: Float, P(X >= kappa) by the binomial law and the exact probability.
    """

    alpha: float
    index: int
    needed: float
    expected: float
    bound: float
    valid: bool
    exact: float


def resilient_classification(alphas=(1.0, 1.5, 1.9), scale=1.3, levels=5, columns=64):
    """Tabulate Figure 2: counts of weights in powers of the scale, with validity.

    Args:
        alphas: Tuple of floats in (0, 2).
        scale: Float > 1, the paper's c.
        levels: Integer >= 1, the paper's M.
        columns: Integer >= 1, the paper's N.

    Returns:
        `Rows` of `BracketRow`. Where `valid` is false the printed bound is none.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> rows = resilient_classification(alphas=(1.0,))
    >>> [row.valid for row in rows]
    [False, False, False, False, False, False]

    Source: [shin2021], equations 15 and 16, Figure 2.
    """
    check_integer("levels", levels, least=1)
    check_integer("columns", columns, least=1)
    rows = []
    for alpha in alphas:
        for index in range(levels + 1):
            printed = bracket_probability(index, alpha, scale)
            exact = bracket_probability(index, alpha, scale, "exact")
            needed = min(scale ** (levels - index), columns)
            rows.append(
                BracketRow(
                    alpha=alpha,
                    index=index,
                    needed=needed,
                    expected=columns * printed,
                    bound=sparsity_probability(needed, columns, printed, "as_printed"),
                    valid=needed > columns * printed,
                    exact=sparsity_probability(needed, columns, exact, "exact"),
                )
            )
    return Rows(
        rows,
        title=f"Weights in powers of {scale} ({columns} columns, {levels} levels)",
        caption="bound: the printed formula, none where it is not valid. "
        "exact: binomial, with the law's own probability.",
    )
