"""X-Convs: a kernel times a mask, whoever reads it."""

import functools

import keras
import numpy as np
import pytest
import torch

from keras_spectral import measures, zoo
from keras_spectral.layers import (
    MaskedConv2D,
    OptimalSpectralNormalization,
    SpectralNormalization,
    StableRankNormalization,
)


def masked_kernel(layer):
    return layer.kernel.numpy() * layer.mask.numpy()


def test_each_filter_keeps_whole_slices_of_half_its_inputs():
    layer = MaskedConv2D(6, 3, expand_ratio=2, seed=1)
    layer.build((None, 8, 8, 5))
    mask = layer.mask.numpy()
    assert set(np.unique(mask)) == {0, 1}
    assert (mask == mask[:1, :1]).all()
    np.testing.assert_array_equal(mask[0, 0].sum(0), np.full(6, 5 // 2))
    assert not layer.mask.trainable
    one = MaskedConv2D(6, 3, expand_ratio=8)
    one.build((None, 8, 8, 5))
    np.testing.assert_array_equal(one.mask.numpy()[0, 0].sum(0), np.ones(6))


@pytest.mark.parametrize("size", [8, 9])
def test_it_convolves_with_kernel_times_mask(size, rng):
    layer = MaskedConv2D(6, 3, strides=2, dtype="float64")
    x = rng.standard_normal((2, size, size, 4))
    ours = layer(x).numpy()
    weight = torch.tensor(masked_kernel(layer).transpose(3, 2, 0, 1).copy())
    images = torch.tensor(x.transpose(0, 3, 1, 2).copy())
    theirs = torch.nn.functional.conv2d(images, weight, stride=2)
    np.testing.assert_allclose(ours, theirs.permute(0, 2, 3, 1), atol=1e-13)


def test_no_gradient_reaches_what_is_masked(rng):
    import tensorflow as tf

    layer = MaskedConv2D(6, 3)
    x = rng.standard_normal((2, 8, 8, 4)).astype("float32")
    layer.build(x.shape)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(layer(x)))
    gradient = tape.gradient(loss, layer.trainable_weights[0]).numpy()
    assert (gradient[layer.mask.numpy() == 0] == 0).all()
    assert (gradient[layer.mask.numpy() == 1] != 0).all()


def test_no_two_layers_of_a_network_share_a_mask():
    model = zoo.build("xdensenet40_2_k24_bc_cifar10")
    masks = [
        (layer.mask.shape, layer.mask.numpy().tobytes())
        for layer in model.layers
        if isinstance(layer, MaskedConv2D)
    ]
    assert len(masks) == len(set(masks)) == 36


def test_a_mask_set_by_hand_survives_saving(tmp_path, rng):
    inputs = keras.Input((8, 8, 4))
    model = keras.Model(inputs, MaskedConv2D(6, 3, seed=1, name="x")(inputs))
    layer = model.get_layer("x")
    layer.mask.assign(rng.integers(0, 2, layer.mask.shape).astype("float32"))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for name in ("kernel", "bias", "mask"):
        before, after = (getattr(m.get_layer("x"), name) for m in (model, loaded))
        np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("bound", [1.0, 2.0])
def test_spectral_normalization_bounds_what_convolves(bound, rng):
    inner = MaskedConv2D(8, 3, name="x")
    layer = SpectralNormalization(inner, bound=bound)
    x = rng.standard_normal((2, 8, 8, 6)).astype("float32")
    for _ in range(60):
        layer(x, training=True)
    masked = masked_kernel(inner)
    expected = bound * masked / np.linalg.norm(masked.reshape(-1, 8), 2)
    np.testing.assert_allclose(layer.effective_kernel(), expected, atol=1e-4)
    plain = keras.layers.Conv2D(8, 3)
    plain.build(x.shape)
    plain.set_weights([expected, np.zeros(8)])
    np.testing.assert_allclose(layer(x), plain(x), atol=1e-4)


@pytest.mark.parametrize(
    "wrapper",
    [
        functools.partial(StableRankNormalization, stable_rank_ratio=0.5),
        OptimalSpectralNormalization,
    ],
)
def test_wrappers_that_fill_zeros_refuse_a_mask(wrapper):
    layers = [MaskedConv2D(8, 3), keras.layers.TimeDistributed(MaskedConv2D(8, 3))]
    for layer, shape in zip(layers, [(1, 8, 8, 6), (1, 2, 8, 8, 6)], strict=True):
        with pytest.raises(ValueError, match=r"must not have a mask.*Received: layer"):
            wrapper(layer).build(shape)


def test_a_spectrum_is_that_of_the_masked_kernel():
    inputs = keras.Input((8, 8, 6))
    model = keras.Model(inputs, MaskedConv2D(8, 3, name="x")(inputs))
    (row,) = measures.spectrum(model).rows
    masked = masked_kernel(model.get_layer("x")).reshape(-1, 8).astype("float64")
    expected = np.linalg.svd(masked, compute_uv=False)
    np.testing.assert_allclose(row.singular_values, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"expand_ratio": 0}, "`expand_ratio`"),
        ({"seed": -1}, "`seed`"),
        ({"groups": 2}, "`groups` must be 1"),
    ],
)
def test_bad_arguments(arguments, match):
    with pytest.raises(ValueError, match=match):
        MaskedConv2D(6, 3, **arguments)
