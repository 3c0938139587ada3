"""Norms and projections on the host, in float64, against NumPy's."""

import numpy as np
import pytest

from keras_spectral.linalg import (
    bounded_matrix,
    capped_matrix,
    clipped_matrix,
    converged_triplet,
)


@pytest.mark.parametrize("shape", [(7, 4), (4, 7), (5, 5), (1, 3), (3, 1)])
def test_the_leading_triplet(rng, shape):
    matrix = rng.standard_normal(shape)
    u, sigma, v = converged_triplet(1e-200 * matrix)
    assert sigma == pytest.approx(1e-200 * np.linalg.norm(matrix, 2), rel=1e-9)
    assert np.linalg.norm(u) == pytest.approx(1) == np.linalg.norm(v)
    np.testing.assert_allclose(v @ matrix * 1e-200, sigma * u, rtol=1e-6, atol=0)


def test_vectors_of_a_zero_matrix_are_unit_ones():
    u, sigma, v = converged_triplet(np.zeros((3, 5)))
    assert sigma == 0 and u.shape == (5,) and v.shape == (3,)
    assert np.linalg.norm(u) == pytest.approx(1) == np.linalg.norm(v)


def test_projections_of_singular_values(rng):
    matrix = rng.standard_normal((6, 4))
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    found = clipped_matrix(matrix, 1.5)
    np.testing.assert_allclose(found, (left * np.minimum(values, 1.5)) @ right)
    # Theorem 1: the leading one stays, the others shrink together.
    found = np.linalg.svd(capped_matrix(matrix, 1.25), compute_uv=False)
    assert found[0] == pytest.approx(values[0])
    assert (found**2).sum() / found[0] ** 2 == pytest.approx(1.25)
    np.testing.assert_allclose(found[1:] / found[1], values[1:] / values[1])
    np.testing.assert_allclose(capped_matrix(matrix, 4.0), matrix)


def test_scaling_to_a_bound():
    matrix = np.diag([4.0, 2.0])
    assert bounded_matrix(matrix, 4.0, 3.0).max() == 3.0
    assert bounded_matrix(matrix, 4.0, 5.0).max() == 5.0
    assert bounded_matrix(matrix, 4.0, 5.0, clip=True).max() == 4.0
    assert bounded_matrix(matrix, 4.0, 5.0, epsilon=4.0).max() == 4.0
