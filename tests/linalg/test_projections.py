import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from keras_spectral.linalg import (
    clip_norm,
    clip_singular_values,
    divide_by_norm,
    project_stable_rank,
    rank_at_ratio,
    remainder_factor,
)
from tests.linalg import reference


def stable_rank(matrix):
    return (matrix**2).sum() / np.linalg.norm(matrix, 2) ** 2


def project(matrix, r, k=1):
    projected, preserved = project_stable_rank(matrix, r, k)
    return ops.convert_to_numpy(projected), int(preserved)


def algorithm_1(matrix, r, k):
    """The paper's listing, line by line, in NumPy."""
    u, s, vt = np.linalg.svd(matrix)
    s1, beta, eta, count = np.zeros_like(matrix), (matrix**2).sum(), 0.0, 0
    for i in range(k):
        if r >= (s[i] ** 2 + eta) / s[0] ** 2:
            s1 = s1 + s[i] * np.outer(u[:, i], vt[i])
            eta, beta, count = eta + s[i] ** 2, beta - s[i] ** 2, count + 1
        else:
            break
    return s1 + np.sqrt((r * s[0] ** 2 - eta) / beta) * (matrix - s1), count


def test_the_papers_identity_example():
    root = np.sqrt(2)
    for k, expected in [
        (1, [1, 1 / root, 1 / root]),
        (0, [(root + 1) / 2, (root + 1) / (2 * root), (root + 1) / (2 * root)]),
    ]:
        projected, preserved = project(np.eye(3), 2.0, k)
        values = np.sort(np.linalg.svd(projected, compute_uv=False))[::-1]
        np.testing.assert_allclose(values, expected, atol=1e-12)
        assert preserved == k
        assert stable_rank(projected) == pytest.approx(2, rel=1e-12)


@pytest.mark.parametrize("k", [1, 2, 3, 6])
@pytest.mark.parametrize("r", [1.2, 1.6, 1.9])
def test_against_the_papers_listing(rng, r, k):
    matrix = rng.standard_normal((6, 9))
    assert stable_rank(matrix) > r
    projected, preserved = project(matrix, r, k)
    expected, count = algorithm_1(matrix, r, k)
    np.testing.assert_allclose(projected, expected, atol=1e-10)
    assert preserved == count


