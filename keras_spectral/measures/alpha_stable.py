"""Alpha-stable laws: density, tail, samples, and two estimators with a test."""

import copy
import dataclasses
import functools
import json
import math
from importlib import resources
from typing import Literal

import numpy as np

from keras_spectral.validation import check_choice, check_integer

Method = Literal["characteristic_function", "quantile"]
# Farther numbers have no more influence on either estimator.
_LARGEST = 1e100
# Of a scale from one regression to the next; by more it only runs away.
_MOST_CHANGE = 8.0
_SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclasses.dataclass(frozen=True)
class AlphaStableFit:
    """An alpha-stable law fitted to some numbers.

    Args:
        alpha: Float in (0, 2], the index: tails fall as x^-alpha; 2 is a normal law of
            variance 2 scale^2.
        beta: Float in [-1, 1], the skewness.
        scale: Float, c.
        location: Float, in Nolan's form S0.
        distance: Float in [0, 2], the largest distance of the characteristic functions
            of the data and of the fit. About 1 / sqrt(size) if the law is right.
        p_value: Float, how often samples of the fitted law are as far from their own
            fits; `None` without trials. Small: the data is not alpha-stable.
        size: Integer, how many numbers were fitted.
        status: `"ok"`; `"at boundary"` where alpha came out at 2 or below 0.5;
            `"degenerate"` where the numbers' middle half has no width.
    """

    alpha: float
    beta: float
    scale: float
    location: float
    distance: float
    p_value: float | None
    size: int
    status: Literal["ok", "at boundary", "degenerate"]


def _check_law(alpha, beta, scale):
    if not 0 < alpha <= 2:
        raise ValueError(f"`alpha` must be in (0, 2]. Received: alpha={alpha}")
    if not -1 <= beta <= 1:
        raise ValueError(f"`beta` must be in [-1, 1]. Received: beta={beta}")
    if not scale > 0:
        raise ValueError(f"`scale` must be positive. Received: scale={scale}")


def alpha_stable_density(x, alpha, beta=0.0, scale=1.0, location=0.0):
    """Return the density of an alpha-stable law, by SciPy's integrals.

    It takes about a third of a second for a thousand points.

    Args:
        x: Float array.
        alpha: Float in (0, 2].
        beta: Float in [-1, 1].
        scale: Float > 0.
        location: Float, in Nolan's form S0.

    Returns:
        Float array like `x`.

    Raises:
        ValueError: If a parameter is out of range.

    Example:
    >>> round(float(alpha_stable_density(0.0, 1.0)), 6)  # Cauchy: 1 / pi
    0.31831

    Source: [shin2021], footnote 3 and Figure 1.
    """
    _check_law(alpha, beta, scale)
    from scipy.stats import levy_stable

    # A copy, since the form is a setting of the one object that everybody shares.
    law = copy.copy(levy_stable)
    law.parameterization = "S0"
    return law.pdf(np.asarray(x, "float64"), alpha, beta, location, scale)


def alpha_stable_tail(x, alpha, scale=1.0, sides="one"):
    """Return the asymptotic probability c_alpha (x / scale)^-alpha of a large value.

    c_alpha = sin(pi alpha / 2) Gamma(alpha) / pi. It holds for x far above the scale
    only: at twice the scale it is 3 times too small for alpha = 1.8.

    Args:
        x: Float array of positive numbers.
        alpha: Float in (0, 2).
        scale: Float > 0, of a symmetric law.
        sides: `"one"` for P(X > x), `"both"` for P(|X| > x).

    Returns:
        Float array like `x`, not clipped at 1.

    Raises:
        ValueError: If a parameter is out of range.

    Example:
    >>> round(float(alpha_stable_tail(100.0, 1.5)), 5)
    0.0002

    Source: [shin2021], equation 12.
    """
    _check_law(alpha, 0, scale)
    check_choice("sides", sides, ("one", "both"))
    constant = math.sin(math.pi * alpha / 2) * math.gamma(alpha) / math.pi
    factor = 2 if sides == "both" else 1
    return factor * constant * (np.asarray(x, "float64") / scale) ** -alpha


