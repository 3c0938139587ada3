"""Spectra of W'W against NumPy's, random matrices and planted spikes."""

import math

import numpy as np
import powerlaw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_spectral.measures import (
    fit_eigenvalues,
    random_edge,
    squared_singular_values,
)


@settings(max_examples=50, deadline=None)
@given(
    rows=st.integers(1, 30), columns=st.integers(1, 30), seed=st.integers(0, 99),
    scale=st.sampled_from([1e-30, 1.0, 1e30]),
)  # fmt: skip
def test_squares_of_singular_values(rows, columns, seed, scale):
    w = np.random.default_rng(seed).normal(size=(rows, columns)) * scale
    expected = np.linalg.svd(w, compute_uv=False) ** 2
    found = squared_singular_values(w)
    np.testing.assert_allclose(found, expected, atol=1e-13 * expected[0])


def test_float16_does_not_overflow():
    w = np.full((4, 3), 60000.0, "float16")
    assert squared_singular_values(w)[0] == pytest.approx(12 * 60000.0**2, rel=1e-3)


def test_random_matrices_have_no_spikes(rng):
    """At 99 % of Tracy and Widom: at most 1 % + three standard errors of 150 draws."""
    draws = 150
    above = [
        squared_singular_values(rng.normal(size=(80, 50)))[0] > random_edge((80, 50))
        for _ in range(draws)
    ]
    assert np.mean(above) < 0.01 + 3 * math.sqrt(0.01 * 0.99 / draws)
    # The edge is no loose one: 20 % more than Marchenko and Pastur is far too much.
    assert random_edge((80, 50)) < 1.2 * (math.sqrt(80) + math.sqrt(50)) ** 2


def test_planted_spikes_are_found(rng):
    w = 0.1 * rng.normal(size=(400, 120))
    u, _ = np.linalg.qr(rng.normal(size=(400, 3)))
    v, _ = np.linalg.qr(rng.normal(size=(120, 3)))
    w += u @ np.diag([9.0, 7.0, 5.0]) @ v.T
    fit = fit_eigenvalues(w)
    assert fit.spikes == 3 and fit.shuffled_spikes == 0
    assert fit.bulk_deviation == pytest.approx(0.1, rel=0.02)
    assert fit.eigenvalues[3] < fit.bulk_edge < fit.eigenvalues[2]
    # Heavy-tailed entries make spikes of their own, which shuffling does not remove.
    heavy = fit_eigenvalues(rng.standard_t(2, (300, 100)))
    assert heavy.spikes > 0 and heavy.shuffled_spikes > 0


def test_quantities_of_weightwatcher(rng):
    """Its formulas, written out; the exponent is `powerlaw`'s."""
    w = rng.standard_t(3, (200, 90))
    fit = fit_eigenvalues(w)
    values = np.linalg.svd(w, compute_uv=False) ** 2
    law = powerlaw.Fit(values, parameter_ranges={"alpha": (1, None)}, verbose=0)
    alpha = law.power_law.alpha
    assert fit.power_law.alpha_pdf == pytest.approx(alpha, rel=1e-6)
    assert fit.alpha_hat == pytest.approx(alpha * np.log10(values[0]), rel=1e-6)
    assert fit.log_norm == pytest.approx(np.log10((w**2).sum()))
    assert fit.log_spectral_norm == pytest.approx(np.log10(values[0]))
    expected = np.log10((values**alpha).sum())
    assert fit.log_alpha_norm == pytest.approx(expected, rel=1e-6)
    assert fit.stable_rank == pytest.approx(values.sum() / values[0])
    again = fit_eigenvalues(w)
    assert again.shuffled_largest == fit.shuffled_largest
    assert fit_eigenvalues(w, seed=1).shuffled_largest != fit.shuffled_largest


def test_a_matrix_of_equal_singular_values_has_no_exponent():
    fit = fit_eigenvalues(np.eye(8))
    assert fit.power_law.status == "degenerate" and math.isnan(fit.alpha_hat)
    assert fit.stable_rank == pytest.approx(8)


