"""The wrapper: its norm, gradient and certificate; `GroupSort` beside it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from keras import layers as kl

import keras_spectral as ks
from keras_spectral.layers import AlmostOrthogonal, GroupSort
from keras_spectral.measures import lipschitz_bound
from tests.layers.kinds import KINDS, numpy

LINEAR = ["dense", "einsum of two axes", "conv1d", "conv2d", "conv2d in groups"]
LINEAR += ["conv2d dilated", "conv3d", "conv2d transpose", "depthwise conv2d"]


def linear_model(kind, **arguments):
    """A wrapped layer, its kernels random, and its matrix on unit vectors."""
    make, batch = KINDS[kind]
    layer = AlmostOrthogonal(make(), **arguments)
    layer.layer.activation = keras.activations.linear
    layer.layer.use_bias = False
    model = keras.Sequential([keras.Input(batch.shape[1:]), layer])
    rng = np.random.default_rng(0)
    for slot in layer.slots:
        slot.variable.assign(rng.standard_normal(slot.variable.shape))
    size = int(np.prod(batch.shape[1:]))
    units = np.eye(size, dtype="float32").reshape(size, *batch.shape[1:])
    return model, numpy(model(units)).reshape(size, -1).astype("float64")


@pytest.mark.parametrize("kind", LINEAR)
def test_the_layer_as_a_map_has_at_most_the_bound(kind):
    model, matrix = linear_model(kind, bound=2.0)
    (layer,) = model.layers
    norm = np.linalg.norm(matrix, 2)
    assert 0.6 < norm <= 2 * (1 + 1e-6)
    assert layer.norm_ceiling() <= 2 * (1 + 1e-6)
    # What is exported is what is computed with.
    np.testing.assert_allclose(
        layer.converged_kernel(), numpy(layer.effective_kernel()), atol=1e-6
    )
    if kind in ("dense", "conv2d transpose"):
        assert norm <= lipschitz_bound(model).bound * (1 + 1e-6) <= 2 * (1 + 2e-6)


def test_the_certificate_is_used_where_a_spectrum_would_exceed_it():
    # Positive kernels attain the bound; the certificate of a spectrum adds a percent.
    layers = [kl.Conv2D(8, 3, padding="same", use_bias=False) for _ in range(3)]
    model = keras.Sequential(
        [keras.Input((32, 32, 8)), *(x for c in layers for x in (c, kl.ReLU()))]
    )
    for layer in layers:
        layer.kernel_initializer = "ones"
        layer.kernel.assign(np.ones(layer.kernel.shape))
    wrapped = ks.wrap(model, AlmostOrthogonal)
    known = lipschitz_bound(wrapped).bound
    assert known == pytest.approx(1, abs=1e-5)
    without = lipschitz_bound(ks.unwrap(wrapped)).bound
    assert known < without < 1.1


def test_the_gradient_is_that_of_the_formula_in_pytorch():
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((5, 4))
    weights = rng.standard_normal((5, 4))
    layer = AlmostOrthogonal(kl.Dense(4, dtype="float64"))
    layer.build((None, 5))
    layer.kernel.assign(kernel)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer.effective_kernel() * weights)
    found = tape.gradient(loss, layer.kernel.value)
    theirs = torch.tensor(kernel.T, requires_grad=True)
    scale = (theirs.T @ theirs).abs().sum(0) ** -0.5
    (theirs * scale * torch.tensor(weights.T)).sum().backward()
    np.testing.assert_allclose(found, theirs.grad.numpy().T, atol=1e-12)


def test_masked_zeros_stay():
    layer = AlmostOrthogonal(ks.layers.MaskedConv2D(6, 3, expand_ratio=2))
    layer.build((None, 8, 8, 4))
    mask = numpy(layer.layer.mask)
    np.testing.assert_array_equal(numpy(layer.effective_kernel()) != 0, mask != 0)


@pytest.mark.parametrize("bound", [0, -1.0, np.inf, "1"])
def test_a_bound_that_is_none(bound):
    with pytest.raises(ValueError, match="`bound` must be a positive"):
        AlmostOrthogonal(kl.Dense(2), bound=bound)


@pytest.mark.parametrize(("size", "axis"), [(2, -1), (3, -1), (6, -1), (2, 1), (4, -2)])
def test_group_sort_is_sort(size, axis, rng):
    x = rng.standard_normal((3, 4, 6)).astype("float32")
    moved = np.moveaxis(x, axis, -1)
    groups = moved.reshape(*moved.shape[:-1], -1, size)
    expected = np.moveaxis(np.sort(groups).reshape(moved.shape), -1, axis)
    np.testing.assert_array_equal(numpy(GroupSort(size, axis)(x)), expected)


def test_group_sort_is_max_min_of_neighbours(rng):
    x = rng.standard_normal((5, 8)).astype("float32")
    pairs = torch.tensor(x).reshape(5, 4, 2)
    expected = torch.stack([pairs.amin(-1), pairs.amax(-1)], -1).reshape(5, 8)
    np.testing.assert_array_equal(numpy(GroupSort()(x)), expected.numpy())


def test_group_sort_keeps_the_length_of_gradients(rng):
    x = tf.constant(rng.standard_normal((5, 8)))
    layer = GroupSort(4, dtype="float64")
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    jacobian = tape.batch_jacobian(y, x).numpy()
    np.testing.assert_allclose(
        np.linalg.svd(jacobian, compute_uv=False), np.ones((5, 8)), atol=1e-12
    )
    model = keras.Sequential([keras.Input((8,)), layer])
    assert lipschitz_bound(model).bound == pytest.approx(1)


def test_group_sort_of_images_of_any_size(rng):
    model = keras.Sequential([keras.Input((None, None, 4)), GroupSort()])
    x = rng.standard_normal((2, 3, 5, 4)).astype("float32")
    expected = np.sort(x.reshape(2, 3, 5, 2, 2)).reshape(x.shape)
    np.testing.assert_array_equal(model.predict(x, verbose=0), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"group_size": 1}, "`group_size` must be an integer >= 2"),
        ({"group_size": 2.0}, "`group_size` must be an integer >= 2"),
        ({"axis": 0}, "`axis` must not be that of the samples"),
        ({"group_size": 4}, "`group_size`=4 divides"),
        ({"axis": 3}, "`axis` must have a size"),
    ],
)
def test_group_sort_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        GroupSort(**arguments)(np.ones((2, 4, 6)))
