import math

import numpy as np
import powerlaw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_spectral.measures import fit_power_law


def brute_force(x):
    """Every candidate xmin, by the definition; `powerlaw` skips the two largest."""
    x = np.sort(x)
    best = (math.inf, None, None)
    for xmin in np.unique(x)[:-2]:
        tail = x[x >= xmin]
        alpha = 1 + len(tail) / np.log(tail / xmin).sum()
        empirical = np.arange(len(tail)) / len(tail)
        model = 1 - (tail / xmin) ** (1 - alpha)
        distance = np.abs(empirical - model).max()
        best = min(best, (distance, alpha, xmin))
    return best


@pytest.mark.parametrize("exponent", [2.2, 4.5, 8.0])
def test_recovers_a_pareto_law(rng, exponent):
    x = rng.pareto(exponent - 1, 2000) + 1
    fit = fit_power_law(x)
    assert fit.status == "ok"
    assert abs(fit.alpha_pdf - exponent) < 4 * fit.standard_error
    assert fit.alpha_tail == fit.alpha_pdf - 1
    if exponent > 3:
        # What the package says by default.
        capped = powerlaw.Fit(x, verbose=0).power_law.alpha
        assert capped <= 3.001 < fit.alpha_pdf


@pytest.mark.parametrize("law", ["normal", "laplace", "standard_cauchy"])
def test_equals_a_brute_force_search(rng, law):
    x = np.abs(getattr(rng, law)(size=300))
    distance, alpha, xmin = brute_force(x)
    fit = fit_power_law(x)
    assert fit.xmin == pytest.approx(xmin, rel=1e-12)
    # powerlaw finds exponents above 3 by a simplex search to 1e-4.
    assert fit.alpha_pdf == pytest.approx(alpha, rel=1e-4)
    assert fit.ks_distance == pytest.approx(distance, rel=1e-3)


@given(scale=st.floats(1e-6, 1e6))
@settings(max_examples=5, deadline=None)
def test_the_scale_does_not_matter(scale):
    x = np.random.default_rng(1).pareto(1.5, 200) + 1
    first, second = fit_power_law(x), fit_power_law(scale * x)
    assert second.alpha_pdf == pytest.approx(first.alpha_pdf, rel=1e-3)
    assert second.xmin == pytest.approx(scale * first.xmin, rel=1e-9)


def test_sides(rng):
    positive, negative = rng.pareto(1.5, 150) + 1, -(rng.pareto(3.0, 100) + 1)
    x = np.concatenate([positive, negative, np.zeros(7)])
    assert fit_power_law(x, "positive") == fit_power_law(positive)
    assert fit_power_law(x, "negative") == fit_power_law(-negative)
    assert fit_power_law(x).size == 250


def test_status():
    assert fit_power_law(np.ones(100)).status == "degenerate"
    assert math.isnan(fit_power_law([1.0, 2.0, 3.0]).alpha_pdf)
    assert fit_power_law(np.arange(1.0, 21)).status == "too small"
    # Over 600 decades the exponent is 1.0007, and `powerlaw` flags it.
    x = np.concatenate([[1e-300, 2e-300], np.full(98, 1e300), [1.1e300]])
    assert fit_power_law(x).status == "at boundary"


@pytest.mark.parametrize("law", ["normal", "laplace", "standard_cauchy"])
def test_equals_powerlaw_itself(rng, law):
    x = np.abs(getattr(rng, law)(size=300))
    direct = powerlaw.Fit(x, parameter_ranges={"alpha": (1, None)}, verbose=0)
    fit = fit_power_law(x)
    assert fit.alpha_pdf == pytest.approx(direct.power_law.alpha, rel=1e-9)
    assert fit.standard_error == pytest.approx(direct.power_law.standard_err, rel=1e-9)
    assert fit.xmin == direct.xmin
    assert fit.ks_distance == pytest.approx(direct.D, rel=1e-9)


@pytest.mark.parametrize("x", [[], [1.0, np.nan], [1.0, np.inf]])
def test_bad_numbers(x):
    with pytest.raises(ValueError, match="`x`"):
        fit_power_law(x)
    with pytest.raises(ValueError, match="`sides`"):
        fit_power_law([1.0, 2.0], sides="both")
