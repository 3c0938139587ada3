"""The search for leading singular vectors on the host."""

import numpy as np
import pytest

from keras_spectral.linalg import leading_left_vectors


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [1e-40, 1e-38, 1e30])
@pytest.mark.parametrize("shape", [(60, 50), (600, 560)])
def test_vectors_of_kernels_at_the_ends_of_float32(rng, shape, scale):
    """Numbers below the normal ones are none to divide by."""
    matrix = (scale * rng.uniform(-1, 1, shape)).astype("float32")
    wide = matrix.astype("float64")
    leading = leading_left_vectors(matrix, 8, depth=24)[-1]
    found = np.linalg.norm(wide @ leading.astype("float64"))
    assert found == pytest.approx(np.linalg.norm(wide, 2), rel=1e-3)
