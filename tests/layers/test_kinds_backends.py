"""Every kind of layer and method on TensorFlow, JAX and torch alike."""

import functools

import keras
import numpy as np
import pytest
from keras import layers as kl

import keras_spectral as ks
from keras_spectral.layers import (
    OptimalSpectralNormalization,
    SpectralNormalization,
    StableRankNormalization,
)
from tests.layers.kinds import KINDS, attention, images, numpy

METHODS = {
    "sn": SpectralNormalization,
    "exact": functools.partial(SpectralNormalization, method="exact"),
    "operator": functools.partial(SpectralNormalization, norm="operator"),
    "srn": functools.partial(StableRankNormalization, stable_rank_ratio=0.7),
    "theorem 1": functools.partial(
        StableRankNormalization, stable_rank_ratio=0.7, preserved=0
    ),
    "algorithm 1": functools.partial(
        StableRankNormalization, stable_rank_ratio=0.7, preserved=2
    ),
    "optimal": functools.partial(OptimalSpectralNormalization, bound=0.5),
}


def train(layer, x):
    inputs = keras.Input(x.shape[1:], dtype=x.dtype)
    model = keras.Model(inputs, kl.Flatten()(layer(inputs)))
    model.compile("adam", "mse")
    before = [numpy(w) for w in model.trainable_weights]
    model.fit(x, np.ones((4, *model.output_shape[1:])), verbose=0)
    for old, new in zip(before, model.trainable_weights, strict=True):
        assert not np.array_equal(old, numpy(new))
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_kinds(kind):
    make, x = KINDS[kind]
    layer = SpectralNormalization(make(), method="exact")
    model = train(layer, x)
    for slot, name in zip(layer.slots, layer.kernel_names, strict=True):
        matrix = numpy(slot.view.flatten(layer.effective_kernel(name)))
        assert np.linalg.norm(matrix, 2) == pytest.approx(1, rel=1e-4)
    plain = ks.unwrap(model)
    np.testing.assert_allclose(numpy(plain(x)), numpy(model(x)), atol=1e-4)


# Every method twice, with a matrix and with a kernel that is none or is one of several.
# The kinds differ in how a kernel is flattened, which the methods know nothing of.
@pytest.mark.filterwarnings("ignore:The target stable rank")
@pytest.mark.parametrize(
    ("kind", "method"),
    [
        *(("dense", method) for method in METHODS),
        *(("conv2d", method) for method in ("sn", "operator", "theorem 1")),
        *(("conv2d transpose", m) for m in ("operator", "exact", "algorithm 1")),
        *(("lstm", method) for method in ("sn", "srn", "optimal")),
    ],
)
def test_methods(kind, method):
    make, x = KINDS[kind]
    train(METHODS[method](make()), x)


def test_attention():
    query, value = keras.Input((5, 6)), keras.Input((3, 7))
    outputs = SpectralNormalization(attention())(query, value)
    model = keras.Model([query, value], outputs)
    model.compile("adam", "mse")
    model.fit([images(5, 6), images(3, 7)], np.ones((4, 5, 6)), verbose=0)
    x = [images(5, 6), images(3, 7)]
    np.testing.assert_allclose(numpy(ks.unwrap(model)(x)), numpy(model(x)), atol=1e-5)