def sample_alpha_stable(shape, alpha, beta=0.0, scale=1.0, location=0.0, seed=0):
    """Draw from an alpha-stable law by the method of Chambers, Mallows and Stuck.

    Args:
        shape: Integer or tuple.
        alpha: Float in (0, 2].
        beta: Float in [-1, 1].
        scale: Float > 0.
        location: Float, in Nolan's form S0.
        seed: Whatever `numpy.random.default_rng` takes.

    Returns:
        Float array.

    Raises:
        ValueError: If a parameter is out of range.

    Example:
    >>> sample_alpha_stable(3, 2.0).shape
    (3,)

    Source: [chambers1976]; [shin2021], footnote 3.
    """
    _check_law(alpha, beta, scale)
    rng = np.random.default_rng(seed)
    angle = rng.uniform(-math.pi / 2, math.pi / 2, shape)
    wait = rng.exponential(1.0, shape)
    if abs(alpha - 1) < 1e-8:
        bent = math.pi / 2 + beta * angle
        z = bent * np.tan(angle) - beta * np.log(
            math.pi / 2 * wait * np.cos(angle) / bent
        )
        return scale * (2 / math.pi) * z + location
    lean = beta * math.tan(math.pi * alpha / 2)
    shift = math.atan(lean) / alpha
    turned = alpha * (angle + shift)
    z = (1 + lean**2) ** (1 / (2 * alpha)) * np.sin(turned)
    z = z / np.cos(angle) ** (1 / alpha)
    z = z * (np.cos(angle - turned) / wait) ** ((1 - alpha) / alpha)
    # From Nolan's form S1 to S0.
    return scale * (z - lean) + location


def fit_alpha_stable(
    x, method: str = "characteristic_function", trials: int = 0, seed: int = 0
) -> AlphaStableFit:
    """Estimate the alpha-stable law that some numbers come from.

    The estimators answer whatever the data is (a Laplace law gives an alpha of about
    1.5 to 1.7): read `distance` and `p_value` first.

    Args:
        x: Float array of any shape, finite.
        method: `"characteristic_function"`, regressions on the logarithm of the
            empirical characteristic function (Koutrouvelis), or `"quantile"`, from
            five quantiles (McCulloch), for alpha of 0.5 or more.
        trials: Integer >= 0, samples of a parametric bootstrap for the p-value.
        seed: Integer >= 0.

    Returns:
        An `AlphaStableFit`.

    Raises:
        ValueError: If `x` holds less than 10 numbers or is not finite, or an argument
            is out of range.

    Example:
    >>> x = sample_alpha_stable(10_000, 1.5)
    >>> abs(fit_alpha_stable(x).alpha - 1.5) < 0.06
    True

    Source: [shin2021], section 5.2; [koutrouvelis1980]; [mcculloch1986].
    """
    check_choice("method", method, Method)
    check_integer("trials", trials, least=0)
    check_integer("seed", seed, least=0)
    x = np.asarray(x, "float64").ravel()
    if x.size < 10 or not np.isfinite(x).all():
        raise ValueError(
            "`x` must hold at least 10 finite numbers. Received: "
            + (f"{x.size} numbers" if x.size < 10 else "NaN or infinity among them")
        )
    lower, upper = np.quantile(x, (0.25, 0.75))
    if not upper > lower:
        nan = math.nan
        return AlphaStableFit(nan, nan, nan, nan, nan, None, x.size, "degenerate")
    estimate = _ESTIMATORS[method]
    # In units of the middle half's width, so that no scale is too large or small.
    center, unit = np.quantile(x, 0.5), upper / 2 - lower / 2
    x = _tamed(x, center, unit)
    law = estimate(x)
    distance = _distance(x, law)
    p_value = None
    if trials:
        rng = np.random.default_rng(seed)
        as_far = 0
        for _ in range(trials):
            with np.errstate(all="ignore"):
                sample = sample_alpha_stable(x.size, *law, seed=rng)
            sample = _tamed(np.nan_to_num(sample, posinf=np.inf, neginf=-np.inf))
            low, high = np.quantile(sample, (0.25, 0.75))
            # A sample without width has no fit; it says nothing against.
            far = not high > low or _distance(sample, estimate(sample)) >= distance
            as_far += far
        p_value = (1 + as_far) / (1 + trials)
    alpha, beta, scale, location = law
    boundary = alpha >= 2 or alpha <= 0.5
    return AlphaStableFit(
        alpha=alpha,
        beta=beta,
        scale=float(scale * unit),
        location=float(location * unit + center),
        distance=distance,
        p_value=p_value,
        size=x.size,
        status="at boundary" if boundary else "ok",
    )


def _tamed(x, center=0.0, unit=1.0):
    """Return (x - center) / unit, clipped to what arithmetic holds."""
    with np.errstate(over="ignore"):
        return np.clip((x / unit) - (center / unit), -_LARGEST, _LARGEST)


