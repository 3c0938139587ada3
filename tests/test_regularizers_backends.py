"""Regularizers on TensorFlow, JAX and torch alike."""

import keras
import numpy as np
import pytest
from keras import layers as kl

from keras_spectral import regularizers
from tests.layers.kinds import images, numpy

# name -> (regularizer, its penalty of singular values in NumPy)
CASES = {
    "spectral norm": (regularizers.SpectralNorm, lambda s: s[0] ** 2 / 2),
    "frobenius": (regularizers.Frobenius, lambda s: (s**2).sum()),
    "orthonormal": (regularizers.Orthonormal, lambda s: ((s**2 - 1) ** 2).sum()),
    "stable rank": (regularizers.StableRank, lambda s: (s**2).sum() / s[0] ** 2),
    "d-optimal": (regularizers.DOptimal, lambda s: -np.log(s / s[0]).sum()),
    "divergence": (
        regularizers.Divergence,
        lambda s: (
            ((1 - s[1:] / s[0]) / 0.1) ** 2 - np.log((s[:-1] - s[1:]) / s[0])
        ).mean(),
    ),
}
SCALE_FREE = ("stable rank", "d-optimal", "divergence")


@pytest.mark.parametrize("name", CASES)
def test_training_lowers_the_penalty(name):
    make, penalty = CASES[name]
    layer = kl.Conv2D(4, (3, 1), kernel_regularizer=make(0.05))
    model = keras.Sequential([keras.Input((5, 5, 2)), layer])
    model.compile(
        keras.optimizers.Adam(0.005), lambda _, y: 0.0 * keras.ops.mean(y, axis=-1)
    )

    def value():
        kernel = numpy(layer.kernel).astype("float64").reshape(-1, 4)
        return 0.05 * penalty(np.linalg.svd(kernel, compute_uv=False))

    before = value()
    assert float(numpy(model.losses[0])) == pytest.approx(before, rel=1e-4)
    model.fit(images(5, 5, 2), np.zeros((4, 3, 5, 4)), epochs=10, verbose=0)
    assert value() < before


@pytest.mark.parametrize("name", CASES)
def test_broken_and_scaled_kernels(name):
    make, penalty = CASES[name]
    kernel = images(5)
    for wrong in (np.nan, np.inf):
        broken = kernel.copy()
        broken[1, 2] = wrong
        assert not np.isfinite(numpy(make(1.0)(broken)))
    assert np.isfinite(numpy(make(1.0)(np.zeros((4, 5), "float32"))))
    if name in SCALE_FREE:
        expected = penalty(np.linalg.svd(kernel.astype("float64"), compute_uv=False))
        for scale in (1e-30, 1e-22, 1e22, 1e30):
            value = float(numpy(make(1.0)(kernel * np.float32(scale))))
            assert value == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("make", [regularizers.DOptimal, regularizers.Divergence])
def test_spectra_as_vectors(make):
    def value(*spectrum):
        return float(numpy(make(1.0)(np.array(spectrum, "float32"))))

    # Any order and sign; the kernel with those singular values costs as much.
    expected = float(numpy(make(1.0)(np.diag([4.0, 2.0, 1.0]).astype("float32"))))
    assert value(-1.0, 4.0, 2.0) == pytest.approx(expected, rel=1e-5)
    assert value(-1e30, 4e30, 2e30) == pytest.approx(expected, rel=1e-5)
    assert value(0.0, 0.0) == value(3.0) == 0
    assert np.isnan(value(1.0, np.nan))
