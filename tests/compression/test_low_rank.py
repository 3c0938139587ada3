"""Truncation, rounding and Theorem 4 against NumPy, closed forms and networks."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_spectral.compression.low_rank import round_factors, truncate
from keras_spectral.theory import (
    truncation_measure,
    truncation_parameters,
    truncation_tolerance,
)
from keras_spectral.theory.theorems import allowed_output_change


def matrices():
    return st.builds(
        lambda m, n, decay, seed: (
            np.random.default_rng(seed).standard_normal((m, n)) * decay ** np.arange(n)
        ),
        st.integers(1, 12), st.integers(1, 12), st.floats(0.3, 1),
        st.integers(0, 10**6),
    )  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(A=matrices(), delta=st.floats(0.01, 1))
def test_eckart_young_and_lemma_5(A, delta):
    found = truncate(A, delta)
    s = np.sqrt(np.maximum(np.linalg.eigvalsh(A.T @ A)[::-1], 0))
    assert found.spectral_norm == pytest.approx(s[0], rel=1e-10)
    change = A - found.left @ found.right
    spectral, frobenius = np.linalg.norm(change, 2), np.linalg.norm(change)
    # Row N2: to 1e-12 of |A|.
    assert abs(spectral - found.spectral_error) <= 1e-12 * s[0]
    assert abs(frobenius - found.frobenius_error) <= 1e-12 * s[0]
    assert spectral <= delta * s[0] * (1 + 1e-9)
    assert found.rank <= np.sum(A**2) / (delta * s[0]) ** 2 * (1 + 1e-9)
    assert np.linalg.matrix_rank(found.left @ found.right) <= found.rank
    # The factors share the singular values evenly.
    gram = found.left.T @ found.left
    np.testing.assert_allclose(gram, found.right @ found.right.T, atol=1e-10 * s[0])


@settings(max_examples=60, deadline=None)
@given(A=matrices(), rank=st.integers(1, 5), seed=st.integers(0, 100))
def test_no_matrix_of_that_rank_is_nearer(A, rank, seed):
    found = truncate(A, rank=rank)
    rng = np.random.default_rng(seed)
    for scale in (1e-3, 0.1, 1.0):
        left = found.left + scale * rng.standard_normal(found.left.shape)
        right = found.right + scale * rng.standard_normal(found.right.shape)
        change = A - left @ right
        assert np.linalg.norm(change) >= found.frobenius_error * (1 - 1e-9)
        assert np.linalg.norm(change, 2) >= found.spectral_error * (1 - 1e-9)


def test_a_tie_stays_and_zero_has_rank_zero():
    assert truncate(np.diag([4.0, 2.0, 1.0]), delta=0.5).rank == 2
    assert truncate(np.diag([4.0, 2.0, 1.0]), delta=1.0).rank == 1
    assert truncate(np.diag([4.0, 2.0, 0.0]), delta=0.0).rank == 2
    zero = truncate(np.zeros((3, 2)), delta=0.5)
    assert zero.rank == 0 and zero.left.shape == (3, 0) and zero.relative_error == 0
    assert truncate(np.zeros((3, 2)), rank=2).rank == 0


def test_half_precision_is_computed_in_float64(rng):
    A = rng.standard_normal((6, 4)).astype("float16")
    found = truncate(A, delta=0.0)
    wide = A.astype("float64")
    np.testing.assert_allclose(found.left @ found.right, wide, atol=1e-13)


@settings(max_examples=100, deadline=None)
@given(A=matrices(), delta=st.floats(0.1, 1), scale=st.floats(1e-3, 1e3))
def test_rounded_factors_stay_within_their_bound(A, delta, scale):
    found = truncate(scale * A, delta)
    left, right, quantum = round_factors(found)
    product = found.left @ found.right
    norm, h = np.linalg.norm(product), max(A.shape)
    assert quantum == pytest.approx(math.sqrt(norm) / h**2)
    change = np.linalg.norm(left @ right - product, 2)
    assert change <= norm * (1 / h + 1 / (4 * h**2)) * (1 + 1e-9)
    for factor in (left, right):
        multiples = factor / quantum
        np.testing.assert_allclose(multiples, np.round(multiples), atol=1e-6)
        assert abs(multiples).max() <= h**2 + 1


def test_row_n4_the_printed_quantum_depends_on_the_scale(rng):
    A = rng.standard_normal((8, 8))
    errors = []
    for scale in (1e-2, 1.0, 1e2, 1e6):
        found = truncate(scale * A, 0.0)
        left, right, _ = round_factors(found, "as_printed")
        errors.append(np.linalg.norm(left @ right - scale * A, 2) / scale)
    assert errors[0] < errors[1] < errors[2] < errors[3]
    # At last every entry rounds to zero.
    assert errors[3] == pytest.approx(np.linalg.norm(A, 2))
    zero = round_factors(truncate(np.zeros((2, 2)), 0.5))
    assert zero[2] == 0 and zero[0].size == 0


NETWORK = dict(spectral_norms=[2.0, 1.5, 3.0], stable_ranks=[4.0, 2.5, 1.0], width=50)


@settings(max_examples=60, deadline=None)
@given(
    c=st.floats(0.1, 10), x=st.floats(0.1, 10), margin=st.floats(1e-3, 5),
    a=st.floats(0.1, 10),
)  # fmt: skip
def test_row_n1_homogeneity(c, x, margin, a):
    def count(c, a, variant="corrected"):
        return truncation_parameters(
            [c * s for s in NETWORK["spectral_norms"]], NETWORK["stable_ranks"],
            50, a * x, a * margin * c**3, variant,
        )  # fmt: skip

    expected = count(1, 1)
    # All weights times c, and the margin times c^3; inputs and margin times a.
    assert count(c, 1) == pytest.approx(expected, rel=1e-9)
    assert count(c, a) == pytest.approx(expected, rel=1e-9)
    printed = count(1, 1, "as_printed")
    assert count(c, 1, "as_printed") == pytest.approx(printed, rel=1e-9)
    # What is printed is not invariant when the inputs are measured otherwise.
    assert count(1, a, "as_printed") == pytest.approx(printed / a, rel=1e-9)


def test_row_n3_is_the_sum_of_the_ranks():
    x, margin = 1.7, 0.6
    delta = truncation_tolerance(NETWORK["spectral_norms"], x, margin)
    assert delta == pytest.approx(margin / (math.e * x * 3 * 9.0), rel=1e-12)
    count = truncation_parameters(**NETWORK, input_norm=x, margin=margin)
    # Lemma 5's ranks, each with factors of 2 h parameters a rank.
    ranks = [s / delta**2 for s in NETWORK["stable_ranks"]]
    assert count == pytest.approx(sum(2 * 50 * rank for rank in ranks), rel=1e-12)
    formula = 2 * math.e**2 * 9 * 50 * x**2 * 81 * 7.5 / margin**2
    assert count == pytest.approx(formula, rel=1e-12)
    measure = truncation_measure(**NETWORK, input_norm=x, margin=margin, samples=1000)
    expected = math.sqrt(50 * 9 * x**2 * 81 * 7.5 / (margin**2 * 1000))
    assert measure == pytest.approx(expected, rel=1e-12)
    printed = truncation_measure(
        **NETWORK, input_norm=x, margin=margin, samples=1000, variant="as_printed"
    )
    assert printed == pytest.approx(expected / math.sqrt(x), rel=1e-12)


def test_a_margin_beyond_the_outputs_does_not_truncate_more():
    assert truncation_tolerance([1.0, 1.0], 1.0, 100.0) == 0.5
    count = truncation_parameters([1.0], [2.0], 10, 1.0, 100.0)
    assert count == 40.0
    printed = truncation_parameters([1.0], [2.0], 10, 1.0, 100.0, "as_printed")
    assert printed == pytest.approx(40 * math.e**2 / 1e4)


def test_a_hundred_layers_do_not_overflow():
    assert truncation_tolerance([1e5] * 60, 1.0, 1.0) == pytest.approx(
        1 / (60 * math.e) * 1e-300, rel=1e-9
    )


def test_theorem_4_on_a_network(rng):
    """Truncated by delta, no output moves by more than the margin."""
    widths, samples = (20, 16, 12, 5), 200
    weights = []
    for m, n in zip(widths, widths[1:], strict=False):
        u, s, vt = np.linalg.svd(rng.standard_normal((n, m)), full_matrices=False)
        weights.append(u * (s * 0.35 ** np.arange(s.size)) @ vt)
    x = rng.standard_normal((samples, 20))

    def network(weights):
        y = x @ weights[0].T
        for W in weights[1:]:
            y = np.maximum(y, 0) @ W.T
        return y

    norms = [np.linalg.norm(W, 2) for W in weights]
    largest = np.linalg.norm(x, axis=1).max()
    gamma = 0.6 * math.e * largest * math.prod(norms)
    allowed = allowed_output_change(gamma, "euclidean")
    delta = truncation_tolerance(norms, largest, allowed)
    found = [truncate(W, delta) for W in weights]
    assert sum(f.rank for f in found) < 33
    change = network([f.left @ f.right for f in found]) - network(weights)
    assert 0 < np.linalg.norm(change, axis=1).max() <= allowed
    stable = [np.sum(W**2) / s**2 for W, s in zip(weights, norms, strict=True)]
    used = sum(f.rank * sum(W.shape) for f, W in zip(found, weights, strict=True))
    assert used <= truncation_parameters(norms, stable, 20, largest, allowed)


def test_wrong_arguments():
    A = np.eye(3)
    for arguments, text in (
        ((A,), "One of"),
        ((A, 0.5, 2), "One of"),
        ((A, 1.5), "`delta`"),
        ((A, float("nan")), "`delta`"),
        ((A, None, 0), "`rank`"),
        ((A[0], 0.5), "`matrix`"),
        ((A * np.nan, 0.5), "not all of them finite"),
    ):
        with pytest.raises(ValueError, match=text):
            truncate(*arguments)
    with pytest.raises(ValueError, match="`variant`"):
        round_factors(truncate(A, 0.5), "printed")
    for arguments, text in (
        (([1.0, -1.0], 1.0, 1.0), "`spectral_norms`"),
        (([], 1.0, 1.0), "`spectral_norms`"),
        (([1.0], 0.0, 1.0), "`input_norm`"),
        (([1.0], 1.0, 0.0), "`margin`"),
    ):
        with pytest.raises(ValueError, match=text):
            truncation_tolerance(*arguments)
    with pytest.raises(ValueError, match="`stable_ranks`"):
        truncation_parameters([1.0], [2.0, 3.0], 10, 1.0, 1.0)
    with pytest.raises(ValueError, match="`variant`"):
        truncation_parameters([1.0], [2.0], 10, 1.0, 1.0, "printed")
    with pytest.raises(ValueError, match="`samples`"):
        truncation_measure([1.0], [2.0], 10, 1.0, 1.0, 0)
