"""Cushions of networks with branches, against their definitions by torch.autograd."""

import itertools
import math

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from keras import layers as kl
from keras import ops

from keras_spectral.layers import InvertibleResidual, SpectralNormalization
from keras_spectral.measures import cushions

JAX = keras.backend.backend() == "jax"
DTYPE, TOLERANCE = {
    "tensorflow": ("float64", 1e-9),
    # Keras computes the block that the reference takes from it in float32.
    "torch": ("float64", 1e-7),
    "jax": ("float32", 5e-4),
}[keras.backend.backend()]

slow_on_jax = pytest.mark.skipif(JAX, reason="compiles each product anew: a minute")


def tensor(weight):
    return torch.tensor(ops.convert_to_numpy(weight).astype("float64"))


def randomized(model, rng):
    for weight in model.weights:
        if "seed" not in weight.path:
            value = rng.normal(size=weight.shape) / math.sqrt(max(weight.shape[0], 4))
            weight.assign(np.abs(value) + 0.5 if "variance" in weight.path else value)
    return model


def residual(rng):
    inputs = keras.Input((5, 5, 2), dtype=DTYPE)
    x = kl.Conv2D(2, 3, padding="same", dtype=DTYPE, name="a")(inputs)
    x = kl.BatchNormalization(dtype=DTYPE, name="norm")(x)
    x = kl.PReLU(dtype=DTYPE, name="prelu")(x)
    y = kl.Conv2D(2, 3, padding="same", activation="silu", dtype=DTYPE, name="b")(x)
    x = kl.GlobalAveragePooling2D(dtype=DTYPE)(kl.Add(dtype=DTYPE)([x, y]))
    x = kl.Dense(3, dtype=DTYPE, name="c")(x)
    dense = kl.Dense(3, use_bias=False, dtype=DTYPE)
    x = InvertibleResidual([dense], dtype=DTYPE, name="block")(x)
    x = ops.tanh(x)
    x = kl.BatchNormalization(dtype=DTYPE, name="late")(x)
    return randomized(keras.Model(inputs, kl.Dense(4, dtype=DTYPE, name="d")(x)), rng)


def convolution(layer, x):
    kernel = tensor(layer.kernel).permute(3, 2, 0, 1)
    x = functional.conv2d(x.permute(2, 0, 1)[None], kernel, padding=1)
    return x[0].permute(1, 2, 0) + tensor(layer.bias)


def normalized(layer, x):
    scale = tensor(layer.gamma) / (tensor(layer.moving_variance) + layer.epsilon).sqrt()
    return (x - tensor(layer.moving_mean)) * scale + tensor(layer.beta)


def in_torch(model):
    """What the layers read and make, where what they make and read is shifted."""
    layer = model.get_layer
    block = tensor(layer("block").branch(ops.eye(3, dtype=DTYPE)))

    def dense(layer, x):
        return x @ tensor(layer.kernel) + tensor(layer.bias)

    def run(x, made, reads):
        x = x + reads[0]
        found_reads = [x]
        a = normalized(layer("norm"), convolution(layer("a"), x)) + made[0]
        skip = torch.where(a > 0, a, a * tensor(layer("prelu").alpha))
        found_reads.append(skip + reads[1])
        b = convolution(layer("b"), found_reads[1]) + made[1]
        found_reads.append((skip + functional.silu(b)).mean((0, 1)) + reads[2])
        c = dense(layer("c"), found_reads[2]) + made[2]
        x = normalized(layer("late"), torch.tanh(c + c @ block))
        found_reads.append(x + reads[3])
        return found_reads, [a, b, c, dense(layer("d"), found_reads[3]) + made[3]]

    return run