@pytest.mark.parametrize("k", [0, 1, 2])
def test_is_the_nearest_by_brute_force(rng, k):
    """SLSQP over the singular values, several starts, finds nothing nearer."""
    r, s = 2.2, np.array([3.0, 2.9, 1.5, 1.4] if k == 2 else [3.0, 2.6, 2.2, 1.5])
    left, _ = np.linalg.qr(rng.standard_normal((4, 4)))
    right, _ = np.linalg.qr(rng.standard_normal((5, 4)))
    matrix = (left * s) @ right.T
    projected, preserved = project(matrix, r, k)
    assert preserved == k
    distance = np.linalg.norm(projected - matrix)
    constraints = [
        {"type": "eq", "fun": lambda x: (x**2).sum() - r * x[0] ** 2},
        {"type": "ineq", "fun": lambda x: x[0] - x[1:]},
    ]
    if k:
        constraints.append({"type": "eq", "fun": lambda x: x[:k] - s[:k]})
    best = np.inf
    for _ in range(12):
        found = scipy.optimize.minimize(
            lambda x: ((x - s) ** 2).sum(),
            s * rng.uniform(0.3, 1.3, len(s)),
            constraints=constraints,
            bounds=[(0, None)] * len(s),
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        if found.success:
            best = min(best, np.sqrt(found.fun))
    assert distance == pytest.approx(best, rel=1e-5)


@given(
    seed=st.integers(0, 2**31),
    shape=st.tuples(st.integers(2, 7), st.integers(2, 7)),
    r=st.floats(1.05, 6),
    k=st.integers(0, 4),
)
@settings(max_examples=40, deadline=None)
def test_properties(seed, shape, r, k):
    matrix = np.random.default_rng(seed).standard_normal(shape)
    projected, preserved = project(matrix, r, k)
    before = np.linalg.svd(matrix, compute_uv=False)
    after = np.linalg.svd(projected, compute_uv=False)
    if stable_rank(matrix) <= r * (1 - 1e-9):
        np.testing.assert_array_equal(projected, matrix)
        return
    assert stable_rank(projected) == pytest.approx(r, rel=1e-5)
    np.testing.assert_allclose(after[:preserved], before[:preserved], rtol=1e-9)
    if k == 0:
        assert after[0] >= before[0] * (1 - 1e-12)
    again, _ = project(projected, r, k)
    np.testing.assert_allclose(again, projected, atol=1e-6)


def test_remainder_factor_is_theorem_1_for_one_preserved_value(rng):
    matrix = rng.standard_normal((6, 9))
    u, s, vt = np.linalg.svd(matrix)
    component = s[0] * np.outer(u[:, 0], vt[0])
    for r in (1.0, 1.5, 3.0):
        squares = np.array((matrix**2).sum())
        factor = float(remainder_factor(squares, np.array(s[0]), r))
        rescaled = factor * matrix + (1 - factor) * component
        np.testing.assert_allclose(rescaled, project(matrix, r)[0], atol=1e-10)
    assert float(remainder_factor(squares, np.array(s[0]), 6.0)) == 1.0


@pytest.mark.parametrize("squares, sigma", [(np.inf, 1e25), (0, 0), (1e-45, 1e-25)])
def test_remainder_factor_beyond_the_range_of_float32(squares, sigma):
    """Nothing to compare: no cap, and a finite gradient."""
    squares, sigma = tf.constant(squares, "float32"), tf.constant(sigma, "float32")
    with tf.GradientTape() as tape:
        tape.watch([squares, sigma])
        factor = remainder_factor(squares, sigma, 2.0)
    assert float(factor) == 1.0
    assert all(np.isfinite(tape.gradient(factor, [squares, sigma])))


SPECTRA = st.lists(st.sampled_from([2.0, 1.0, 0.5, 0.25, 0.0]), min_size=2, max_size=5)


@given(st.integers(0, 2**31), SPECTRA, st.integers(0, 2), st.booleans())
@settings(max_examples=40, deadline=None)
def test_gradient_of_clipping_at_ties(seed, spectrum, longer, wide):
    """Along a random direction, of many spectra with values that repeat."""
    rng = np.random.default_rng(seed)
    shape = (len(spectrum) + longer, len(spectrum))
    shape = shape[::-1] if wide else shape
    matrix = reference.with_spectrum(rng, shape, sorted(spectrum)[::-1])
    direction, cotangent = rng.standard_normal((2, *shape))
    step = 1e-6 * direction
    rise = reference.clip(matrix + step, 0.7) - reference.clip(matrix - step, 0.7)

    def function(weight):
        return tf.reduce_sum(clip_singular_values(weight, 0.7) * cotangent)

    slope = reference.gradient(function, matrix)
    expected = (rise * cotangent).sum() / 2e-6
    assert (slope * direction).sum() == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(
    seed=st.integers(0, 2**31),
    shape=st.tuples(st.integers(2, 7), st.integers(2, 7)),
    r=st.floats(1, 4),
    k=st.integers(0, 3),
)
@settings(max_examples=40, deadline=None)
def test_gradient_of_the_cap_turns_with_the_matrix(seed, shape, r, k):
    """F(QW) = Q F(W), and F(cW) = c F(W): so must the gradient."""
    rng = np.random.default_rng(seed)
    matrix, cotangent = rng.standard_normal((2, *shape))
    turn = np.linalg.qr(rng.standard_normal((shape[0], shape[0])))[0]

    def slope(matrix, cotangent):
        return reference.gradient(
            lambda w: tf.reduce_sum(project_stable_rank(w, r, k)[0] * cotangent),
            matrix,
        )

    plain = slope(matrix, cotangent)
    size = np.abs(plain).max()
    turned = slope(turn @ matrix, turn @ cotangent)
    np.testing.assert_allclose(turned, turn @ plain, atol=1e-8 * size)
    np.testing.assert_allclose(slope(9 * matrix, cotangent), plain, atol=1e-8 * size)
    value = (project(matrix, r, k)[0] * cotangent).sum()
    assert (plain * matrix).sum() == pytest.approx(value, abs=1e-8 * size)


def test_divide_and_clip(rng):
    matrix = rng.standard_normal((4, 6))
    norm = np.linalg.norm(matrix, 2)
    divided = ops.convert_to_numpy(divide_by_norm(matrix, np.array(norm), 0.7))
    assert np.linalg.norm(divided, 2) == pytest.approx(0.7, rel=1e-12)
    clipped = ops.convert_to_numpy(clip_norm(matrix, np.array(norm), 0.7))
    np.testing.assert_allclose(clipped, divided, rtol=1e-12)
    kept = ops.convert_to_numpy(clip_norm(matrix, np.array(norm), norm * 1.01))
    np.testing.assert_array_equal(kept, matrix)
    zero = ops.convert_to_numpy(divide_by_norm(np.zeros((2, 2)), np.array(0.0)))
    np.testing.assert_array_equal(zero, 0)


def test_bad_arguments():
    for r in (0.5, np.nan):
        with pytest.raises(ValueError, match="`stable_rank`"):
            project_stable_rank(np.eye(3), r)
    with pytest.raises(ValueError, match="`preserved`"):
        project_stable_rank(np.eye(3), 2.0, preserved=-1)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(1, n), st.just(n))))
def test_every_rank_has_its_ratio(sides):
    rank, full_rank = sides
    assert rank_at_ratio(rank / full_rank, full_rank) == rank
    assert rank_at_ratio(rank / full_rank, 1) == 1


def test_the_papers_ranks():
    """The ranks that its counts of parameters imply: the floor, at least 1."""
    ranks = [[rank_at_ratio(s, n) for n in (20, 50, 10)] for s in (1, 0.75, 0.5, 0.25)]
    assert ranks == [[20, 50, 10], [15, 37, 7], [10, 25, 5], [5, 12, 2]]
    assert rank_at_ratio(0.5, 1) == 1
