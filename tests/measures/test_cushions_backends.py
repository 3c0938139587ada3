"""Cushions against Jacobians by torch.autograd in float64, on every backend."""

import itertools

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from keras import layers as kl

from keras_spectral import measures

# JAX computes in float32 by default. TensorFlow rounds slopes of leaky ReLU to it, so
# that those here are ones that it has.
JAX = keras.backend.backend() == "jax"
DTYPE, TOLERANCE = ("float32", 2e-4) if JAX else ("float64", 1e-9)

slow_on_jax = pytest.mark.skipif(JAX, reason="compiles every operation anew: minutes")


def tensor(weight):
    return torch.tensor(keras.ops.convert_to_numpy(weight).astype("float64"))


def randomized(model, rng):
    """Give every weight, moving statistics too, a value that matters."""
    for weight in model.weights:
        value = rng.normal(size=weight.shape) / np.sqrt(max(weight.shape[0], 4))
        if "variance" in weight.path or "gamma" in weight.path:
            value = 0.5 + np.abs(value)
        weight.assign(value)
    return model


def dense(layer, x):
    y = x @ tensor(layer.kernel)
    return y if layer.bias is None else y + tensor(layer.bias)


def convolution(layer, x, pads=(0, 0, 0, 0)):
    """On (height, width, channels); `pads` are left, right, top, bottom."""
    kernel = tensor(layer.kernel).permute(3, 2, 0, 1)
    bias = None if layer.bias is None else tensor(layer.bias)
    image = functional.pad(x.permute(2, 0, 1)[None], pads)
    y = functional.conv2d(image, kernel, bias, layer.strides, 0, layer.dilation_rate)
    return y[0].permute(1, 2, 0)


def pooled(pool, x):
    return pool(x.permute(2, 0, 1)[None])[0].permute(1, 2, 0)


def normalization(layer, x):
    scale = tensor(layer.gamma) / torch.sqrt(
        tensor(layer.moving_variance) + layer.epsilon
    )
    return (x - tensor(layer.moving_mean)) * scale + tensor(layer.beta)


def expected(stages, samples):
    """Every cushion by its definition.

    `stages` are pairs of functions of one sample: what is between two layers, the
    identity first, and the layer.
    """
    depth = len(stages)
    layer_cushion = np.full(depth, np.inf)
    contraction = np.ones(depth)
    contraction[:-1] = 0
    matrix = np.full((depth, depth), np.nan)
    stable_rank = np.zeros(depth)
    for sample in torch.tensor(samples):
        values, x = [], sample
        for i, (between, layer) in enumerate(stages):
            read = between(x)
            if i:
                ratio = float(x.norm() / read.norm())
                contraction[i - 1] = max(contraction[i - 1], ratio)
            x = layer(read)
            jacobian = torch.autograd.functional.jacobian(layer, read)
            operator = jacobian.reshape(x.numel(), read.numel())
            singular = torch.linalg.svdvals(operator)
            stable_rank[i] = (singular**2).sum() / singular[0] ** 2
            ratio = (operator @ read.flatten()).norm() / (operator.norm() * read.norm())
            layer_cushion[i] = min(layer_cushion[i], float(ratio))
            values.append(x)
        for i, j in itertools.combinations_with_replacement(range(depth), 2):

            def onwards(x, i=i, j=j):
                for between, layer in stages[i + 1 : j + 1]:
                    x = layer(between(x))
                return x

            jacobian = torch.autograd.functional.jacobian(onwards, values[i])
            jacobian = jacobian.reshape(-1, values[i].numel())
            ratio = (jacobian @ values[i].flatten()).norm() / (
                jacobian.norm() * values[i].norm()
            )
            matrix[i, j] = np.fmin(matrix[i, j], float(ratio))
    return layer_cushion, contraction, matrix, stable_rank


