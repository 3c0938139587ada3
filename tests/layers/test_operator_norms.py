"""Stable rank normalization with the convolution's own norm, trained and exported."""

import keras
import numpy as np
import pytest
import torch
from keras import layers as kl

import keras_spectral as ks
from keras_spectral.layers import SpectralNormalization, StableRankNormalization
from tests.layers.reference import (
    algorithm_2,
    convolution_matrix,
    finite_differences,
    stable_rank,
)
from tests.layers.test_spectral_normalization import converge, kernel_gradient

BOUND = 0.7
FORMS = [
    dict(),
    dict(gradient="exact"),
    dict(preserved=0),
    dict(preserved=2),
    dict(method="power_iteration", power_iterations=5),
]


def norm(kernel, padding="same", stride=1):
    return np.linalg.norm(convolution_matrix(kernel, (5, 5), padding, stride), 2)


def wrapped(ratio=0.4, bound=BOUND, padding="same", stride=1, **arguments):
    layer = StableRankNormalization(
        kl.Conv2D(4, 3, strides=stride, padding=padding, use_bias=False, name="conv"),
        ratio,
        bound=bound,
        norm="operator",
        **arguments,
    )
    model = keras.Sequential([keras.Input((5, 5, 2)), layer, kl.Flatten(), kl.Dense(3)])
    return layer, model


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_reference_is_a_convolution(rng, padding, stride):
    kernel = rng.standard_normal((3, 3, 2, 4))
    x = rng.standard_normal((5, 5, 2))
    ours = convolution_matrix(kernel, (5, 5), padding, stride) @ x.ravel()
    filters = torch.tensor(kernel).permute(3, 2, 0, 1)
    image = torch.tensor(x).permute(2, 0, 1)[None]
    pad = 1 if padding == "same" else 0
    theirs = torch.nn.functional.conv2d(image, filters, stride=stride, padding=pad)
    np.testing.assert_allclose(ours, theirs[0].permute(1, 2, 0).ravel(), atol=1e-12)


# One vector lags where singular values are close, as `SpectralNormalization` says.
@pytest.mark.parametrize("form", FORMS[:-1], ids=str)
def test_training_stays_at_the_bound(rng, form):
    """It was as much as 18 % below, since the norm was that of the raw kernel."""
    layer, model = wrapped(**form)
    x = rng.standard_normal((64, 5, 5, 2)).astype("float32")
    y = rng.integers(0, 3, 64)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    found = [norm(layer.effective_kernel())]
    for _ in range(30):
        model.train_on_batch(x, y)
        weights = layer.get_weights()
        training = layer.transform(layer.matrix(0), 0, advance=True)
        layer.set_weights(weights)
        found += [
            norm(layer.effective_kernel()),
            norm(layer.slots[0].view.unflatten(training)),
        ]
        ranks = stable_rank(layer.effective_kernel())
        assert ranks <= layer.stable_rank() * (1 + 1e-3)
    np.testing.assert_allclose(found, BOUND, rtol=1e-2)


@pytest.mark.parametrize("padding, stride", [("same", 1), ("valid", 1), ("same", 2)])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_an_export_has_the_bound(rng, form, padding, stride):
    layer, model = wrapped(0.3, padding=padding, stride=stride, **form)
    # The singular vectors were found on another kernel.
    layer.kernel.assign(rng.standard_normal(layer.kernel.shape))
    (kernel,) = ks.unwrap(model).get_layer("conv").get_weights()
    exact = norm(kernel, padding=padding, stride=stride)
    assert exact == pytest.approx(BOUND, rel=1e-6)
    assert stable_rank(kernel) <= layer.stable_rank() * (1 + 1e-5)
    assert stable_rank(layer.kernel) > layer.stable_rank() * 1.2
    layer.restart_power_iteration()
    np.testing.assert_allclose(layer.effective_kernel(), kernel, rtol=0, atol=2e-3)