def test_a_residual_network(rng):
    """PReLU, a swish, a wrapper, an invertible block, a late normalization."""
    model, samples = residual(rng), rng.normal(size=(3, 5, 5, 2))
    run = in_torch(model)
    shapes = [(5, 5, 2), (5, 5, 2), (3,), (4,)]
    read_shapes = [(5, 5, 2), (5, 5, 2), (2,), (3,)]
    layer_cushion, matrix = np.full(4, np.inf), np.full((4, 4), np.nan)
    contraction, ranks = np.array([0.0, 0, 0, 1]), np.zeros(4)
    made, reads = (
        [torch.zeros(shape, dtype=torch.float64) for shape in some]
        for some in (shapes, read_shapes)
    )
    for sample in torch.tensor(samples):
        read_values, values = run(sample, made, reads)
        for i in range(4):

            def by_read(shift, sample=sample, i=i):
                return run(sample, made, [*reads[:i], shift, *reads[i + 1 :]])[1][i]

            jacobian = torch.autograd.functional.jacobian(by_read, reads[i])
            operator = jacobian.reshape(values[i].numel(), -1)
            read = read_values[i].flatten()
            ratio = (operator @ read).norm() / (operator.norm() * read.norm())
            layer_cushion[i] = min(layer_cushion[i], float(ratio))
            ranks[i] = (operator.norm() / torch.linalg.matrix_norm(operator, 2)) ** 2
        # Past the branch's convolution goes what the mean reads.
        for i, j in [(0, 1), (0, 2), (1, 2), (2, 3)]:
            ratio = float(values[i].norm() / read_values[j].norm())
            contraction[i] = max(contraction[i], ratio)
        for i, j in itertools.combinations_with_replacement(range(4), 2):

            def onwards(shift, sample=sample, i=i, j=j):
                return run(sample, [*made[:i], shift, *made[i + 1 :]], reads)[1][j]

            jacobian = torch.autograd.functional.jacobian(onwards, made[i])
            jacobian = jacobian.reshape(-1, values[i].numel())
            value = values[i].flatten()
            ratio = (jacobian @ value).norm() / (jacobian.norm() * value.norm())
            matrix[i, j] = np.fmin(matrix[i, j], float(ratio))
    rows = cushions(model, samples.astype(DTYPE), draws=2)
    assert [row.name for row in rows] == ["a", "b", "c", "d"]
    close = dict(rtol=TOLERANCE)
    np.testing.assert_allclose([r.layer_cushion for r in rows], layer_cushion, **close)
    np.testing.assert_allclose(rows.interlayer_cushions, matrix, **close)
    found = [row.activation_contraction for row in rows]
    np.testing.assert_allclose(found, contraction, **close)
    np.testing.assert_allclose([r.stable_rank for r in rows], ranks, rtol=1e-4)


def test_branches_that_do_not_meet(rng):
    """Each is no function of the other, and nothing bounds how they are joined."""
    inputs = keras.Input((3,))
    one, two = (kl.Dense(4, "relu", name=name)(inputs) for name in ("one", "two"))
    last = kl.Dense(2, name="last")
    model = keras.Model(inputs, last(kl.Multiply()([one, two])))
    rows = cushions(model, rng.normal(size=(5, 3)).astype("float32"), draws=2)
    found = {row.name: row for row in rows}
    assert set(found) == {"one", "two", "last"}
    assert np.isnan(rows.interlayer_cushions[0, 1])
    assert np.isfinite(rows.interlayer_cushions[[0, 1], [2, 2]]).all()
    # The product is linear in each of its branches where no slope changes.
    assert found["last"].interlayer_smoothness == math.inf


def test_a_layer_that_is_used_twice(rng):
    inputs, dense = keras.Input((4,)), kl.Dense(4, name="shared")
    model = keras.Model(inputs, dense(kl.ReLU()(dense(inputs))))
    copies = [kl.Dense(4, "relu", name="first"), kl.Dense(4, name="second")]
    chain = keras.Sequential([keras.Input((4,)), *copies])
    for copy in copies:
        copy.set_weights(dense.get_weights())
    x = rng.normal(size=(6, 4)).astype("float32")
    rows, expected = cushions(model, x, draws=2), cushions(chain, x, draws=2)
    assert [row.name for row in rows] == ["shared", "shared (use 2)"]
    for row, other in zip(rows, expected, strict=True):
        assert row.layer_cushion == pytest.approx(other.layer_cushion, rel=1e-5)
    np.testing.assert_allclose(
        rows.interlayer_cushions, expected.interlayer_cushions, rtol=1e-4
    )


def test_smoothness_of_a_residual_unit_in_closed_form():
    """Noise of -2 x^1 flips the slope; the skip connection stays."""
    inputs = keras.Input((1,), dtype=DTYPE)
    arguments = dict(use_bias=False, dtype=DTYPE)
    x = kl.ReLU(dtype=DTYPE)(kl.Dense(1, **arguments)(inputs))
    model = keras.Model(inputs, kl.Dense(1, **arguments)(kl.Add()([x, inputs])))
    model.set_weights([np.array([[1.5]]), np.array([[3.0]])])
    rows = cushions(model, np.array([[0.1], [2.0]], DTYPE), noise=2.0)
    # |eta| |x^2| / (|x^1| error) = 2 * 3 (1.5 + 1) / (3 * 1.5).
    assert rows[0].interlayer_smoothness == pytest.approx(10 / 3, rel=TOLERANCE)