@pytest.mark.parametrize(
    ("matrix", "match"),
    [
        (np.ones(3), "shape"),
        (np.full((2, 2), np.nan), "NaN"),
        (np.zeros((2, 2)), "all zero"),
        (np.ones((0, 2)), "shape"),
    ],
)
def test_bad_matrices(matrix, match):
    with pytest.raises(ValueError, match=match):
        fit_eigenvalues(matrix)


def test_rounding_errors_are_no_spectrum(rng):
    """Of rank 5: five eigenvalues and no law, in whatever precision."""
    for shape in ((200, 300), (300, 40)):
        w = rng.normal(size=(shape[0], 5)) @ rng.normal(size=(5, shape[1]))
        found = fit_eigenvalues(w)
        assert np.count_nonzero(found.eigenvalues) == 5
        assert found.spikes == 5
        assert found.power_law.size == 5


@pytest.mark.parametrize("scale", [1.0, 2.0, 0.3])
def test_orthogonal_matrices_have_no_exponent(rng, scale):
    q = scale * np.linalg.qr(rng.normal(size=(300, 200)))[0]
    found = fit_eigenvalues(q)
    assert found.power_law.status == "degenerate"
    assert math.isnan(found.alpha_hat)


@pytest.mark.parametrize(
    "matrix, match",
    [
        (np.full((3, 3), 1e200), "range"),
        (np.full((3, 3), 1e-200), "range"),
        (np.full((3, 3), 1j), "real"),
        (np.array([["a"]]), "real"),
    ],
)
def test_what_has_no_squares_is_refused(matrix, match):
    with pytest.raises(ValueError, match=match):
        fit_eigenvalues(matrix)


def test_a_smooth_spectrum_has_no_bulk(rng):
    def with_singular_values(values):
        u, _ = np.linalg.qr(rng.normal(size=(200, 200)))
        v, _ = np.linalg.qr(rng.normal(size=(200, 200)))
        return (u * values) @ v

    smooth = fit_eigenvalues(with_singular_values(np.exp(-np.arange(200) / 12)))
    assert smooth.spikes > 100 and smooth.bulk == "none"
    spiked = rng.normal(size=(200, 200))
    spiked += 5 * np.outer(rng.normal(size=200), rng.normal(size=200))
    assert fit_eigenvalues(spiked).spikes == 1
    assert fit_eigenvalues(spiked).bulk == "ok"


def test_the_edge_of_small_matrices_by_monte_carlo(rng):
    """Johnstone's centre takes one row away, which in 5 rows is much."""
    # sqrt(5 - 1) = sqrt(4) = 2: centre 4^2, width 4 (1/2 + 1/2)^(1/3).
    assert random_edge((5, 4)) == pytest.approx(16 + 4 * 2.0234)
    assert random_edge((4, 5), 3.0) == pytest.approx(9 * (16 + 4 * 2.0234))
    draws = 100_000
    w = rng.normal(size=(draws, 5, 4))
    largest = np.linalg.eigvalsh(np.swapaxes(w, 1, 2) @ w)[:, -1]
    share = np.mean(largest > random_edge((5, 4)))
    # Three sampling errors are 0.1 %; without taking a row away it is 0.45 %.
    assert 0.007 < share < 0.013


def test_spikes_take_their_freedom_out_of_the_deviation(rng):
    """Beside strong spikes the rest is a random matrix of as many rows less."""
    rows, columns, strong, deviation = 60, 40, 10, 0.5
    u, _ = np.linalg.qr(rng.normal(size=(rows, strong)))
    v, _ = np.linalg.qr(rng.normal(size=(columns, strong)))
    freedom = (rows - strong) * (columns - strong)
    found = []
    for _ in range(20):
        w = deviation * rng.normal(size=(rows, columns)) + 1e4 * u @ v.T
        fit = fit_eigenvalues(w)
        assert fit.spikes == strong
        found.append(fit.bulk_deviation)
    # The square is chi^2 of so many degrees: its root errs by 1 / sqrt(2 freedom).
    error = 1 / math.sqrt(2 * freedom * len(found))
    assert np.mean(found) == pytest.approx(deviation, rel=4 * error)
