"""Kernels at the edge of what is defined, on TensorFlow, JAX and torch alike."""

import functools

import keras
import numpy as np
import pytest
from keras import layers as kl

from keras_spectral.layers import SpectralNormalization, StableRankNormalization
from tests.layers.kinds import images, numpy
from tests.layers.reference import stable_rank


def kernel_of(name):
    shape = (12, 10)
    if name == "zero":
        return np.zeros(shape)
    if name == "orthogonal":
        return np.eye(*shape)
    rng = np.random.default_rng(0)
    if name == "rank one":
        return np.outer(rng.standard_normal(12), rng.standard_normal(10))
    return rng.standard_normal(shape)


@pytest.mark.filterwarnings("ignore:The target stable rank")
@pytest.mark.parametrize("gradient", ["estimator", "exact"])
@pytest.mark.parametrize("kernel", ["zero", "rank one", "orthogonal", "gaussian"])
def test_a_target_stable_rank_of_one(kernel, gradient):
    layer = StableRankNormalization(
        kl.Dense(10), stable_rank_ratio=0.1, gradient=gradient
    )
    model = keras.Sequential([keras.Input((12,)), layer])
    layer.kernel.assign(kernel_of(kernel))
    layer.restart_power_iteration()
    model.compile(keras.optimizers.SGD(0.01), "mse")
    x, y = images(12), np.ones((4, 10))
    history = model.fit(x, y, epochs=3, verbose=0).history["loss"]
    assert np.isfinite(history).all()
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    effective = numpy(layer.effective_kernel())
    assert np.isfinite(effective).all()
    if kernel == "zero" and gradient == "estimator":
        # Its gradient there is that of the identity: the kernel has left zero.
        assert effective.any()
    if kernel in ("rank one", "gaussian"):
        assert np.linalg.norm(effective, 2) == pytest.approx(1, rel=1e-3)
        assert stable_rank(effective) <= 1 + 1e-3


@pytest.mark.parametrize("kernel", ["zero", "rank one", "orthogonal", "gaussian"])
@pytest.mark.parametrize(
    "wrap",
    [
        SpectralNormalization,
        functools.partial(SpectralNormalization, method="power_iteration"),
        functools.partial(StableRankNormalization, stable_rank_ratio=0.5),
    ],
)
def test_training_calls(wrap, kernel):
    layer = wrap(kl.Dense(10))
    layer.build((None, 12))
    layer.kernel.assign(kernel_of(kernel))
    layer.restart_power_iteration()
    for _ in range(5):
        assert np.isfinite(numpy(layer(images(12), training=True))).all()
    norm = np.linalg.norm(numpy(layer.effective_kernel()), 2)
    assert norm == pytest.approx(0 if kernel == "zero" else 1, abs=1e-3)