def check(model, stages, samples, **arguments):
    layer_cushion, contraction, matrix, stable_rank = expected(stages, samples)
    rows = measures.cushions(model, samples.astype(DTYPE), draws=1, **arguments)
    close = dict(rtol=TOLERANCE)
    np.testing.assert_allclose([r.layer_cushion for r in rows], layer_cushion, **close)
    np.testing.assert_allclose(
        [r.activation_contraction for r in rows], contraction, **close
    )
    np.testing.assert_allclose(rows.interlayer_cushions, matrix, **close)
    np.testing.assert_allclose(
        [r.minimal_interlayer_cushion for r in rows], np.nanmin(matrix, 1), **close
    )
    np.testing.assert_allclose([r.stable_rank for r in rows], stable_rank, rtol=1e-4)
    assert {row.jacobian_norms for row in rows} == {"exact"}
    assert not np.nansum(rows.standard_errors)
    return rows


@pytest.mark.parametrize(
    "use_bias, probes", [(False, 7), (True, 128)] if not JAX else [(True, 7)]
)
def test_dense(rng, use_bias, probes):
    """With 7 probes the wide layer is reached from the narrow ones only."""
    arguments = dict(use_bias=use_bias, dtype=DTYPE)
    model = keras.Sequential(
        [
            keras.Input((5,), dtype=DTYPE),
            kl.Dense(7, activation="relu", **arguments),
            kl.Dense(12, **arguments),
            kl.LeakyReLU(0.125, dtype=DTYPE),
            kl.Dropout(0.5, dtype=DTYPE),
            kl.Dense(6, activation="relu", **arguments),
            kl.Dense(4, activation="softmax", **arguments),
        ]
    )
    one, two, *_, three, four = randomized(model, rng).layers
    stages = [
        (lambda x: x, lambda x: dense(one, x)),
        (torch.relu, lambda x: dense(two, x)),
        (lambda x: functional.leaky_relu(x, 0.125), lambda x: dense(three, x)),
        (torch.relu, lambda x: dense(four, x)),
    ]
    rows = check(model, stages, rng.normal(size=(8, 5)), probes=probes, batch_size=4)
    assert ("The papers have no biases" in rows.caption) == use_bias


@slow_on_jax
def test_convolutions(rng):
    """Padding, stride, groups, pooling, and normalization that is folded in."""
    inputs = keras.Input((8, 9, 2), dtype=DTYPE)
    x = kl.Conv2D(4, 3, strides=2, padding="same", dtype=DTYPE, name="one")(inputs)
    x = kl.BatchNormalization(dtype=DTYPE, name="norm")(x)
    x = kl.ReLU(dtype=DTYPE)(x)
    x = kl.MaxPooling2D(2, strides=1, dtype=DTYPE)(x)
    x = kl.ZeroPadding2D(((1, 0), (0, 2)), dtype=DTYPE)(x)
    x = kl.Conv2D(6, 2, groups=2, use_bias=False, dtype=DTYPE, name="two")(x)
    x = kl.LeakyReLU(0.25, dtype=DTYPE)(x)
    x = kl.AveragePooling2D(2, padding="same", dtype=DTYPE)(x)
    x = kl.Permute((3, 1, 2), dtype=DTYPE)(x)
    x = kl.Flatten(dtype=DTYPE)(x)
    head = keras.Sequential([kl.Dense(3, dtype=DTYPE, name="three")])
    model = randomized(keras.Model(inputs, head(x)), rng)
    one, norm, two = map(model.get_layer, ("one", "norm", "two"))
    (three,) = head.layers

    def first_gap(x):
        x = pooled(lambda x: functional.max_pool2d(x, 2, 1), torch.relu(x))
        return functional.pad(x, (0, 0, 0, 2, 1, 0))

    def second_gap(x):
        average = lambda x: functional.avg_pool2d(x, 2, ceil_mode=True)  # noqa: E731
        x = pooled(average, functional.leaky_relu(x, 0.25))
        return x.permute(2, 0, 1).flatten()

    def grouped(x):
        halves = tensor(two.kernel).permute(3, 2, 0, 1)
        y = functional.conv2d(x.permute(2, 0, 1)[None], halves, groups=2)
        return y[0].permute(1, 2, 0)

    stages = [
        # Of 8 pixels "same" pads one after, of 9 one on each side.
        (lambda x: x, lambda x: normalization(norm, convolution(one, x, (1, 1, 0, 1)))),
        (first_gap, grouped),
        (second_gap, lambda x: dense(three, x)),
    ]
    samples = rng.normal(size=(3, 8, 9, 2))
    rows = check(model, stages, samples, probes=200)
    assert [row.name for row in rows] == ["one", "two", "three"]


