"""Projections onto a seed's normals and signs against explicit loops and laws."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from keras_spectral.compression import projection
from keras_spectral.compression.projection import (
    project_matrix,
    project_vector,
    rebuild_matrix,
    rebuild_vector,
)
from keras_spectral.gaussian import normals
from keras_spectral.theory import (
    matrix_projections,
    rounding_quantum,
    vector_projections,
)


def unit(rng, size):
    vector = rng.standard_normal(size)
    return vector / np.linalg.norm(vector)


def three_standard_errors(p, trials):
    return 3 * math.sqrt(p * (1 - p) / trials)


def test_vector_by_an_explicit_loop(rng):
    c = unit(rng, 7)
    z, c_hat = project_vector(c, 0.9, 0.2, seed=(3, 1))
    assert len(z) == math.ceil(16 * 1.45 * math.log(10) / 0.81)
    helper = normals(len(z) * 7, (3, 1), (0, 0)).reshape(-1, 7).astype("float64")
    expected = np.zeros(7)
    for i, v in enumerate(helper):
        assert z[i] == pytest.approx(sum(v * c), rel=1e-12)
        expected += sum(v * c) * v / len(z)
    np.testing.assert_allclose(c_hat, expected, rtol=1e-12)
    np.testing.assert_array_equal(rebuild_vector(z, (3, 1), 7), c_hat)


def test_matrix_by_an_explicit_loop(rng):
    A = rng.standard_normal((3, 5))
    z, A_hat = project_matrix(A, 0.8, 0.2, seed=4)
    words = np.random.Philox(np.random.SeedSequence(4, spawn_key=(0, 0))).random_raw(
        len(z) * 15 // 64 + 1
    )
    bits = [int(word) >> b & 1 for word in words for b in range(64)]
    expected = np.zeros((3, 5))
    for i, coefficient in enumerate(z):
        M = 2.0 * np.array(bits[15 * i : 15 * i + 15]).reshape(3, 5) - 1
        assert coefficient == pytest.approx((A * M).sum(), rel=1e-12, abs=1e-12)
        expected += (A * M).sum() * M / len(z)
    np.testing.assert_allclose(A_hat, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(rebuild_matrix(z, 4, (3, 5)), A_hat)


@pytest.mark.parametrize("size", [3, 16, 100])
def test_blocks_tile_the_helper_matrix_and_stay_small(size, monkeypatch):
    monkeypatch.setattr(projection, "_BLOCK", 16)
    drawn = []

    def draw(count, seed, key):
        drawn.append((key, count))
        return normals(count, seed, key)

    helper, seen = np.zeros((11, size)), np.zeros((11, size))
    for rows, columns, entries in projection._blocks(draw, 11, size, 5):
        helper[rows, columns] = entries
        seen[rows, columns] += 1
    assert (seen == 1).all()
    assert max(count for _, count in drawn) <= 16
    assert len({key for key, _ in drawn}) == len(drawn)
    c = np.arange(size, dtype="float64")
    np.testing.assert_allclose(
        projection._products(normals, c, 11, 5), helper @ c, rtol=1e-12, atol=1e-12
    )
    z = np.arange(11.0)
    np.testing.assert_allclose(
        projection._combination(normals, z, size, 5), helper.T @ z / 11, atol=1e-13
    )


def test_the_helper_is_never_in_memory(rng):
    matrix = rng.standard_normal((512, 512))
    tracemalloc.start()
    try:
        coefficients, _ = project_matrix(matrix, 1.0, 0.2, seed=0)
        vector = matrix.ravel() / np.linalg.norm(matrix)
        z, _ = project_vector(vector, 2.0, 0.2, seed=0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(coefficients) * matrix.nbytes > 50e6
    assert len(z) * matrix.nbytes > 30e6
    # The result and a few blocks.
    assert peak < 3 * matrix.nbytes + 8e6


def test_signs_are_fair_and_independent():
    signs = projection._signs(10**6, 0, (0, 0))
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert abs(signs.mean()) < 4e-3
    for lag in (1, 2, 63, 64):
        assert abs(np.mean(signs[:-lag] * signs[lag:])) < 4e-3


def test_row_v1_variance_and_failures_of_vector_project(rng):
    # Many seeds at once: the helper of a longer list is cut into lists of k.
    c, u, k, trials = unit(rng, 100), unit(rng, 100), 148, 1500
    rho = c @ u
    error = np.empty(trials)
    for start in range(0, trials, 100):
        helper = normals(100 * k * 100, start).reshape(100, k, 100)
        error[start : start + 100] = np.mean((helper @ c) * (helper @ u), 1) - rho
    variance = (1 + rho**2) / k
    # Facts, row V1: .01356 against .01351 for k = 74.
    assert np.var(error) == pytest.approx(variance, rel=4 * math.sqrt(2 / trials))
    assert np.mean(abs(error) > 0.25) <= 0.1


@pytest.mark.parametrize("rounding", [False, True])
def test_lemma_2_holds_where_the_error_is_largest(rounding, rng):
    # u = c has the largest variance and the heaviest tail.
    margin, eta, trials = 0.8, 0.1, 400
    c = unit(rng, 5)
    allowed = margin if rounding else margin / 2
    failures = 0
    for seed in range(trials):
        _, c_hat = project_vector(c, margin, eta, seed, rounding=rounding)
        failures += abs(c_hat @ c - 1) > allowed
    assert failures / trials <= eta + three_standard_errors(eta, trials)


@settings(max_examples=200, deadline=None)
@given(margin=st.floats(0.02, 2), eta=st.floats(1e-12, 0.5))
def test_corrected_counts_hold_exactly_for_the_aligned_vector(margin, eta):
    # u = c: the error is chi^2_k / k - 1, whose law SciPy knows.
    for k, error in (
        (vector_projections(margin, eta), margin / 2),
        (matrix_projections(margin, eta), margin),
    ):
        failure = stats.chi2.sf(k * (1 + error), k)
        failure += stats.chi2.cdf(k * (1 - error), k)
        assert failure <= eta


def test_what_is_printed_fails():
    def failure(k, error):
        chi2 = stats.chi2(k)
        return chi2.sf(k * (1 + error)) + chi2.cdf(k * (1 - error))

    assert failure(vector_projections(1.0, 1e-6, "as_printed"), 0.5) > 1.9e-6
    assert failure(matrix_projections(0.1, 0.1, "as_printed"), 0.1) > 0.2
    # The tail is not normal: without 2 epsilon small eta are missed.
    assert failure(matrix_projections(1.0, 1e-6, "gaussian_tail"), 1.0) > 5e-6
    assert failure(matrix_projections(0.1, 0.1, "gaussian_tail"), 0.1) < 0.1


def test_the_moment_generating_function_of_matrix_project():
    # 1 + s r + s^2 (1 + 2 r^2) / 2 + sum_{p >= 3} s^p (2p - 1)!! / p! is at most
    # exp(s r + s^2 / (1 - 4 s)), on a grid of s in (0, 1/4) and r in [-1, 1].
    s, r = np.meshgrid(np.geomspace(1e-3, 0.2499, 800), np.linspace(-1, 1, 401))
    rest = sum(math.comb(2 * p, p) * (s / 2) ** p for p in range(3, 60))
    moments = 1 + s * r + s**2 * (1 + 2 * r**2) / 2 + rest
    assert (np.log(moments) <= s * r + s**2 / (1 - 4 * s)).all()


def test_row_m1_failures_of_matrix_project(rng):
    # A = uv', all entries equal: the worst case. Facts: .233 and .100 as printed,
    # .0116 and .0012 with 4 log(2 / eta) / epsilon^2.
    n, trials, epsilon = 256, 4000, 0.5
    a = np.full(n, 1 / 16)
    for eta, printed in ((0.1, 0.233), (0.01, 0.1)):
        shares = []
        for variant in ("as_printed", "gaussian_tail", "corrected"):
            k = matrix_projections(epsilon, eta, variant)
            products = np.empty(trials * k)
            step = 2**14
            for start in range(0, trials * k, step):
                count = min(step, trials * k - start)
                signs = projection._signs(count * n, 1, (k, start)).reshape(count, n)
                products[start : start + count] = signs @ a
            error = np.mean(products.reshape(trials, k) ** 2, 1) - 1
            shares.append(np.mean(abs(error) >= epsilon))
        assert shares[0] == pytest.approx(printed, abs=0.025)
        assert shares[0] > eta > shares[1] >= shares[2]


def test_row_m1_variance_of_matrix_project(rng):
    A, u, v, k, trials = (
        rng.standard_normal((4, 6)),
        *map(unit, [rng] * 2, (4, 6)),
        8,
        0,
    )
    uv, trials = np.outer(u, v), 20_000
    signs = projection._signs(trials * k * 24, 2, ()).reshape(trials, k, 24)
    errors = np.mean((signs @ A.ravel()) * (signs @ uv.ravel()), 1)
    assert errors.mean() == pytest.approx(u @ A @ v, abs=4 * errors.std() / trials**0.5)
    expected = (A**2).sum() + (u @ A @ v) ** 2 - 2 * (A**2 * uv**2).sum()
    # The estimate's standard error is about its kurtosis' root, 2 %.
    assert errors.var() == pytest.approx(expected / k, rel=0.06)


def test_row_m2_the_norm_is_inflated(rng):
    A, k, trials = rng.standard_normal((8, 8)), matrix_projections(1.0, 0.3), 800
    squares = [
        np.sum(project_matrix(A, 1.0, 0.3, seed)[1] ** 2) for seed in range(trials)
    ]
    expected = np.sum(A**2) * (1 + 63 / k)
    error = np.std(squares) / math.sqrt(trials)
    assert np.mean(squares) == pytest.approx(expected, abs=4 * error)
    assert expected > 2 * np.sum(A**2)


def test_rounding_stays_within_its_half_for_most_vectors(rng):
    margin, eta, size, trials = 0.5, 0.3, 60, 60
    quantum = rounding_quantum(margin, eta, size)
    assert rounding_quantum(margin, eta, size, "as_printed") < quantum / 50
    failures = 0
    for seed in range(trials):
        c, u = unit(rng, size), unit(rng, size)
        z, rounded = project_vector(c, margin, eta, seed, rounding=True)
        np.testing.assert_allclose(z / quantum, np.round(z / quantum), atol=1e-9)
        plain = projection._products(normals, c, len(z), seed)
        assert abs(plain - z).max() <= quantum / 2 * (1 + 1e-9)
        failures += abs((rounded - rebuild_vector(plain, seed, size)) @ u) > margin / 2
    assert failures <= trials * eta


def test_the_printed_quantum_is_of_the_sum_not_of_the_mean(rng):
    # Row V1: with 1 / k the change is margin / (2 k) at most, for k <= h.
    margin, eta, size = 1.9, 0.5, 400
    z, rounded = project_vector(
        unit(rng, size), margin, eta, 0, variant="as_printed", rounding=True
    )
    assert len(z) == 4
    plain = projection._products(normals, unit(np.random.default_rng(0), size), 4, 0)
    change = np.linalg.norm(rounded - rebuild_vector(plain, 0, size))
    assert change <= margin / (2 * len(z))


def test_wrong_arguments():
    c = np.ones(4) / 2
    for arguments, text in (
        ((2 * c, 0.5, 0.1, 0), "norm of 2"),
        ((c, 0.0, 0.1, 0), "`margin`"),
        ((c, 0.5, 1.0, 0), "`eta`"),
        ((c[None], 0.5, 0.1, 0), "`vector`"),
        ((c * np.nan, 0.5, 0.1, 0), "not all of them finite"),
        ((c, 0.5, 0.1, 0, "printed"), "`variant`"),
    ):
        with pytest.raises(ValueError, match=text):
            project_vector(*arguments)
    with pytest.raises(ValueError, match="`matrix`"):
        project_matrix(c, 0.5, 0.1, 0)
    with pytest.raises(ValueError, match="`coefficients`"):
        rebuild_matrix([], 0, (2, 2))
    with pytest.raises(ValueError, match="`shape`"):
        rebuild_matrix([1.0], 0, (2, 0))


@settings(max_examples=200, deadline=None)
@given(margin=st.floats(0.02, 1), eta=st.floats(1e-12, 0.2))
def test_projection_and_rounding_share_the_failures(margin, eta):
    """The probabilities of both add up to eta, nearly all of it."""
    k, t = vector_projections(margin, eta, rounding=True), margin / 2
    # Rounding fails where chi^2_k / k > (margin / quantum - 1)^2 = (1 + sqrt(2x/k))^2.
    x = k / 2 * (margin / rounding_quantum(margin, eta, 10) - 1) ** 2

    def failure(k):
        return 2 * math.exp(-k * t**2 / (4 * (1 + t))) + math.exp(-x)

    assert failure(k) <= eta * (1 + 1e-9) < failure(k - 1) * (1 + 2e-9)
