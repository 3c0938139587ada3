"""Power-law fits of weights."""

import dataclasses
import math
import warnings

import numpy as np

from keras_spectral.validation import check_choice

_SIDES = ("abs", "positive", "negative")


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
            boundary"` where `powerlaw` found no exponent clear of 1, the
            smallest allowed; `"degenerate"` where there is nothing to fit, and
            all is NaN.
    """

    alpha_pdf: float
    alpha_tail: float
    standard_error: float
    xmin: float
    tail_size: int
    size: int
    ks_distance: float
    status: str


def fit_power_law(x, sides="abs"):
    """Fit a power law to the tail of `x` by maximum likelihood.

    The start of the tail, xmin, is the one whose fit has the smallest
    Kolmogorov-Smirnov distance. The work is done by the package `powerlaw`,
    whose range of exponents is widened to all above 1: by default its version
    2 stops at 3 without saying so. The time grows with the square of the size;
    20,000 numbers take some ten seconds.

    Args:
        x: Float array of any shape, finite.
        sides: `"abs"` fits |x|, `"positive"` the numbers above zero,
            `"negative"` minus those below. Zeros are dropped.

    Returns:
        A `PowerLawFit`. Check its `status` and `standard_error` before reading
        the exponent: on a few hundred weights a Laplace law gives one, too.

    Raises:
        ValueError: If `x` is empty or not finite, or `sides` unknown.

    Example:
    >>> import numpy as np
    >>> x = np.random.default_rng(0).pareto(2.5, 500) + 1
    >>> abs(fit_power_law(x).alpha_tail - 2.5) < 0.5
    True

    Source: papers/heavy-tail-compression.md, section 6 (Clauset et al. 2009).
    """
    check_choice("sides", sides, _SIDES)
    x = np.asarray(x, "float64").ravel()
    if not x.size or not np.isfinite(x).all():
        raise ValueError(
            "`x` must hold finite numbers. Received: "
            + (f"{x.size} numbers with NaN or infinity" if x.size else "none")
        )
    x = {"abs": np.abs(x), "positive": x, "negative": -x}[sides]
    x = x[x > 0]
    if len(np.unique(x)) < 4:
        nan = math.nan
        return PowerLawFit(nan, nan, nan, nan, 0, x.size, nan, "degenerate")
    import powerlaw

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        fit = powerlaw.Fit(x, parameter_ranges={"alpha": (1, None)}, verbose=0)
        alpha, xmin = float(fit.power_law.alpha), float(fit.xmin)
        distance = float(fit.power_law.D)
    tail = int((x >= xmin).sum())
    status = "ok"
    if fit.noise_flag:
        status = "at boundary"
    elif tail < 50:
        status = "too small"
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
