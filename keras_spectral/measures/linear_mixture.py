"""Mixtures of linear regressors by expectation maximization: Figure 3's lines."""

import dataclasses
import math
from typing import Literal

import numpy as np

from keras_spectral.results import Rows
from keras_spectral.validation import check_integer

# Without these bounds the likelihood has no maximum: a line through two points with a
# deviation of zero is infinitely likely.
_LEAST_DEVIATION = 0.1  # of the deviation about one line
_LEAST_POINTS = 6  # a component, in responsibilities

_MOST_STEPS = 2000
_TOLERANCE = 1e-10


@dataclasses.dataclass(frozen=True)
class CandidateRow:
    """The best fit of one number of components."""

    components: int
    log_likelihood: float
    bic: float
    restarts_kept: int = dataclasses.field(metadata={"label": "restarts kept"})
    status: Literal["ok", "too few points", "every restart collapsed"]


@dataclasses.dataclass(frozen=True)
class LinearMixture:
    """Lines y = slope x + intercept with normal errors, each with its share of points.

    Components are ordered by weight, the largest first.

    Args:
        components: Integer K, the one with the smallest BIC.
        slopes: Float64 array (K,).
        intercepts: Float64 array (K,).
        deviations: Float64 array (K,), standard deviations of the errors.
        weights: Float64 array (K,), shares of the points; their sum is 1.
        responsibilities: Float64 array (points, K), the probability that a point
            belongs to a component; each row's sum is 1.
        log_likelihood: Float, natural logarithm.
        bic: Float, (4 K - 1) log(points) - 2 log_likelihood; the smaller, the better.
        trace: Float64 array (steps,), the log-likelihood before every step.
        candidates: `Rows` of `CandidateRow`, one for each number of components.
    """

    components: int
    slopes: np.ndarray
    intercepts: np.ndarray
    deviations: np.ndarray
    weights: np.ndarray
    responsibilities: np.ndarray
    log_likelihood: float
    bic: float
    trace: np.ndarray
    candidates: Rows


def fit_linear_mixture(
    x, y, components=(1, 2, 3), restarts: int = 20, seed: int = 0
) -> LinearMixture:
    """Fit a mixture of linear regressors by EM, as many as the BIC prefers.

    Every restart begins with lines through random pairs of points. A component's
    deviation is at least a tenth of the deviation about one line, and a fit in which
    one has fewer than six points (in responsibilities) is dropped: otherwise lines
    through two points are infinitely likely. The paper states neither the number of
    lines nor how it was initialized or stopped.

    Args:
        x: Float array (points,), not all equal.
        y: Float array (points,).
        components: Tuple of integers >= 1, the numbers of lines to compare.
        restarts: Integer >= 1, for each number of lines.
        seed: Integer >= 0.

    Returns:
        A `LinearMixture`.

    Raises:
        ValueError: If the points are fewer than 6, not finite or all at one x, or an
            argument is out of range.

    Example:
    >>> x = np.linspace(2, 5, 40)
    >>> y = np.where(np.arange(40) % 2, 3 + 0.1 * x, 1 + 0.8 * x)
    >>> y += 0.05 * np.random.default_rng(0).standard_normal(40)
    >>> fit_linear_mixture(x, y).slopes.round(1).tolist()
    [0.1, 0.8]

    Source: [shin2021], Figure 3 and appendix D.
    """
    x, y = _points(x, y)
    if not len(components):
        raise ValueError("`components` must hold an integer. Received: components=()")
    for count in components:
        check_integer("components", count, least=1)
    check_integer("restarts", restarts, least=1)
    check_integer("seed", seed, least=0)
    rows, fits = [], {}
    # Around the means and in units of the spreads, so that no scale is special. The
    # slopes are turned back exactly.
    centre, spread = (x.mean(), y.mean()), (x.std(), y.std() or 1.0)
    u, v = (x - centre[0]) / spread[0], (y - centre[1]) / spread[1]
    for count in sorted(set(components)):
        fit, kept, status = _fit(u, v, count, restarts, seed)
        if fit is None:
            rows.append(CandidateRow(count, math.nan, math.nan, kept, status))
            continue
        fit["trace"] = fit["trace"] - x.size * math.log(spread[1])
        likelihood = float(fit["trace"][-1])
        bic = (4 * count - 1) * math.log(x.size) - 2 * likelihood
        rows.append(CandidateRow(count, likelihood, bic, kept, status))
        fits[count] = fit
    candidates = Rows(
        rows,
        title=f"Mixtures of linear regressors ({x.size} points)",
        caption="The smallest BIC is chosen.",
    )
    if not fits:
        raise ValueError(
            "`components` must hold a number of lines that can be fitted. Received: "
            f"components={tuple(components)} for {x.size} points ({rows[0].status}). "
            "Add 1."
        )
    best = min((row for row in rows if row.components in fits), key=lambda r: r.bic)
    fit = fits[best.components]
    slopes = fit["slopes"] * spread[1] / spread[0]
    return LinearMixture(
        components=best.components,
        slopes=slopes,
        intercepts=fit["intercepts"] * spread[1] + centre[1] - slopes * centre[0],
        deviations=fit["deviations"] * spread[1],
        weights=fit["weights"],
        responsibilities=fit["responsibilities"],
        log_likelihood=best.log_likelihood,
        bic=best.bic,
        trace=fit["trace"],
        candidates=candidates,
    )