@pytest.mark.parametrize("wrap", [SpectralNormalization, StableRankNormalization])
@pytest.mark.parametrize(
    "make",
    [
        lambda **kwargs: kl.DepthwiseConv2D(3, **kwargs),
        lambda **kwargs: kl.SeparableConv2D(4, 3, depth_multiplier=2, **kwargs),
        lambda **kwargs: kl.Conv2DTranspose(4, 3, **kwargs),
        lambda **kwargs: kl.Conv2D(4, 3, groups=2, **kwargs),
    ],
)
def test_other_convolutions_are_exported_at_the_bound(rng, make, wrap):
    arguments = {"stable_rank_ratio": 0.3} if wrap is StableRankNormalization else {}
    inner = make(use_bias=False, name="conv")
    layer = wrap(inner, bound=BOUND, norm="operator", **arguments)
    model = keras.Sequential([keras.Input((5, 5, 4)), layer])
    for slot in layer.slots:
        slot.variable.assign(rng.standard_normal(slot.variable.shape))
    plain = ks.unwrap(model).get_layer("conv")
    if isinstance(plain, kl.SeparableConv2D):
        depthwise, pointwise = plain.get_weights()
        matrix = pointwise.reshape(-1, 4).astype("float64")
        assert np.linalg.norm(matrix, 2) == pytest.approx(BOUND, rel=1e-6)
        plain = kl.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)
        plain.build((None, 5, 5, 4))
        plain.set_weights([depthwise])
    impulses = np.eye(100, dtype="float32").reshape(100, 5, 5, 4)
    operator = np.asarray(plain(impulses), "float64").reshape(100, -1)
    assert np.linalg.norm(operator, 2) == pytest.approx(BOUND, rel=1e-5)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_clip_and_epsilon_compare_the_capped_kernel(rng, form):
    raw = rng.standard_normal((3, 3, 2, 4))
    layer, model = wrapped(bound=100.0, clip=True, **form)
    layer.kernel.assign(raw)
    layer.restart_power_iteration()
    capped = layer.converged_kernel()
    assert stable_rank(capped) == pytest.approx(layer.stable_rank(), rel=1e-4)
    np.testing.assert_allclose(layer.effective_kernel(), capped, atol=1e-3)
    # Above the bound with the raw kernel, within it with the capped one.
    inside = norm(capped)
    between = (norm(raw) + inside) / 2
    if norm(raw) > inside * 1.01:
        layer.bound = between
        layer.restart_power_iteration()
        np.testing.assert_array_equal(layer.converged_kernel(), capped)
        assert norm(layer.effective_kernel()) == pytest.approx(inside, rel=1e-3)
    layer.bound = 0.9 * inside
    assert norm(layer.converged_kernel()) == pytest.approx(layer.bound, rel=1e-6)
    layer, model = wrapped(bound=3.0, **form)
    layer.kernel.assign(1e-14 * raw)
    layer.restart_power_iteration()
    for kernel in (layer.converged_kernel(), layer.effective_kernel()):
        np.testing.assert_allclose(kernel, 1e-14 * capped, rtol=0, atol=1e-17)
    layer.kernel.assign(np.zeros_like(raw))
    assert not layer.converged_kernel().any()


def test_a_file_goes_on_as_it_was(rng, tmp_path):
    layer, model = wrapped()
    model.compile("adam", "mse")
    x = rng.standard_normal((16, 5, 5, 2)).astype("float32")
    model.fit(x, np.ones((16, 3)), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    kernels = [m.get_layer("conv").converged_kernel() for m in (model, loaded)]
    np.testing.assert_array_equal(*kernels)


def test_gradient_is_the_papers_estimator(rng):
    """Differences of the cap and of the operator's norm, all vectors held constant."""
    layer = StableRankNormalization(
        kl.Conv2D(4, 3, padding="same", dtype="float64"), 0.4, norm="operator"
    )
    layer.build((None, 4, 4, 2))
    converge(layer)
    u, v = (x.numpy() for x in (layer.rank_states[0].u, layer.rank_states[0].v))
    state = layer.norm_states[0]
    left, right = state.u.numpy().ravel(), state.v.numpy().ravel()
    cotangent = rng.standard_normal(layer.kernel.shape)

    def value(kernel):
        capped = algorithm_2(kernel, u, v, 0.4 * 4)
        matrix = convolution_matrix(capped, (4, 4), "same")
        return (capped / (left @ matrix @ right) * cotangent).sum()

    expected = finite_differences(value, layer.kernel.numpy())
    # A block's vectors stand still to some 1e-6, where its norm does to 1e-12.
    np.testing.assert_allclose(kernel_gradient(layer, cotangent), expected, atol=1e-5)
