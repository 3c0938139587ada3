"""Kernels that have no leading singular vector, or no size: any may be trained."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl

from keras_spectral.layers import (
    OptimalSpectralNormalization,
    SpectralNormalization,
    StableRankNormalization,
)
from tests.layers.kinds import KINDS, images
from tests.layers.test_spectral_normalization import exact_operator_norm

SRN = functools.partial(StableRankNormalization, stable_rank_ratio=0.5)

METHODS = {
    "sn": SpectralNormalization,
    # Nothing larger than four times the block is followed.
    "sn block": functools.partial(SpectralNormalization, block_size=1),
    "clip": functools.partial(SpectralNormalization, clip=True),
    "srn": SRN,
    "srn exact": functools.partial(SRN, gradient="exact"),
    "srn preserving two": functools.partial(SRN, preserved=2),
    "optimal": OptimalSpectralNormalization,
    "operator": functools.partial(SpectralNormalization, norm="operator"),
}

LAYERS = {
    "dense": (lambda: kl.Dense(5), images(7)),
    "conv2d": (lambda: kl.Conv2D(6, 3, padding="same"), images(5, 5, 2)),
    "lstm": (lambda: kl.LSTM(3), images(4, 3)),
}


def rank_one(shape):
    rng = np.random.default_rng(1)
    rows, columns = rng.standard_normal(shape[:-1]), rng.standard_normal(shape[-1])
    return np.multiply.outer(rows, columns)


def orthogonal(shape):
    rows, columns = int(np.prod(shape[:-1])), shape[-1]
    square = np.random.default_rng(1).standard_normal((max(rows, columns),) * 2)
    return np.linalg.qr(square)[0][:rows, :columns].reshape(shape)


KERNELS = {
    "zero": np.zeros,
    "all one": np.ones,
    "1e-30": lambda shape: np.full(shape, 1e-30),
    "1e30": lambda shape: np.full(shape, 1e30),
    "rank one": rank_one,
    "orthogonal": orthogonal,
}


def step(layer, x):
    """Return a compiled training call that gives outputs and gradients."""

    @tf.function
    def call():
        with tf.GradientTape() as tape:
            outputs = layer(x, training=True)
            total = tf.reduce_sum(outputs**2)
        kernels = [slot.variable.value for slot in layer.slots]
        gradients = tape.gradient(total, kernels)
        return [outputs, *map(tf.convert_to_tensor, gradients)]

    return call


def norms(layer, slot, name, method):
    """Return the norm that is bounded: of the raw and of the effective kernel."""
    raw, effective = slot.variable.numpy(), layer.effective_kernel(name).numpy()
    assert np.isfinite(effective).all()
    if method == "operator" and slot.operator is not None:
        return [exact_operator_norm(layer, kernel) for kernel in (raw, effective)]
    matrices = [np.asarray(slot.view.flatten(k), "float64") for k in (raw, effective)]
    return [np.linalg.norm(matrix, 2) for matrix in matrices]


def check_norms(layer, method, rel=1e-3):
    for slot, name in zip(layer.slots, layer.kernel_names, strict=True):
        raw, effective = norms(layer, slot, name, method)
        if method in ("clip", "optimal"):
            assert effective == pytest.approx(min(raw, layer.bound), rel=rel)
        elif raw <= layer.epsilon:
            assert effective == pytest.approx(raw, rel=rel, abs=1e-37)
        else:
            assert effective == pytest.approx(layer.bound, rel=rel)


def prepared(wrap, kind, x):
    layer = wrap(kind())
    layer.build(x.shape)
    return layer, step(layer, x)


def check_steps(layer, call, method, steps):
    """Train from kernels that were just assigned."""
    layer.restart_power_iteration()
    check_norms(layer, method)
    for _ in range(steps):
        results = call()
        assert all(np.isfinite(result).all() for result in results)
    check_norms(layer, method)


@pytest.mark.filterwarnings("ignore:The target stable rank")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", LAYERS)
def test_fifty_training_calls(kind, method):
    make, x = LAYERS[kind]
    layer, call = prepared(METHODS[method], make, x)
    for kernel in KERNELS.values():
        for slot in layer.slots:
            slot.variable.assign(kernel(slot.variable.shape))
        check_steps(layer, call, method, steps=50)


@pytest.mark.parametrize("kernel", ["zero", "rank one", "orthogonal"])
def test_layers_that_are_initialized_so(kernel):
    """The vectors are found when the layer is built, without a restart."""

    def initializer(shape, dtype=None):
        return tf.constant(KERNELS[kernel](shape), dtype)

    for method in ("sn", "clip", "srn"):
        layer = METHODS[method](kl.Dense(5, kernel_initializer=initializer))
        x = images(7)
        layer.build(x.shape)
        check_norms(layer, method)
        layer(x, training=True)
        check_norms(layer, method)


@pytest.mark.filterwarnings("ignore:The target stable rank")
@pytest.mark.parametrize(
    ("kind", "method"),
    [
        *((kind, "srn") for kind in KINDS),
        # What "srn" divides by comes from the same code.
        *((kind, "sn") for kind in ("dense", "depthwise conv2d", "embedding", "lstm")),
    ],
)
def test_every_kind_of_layer(kind, method):
    make, x = KINDS[kind]
    layer, call = prepared(METHODS[method], make, x)
    for kernel in ("zero", "rank one", "orthogonal"):
        for slot in layer.slots:
            shape = slot.view.shape
            matrix = KERNELS[kernel](shape).astype("float32")
            slot.variable.assign(slot.view.unflatten(tf.constant(matrix)))
        check_steps(layer, call, method, steps=3)


@pytest.mark.parametrize("kernel", ["zero", "rank one", "orthogonal"])
def test_fit_from_such_kernels(kernel):
    def initializer(shape, dtype=None):
        return tf.constant(KERNELS[kernel](shape), dtype)

    x = images(7)
    layers = [
        wrap(kl.Dense(5, kernel_initializer=initializer))
        for wrap in (SpectralNormalization, SRN)
    ]
    model = keras.Sequential([keras.Input((7,)), *layers])
    model.compile(keras.optimizers.SGD(0.01), "mse")
    model.fit(x, np.ones((4, 5)), epochs=20, verbose=0)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
