"""SVD layers on TensorFlow, JAX and torch alike."""

import keras
import numpy as np
import pytest
from keras import layers as kl

from keras_spectral import regularizers
from keras_spectral.layers import SVDConv2D, SVDConv2DTranspose, SVDDense
from tests.layers.kinds import images, numpy

CASES = [
    (SVDDense, kl.Dense, dict(units=6), images(9)),
    (SVDConv2D, kl.Conv2D, dict(filters=7, kernel_size=3, strides=2), images(7, 7, 2)),
    (
        SVDConv2DTranspose,
        kl.Conv2DTranspose,
        dict(filters=5, kernel_size=4, strides=2, padding="same"),
        images(5, 4, 3),
    ),
]


@pytest.mark.parametrize("make, plain, arguments, x", CASES)
def test_from_a_layer_train_and_back(make, plain, arguments, x):
    layer = plain(**arguments)
    layer(x)
    factored = make.from_layer(
        layer,
        orthogonal_factor=0.1,
        spectrum_regularizer=regularizers.DOptimal(0.01),
    )
    np.testing.assert_allclose(numpy(factored(x)), numpy(layer(x)), atol=1e-5)
    model = keras.Sequential([keras.Input(x.shape[1:]), factored, kl.Flatten()])
    model.compile(keras.optimizers.Adam(0.01), "mse")
    target = np.ones((4, model.output_shape[1]), "float32")
    loss = model.fit(x, target, epochs=4, verbose=0).history["loss"]
    assert loss[-1] < loss[0]
    np.testing.assert_allclose(
        numpy(factored.to_layer()(x)), numpy(factored(x)), atol=1e-5
    )


@pytest.mark.parametrize(
    "regularizer",
    [
        regularizers.SpectralNorm(0.1),
        regularizers.Frobenius(0.1),
        regularizers.Orthonormal(0.1, diagonal=False),
        regularizers.StableRank(0.1),
        regularizers.DOptimal(0.1),
    ],
)
def test_regularizers_train(regularizer):
    layer = kl.Dense(4, kernel_regularizer=regularizer)
    model = keras.Sequential([keras.Input((9,)), layer])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(images(9), np.ones((4, 4)), verbose=0)
    s = np.linalg.svd(numpy(layer.kernel).astype("float64"), compute_uv=False)
    expected = {
        "SpectralNorm": s[0] ** 2 / 2,
        "Frobenius": (s**2).sum(),
        "StableRank": (s**2).sum() / s[0] ** 2,
        "DOptimal": -np.log(s / s[0]).sum(),
    }.get(type(regularizer).__name__)
    value = float(numpy(regularizer(layer.kernel)))
    if expected is not None:
        assert value == pytest.approx(0.1 * expected, rel=1e-4)
    assert np.isfinite(value)
