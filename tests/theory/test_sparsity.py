"""Counts of large weights against the binomial law, integrals and Monte Carlo."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from keras_spectral.theory import (
    bracket_probability,
    large_weight_probability,
    resilient_classification,
    sparsity_bound,
    sparsity_probability,
    spiked_second_moment,
)


def test_probability_of_a_large_weight(rng):
    p = large_weight_probability(2.0, 2.5, 1.0)
    density = integrate.quad(lambda w: 2.5 * w**-3.5, 2.0, np.inf)[0]
    assert p == pytest.approx(density, rel=1e-9)
    # The appendix prints tau^-alpha / alpha instead (row K1).
    assert p == pytest.approx(0.1768, abs=1e-4)
    assert abs(p - 0.0707) > 0.1


@pytest.mark.parametrize(
    ("k", "exact", "bound"),
    [(110, 0.158, 0.583), (120, 0.022, 0.122), (150, 4.5e-7, 4.9e-6)],
)
def test_values_of_the_paper_chernoff_bound(k, exact, bound):
    found = sparsity_probability(k, 1000, 0.1)
    assert found == pytest.approx(bound, rel=0.02)
    assert sparsity_probability(k, 1000, 0.1, "exact") == pytest.approx(exact, rel=0.03)


def test_up_to_the_mean_the_printed_formula_is_false():
    for k, printed, truth in ((80, 0.094, 0.987), (50, 5.5e-8, 1.0)):
        formula = sparsity_probability(k, 1000, 0.1, "as_printed")
        assert formula == pytest.approx(printed, rel=0.02)
        exact = stats.binom.sf(k - 1, 1000, 0.1)
        assert exact == pytest.approx(truth, abs=0.002) and exact > formula
        assert sparsity_probability(k, 1000, 0.1) == 1.0


@settings(max_examples=200, deadline=None)
@given(
    size=st.integers(1, 3000), share=st.floats(0, 1), p=st.floats(0, 1),
    delta=st.floats(1e-9, 0.5),
)  # fmt: skip
def test_the_bound_holds_for_all_counts(size, share, p, delta):
    k = round(share * size)
    bound = sparsity_probability(k, size, p)
    assert stats.binom.sf(k - 1, size, p) <= bound * (1 + 1e-9) + 1e-300
    smallest = sparsity_bound(size, p, delta)
    exact = sparsity_bound(size, p, delta, "exact")
    assert exact <= smallest
    assert stats.binom.sf(exact - 1, size, p) <= delta * (1 + 1e-9)
    if exact > 1:
        assert stats.binom.sf(exact - 2, size, p) > delta * (1 - 1e-9)


def test_extremes_do_not_overflow():
    assert sparsity_probability(1_000_000, 1_000_000, 0.5) == 0.0
    assert sparsity_probability(3, 3, 0.5) == pytest.approx(0.125)
    assert sparsity_bound(262_144, 0.3173, 0.01) == 83_903
    assert sparsity_bound(262_144, 0.3173, 0.01, "exact") == 83_734
    assert sparsity_bound(5, 1.0, 0.5) == 6


@pytest.mark.parametrize("variant", ["symmetric", "one_sided"])
def test_spikes_by_monte_carlo(variant, rng):
    alpha, xmin, threshold, draws = 3.5, 1.0, 1.5, 400_000
    x = np.array([0.5, -1.0, 2.0, 0.3, 1.1])
    w = (1 - rng.random((draws, x.size))) ** (-1 / alpha) * xmin
    if variant == "symmetric":
        w *= rng.choice([-1, 1], w.shape)
    squares = ((w * (np.abs(w) > threshold)) @ x) ** 2
    expected = spiked_second_moment(x, alpha, xmin, threshold, variant)
    error = squares.std() / math.sqrt(draws)
    assert abs(squares.mean() - expected) < 4 * error
    # Equation 10 gives another number for each component.
    printed = spiked_second_moment(x, alpha, xmin, threshold, "as_printed")
    assert printed.shape == x.shape and np.ptp(printed) > expected
    assert math.isinf(spiked_second_moment(x, 2.0, 1.0, 1.5))


def test_brackets():
    found = bracket_probability(3, 1.9, 1.3)
    assert found == pytest.approx(0.0069, abs=5e-5)
    # The integral of the tail's density alpha c^alpha c_alpha w^-(alpha + 1).
    alpha, c = 1.9, 1.3
    constant = math.sin(math.pi * alpha / 2) * math.gamma(alpha) / math.pi
    integral = integrate.quad(
        lambda w: alpha * c**alpha * constant * w ** -(alpha + 1), c**3, c**4
    )[0]
    assert found == pytest.approx(integral, rel=1e-9)
    # Eight times less than the law itself has there (row R1).
    exact = bracket_probability(3, 1.9, 1.3, "exact")
    assert exact == pytest.approx(0.0541, abs=2e-4)


def test_figure_two_is_valid_only_in_part():
    rows = resilient_classification(alphas=(1.0, 1.5, 1.9))
    invalid = {(row.alpha, row.index) for row in rows if not row.valid}
    assert invalid == {(1.0, i) for i in range(6)} | {(1.5, i) for i in range(4)}
    first = rows[0]
    assert first.bound == pytest.approx(0.55, abs=0.005)
    assert first.exact == pytest.approx(0.272, abs=0.002)
    printed = bracket_probability(0, 1.0, 1.3)
    assert sparsity_probability(4, 64, printed, "exact") == pytest.approx(
        0.871, abs=1e-3
    )


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: large_weight_probability(0.5, 2.0, 1.0), "`threshold`"),
        (lambda: large_weight_probability(2.0, 0.0, 1.0), "`alpha_tail`"),
        (lambda: sparsity_probability(5, 4, 0.5), "`k`"),
        (lambda: sparsity_probability(1, 4, 1.5), "`probability`"),
        (lambda: sparsity_probability(1, 4, 0.5, "normal"), "`method`"),
        (lambda: sparsity_bound(4, 0.5, 0.0), "`delta`"),
        (lambda: spiked_second_moment([1.0], 3, 1, 2, "both"), "`variant`"),
        (lambda: bracket_probability(1, 2.0, 1.3), "`alpha`"),
        (lambda: bracket_probability(1, 1.5, 1.0), "`scale`"),
        (lambda: resilient_classification(levels=0), "`levels`"),
    ],
)
def test_bad_arguments(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_columns_of_figure_two():
    for row in resilient_classification(alphas=(1.5,), levels=9, columns=8):
        printed = bracket_probability(row.index, 1.5, 1.3)
        truth = bracket_probability(row.index, 1.5, 1.3, "exact")
        # No more than there are in a row.
        assert row.needed == pytest.approx(min(1.3 ** (9 - row.index), 8))
        assert row.expected == pytest.approx(8 * printed)
        assert row.valid == (row.needed > 8 * printed)
        expected = stats.binom.sf(math.ceil(row.needed) - 1, 8, truth)
        assert row.exact == pytest.approx(expected)


def test_weights_that_are_never_or_always_large():
    assert sparsity_probability(2, 4, 0.0, "as_printed") == 0
    assert sparsity_probability(2, 4, 1.0, "as_printed") == 0
    assert sparsity_probability(4, 4, 1.0, "as_printed") == 1