def test_smoothness_of_a_curved_activation(rng):
    model = keras.Sequential(
        [
            keras.Input((1,), dtype=DTYPE),
            kl.Dense(1, "sigmoid", use_bias=False, dtype=DTYPE),
            kl.Dense(1, use_bias=False, dtype=DTYPE),
        ]
    )
    model.set_weights([np.array([[1.5]]), np.array([[-0.7]])])
    rows = cushions(model, np.array([[0.8]], DTYPE), noise=0.3)
    inside = 1.5 * 0.8

    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    value, eta = sigmoid(inside), 0.3 * inside
    errors = [
        abs(sigmoid(inside + sign * eta) - value - value * (1 - value) * sign * eta)
        for sign in (1, -1)
    ]
    expected = 0.3 * value / max(errors)
    assert rows[0].interlayer_smoothness == pytest.approx(expected, rel=100 * TOLERANCE)


@slow_on_jax
def test_channels_first_is_the_same_network(rng):
    def built(data_format):
        first = data_format == "channels_first"
        layers = [keras.Input((2, 6, 6) if first else (6, 6, 2))]
        for filters, strides in ((3, 1), (2, 2)):
            geometry = dict(strides=strides, data_format=data_format)
            layers.append(kl.Conv2D(filters, 3, use_bias=False, **geometry))
            layers.append(kl.BatchNormalization(axis=1 if first else 3))
            layers.append(kl.ReLU())
        layers += [kl.MaxPooling2D(2, 1, "same", data_format=data_format)]
        layers += [kl.GlobalAveragePooling2D(data_format=data_format), kl.Dense(3)]
        return keras.Sequential(layers)

    last, first = built("channels_last"), built("channels_first")
    randomized(last, rng)
    first.set_weights(last.get_weights())
    x = rng.normal(size=(2, 6, 6, 2)).astype("float32")
    rows = cushions(last, x, draws=2)
    others = cushions(first, x.transpose(0, 3, 1, 2), draws=2)
    np.testing.assert_allclose(
        rows.interlayer_cushions, others.interlayer_cushions, rtol=1e-3
    )
    for row, other in zip(rows, others, strict=True):
        assert row.layer_cushion == pytest.approx(other.layer_cushion, rel=1e-3)
        assert row.stable_rank == pytest.approx(other.stable_rank, rel=1e-3)
        assert row.activation_contraction == pytest.approx(
            other.activation_contraction, rel=1e-3
        )


@slow_on_jax
def test_other_kinds_and_wrappers(rng):
    """A wrapper counts with its kernel; any layer may come before and after."""
    tokens = keras.Input((4,), dtype="int32")
    x = kl.SimpleRNN(6, return_sequences=True)(kl.Embedding(9, 5)(tokens))
    wrapper = SpectralNormalization(kl.Conv1D(4, 2, padding="causal", name="conv"))
    x = kl.Activation("gelu")(wrapper(x))
    x = kl.EinsumDense("abc,cd->abd", (None, 3), bias_axes="d", name="einsum")(x)
    model = keras.Model(tokens, kl.SimpleRNN(2)(kl.LayerNormalization()(x)))
    ids = rng.integers(0, 9, size=(3, 4))
    rows = cushions(model, ids, draws=2)
    assert [(row.name, row.kind) for row in rows] == [
        ("conv", "Conv1D"),
        ("einsum", "EinsumDense"),
    ]
    kernel = ops.convert_to_numpy(wrapper.effective_kernel())
    # Two taps, the first of which misses one of the four places.
    squares = 3 * (kernel[0] ** 2).sum() + 4 * (kernel[1] ** 2).sum()
    matrix = np.zeros((16, 24))
    for place in range(4):
        for tap in range(2):
            if place + tap >= 1:
                start = 6 * (place + tap - 1)
                rows_of = slice(4 * place, 4 * place + 4)
                matrix[rows_of, start : start + 6] = kernel[tap].T
    expected = squares / np.linalg.norm(matrix, 2) ** 2
    assert rows[0].stable_rank == pytest.approx(expected, rel=1e-3)
