"""What two layers do in the place of one, kind by kind, and what is left by name."""

import keras
import numpy as np
import pytest
from keras import layers as kl

from keras_spectral.compression.factorization import factorize
from keras_spectral.layers import InvertibleResidual

CONVOLUTIONS = {
    "conv1d": (kl.Conv1D(7, 3, strides=2, padding="causal"), (9, 5)),
    "conv2d": (kl.Conv2D(6, 3, dilation_rate=2, padding="same"), (8, 7, 4)),
    "conv3d": (kl.Conv3D(6, 2, strides=2), (5, 4, 6, 3)),
    "conv1d transpose": (kl.Conv1DTranspose(5, 4, strides=2), (6, 6)),
    "conv2d transpose": (
        kl.Conv2DTranspose(5, 3, strides=2, padding="same", output_padding=1),
        (5, 4, 6),
    ),
    "conv3d transpose": (kl.Conv3DTranspose(4, 2, use_bias=False), (3, 3, 2, 5)),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_every_convolution_is_that_of_its_truncated_matrix(kind, rng):
    layer, shape = CONVOLUTIONS[kind]
    layer = type(layer).from_config({**layer.get_config(), "activation": "tanh"})
    model = keras.Sequential([keras.Input(shape), layer])
    model.set_weights([rng.normal(size=w.shape) for w in model.weights])
    copy, rows = factorize(model, rank_ratio=0.5, only_if_smaller=False)
    assert len(copy.layers) == 2
    # The outputs' axis last, whichever it is.
    axis = -2 if "transpose" in kind else -1
    kernel = np.moveaxis(keras.ops.convert_to_numpy(layer.kernel), axis, -1)
    matrix = kernel.reshape(-1, kernel.shape[-1]).astype("float64")
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    rank = len(s) // 2
    assert rows[0].rank == rank and rows[0].shape == matrix.shape
    truncated = ((u[:, :rank] * s[:rank]) @ vt[:rank]).reshape(kernel.shape)
    x = rng.normal(size=(2, *shape)).astype("float32")
    found = copy.predict(x, verbose=0)
    layer.kernel.assign(np.moveaxis(truncated, -1, axis))
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    read, written = np.prod(x.shape[1:-1]), np.prod(expected.shape[1:-1])
    applied = read if "transpose" in kind else written
    m, n = matrix.shape
    assert rows[0].multiply_adds_before == applied * m * n
    assert rows[0].multiply_adds_after == rank * (applied * m + written * n)
    assert rows[-1].parameters_after == copy.count_params()


EINSUMS = {
    "one axis": ("abc,cd->abd", (4, 5), dict(output_shape=(None, 7), bias_axes="d")),
    "heads": ("abc,cde->abde", (4, 6), dict(output_shape=(None, 2, 3), bias_axes="de")),
    "two inputs": ("abcd,cde->abe", (3, 2, 4), dict(output_shape=(None, 5))),
    "apart": ("abcd,bde->ace", (3, 2, 4), dict(output_shape=(None, 5), bias_axes="e")),
    "between": ("abc,bd->adc", (6, 3), dict(output_shape=(5, None), bias_axes="d")),
    "ellipsis": ("...x,yx->...y", (2, 3, 6), dict(output_shape=4, bias_axes="y")),
    "ellipsis behind": ("ab...,bc->ac...", (6, 2, 3), dict(output_shape=5)),
}


@pytest.mark.parametrize("kind", EINSUMS)
def test_an_einsum_is_that_of_its_truncated_matrix(kind, rng):
    equation, shape, arguments = EINSUMS[kind]
    layer = kl.EinsumDense(equation, activation="tanh", name="mine", **arguments)
    model = keras.Sequential([keras.Input(shape), layer])
    model.set_weights([rng.normal(size=w.shape) for w in model.weights])
    x = rng.normal(size=(2, *shape)).astype("float32")
    whole, _ = factorize(model, delta=0.0, only_if_smaller=False)
    assert [type(part) for part in whole.layers] == [kl.EinsumDense] * 2
    np.testing.assert_allclose(
        whole.predict(x, verbose=0), model.predict(x, verbose=0), atol=2e-5
    )
    copy, rows = factorize(model, rank_ratio=0.5, only_if_smaller=False)
    kernel = keras.ops.convert_to_numpy(layer.kernel).astype("float64")
    # Each with its labels, written out.
    labels, outputs = equation.split(",")[1].split("->")[0], set(equation.split(">")[1])
    read = set(equation.split(",")[0])
    made = [axis for axis, label in enumerate(labels) if label not in read]
    order = [axis for axis in range(kernel.ndim) if axis not in made] + made
    moved = kernel.transpose(order)
    n = int(np.prod([kernel.shape[axis] for axis in made]))
    u, s, vt = np.linalg.svd(moved.reshape(-1, n), full_matrices=False)
    rank = rows[0].rank
    assert rank == max(1, len(s) // 2) and outputs
    low = ((u[:, :rank] * s[:rank]) @ vt[:rank]).reshape(moved.shape)
    found = copy.predict(x, verbose=0)
    layer.kernel.assign(low.transpose(np.argsort(order)))
    np.testing.assert_allclose(found, model.predict(x, verbose=0), atol=2e-5)
    m = kernel.size // n
    uses = int(np.prod(shape)) // m
    assert rows[0].multiply_adds_before == uses * m * n
    assert rows[0].multiply_adds_after == uses * rank * (m + n)
    assert rows[-1].parameters_after == copy.count_params()


SEPARABLE = {
    "one axis": (kl.SeparableConv1D(9, 3, padding="same", name="mine"), (8, 6)),
    "two axes": (
        kl.SeparableConv2D(
            9, 3, strides=2, padding="same", depth_multiplier=2, activation="tanh",
            pointwise_regularizer="l2", depthwise_regularizer="l1", name="mine",
        ),
        (7, 6, 4),
    ),
    "dilated": (kl.SeparableConv2D(9, 2, dilation_rate=2, use_bias=False), (7, 6, 4)),
}  # fmt: skip


@pytest.mark.parametrize("kind", SEPARABLE)
def test_a_separable_convolution_keeps_its_filters(kind, rng):
    layer, shape = SEPARABLE[kind]
    model = keras.Sequential([keras.Input(shape), layer])
    model.set_weights([rng.normal(size=w.shape) for w in model.weights])
    copy, rows = factorize(model, rank_ratio=0.5, only_if_smaller=False)
    first, second = copy.layers
    assert type(first) is type(layer) and type(second) in (kl.Conv1D, kl.Conv2D)
    assert second.name == layer.name and first.pointwise_regularizer is None
    assert (first.depthwise_regularizer is None) == (kind != "two axes")
    matrix = keras.ops.convert_to_numpy(layer.pointwise_kernel).astype("float64")
    m, n = matrix.shape[-2:]
    u, s, vt = np.linalg.svd(matrix.reshape(m, n), full_matrices=False)
    rank = rows[0].rank
    assert rank == min(m, n) // 2 and rows[0].shape == (m, n)
    low = ((u[:, :rank] * s[:rank]) @ vt[:rank]).reshape(matrix.shape)
    x = rng.normal(size=(2, *shape)).astype("float32")
    found = copy.predict(x, verbose=0)
    layer.pointwise_kernel.assign(low)
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    pixels = int(np.prod(expected.shape[1:-1]))
    depthwise = int(np.prod(layer.depthwise_kernel.shape))
    assert rows[0].multiply_adds_before == pixels * (depthwise + m * n)
    assert rows[0].multiply_adds_after == pixels * (depthwise + rank * (m + n))
    assert rows[-1].parameters_after == copy.count_params()
    assert rows[-1].left_as_it_was is None


def test_a_depthwise_kernel_is_not_factorized():
    layer = kl.SeparableConv2D(9, 3, name="mine")
    model = keras.Sequential([keras.Input((7, 6, 8)), layer])
    with pytest.raises(ValueError, match="'mine', of which only the pointwise_kernel"):
        factorize(model, rank_ratio=0.25, where=["mine/depthwise_kernel"])
    copy, _ = factorize(model, rank_ratio=0.25, where=["mine/pointwise_kernel"])
    assert len(copy.layers) == 2
    _, rows = factorize(model, 0.1, where=lambda weight: "depthwise" in weight.name)
    assert rows[0].left_as_it_was == "of which only the pointwise_kernel can be"


def test_the_sum_says_what_it_does_not_count():
    layers = [keras.Input((6, 8)), kl.LSTM(4, name="lstm"), kl.Dense(30, name="head")]
    model = keras.Sequential(layers)
    _, rows = factorize(model, rank_ratio=0.5)
    assert [row.name for row in rows] == ["lstm", "head", "total"]
    reason = "a LSTM: its kernels meet in every step"
    assert rows[0].left_as_it_was == reason
    assert rows[-1].left_as_it_was == f"products without lstm ({reason})"
    only = keras.Sequential([keras.Input((6, 8)), kl.LSTM(4, name="lstm")])
    _, rows = factorize(only, rank_ratio=0.5)
    assert rows[-1].multiply_adds_before is rows[-1].multiply_adds_after is None


LEFT = {
    "lstm": (lambda: kl.LSTM(4), (6, 8), "its kernels meet"),
    "gru": (lambda: kl.GRU(4), (6, 8), "its kernels meet"),
    "simple rnn": (lambda: kl.SimpleRNN(4), (6, 8), "its kernels meet"),
    "bidirectional": (lambda: kl.Bidirectional(kl.LSTM(4)), (6, 8), "meet"),
    "convolutional lstm": (lambda: kl.ConvLSTM1D(4, 3), (2, 6, 8), "meet"),
    "depthwise": (lambda: kl.DepthwiseConv2D(3), (6, 6, 4), "one small filter"),
    "in time": (lambda: kl.TimeDistributed(kl.Dense(4)), (6, 8), "a TimeDistributed"),
    "invertible": (
        lambda: InvertibleResidual([kl.Dense(9), kl.Dense(8)]), (8,), "a Invertible",
    ),
    "einsum": (
        lambda: kl.EinsumDense("abc,bcd->abd", (6, 4)), (6, 8), "no one matrix",
    ),
    "outer product": (
        lambda: kl.EinsumDense("ab,c->abc", (8, 3)), (8,), "sums over nothing",
    ),
    "attention": (lambda: kl.MultiHeadAttention(2, 3), (5, 6), "inside of it"),
    "grouped attention": (lambda: kl.GroupQueryAttention(3, 4, 2), (5, 6), "inside"),
}  # fmt: skip


@pytest.mark.parametrize("kind", LEFT)
def test_what_is_left_is_named_with_the_reason(kind):
    make, shape, reason = LEFT[kind]
    layer, inputs = make(), keras.Input(shape)
    outputs = layer(inputs, inputs) if "attention" in kind else layer(inputs)
    model = keras.Model(inputs, outputs)
    copy, rows = factorize(model, delta=0.5, only_if_smaller=False)
    assert reason in rows[0].left_as_it_was
    total = f"products without {layer.name} ({rows[0].left_as_it_was})"
    assert rows[-1].left_as_it_was == total
    assert rows[-1].multiply_adds_before is rows[-1].multiply_adds_after is None
    assert copy.count_params() == model.count_params()


def test_what_multiplies_entry_by_entry_has_no_row():
    layers = [kl.PReLU(), kl.LayerNormalization(axis=(1, 2)), kl.Dense(30, name="fc")]
    model = keras.Sequential([keras.Input((4, 8)), *layers])
    _, rows = factorize(model, delta=0.5)
    assert [row.name for row in rows] == ["fc", "total"]
    assert rows[-1].left_as_it_was is None