def _characteristic(x, u):
    """Return the empirical characteristic function, in parts of the data."""
    total = np.zeros(len(u), "complex128")
    for part in np.array_split(x, max(1, x.size // 65_536)):
        total += np.exp(1j * np.outer(u, part)).sum(1)
    return total / x.size


def _bend(t, alpha):
    """Return tan(pi alpha / 2) (t - t^alpha), also where alpha is 1."""
    if abs(alpha - 1) < 1e-6:
        return 2 / math.pi * t * np.log(t)
    return math.tan(math.pi * alpha / 2) * (t - t**alpha)


def _law_characteristic(u, alpha, beta, scale, location):
    t = scale * u
    phase = location * u - beta * _bend(t, alpha)
    return np.exp(-(t**alpha) + 1j * phase)


def _distance(x, law):
    u = np.linspace(0.05, 3, 60) / law[2]
    return float(np.abs(_characteristic(x, u) - _law_characteristic(u, *law)).max())


def _by_quantiles(x):
    """Return (alpha, beta, scale, location) by the table of five quantiles."""
    fine_alpha, fine_beta, grid = _grid()
    q = np.quantile(x, _SHARES)
    tails = (q[4] - q[0]) / (q[3] - q[1])
    skew = (q[4] + q[0] - 2 * q[2]) / (q[4] - q[0])
    # Both ratios on a fine grid; the skewness of -x is that of x with a minus.
    ratio = (grid[..., 4] - grid[..., 0]) / (grid[..., 3] - grid[..., 1])
    lean = (grid[..., 4] + grid[..., 0] - 2 * grid[..., 2]) / (
        grid[..., 4] - grid[..., 0]
    )
    error = np.log(ratio / tails) ** 2 + (lean - abs(skew)) ** 2
    row, column = np.unravel_index(error.argmin(), error.shape)
    five = grid[row, column]
    scale = (q[3] - q[1]) / (five[3] - five[1])
    sign = -1.0 if skew < 0 else 1.0
    beta = sign * fine_beta[column] if fine_alpha[row] < 1.99 else 0.0
    location = q[2] - sign * scale * five[2]
    return float(fine_alpha[row]), float(beta), float(scale), float(location)


@functools.cache
def _grid():
    """Return (alphas, betas, quantiles of the standard law) on a fine grid."""
    from scipy.interpolate import RectBivariateSpline

    file = resources.files("keras_spectral.measures") / "data/stable_quantiles.json"
    read = json.loads(file.read_text(encoding="utf-8"))
    table = np.array(read["quantiles"])
    alphas = np.linspace(read["alpha"][0], read["alpha"][-1], 301)
    betas = np.linspace(0, 1, 101)
    # Quantiles of heavy tails grow like powers; their inverse hyperbolic sine does not.
    grid = [
        RectBivariateSpline(read["alpha"], read["beta"], np.arcsinh(table[..., i]))(
            alphas, betas
        )
        for i in range(len(_SHARES))
    ]
    return alphas, betas, np.sinh(np.stack(grid, -1))


def _by_characteristic_function(x):
    """Return (alpha, beta, scale, location) by two linear regressions, iterated."""
    alpha, _, scale, location = _by_quantiles(x)
    beta = 0.0
    # Large values move the estimate little, but overflow nothing either.
    for _ in range(5):
        z = (x - location) / scale
        u = np.pi * np.arange(1, 12) / 25
        values = _characteristic(z, u)
        moduli = np.clip(np.abs(values), 1e-12, 1 - 1e-12)
        slope, intercept = np.polyfit(np.log(u), np.log(-np.log(moduli)), 1)
        alpha = float(np.clip(slope, 0.05, 2.0))
        most = math.log(_MOST_CHANGE)
        factor = math.exp(float(np.clip(intercept / alpha, -most, most)))
        phases = np.unwrap(np.angle(values))
        bend = -_bend(factor * u, alpha)
        if alpha > 1.98:
            # The skewness of a normal law means nothing.
            shift, beta = float(u @ phases / (u @ u)), 0.0
        else:
            columns = np.stack([u, bend], 1)
            (shift, beta), *_ = np.linalg.lstsq(columns, phases, rcond=None)
            if abs(beta) > 1:
                beta = math.copysign(1.0, beta)
                shift = u @ (phases - beta * bend) / (u @ u)
        location, scale = float(location + shift * scale), float(scale * factor)
        if abs(factor - 1) < 1e-4 and abs(shift) < 1e-4:
            break
    return alpha, float(beta), scale, location


_ESTIMATORS = {
    "characteristic_function": _by_characteristic_function,
    "quantile": _by_quantiles,
}
