"""What must hold on TensorFlow, JAX and torch alike."""

import keras
import numpy as np
import pytest

from keras_spectral import constraints
from keras_spectral.constraints import LipschitzClip


@pytest.mark.parametrize("p", [1, 2, np.inf])
def test_fit_with_a_constraint(rng, p):
    constraint = LipschitzClip(0.5, p)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(3, 3, kernel_constraint=constraint),
            keras.layers.Flatten(),
            keras.layers.Dense(4, kernel_constraint=constraint),
        ]
    )
    model.compile(keras.optimizers.SGD(0.5), "mse")
    model.fit(rng.standard_normal((8, 6, 6, 2)), 9 * np.ones((8, 4)), verbose=0)
    kernel = keras.ops.convert_to_numpy(model.layers[-1].kernel)
    assert np.linalg.norm(kernel.T, p) <= 0.5 * (1 + 1e-5)


def spectrum(kernel):
    kernel = keras.ops.convert_to_numpy(kernel).astype("float64")
    return np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), compute_uv=False)


CASES = {
    "clip": (constraints.SpectralClip(0.7), lambda s: np.minimum(s, 0.7)),
    "max rank": (constraints.MaxRank(0.5), lambda s: np.r_[s[:2], 0, 0]),
    "orthonormal": (constraints.Orthonormal(0.7), lambda s: np.full(4, 0.7)),
    # No more than one of four: one singular value is left.
    "stable rank": (constraints.StableRank(0.25), lambda s: np.r_[s[0], 0, 0, 0]),
}


@pytest.mark.parametrize("name", CASES)
def test_projections_in_fit_and_at_every_scale(rng, name):
    constraint, expected = CASES[name]
    layer = keras.layers.Conv2D(4, 3, kernel_constraint=constraint)
    model = keras.Sequential([keras.Input((6, 6, 2)), layer])
    # XLA cannot be asked for on torch.
    jit = keras.backend.backend() != "torch"
    model.compile(keras.optimizers.SGD(0.5), "mse", jit_compile=jit)
    model.fit(rng.standard_normal((8, 6, 6, 2)), np.ones((8, 4, 4, 4)), verbose=0)
    s = spectrum(layer.kernel)
    np.testing.assert_allclose(s, expected(s), atol=1e-5)
    kernel = rng.standard_normal((6, 4)).astype("float32")
    for scale in (1e-30, 1.0, 1e37):
        scaled = kernel * np.float32(scale)
        wanted = expected(spectrum(scaled))
        values = spectrum(constraint(scaled))
        np.testing.assert_allclose(values / wanted[0], wanted / wanted[0], atol=1e-5)
    kernel[0, 0] = np.nan
    for broken in (constraint, LipschitzClip()):
        assert np.isnan(keras.ops.convert_to_numpy(broken(kernel))).any()
    half = constraint(keras.ops.cast(scaled / 1e37, "bfloat16"))
    assert keras.backend.standardize_dtype(half.dtype) == "bfloat16"
