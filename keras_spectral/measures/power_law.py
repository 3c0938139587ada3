"""Power-law fits of weights."""

import dataclasses
import math
import warnings
from typing import Literal, get_args

import numpy as np

from keras_spectral.measures.power_law_search import find_tail
from keras_spectral.results import Rows
from keras_spectral.validation import check_choice, check_integer

Sides = Literal["abs", "positive", "negative"]
Engine = Literal["exact", "powerlaw"]
Alternative = Literal["lognormal", "exponential", "truncated_power_law"]
Favoured = Literal["power_law", "neither"] | Alternative
_ALTERNATIVES = get_args(Alternative)
# See `PowerLawFit`.
FitStatus = Literal[
    "ok", "too small", "at boundary", "on a grid", "narrow", "degenerate"
]

# Exponents of the density nearer to 1 than this are mis-fitted by everyone.
_LEAST_ALPHA = 1.2
_LEAST_TAIL = 50
# Any law looks like a power between numbers as near to each other as that.
_LEAST_SPAN = 1.5
# Gaps between values above xmin of which the median tells the grid's.
_GAPS = 15


@dataclasses.dataclass(frozen=True)
class PowerLawFit:
    """A power law fitted to the tail of some numbers.

    Two exponents are in use, and differ by one. The density falls as
    x^-`alpha_pdf` (what `powerlaw` and WeightWatcher print); the probability of
    exceeding x falls as x^-`alpha_tail` (the alpha in the text of the
    heavy-tail paper, whose density is x^-(alpha + 1)).

    Args:
        alpha_pdf: Float, exponent of the density.
        alpha_tail: Float, `alpha_pdf - 1`.
        standard_error: Float, of either exponent: (alpha_pdf - 1) / sqrt(tail).
        xmin: Float, where the tail begins.
        tail_size: Integer, how many numbers are in the tail.
        size: Integer, how many numbers were fitted.
        ks_distance: Float, largest distance of the distribution functions.
        status: `"ok"`; `"too small"` below 50 numbers in the tail; `"at
            boundary"` where the exponent is not clear of 1, the smallest
            allowed (below 1.2); `"on a grid"` where values are rounded (int8, a
            handful of numbers) so coarsely that it moves the exponent by more than
            its standard error; `"narrow"` where the tail spans less than a factor of
            1.5, so that any law would fit; `"degenerate"` where there is nothing to
            fit, and all is NaN.
    """

    alpha_pdf: float
    alpha_tail: float
    standard_error: float
    xmin: float
    tail_size: int
    size: int
    ks_distance: float
    status: FitStatus


def _on_side(x, sides):
    """Return the positive numbers that are fitted."""
    check_choice("sides", sides, Sides)
    x = np.asarray(x, "float64").ravel()
    if not x.size or not np.isfinite(x).all():
        raise ValueError(
            "`x` must hold finite numbers. Received: "
            + (f"{x.size} numbers with NaN or infinity" if x.size else "none")
        )
    x = {"abs": np.abs, "positive": np.asarray, "negative": np.negative}[sides](x)
    return x[x > 0]


def _status(tail, alpha, xmin) -> FitStatus:
    """Return what is to be said of a fit that there is."""
    if alpha < _LEAST_ALPHA:
        return "at boundary"
    values = np.unique(tail)
    if len(values) < len(tail):
        gap = float(np.median(np.diff(values[: _GAPS + 1]))) if len(values) > 1 else 0
        # Values in [xmin - gap / 2, xmin) were rounded into the tail: 1 / (alpha - 1),
        # the mean of log(x / xmin), is low by about half a gap.
        shift = (alpha - 1) ** 2 * gap / (2 * xmin)
        if len(values) < 4 or shift > (alpha - 1) / math.sqrt(len(tail)):
            return "on a grid"
    if len(tail) < _LEAST_TAIL:
        return "too small"
    return "narrow" if values[-1] < _LEAST_SPAN * xmin else "ok"


