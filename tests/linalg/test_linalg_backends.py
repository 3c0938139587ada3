"""What must hold on TensorFlow, JAX and torch alike."""

import numpy as np
import pytest
from keras import ops

from keras_spectral import linalg


@pytest.mark.parametrize("strides, padding", [(1, "same"), (2, "same"), (2, "valid")])
def test_convolution_adjoint(rng, strides, padding):
    kernel = rng.standard_normal((3, 4, 2, 3)).astype("float32")
    operator = linalg.convolution_operator(kernel, (7, 9), strides, padding)
    x = rng.standard_normal(operator.input_shape).astype("float32")
    y = rng.standard_normal(operator.output_shape).astype("float32")
    ax = ops.convert_to_numpy(operator.matvec(ops.convert_to_tensor(x)))
    aty = ops.convert_to_numpy(operator.adjoint(ops.convert_to_tensor(y)))
    assert np.vdot(ax, y) == pytest.approx(np.vdot(x, aty), rel=1e-3, abs=1e-3)


def test_norms_and_power_iteration(rng):
    matrix = rng.standard_normal((6, 4)).astype("float32")
    exact = np.linalg.norm(matrix.astype("float64"), 2)
    assert float(linalg.spectral_norm(matrix)) == pytest.approx(exact, rel=1e-5)
    sigma = linalg.power_iteration(matrix, iterations=200).sigma
    assert float(sigma) == pytest.approx(exact, rel=1e-5)
    for p in (1, np.inf):
        assert float(linalg.induced_norm(matrix, p)) == pytest.approx(
            np.linalg.norm(matrix.T.astype("float64"), p), rel=1e-5
        )
    kernel = rng.standard_normal((3, 3, 3, 2)).astype("float32")
    transform = np.fft.fft2(kernel, (64, 64), axes=(0, 1))
    circular = np.linalg.norm(transform, 2, axis=(2, 3)).max()
    bound = float(linalg.convolution_norm_bound(kernel))
    assert circular <= bound <= 1.01 * circular


@pytest.mark.parametrize("preserved", [0, 1, 2])
def test_stable_rank_projection(rng, preserved):
    matrix = rng.standard_normal((5, 7)).astype("float32")
    projected, _ = linalg.project_stable_rank(matrix, 1.5, preserved)
    assert float(linalg.stable_rank(projected)) == pytest.approx(1.5, rel=1e-4)