def _points(x, y):
    x, y = np.asarray(x, "float64"), np.asarray(y, "float64")
    if x.ndim != 1 or x.shape != y.shape or x.size < _LEAST_POINTS:
        raise ValueError(
            f"`x` and `y` must hold one number a point, of {_LEAST_POINTS} points or "
            f"more. Received: x.shape={x.shape}, y.shape={y.shape}"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError(
            "`x` and `y` must hold finite numbers. Received: NaN or infinity among "
            "them. Drop those points."
        )
    if x.min() == x.max():
        raise ValueError(
            "`x` must hold two different numbers, or there is no slope. "
            f"Received: {x.size} times {x[0]}"
        )
    return x, y


def _fit(x, y, count, restarts, seed):
    """Return the best of the restarts, how many of them can be used, and a status."""
    if x.size < _LEAST_POINTS * count:
        return None, 0, "too few points"
    one_line = _maximize(x, y, np.ones((1, x.size)), 0.0)
    # Points on one line have no deviation; then this is how far from it they may be.
    least = max(_LEAST_DEVIATION * one_line["deviations"][0], 1e-9)
    # A stream of its own, whatever the other numbers of lines are.
    rng = np.random.default_rng([seed, count])
    best, kept = None, 0
    for _ in range(1 if count == 1 else restarts):
        fit = _climb(x, y, _start(x, y, count, rng), least)
        if fit["responsibilities"].sum(0).min() < _LEAST_POINTS - 1e-9:
            continue
        kept += 1
        if best is None or fit["trace"][-1] > best["trace"][-1]:
            best = fit
    return best, kept, "ok" if kept else "every restart collapsed"


def _start(x, y, count, rng):
    """Return responsibilities (K, points) by the nearest of random lines."""
    distances = []
    while len(distances) < count:
        i, j = rng.choice(x.size, 2, replace=False)
        if x[i] != x[j]:
            slope = (y[j] - y[i]) / (x[j] - x[i])
            distances.append(np.abs(y - y[i] - slope * (x - x[i])))
    nearest = np.argmin(distances, axis=0)
    # Not quite certain, so that no component begins empty.
    return np.where(nearest == np.arange(count)[:, None], 0.9, 0.1 / count)


def _climb(x, y, responsibilities, least):
    trace = []
    for _ in range(_MOST_STEPS):
        lines = _maximize(x, y, responsibilities, least)
        logs = _log_densities(x, y, lines)
        top = logs.max(0)
        total = top + np.log(np.exp(logs - top).sum(0))
        responsibilities = np.exp(logs - total)
        trace.append(total.sum())
        if len(trace) > 1 and trace[-1] - trace[-2] <= _TOLERANCE * x.size:
            break
    order = np.argsort(-lines["weights"], kind="stable")
    return {
        **{name: values[order] for name, values in lines.items()},
        "responsibilities": responsibilities[order].T,
        "trace": np.array(trace),
    }


def _maximize(x, y, responsibilities, least):
    """Return the most likely lines whose deviations are at least `least`."""
    sizes = np.maximum(responsibilities.sum(1), 1e-300)
    shares = responsibilities / sizes[:, None]
    middle, height = shares @ x, shares @ y
    from_middle = x - middle[:, None]
    variance = (shares * from_middle**2).sum(1)
    covariance = (shares * from_middle * (y - height[:, None])).sum(1)
    # A component at one x has a height and no slope.
    flat = variance < 1e-20
    slopes = np.where(flat, 0.0, covariance / np.where(flat, 1.0, variance))
    errors = y - height[:, None] - slopes[:, None] * from_middle
    return {
        "slopes": slopes,
        "intercepts": height - slopes * middle,
        # Of all deviations that are allowed the likeliest: the bound, if below it.
        "deviations": np.maximum(np.sqrt((shares * errors**2).sum(1)), least),
        "weights": sizes / x.size,
    }


def _log_densities(x, y, lines):
    errors = y - lines["intercepts"][:, None] - lines["slopes"][:, None] * x
    deviations = lines["deviations"][:, None]
    with np.errstate(divide="ignore"):
        weights = np.log(lines["weights"])[:, None]
    return (
        weights
        - 0.5 * (errors / deviations) ** 2
        - np.log(deviations)
        - 0.5 * math.log(2 * math.pi)
    )