def fit_power_law(x, sides: str = "abs", engine: str = "exact") -> PowerLawFit:
    """Fit a power law to the tail of `x` by maximum likelihood.

    The start of the tail, xmin, is the one of all values (but the two largest)
    whose fit has the smallest Kolmogorov-Smirnov distance. The search is exact for
    any size: the result is that of the package `powerlaw` with its range of
    exponents widened to all above 1 (by default its version 2 stops at 3 without
    saying so), in a few milliseconds for 20,000 numbers and in some seconds for 16
    million.

    Args:
        x: Float array of any shape, finite.
        sides: `"abs"` fits |x|, `"positive"` the numbers above zero,
            `"negative"` minus those below. Zeros are dropped.
        engine: `"exact"`, or `"powerlaw"` for the package itself, whose time grows
            with the square of the size.

    Returns:
        A `PowerLawFit`. Check its `status` and `standard_error` before reading
        the exponent, then `goodness_of_fit` and `compare_power_law`: on a few hundred
        weights a Laplace law gives an exponent, too.

    Raises:
        ValueError: If `x` is empty or not finite, or `sides` or `engine` unknown.

    Example:
    >>> import numpy as np
    >>> x = np.random.default_rng(0).pareto(2.5, 500) + 1
    >>> abs(fit_power_law(x).alpha_tail - 2.5) < 0.5
    True

    Source: [shin2021], section 6 ([clauset2009]).
    """
    check_choice("engine", engine, Engine)
    x = _on_side(x, sides)
    nan = math.nan
    nothing = PowerLawFit(nan, nan, nan, nan, 0, x.size, nan, "degenerate")
    if len(np.unique(x[:1000])) < 4 and len(np.unique(x)) < 4:
        return nothing
    flagged = False
    if engine == "exact":
        alpha, xmin, tail, distance = find_tail(x)
        if not tail:
            return nothing
    else:
        import powerlaw

        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            fit = powerlaw.Fit(x, parameter_ranges={"alpha": (1, None)}, verbose=0)
            alpha, xmin = float(fit.power_law.alpha), float(fit.xmin)
            distance, flagged = float(fit.power_law.D), bool(fit.noise_flag)
        tail = int((x >= xmin).sum())
    status: FitStatus = "at boundary" if flagged else _status(x[x >= xmin], alpha, xmin)
    return PowerLawFit(
        alpha_pdf=alpha,
        alpha_tail=alpha - 1,
        standard_error=(alpha - 1) / math.sqrt(tail),
        xmin=xmin,
        tail_size=tail,
        size=x.size,
        ks_distance=distance,
        status=status,
    )


@dataclasses.dataclass(frozen=True)
class GoodnessOfFit:
    """How often a true power law is as far from its fit as the data is.

    Args:
        p_value: Float in (0, 1], (1 + trials as far) / (1 + trials). Small: the data
            is no power law. [clauset2009] rules it out at 0.1.
        standard_error: Float, of the p-value, from the number of trials.
        trials: Integer.
    """

    p_value: float
    standard_error: float
    trials: int