@slow_on_jax
def test_global_average_and_overlapping_maximum(rng):
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2), dtype=DTYPE),
            kl.Conv2D(3, 3, dilation_rate=2, padding="same", dtype=DTYPE),
            kl.MaxPooling2D(3, strides=2, padding="same", dtype=DTYPE),
            kl.Conv2D(4, 1, activation="relu", dtype=DTYPE),
            kl.GlobalAveragePooling2D(dtype=DTYPE),
            kl.Reshape((2, 2), dtype=DTYPE),
            kl.Dense(3, dtype=DTYPE),
        ]
    )
    one, _, two, _, _, three = randomized(model, rng).layers

    def largest(x):
        # Nothing in the padding is a maximum, also where all is negative.
        x = functional.pad(x.permute(2, 0, 1)[None], (0, 1, 0, 1), value=-torch.inf)
        return functional.max_pool2d(x, 3, 2)[0].permute(1, 2, 0)

    stages = [
        (lambda x: x, lambda x: convolution(one, x, (2, 2, 2, 2))),
        (largest, lambda x: convolution(two, x)),
        (lambda x: torch.relu(x).mean((0, 1)).reshape(2, 2), lambda x: dense(three, x)),
    ]
    check(model, stages, rng.normal(size=(4, 6, 6, 2)))


@slow_on_jax
def test_hutchinson_agrees_with_the_exact_norm_within_its_error(rng):
    sizes = (40, 30, 50)
    model = keras.Sequential([keras.Input((8,)), kl.Dense(sizes[0], activation="relu")])
    for size in sizes[1:]:
        model.add(kl.Dense(size, activation="relu"))
    randomized(model, rng)
    x = rng.normal(size=(5, 8)).astype("float32")
    exact = measures.cushions(model, x, draws=1)
    estimate = measures.cushions(model, x, draws=1, probes=25)
    assert {row.jacobian_norms for row in exact} == {"exact"}
    assert [row.jacobian_norms for row in estimate] == ["hutchinson"] * 2 + ["exact"]
    above = np.triu_indices(3, 1)
    error = estimate.standard_errors[above]
    assert (error > 0).all()
    difference = (estimate.interlayer_cushions - exact.interlayer_cushions)[above]
    assert (np.abs(difference) < 4 * error).all()


def test_kernels_of_several_dtypes_are_measured_in_one(rng):
    """In float64 where all are; half precision and mixtures in float32."""
    x = rng.random((4, 3)).astype("float32")
    kernels = rng.normal(size=(3, 5)), rng.normal(size=(5, 2))

    def measured(first, last):
        layers = [
            kl.Dense(5, activation="relu", use_bias=False, dtype=first),
            kl.Dense(2, use_bias=False, dtype=last),
        ]
        model = keras.Sequential([keras.Input((3,)), *layers])
        model.set_weights(kernels)
        return [row.layer_cushion for row in measures.cushions(model, x, draws=1)]

    expected = measured("float32", "float32")
    np.testing.assert_allclose(measured("float16", "float16"), expected, rtol=5e-3)
    np.testing.assert_allclose(measured("float16", "float32"), expected, rtol=5e-3)
    expected = measured("mixed_float16", "mixed_float16")
    np.testing.assert_allclose(measured("float32", "float32"), expected, rtol=1e-6)
