import math
from typing import get_args

import numpy as np
import powerlaw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_spectral.measures import (
    compare_power_law,
    fit_power_law,
    goodness_of_fit,
    power_law,
)
from keras_spectral.measures.power_law import FitStatus


def brute_force(x):
    """Every candidate xmin, by the definition; `powerlaw` skips the two largest."""
    x = np.sort(x)
    best = (math.inf, None, None)
    for xmin in np.unique(x)[:-2]:
        tail = x[x >= xmin]
        alpha = 1 + len(tail) / np.log(tail / xmin).sum()
        # Left limits, so that equal numbers count once.
        empirical = np.searchsorted(tail, tail) / len(tail)
        model = 1 - (tail / xmin) ** (1 - alpha)
        distance = np.abs(empirical - model).max()
        best = min(best, (distance, alpha, xmin))
    return best


@pytest.mark.parametrize("exponent", [2.2, 4.5, 8.0])
def test_recovers_a_pareto_law(rng, exponent):
    x = rng.pareto(exponent - 1, 500) + 1
    fit = fit_power_law(x)
    assert fit.status == "ok"
    assert abs(fit.alpha_pdf - exponent) < 4 * fit.standard_error
    assert fit.alpha_tail == fit.alpha_pdf - 1
    if exponent > 3:
        # What the package says by default.
        capped = powerlaw.Fit(x, verbose=0).power_law.alpha
        assert capped <= 3.001 < fit.alpha_pdf


LAWS = {
    "normal": lambda rng, n: rng.normal(size=n),
    "laplace": lambda rng, n: rng.laplace(size=n),
    "cauchy": lambda rng, n: rng.standard_cauchy(n),
    "pareto 4.5": lambda rng, n: rng.pareto(3.5, n) + 1,
    "exponent 1.3": lambda rng, n: (1 - rng.random(n)) ** (-1 / 0.3),
    "rounded": lambda rng, n: np.round(rng.pareto(1.5, n) + 1, 1),
    "int8": lambda rng, n: np.round(rng.normal(size=n) * 40),
    "uniform": lambda rng, n: rng.uniform(1, 2, n),
}


@settings(max_examples=60, deadline=None)
@given(
    law=st.sampled_from(sorted(LAWS)), n=st.integers(6, 700), seed=st.integers(0, 999)
)
def test_equals_a_brute_force_search(law, n, seed):
    x = np.abs(LAWS[law](np.random.default_rng(seed), n))
    x = x[x > 0]
    if len(np.unique(x)) < 4:
        return
    distance, alpha, xmin = brute_force(x)
    fit = fit_power_law(x)
    assert fit.ks_distance == pytest.approx(distance, rel=1e-9)
    # Candidates whose distances differ by rounding alone may change places.
    if fit.xmin == xmin:
        assert fit.alpha_pdf == pytest.approx(alpha, rel=1e-9)
    else:
        tail = x[x >= fit.xmin]
        model = 1 - (tail / fit.xmin) ** (1 - fit.alpha_pdf)
        empirical = np.searchsorted(np.sort(tail), tail) / len(tail)
        assert np.abs(empirical - model).max() == pytest.approx(distance, rel=1e-9)


def test_no_candidate_of_twenty_thousand_is_better(rng):
    """The search evaluates some thirty of them; here is each tenth one."""
    x = np.sort(np.abs(rng.standard_t(3, 20_000)))
    fit = fit_power_law(x)
    for start in range(0, 19_990, 10):
        tail = x[start:]
        slope = len(tail) / np.log(tail / tail[0]).sum()
        model = 1 - (tail / tail[0]) ** -slope
        distance = np.abs(model - np.arange(len(tail)) / len(tail)).max()
        assert distance >= fit.ks_distance - 1e-12


@given(scale=st.floats(1e-6, 1e6))
@settings(max_examples=5, deadline=None)
def test_the_scale_does_not_matter(scale):
    x = np.random.default_rng(1).pareto(1.5, 200) + 1
    first, second = fit_power_law(x), fit_power_law(scale * x)
    assert second.alpha_pdf == pytest.approx(first.alpha_pdf, rel=1e-9)
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
    assert fit_power_law(x, engine="powerlaw").status == "at boundary"
    rng = np.random.default_rng(0)
    pareto, steep = rng.pareto(2.5, 500) + 1, rng.pareto(277, 500) + 1
    coarse = rng.integers(1, 8, 500)
    cases = (np.ones(9), np.arange(1.0, 21), x, pareto, steep, coarse)
    found = {fit_power_law(case).status for case in cases}
    assert found == set(get_args(FitStatus))


@pytest.mark.parametrize("law", sorted(LAWS))
def test_equals_powerlaw_itself(rng, law):
    x = np.abs(LAWS[law](rng, 300))
    x = x[x > 0]
    direct = powerlaw.Fit(x, parameter_ranges={"alpha": (1, None)}, verbose=0)
    for engine in ("exact", "powerlaw"):
        fit = fit_power_law(x, engine=engine)
        assert fit.alpha_pdf == pytest.approx(direct.power_law.alpha, rel=1e-9)
        assert fit.standard_error == pytest.approx(
            direct.power_law.standard_err, rel=1e-9
        )
        assert fit.xmin == direct.xmin
        assert fit.ks_distance == pytest.approx(direct.D, rel=1e-9)


@pytest.mark.parametrize(
    ("law", "mean", "spread"),
    [
        (lambda rng: rng.laplace(size=640), 4.5, 1.5),
        (lambda rng: rng.standard_t(3, 640), 3.6, 0.6),
        (lambda rng: rng.standard_t(5, 640), 4.0, 0.7),
        (lambda rng: rng.normal(size=640), 7.0, 3.2),
    ],
)
def test_what_other_laws_give_at_640_weights(law, mean, spread, rng):
    """No power law among them: the spread is why a status is no verdict (row X3)."""
    alphas = [fit_power_law(law(rng)).alpha_pdf for _ in range(200)]
    assert abs(np.mean(alphas) - mean) < 4 * spread / np.sqrt(200) + 0.15
    assert 0.5 * spread < np.std(alphas) < 2 * spread


