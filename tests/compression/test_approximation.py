"""Algorithm 1 and its probability, by Monte Carlo."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_spectral.compression import approximate_matrix, split
from keras_spectral.theory import approximation_threshold, failure_probability


@settings(max_examples=60, deadline=None)
@given(
    w=hnp.arrays("float32", hnp.array_shapes(max_dims=3),
                 elements=st.floats(-10, 10, width=32)),
    threshold=st.floats(-2, 5), rule=st.sampled_from(["magnitude", "signed"]),
)  # fmt: skip
def test_the_parts_are_the_whole(w, threshold, rule):
    small, large = split(w, threshold, rule)
    np.testing.assert_array_equal(small + large, w)
    assert not ((small != 0) & (large != 0)).any()
    size = np.abs(large) if rule == "magnitude" else large
    assert (size[large != 0] > threshold).all()


def test_a_tie_is_small():
    small, _ = split(np.array([1.0, -1.0, 1.5]), 1.0)
    assert small.tolist() == [1.0, -1.0, 0.0]
    # As printed, every negative weight is small.
    assert split(np.array([-9.0]), 1.0, "signed")[0].tolist() == [-9.0]


ETAS = (0.1, 0.03, 0.01, 0.003)


@pytest.fixture(scope="module")
def failures():
    """P(|u'(A - sqrt(t) G)v| > epsilon) for A = +-tau, by draws (row P1).

    With u and v in one coordinate the sum is tau s - sqrt(t) g: the worst case is one
    entry, and its distribution needs no matrix.
    """
    rng = np.random.default_rng(0)
    tau, variance, draws = 2.0, 0.5, 1_000_000
    # Ten entries of equal weight: the sum of ten signs, scaled to unit vectors.
    signs = 2 * rng.binomial(10, 0.5, draws) - 10
    errors = np.abs(
        tau * signs / math.sqrt(10) - math.sqrt(variance) * rng.normal(size=draws)
    )

    def probability(eta, variant):
        # The epsilon at which a variant claims eta.
        low, high = 1e-3, 1e3
        for _ in range(80):
            middle = math.sqrt(low * high)
            claimed = failure_probability(middle, tau, variance, variant)
            low, high = (low, middle) if claimed < eta else (middle, high)
        return (errors > high).mean(), high

    return probability


@pytest.mark.parametrize("eta", ETAS)
def test_the_corrected_bound_holds_and_the_printed_ones_do_not(eta, failures):
    spread = 3 * math.sqrt(eta / 1e6)
    found, epsilon = failures(eta, "corrected")
    assert found <= eta + spread
    # Proposition 2.1's constant holds too, with a larger error.
    weaker, larger = failures(eta, "proposition_2.1")
    assert weaker <= found and larger > epsilon
    if eta <= 0.01:
        assert failures(eta, "proposition_1.1")[0] > eta + spread
    assert failures(eta, "appendix_a")[0] > eta + spread


def test_one_sided_weights_are_not_covered(rng):
    """The paper's own law has a positive mean, which no threshold removes (row P1)."""
    draws, size = 200, 400
    w = np.minimum((1 - rng.random((draws, size, 20))) ** (-1 / 2.5), 1.5)
    u, v = np.full(size, 1 / math.sqrt(size)), np.full(20, 1 / math.sqrt(20))
    epsilon = 1.5 * math.sqrt(2 * math.log(2 / 0.01))
    errors = np.abs(np.einsum("i,dij,j->d", u, w, v))
    assert (errors > epsilon).mean() == 1.0


def test_noise_adds_its_variance(rng):
    """E|u'(A - sqrt(t) G)v|^2 grows by t: zero is the best (finding 5)."""
    w = rng.standard_normal((50, 40))
    u, v = rng.normal(size=50), rng.normal(size=40)
    u, v = u / np.linalg.norm(u), v / np.linalg.norm(v)
    errors = []
    for seed in range(400):
        noisy, _ = approximate_matrix(w, 4.0, 0.1, variance=0.3, seed=seed)
        errors.append(u @ (w - noisy) @ v)
    _, kept = approximate_matrix(w, 4.0, 0.1)
    # kept differs, since variance takes from the threshold.
    noisy, fewer = approximate_matrix(w, 4.0, 0.1, variance=0.3)
    assert fewer.sum() >= kept.sum()
    expected = 0.3 + (u @ (w * ~fewer) @ v) ** 2
    spread = np.std(np.square(errors)) / math.sqrt(400)
    assert abs(np.mean(np.square(errors)) - expected) < 4 * spread


def test_the_threshold_follows_from_error_and_probability(rng):
    tau = approximation_threshold(2.0, 0.01)
    assert tau == pytest.approx(2.0 / math.sqrt(2 * math.log(200)))
    printed = approximation_threshold(2.0, 0.01, variant="proposition_1.1")
    assert printed == pytest.approx(2.0 / math.sqrt(math.log(300)))
    w = rng.standard_normal((30, 20))
    approximation, kept = approximate_matrix(w, 2.0, 0.01)
    np.testing.assert_array_equal(approximation, np.where(np.abs(w) > tau, w, 0))
    np.testing.assert_array_equal(kept, np.abs(w) > tau)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: split([1.0], math.nan), "`threshold`"),
        (lambda: split([1.0], 1.0, "both"), "`rule`"),
        (lambda: failure_probability(0.0, 1.0), "`epsilon`"),
        (lambda: failure_probability(1.0, -1.0), "`threshold`"),
        (lambda: failure_probability(1.0, 1.0, -1.0), "`variance`"),
        (lambda: failure_probability(1.0, 1.0, variant="mine"), "`variant`"),
        (lambda: approximation_threshold(1.0, 1.0), "`eta`"),
        (lambda: approximation_threshold(1.0, 0.1, 5.0), "`variance`"),
        (lambda: approximate_matrix(np.ones((3, 3)), 0.1, 0.1), "below every"),
        (lambda: approximate_matrix(np.ones(3), 0.1, 0.1), "matrix"),
    ],
)
def test_bad_arguments(call, match):
    with pytest.raises(ValueError, match=match):
        call()
