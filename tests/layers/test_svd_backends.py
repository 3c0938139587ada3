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
    assert float(factored.orthogonality_error()) < 1e-5
    model = keras.Sequential([keras.Input(x.shape[1:]), factored, kl.Flatten()])
    model.compile(keras.optimizers.Adam(0.01), "mse")
    target = np.ones((4, model.output_shape[1]), "float32")
    loss = model.fit(x, target, epochs=4, verbose=0).history["loss"]
    assert loss[-1] < loss[0]
    # A transposed convolution has its outputs before its inputs.
    axis = -2 if plain is kl.Conv2DTranspose else -1
    first = np.moveaxis(numpy(factored.first.kernel), axis, 0)
    factors = [
        x.reshape(factored.rank, -1) for x in (first, numpy(factored.second.kernel))
    ]
    grams = [matrix @ matrix.T for matrix in factors]
    errors = [np.linalg.norm(gram - np.eye(factored.rank)) for gram in grams]
    assert float(factored.orthogonality_error()) == pytest.approx(max(errors), 1e-3)
    assert max(errors) > 1e-3
    np.testing.assert_allclose(
        numpy(factored.to_layer()(x)), numpy(factored(x)), atol=1e-5
    )


@pytest.mark.parametrize("plain", [kl.Conv2D, kl.Conv2DTranspose])
def test_channels_first(plain):
    make = {kl.Conv2D: SVDConv2D, kl.Conv2DTranspose: SVDConv2DTranspose}[plain]
    layer = plain(5, 3, strides=2, data_format="channels_first")
    x = images(3, 8, 9)
    expected = numpy(layer(x))
    np.testing.assert_allclose(numpy(make.from_layer(layer)(x)), expected, atol=1e-5)
    assert make(5, 3, rank_ratio=0.5, data_format="channels_first")(x).shape[1] == 5


def test_a_step_from_equal_entries_of_e():
    """The maximum of equal entries shares its gradient among them.

    With y = U diag(e / max|e|) V x and the loss sum(g y), d y / d e_i is what
    channel i adds, less its share 1/k of the whole.
    """
    layer = SVDDense(4, use_bias=False)
    model = keras.Sequential([keras.Input((6,)), layer])
    v, u, x = numpy(layer.first.kernel), numpy(layer.second.kernel), images(6)
    model.compile(keras.optimizers.SGD(0.1), lambda _, y: keras.ops.sum(y, axis=-1))
    model.fit(x, np.zeros((4, 4)), batch_size=4, verbose=0)
    parts = ((x @ v) * u.sum(1)).mean(0)
    expected = 1 - 0.1 * (parts - parts.sum() / 4)
    np.testing.assert_allclose(numpy(layer.e), expected, atol=1e-6)
    np.testing.assert_allclose(numpy(layer.scale), 1 - 0.1 * parts.sum(), atol=1e-6)


def test_an_orthogonal_penalty_pulls_the_factors_back():
    layer = SVDConv2D(6, 3, rank_ratio=0.5, orthogonal_factor=1.0)
    model = keras.Sequential([keras.Input((8, 8, 2)), layer])
    for factor in (layer.first, layer.second):
        factor.kernel.assign(1.2 * factor.kernel)
    model.compile(
        keras.optimizers.SGD(0.05), lambda _, y: 0.0 * keras.ops.mean(y, axis=-1)
    )
    model.fit(images(8, 8, 2), np.zeros((4, 6, 6, 6)), epochs=30, verbose=0)
    v = numpy(layer.first.kernel).reshape(-1, layer.rank)
    u = numpy(layer.second.kernel).reshape(layer.rank, -1)
    for gram in (v.T @ v, u @ u.T):
        np.testing.assert_allclose(gram, np.eye(layer.rank), atol=1e-3)