def test_the_p_value_is_uniform_for_power_laws_and_small_for_others(rng):
    values = [
        goodness_of_fit(rng.pareto(2.0, 150) + 1, trials=19, seed=seed).p_value
        for seed in range(60)
    ]
    # At most 5 % below 0.05 + standard error of 60 draws, three times.
    assert np.mean(np.array(values) <= 0.1) <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / 60)
    assert 0.3 < np.mean(values) < 0.75
    other = goodness_of_fit(rng.uniform(1, 2, 1000), trials=49)
    assert other.p_value == pytest.approx(0.02)
    assert other.standard_error == pytest.approx(np.sqrt(0.02 * 0.98 / 49))
    again = goodness_of_fit(rng.pareto(2.0, 150) + 1, trials=19, seed=3)
    assert again.trials == 19
    x = rng.normal(size=200)
    assert goodness_of_fit(x, trials=9, seed=1) == goodness_of_fit(x, trials=9, seed=1)
    assert math.isnan(goodness_of_fit(np.ones(9)).p_value)


def test_comparisons_are_powerlaws(rng):
    x = rng.pareto(2.0, 500) + 1
    direct = powerlaw.Fit(
        x, xmin=fit_power_law(x).xmin, parameter_ranges={"alpha": (1, None)}, verbose=0
    )
    for row in compare_power_law(x):
        ratio, p = direct.distribution_compare("power_law", row.alternative)
        assert row.log_likelihood_ratio == pytest.approx(ratio, rel=0.02, abs=0.02)
        assert row.p_value == pytest.approx(p, rel=0.05, abs=0.02)
    favoured = {row.alternative: row.favoured for row in compare_power_law(x)}
    assert favoured["exponential"] == "power_law"
    assert [row.favoured for row in compare_power_law(np.ones(9))] == ["neither"] * 3


@pytest.mark.parametrize("x", [[], [1.0, np.nan], [1.0, np.inf]])
def test_bad_numbers(x):
    with pytest.raises(ValueError, match="`x`"):
        fit_power_law(x)
    with pytest.raises(ValueError, match="`sides`"):
        fit_power_law([1.0, 2.0], sides="both")
    with pytest.raises(ValueError, match="`engine`"):
        fit_power_law([1.0, 2.0], engine="fast")
    with pytest.raises(ValueError, match="`alternatives`"):
        compare_power_law([1.0, 2.0], alternatives=("gamma",))
    with pytest.raises(ValueError, match="`trials`"):
        goodness_of_fit([1.0, 2.0], trials=0)


def test_numbers_that_are_equal_but_for_rounding_have_no_exponent():
    for x in (4 * (1 + np.arange(60) * 2.3e-16), 1e300 * (1 + np.arange(9) * 2.3e-16)):
        assert fit_power_law(x).status == "degenerate"
    # A tail of them is no tail either; the numbers below it are fitted.
    x = np.concatenate([np.geomspace(1, 3, 50), 4 * (1 + np.arange(60) * 2.3e-16)])
    assert fit_power_law(x).alpha_pdf < 1e6


def test_the_bootstrap_of_exponents_near_one_does_not_overflow():
    x = np.append(np.random.default_rng(0).normal(1, 0.01, 200), 1e300)
    assert fit_power_law(x).status == "at boundary"
    assert 0 < goodness_of_fit(x, trials=9).p_value <= 1


def test_rounded_values_are_told(rng):
    x = rng.pareto(2.5, 20_000) + 1
    assert fit_power_law(x).status == "ok"
    # int8 with one scale: a step of a fortieth of xmin and more.
    x = x[x < 127 / 8]
    for steps in (4, 8):
        rounded = np.rint(x * steps)
        found = fit_power_law(rounded)
        assert found.status == "on a grid"
    assert fit_power_law(rng.integers(1, 8, 5000)).status == "on a grid"


def test_a_fine_grid_is_none(rng):
    """bfloat16 and float16 round to at most 1 in 256 and 2,048, and move nothing."""
    x = rng.pareto(2.5, 5000) + 1
    exact = fit_power_law(x)
    for bits in (8, 11):
        mantissa, exponent = np.frexp(x)
        rounded = np.ldexp(np.rint(mantissa * 2**bits) / 2**bits, exponent)
        found = fit_power_law(rounded)
        assert found.status == "ok"
        assert abs(found.alpha_pdf - exact.alpha_pdf) < 2 * exact.standard_error


def test_a_tail_without_a_span_is_told(rng):
    x = rng.pareto(277, 20_000) + 1
    found = fit_power_law(x)
    assert found.status == "narrow" and found.alpha_pdf > 200


def test_at_the_bounds_themselves_a_fit_is_ok(rng, monkeypatch):
    x = rng.pareto(2.5, 500) + 1
    fit = fit_power_law(x)
    bounds = {
        "_LEAST_ALPHA": (fit.alpha_pdf, "at boundary"),
        "_LEAST_TAIL": (fit.tail_size, "too small"),
        "_LEAST_SPAN": (x.max() / fit.xmin * (1 - 1e-12), "narrow"),
    }
    for name, (bound, status) in bounds.items():
        monkeypatch.setattr(power_law, name, bound)
        assert fit_power_law(x).status == "ok"
        monkeypatch.setattr(power_law, name, bound * 1.01)
        assert fit_power_law(x).status == status
        monkeypatch.undo()