def goodness_of_fit(
    x, sides: str = "abs", trials: int = 200, seed: int = 0
) -> GoodnessOfFit:
    """Test by a parametric bootstrap whether the tail of `x` is a power law.

    Each trial draws as many numbers: from the fitted power law with the probability
    of the tail, else from the numbers below it; then fits them anew, xmin and all.

    Args:
        x: Float array of any shape, finite.
        sides: As `fit_power_law`.
        trials: Integer >= 1; the p-value's error is at most 0.5 / sqrt(trials).
        seed: Integer >= 0.

    Returns:
        A `GoodnessOfFit`; its p-value is NaN if the fit's status is `"degenerate"`.

    Raises:
        ValueError: As `fit_power_law`, or if `trials` or `seed` is out of range.

    Example:
    >>> import numpy as np
    >>> x = np.random.default_rng(0).uniform(1, 2, 500)
    >>> goodness_of_fit(x, trials=50).p_value < 0.1
    True

    Source: [clauset2009], section 4.1.
    """
    check_integer("trials", trials, least=1)
    check_integer("seed", seed, least=0)
    x = _on_side(x, sides)
    fit = fit_power_law(x)
    if fit.status == "degenerate":
        return GoodnessOfFit(math.nan, math.nan, trials)
    rng = np.random.default_rng(seed)
    body = x[x < fit.xmin]
    as_far = 0
    for _ in range(trials):
        size = rng.binomial(x.size, fit.tail_size / x.size) if body.size else x.size
        with np.errstate(over="ignore"):
            tail = fit.xmin * (1 - rng.random(size)) ** (-1 / fit.alpha_tail)
        # Tails of exponents near 1 leave float64's range.
        tail = np.minimum(tail, np.finfo("float64").max)
        rest = body[rng.integers(0, max(body.size, 1), x.size - size)]
        again = fit_power_law(np.concatenate([tail, rest]))
        # Only a sample of very few numbers is degenerate; it says nothing against.
        as_far += not again.ks_distance < fit.ks_distance
    p = (1 + as_far) / (1 + trials)
    return GoodnessOfFit(p, math.sqrt(p * (1 - p) / trials), trials)


@dataclasses.dataclass(frozen=True)
class ComparisonRow:
    """A power law against another law on the same tail.

    Args:
        alternative: String, the other law.
        log_likelihood_ratio: Float, natural logarithm; above zero the power law is
            the likelier one.
        p_value: Float, how often a ratio as far from zero comes by chance (Vuong's
            test; chi-squared's for the truncated power law, which contains the
            power law and so is never the less likely). Not the goodness of a fit.
        favoured: String: the likelier law, or `"neither"` above a p-value of 0.1.
    """

    alternative: Alternative
    log_likelihood_ratio: float
    p_value: float
    favoured: Favoured


def compare_power_law(x, sides: str = "abs", alternatives=_ALTERNATIVES) -> Rows:
    """Compare the power law of a tail with other laws by their likelihoods.

    The laws are fitted to the tail that `fit_power_law` finds, by the package
    `powerlaw`.

    Args:
        x: Float array of any shape, finite.
        sides: As `fit_power_law`.
        alternatives: Tuple of `"lognormal"`, `"exponential"`,
            `"truncated_power_law"`.

    Returns:
        `Rows` of `ComparisonRow`; NaN and `"neither"` where the tail is degenerate or
        a law cannot be fitted.

    Raises:
        ValueError: As `fit_power_law`, or on an unknown alternative.

    Example:
    >>> import numpy as np
    >>> x = np.random.default_rng(0).pareto(2.5, 2000) + 1
    >>> compare_power_law(x, alternatives=("exponential",))[0].favoured
    'power_law'

    Source: [clauset2009], section 5; [vuong1989].
    """
    for alternative in alternatives:
        check_choice("alternatives", alternative, Alternative)
    x = _on_side(x, sides)
    fit = fit_power_law(x)
    rows = []
    if fit.status != "degenerate":
        import powerlaw

        # Scale-free, so that no law's optimizer starts far away.
        tail = x[x >= fit.xmin] / fit.xmin
    for alternative in alternatives:
        ratio = p = math.nan
        if fit.status != "degenerate":
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                laws = powerlaw.Fit(
                    tail, xmin=1.0, parameter_ranges={"alpha": (1, None)}, verbose=0
                )
                ratio, p = map(
                    float, laws.distribution_compare("power_law", alternative)
                )
        favoured: Favoured = "neither"
        if p <= 0.1:
            favoured = "power_law" if ratio > 0 else alternative
        rows.append(ComparisonRow(alternative, ratio, p, favoured))
    return Rows(
        rows,
        title=f"A power law of {fit.tail_size} numbers against other laws",
        caption="Ratio above 0: the power law is likelier. p: by chance.",
    )
