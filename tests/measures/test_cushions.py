import json
import math

import keras
import numpy as np
import pytest
from keras import layers as kl

from keras_spectral import measures, wrap
from keras_spectral.layers import MaskedConv2D, SpectralNormalization, SVDConv2D
from keras_spectral.measures import Linearization, cushions, extremes
from keras_spectral.measures.affine_layers import affine_copy, affine_layers
from keras_spectral.zoo import mnist_convnet


def network(rng, sizes, use_bias=True, dtype="float64", slope=0.0):
    """Dense layers of `sizes` with (leaky) ReLU between them."""
    layers = [keras.Input((sizes[0],), dtype=dtype)]
    for size in sizes[1:]:
        layers.append(kl.Dense(size, use_bias=use_bias, dtype=dtype))
        layers.append(kl.LeakyReLU(slope, dtype=dtype))
    model = keras.Sequential(layers[:-1])
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape) / math.sqrt(sizes[0]))
    return model


def numbers(rows):
    return [
        (row.layer_cushion, row.minimal_interlayer_cushion, row.activation_contraction)
        for row in rows
    ]


def test_the_diagonal_and_the_stable_rank_bound(rng):
    model = network(rng, (8, 9, 16, 4))
    rows = cushions(model, rng.normal(size=(30, 8)))
    np.testing.assert_allclose(
        np.diag(rows.interlayer_cushions), [1 / 3, 1 / 4, 1 / 2], rtol=1e-12
    )
    assert [row.outputs for row in rows] == [9, 16, 4]
    for row in rows:
        assert 0 < row.layer_cushion <= row.stable_rank**-0.5
        assert 0 < row.minimal_interlayer_cushion <= row.outputs**-0.5
    for row, spectrum in zip(rows, measures.spectrum(model), strict=True):
        assert row.stable_rank == pytest.approx(spectrum.stable_rank)


def test_the_bound_is_met_at_the_leading_singular_vector(rng):
    model = network(rng, (6, 5), use_bias=False)
    *_, right = np.linalg.svd(model.layers[0].kernel.numpy().T)
    (row,) = cushions(model, right[:1])
    assert row.layer_cushion == pytest.approx(row.stable_rank**-0.5, rel=1e-12)
    # The least over samples: the last right singular vector is in the kernel.
    (row,) = cushions(model, right)
    assert row.layer_cushion < 1e-12


def test_scaling_a_layer_changes_nothing(rng):
    model = network(rng, (5, 8, 8, 3), use_bias=False)
    x = rng.normal(size=(10, 5))
    before = cushions(model, x)
    for layer, scale in zip(model.layers[::2], (7.0, 1e-3, 20.0), strict=True):
        layer.kernel.assign(scale * layer.kernel)
    after = cushions(model, x)
    np.testing.assert_allclose(numbers(after), numbers(before), rtol=1e-9)
    assert after.interlayer_smoothness == pytest.approx(
        before.interlayer_smoothness, rel=1e-6
    )


def test_float32_products_far_from_one(rng):
    """The squares of these Jacobians are beyond float32."""
    model = network(rng, (5, 8, 8, 3), use_bias=False, dtype="float32")
    x = rng.normal(size=(10, 5)).astype("float32")
    before = cushions(model, x)
    for layer in model.layers[2::2]:
        layer.kernel.assign(1e-13 * layer.kernel)
    np.testing.assert_allclose(numbers(cushions(model, x)), numbers(before), rtol=1e-5)


def test_contraction_of_relu(rng):
    identity = kl.Dense(1000, activation="relu", kernel_initializer="identity")
    model = keras.Sequential([keras.Input((1000,)), identity, kl.Dense(2)])
    x = rng.normal(size=(20, 1000))
    rows = cushions(model, x, draws=1)
    # Not 1, as the lecture notes have it; the worst of 20 is a little above.
    assert rows[0].activation_contraction == pytest.approx(math.sqrt(2), rel=0.1)
    worst = (np.linalg.norm(x, axis=1) / np.linalg.norm(np.maximum(x, 0), axis=1)).max()
    assert rows.activation_contraction == pytest.approx(worst, rel=1e-5)
    x[3] = -np.abs(x[3])
    rows = cushions(model, x, draws=1)
    assert rows[0].activation_contraction == math.inf
    assert json.loads(rows.to_json())[0]["activation_contraction"] is None
    # That sample constrains the other numbers no more.
    assert rows[1].layer_cushion > 0


def test_linear_networks_are_infinitely_smooth(rng):
    for dtype in ("float32", "float64"):
        model = network(rng, (4, 6, 5, 3), dtype=dtype, slope=1.0)
        rows = cushions(model, rng.normal(size=(9, 4)).astype(dtype), noise=3.0)
        assert [row.interlayer_smoothness for row in rows] == [math.inf] * 3
        assert rows.interlayer_smoothness == math.inf
        assert [row.activation_contraction for row in rows] == [1.0] * 3


@pytest.mark.parametrize("slope", [0.0, 0.5])
def test_smoothness_of_one_unit_in_closed_form(rng, slope):
    """Noise of -2 x flips the slope: |error| = (1 - slope) |x^j|, |eta| = 2 |x^i|."""
    model = network(rng, (1, 1, 1), use_bias=False, slope=slope)
    model.layers[0].kernel.assign([[1.5]])
    x = np.array([[0.1], [2.0]])
    rows = cushions(model, x, noise=2.0)
    assert rows[0].interlayer_smoothness == pytest.approx(2 / (1 - slope), rel=1e-12)
    assert rows[1].interlayer_smoothness == math.inf
    # Half of the draws have the other sign, and a smaller noise flips nothing.
    quantiles = [
        cushions(model, x, noise=2.0, draws=60, delta=delta).interlayer_smoothness
        for delta in (0.01, 0.25, 0.75)
    ]
    assert quantiles == [quantiles[0]] * 2 + [math.inf]
    assert cushions(model, x, noise=0.9).interlayer_smoothness == math.inf


def test_smoothness_of_three_units_in_closed_form(rng):
    """x^1 = x^2 = 3, x^3 = 3 - 2; noise of -6 gives 0 - 2 where linear is -3 - 2."""
    model = network(rng, (1, 1, 1, 1))
    for layer, bias in zip(model.layers[::2], (0, 0, -2), strict=True):
        layer.set_weights([np.ones((1, 1)), np.array([bias])])
    rows = cushions(model, [[3.0]], noise=2.0)
    # |eta| |x^3| / (|x^1| error) = 6 * 1 / (3 * 3), below the 2 of x^2.
    assert [row.interlayer_smoothness for row in rows] == [2 / 3, 2 / 3, math.inf]


def test_smoothness_by_simulation(rng):
    """The median of the worst sample and layer, by the definition, with own noise."""
    model = network(rng, (4, 12, 8, 3))
    x = rng.normal(size=(15, 4))
    (w1, b1), (w2, b2), (w3, b3) = (
        [weight.numpy() for weight in layer.weights] for layer in model.layers[::2]
    )
    # Large, so that the noisy activations depend on it.
    b2 += 3 * rng.normal(size=8)
    model.layers[2].bias.assign(b2)
    one = x @ w1 + b1
    two = np.maximum(one, 0) @ w2 + b2
    three = np.maximum(two, 0) @ w3 + b3
    worst = []
    for _ in range(2000):
        eta = rng.normal(size=12)
        eta = eta / np.linalg.norm(eta) * 0.5 * np.linalg.norm(one, axis=1)[:, None]
        moved = np.maximum(one + eta, 0) @ w2 + b2
        inverse = []
        linear = (eta * (one > 0)) @ w2
        for clean, noisy in ((two, moved), (three, np.maximum(moved, 0) @ w3 + b3)):
            error = np.linalg.norm(noisy - clean - linear, axis=1)
            inverse.append(error / (0.5 * np.linalg.norm(clean, axis=1)))
            linear = (linear * (two > 0)) @ w3 if clean is two else None
        worst.append(1 / np.max(inverse))
    median = cushions(model, x, noise=0.5, draws=400, delta=0.5)
    # Three standard errors of either quantile, by ranks.
    low, high = np.quantile(worst, [0.5 - 3 * 0.5 / 20, 0.5 + 3 * 0.5 / 20])
    assert low < median[0].interlayer_smoothness < high
    tail = cushions(model, x, noise=0.5, draws=400, delta=0.05)
    assert tail[0].interlayer_smoothness < median[0].interlayer_smoothness
    assert tail.interlayer_smoothness <= min(row.interlayer_smoothness for row in tail)


def test_the_printed_smoothness_is_zero(rng):
    model = network(rng, (3, 4, 2))
    x = rng.normal(size=(5, 3))
    corrected, printed = cushions(model, x), cushions(model, x, variant="as_printed")
    assert printed.interlayer_smoothness == printed[0].interlayer_smoothness == 0
    assert corrected.interlayer_smoothness > 0
    assert numbers(corrected) == numbers(printed)


def test_batches_and_chunks_change_nothing(rng, monkeypatch):
    model = network(rng, (6, 20, 15, 12))
    x = rng.normal(size=(7, 6))

    def measure(**arguments):
        rows = cushions(model, x, probes=14, draws=5, **arguments)
        return [
            rows.interlayer_cushions,
            rows.standard_errors,
            np.array(numbers(rows)),
            np.array([row.interlayer_smoothness for row in rows]),
        ]

    whole = measure()
    assert whole[1][0, 1] > 0
    for other in (measure(batch_size=1), measure(batch_size=3)):
        for one, two in zip(whole, other, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-10, atol=1e-14)
    monkeypatch.setattr(extremes, "_BUDGET", 300)
    for one, two in zip(whole, measure(), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-10, atol=1e-14)


def test_the_standard_error_is_that_of_other_seeds(rng):
    model = network(rng, (6, 30, 25))
    x = rng.normal(size=(1, 6))
    exact = cushions(model, x).interlayer_cushions[0, 1]
    # What is compiled serves all seeds.
    at = Linearization(affine_copy(model))
    layers, values, errors = affine_layers(at.program), [], []
    for seed in range(40):
        found = extremes.CushionExtremes(at, layers, 0.1, 1, probes=20, seed=seed)
        found.add(x)
        values.append(found.cushions[0, 1])
        errors.append(found.errors[0, 1])
    rows = cushions(model, x, probes=20, draws=1, seed=39)
    assert rows.interlayer_cushions[0, 1] == values[-1]
    assert rows.standard_errors[0, 1] == errors[-1]
    stated = np.mean(errors)
    assert 0.6 < np.std(values, ddof=1) / stated < 1.6
    assert abs(np.mean(values) - exact) < 4 * stated / math.sqrt(40) + 0.02 * exact


def test_wrapped_and_adapted_layers(rng):
    """They are measured as the plain layers that compute the same."""
    plain = network(rng, (6, 8, 3), dtype="float32")
    x = rng.normal(size=(5, 6)).astype("float32")
    wrapped = wrap(plain, SpectralNormalization)
    copy = keras.models.clone_model(plain)
    copy.set_weights(plain.get_weights())
    for layer, other in zip(copy.layers[::2], wrapped.layers[::2], strict=True):
        layer.kernel.assign(other.effective_kernel())
    expected = numbers(cushions(copy, x))
    np.testing.assert_allclose(numbers(cushions(wrapped, x)), expected, rtol=1e-5)

    plain.layers[0].enable_lora(2)
    plain.layers[0].lora_kernel_b.assign(rng.normal(size=(2, 8)))
    copy.set_weights(
        [w.numpy() for w in plain.layers[2].weights] and copy.get_weights()
    )
    copy.layers[0].kernel.assign(plain.layers[0].kernel)
    copy.layers[2].kernel.assign(plain.layers[2].kernel)
    expected = numbers(cushions(copy, x))
    np.testing.assert_allclose(numbers(cushions(plain, x)), expected, rtol=1e-5)


@pytest.mark.parametrize("kind", [MaskedConv2D, SVDConv2D])
def test_masked_and_factored_convolutions(rng, kind):
    x = rng.normal(size=(2, 6, 6, 4)).astype("float32")
    layer, plain = kind(3, 3), kl.Conv2D(3, 3)
    model = keras.Sequential([keras.Input((6, 6, 4)), layer, kl.Flatten()])
    copy = keras.Sequential([keras.Input((6, 6, 4)), plain])
    if kind is MaskedConv2D:
        plain.kernel.assign(layer.kernel * layer.mask)
    else:
        plain.kernel.assign(layer.effective_kernel())
    expected = numbers(cushions(copy, x))
    np.testing.assert_allclose(numbers(cushions(model, x)), expected, rtol=1e-5)


def test_what_comes_before_and_after(rng):
    """Other layers outside of the chain, which is measured without them."""
    model = network(rng, (5, 7, 3), dtype="float32")
    x = rng.normal(size=(6, 5)).astype("float32")
    inputs = keras.Input((5,))
    y = kl.GaussianNoise(1.0)(kl.Rescaling(1 / 255)(inputs))
    outputs = kl.Softmax()(kl.Activation("tanh")(model(y)))
    whole = keras.Model(inputs, outputs)
    np.testing.assert_allclose(
        numbers(cushions(whole, 255 * x)), numbers(cushions(model, x)), rtol=1e-4
    )


def test_a_network_of_the_zoo(rng):
    model = mnist_convnet()
    rows = cushions(model, rng.random((2, 28, 28, 1)), probes=10, draws=2)
    assert [row.name for row in rows] == ["conv1", "conv2", "conv3"]
    assert [row.jacobian_norms for row in rows] == ["hutchinson", "exact", "exact"]
    assert "conv3" in str(rows) and rows.title == "Cushions of mnist_convnet"


def test_what_nothing_constrains(rng):
    model = network(rng, (3, 4, 2), use_bias=False)
    model.layers[0].kernel.assign(np.zeros((3, 4)))
    rows = cushions(model, rng.normal(size=(5, 3)))
    for row in rows:
        assert math.isnan(row.layer_cushion)
        assert math.isnan(row.minimal_interlayer_cushion)
        assert row.interlayer_smoothness == math.inf
    assert math.isnan(rows[0].stable_rank)


def two_inputs():
    inputs = [keras.Input((4,)), keras.Input((4,))]
    return keras.Model(inputs, kl.Dense(2)(kl.Add()(inputs)))


class Doubled(kl.Dense):
    pass


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


def quantized():
    model = keras.Sequential([keras.Input((4,)), kl.Dense(3, name="codes")])
    model.layers[0].quantize("int8")
    return model


def between(layer, shape=(4,), first=None):
    first = first or kl.Dense(4)
    return keras.Sequential(
        [keras.Input(shape), first, layer, kl.Flatten(), kl.Dense(2)]
    )


@pytest.mark.parametrize(
    "build, message",
    [
        (two_inputs, "one input.*with 2"),
        (Subclassed, "functional `keras.Model`: the layers of another"),
        (quantized, "'codes', quantized to int8"),
        (lambda: between(Doubled(3, name="mine")), "'mine', a Doubled"),
        (
            lambda: between(kl.LSTM(3, name="cells"), (5, 4)),
            "between its first.*'cells', a LSTM",
        ),
        (lambda: keras.Sequential([kl.Dense(2)], name="new"), "be built.*'new'"),
        (lambda: keras.Sequential([keras.Input((4,)), kl.ReLU()]), "of these kinds"),
    ],
)
def test_models_that_are_refused(build, message):
    shape = (2, 5, 4) if "cells" in message else (2, 4)
    with pytest.raises(ValueError, match=f"`model` must.*{message}"):
        cushions(build(), np.ones(shape))


def test_broken_numbers(rng):
    model = network(rng, (3, 4, 2), dtype="float32")
    big = np.concatenate([np.ones((2, 3)), np.full((1, 3), 1e38)])
    with pytest.raises(ValueError, match="`x` must give finite outputs"):
        model.layers[0].kernel.assign(np.full((3, 4), 10.0))
        cushions(model, big, batch_size=2)
    model.layers[0].kernel.assign(np.full((3, 4), np.nan))
    with pytest.raises(ValueError, match="NaN or infinity in '.*dense"):
        cushions(model, np.ones((2, 3)))


BAD = dict(
    batch_size=0, delta=0, noise=-1.0, draws=0, probes=1, seed=-1, variant="printed"
)


@pytest.mark.parametrize("name, value", BAD.items())
def test_bad_arguments(rng, name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        cushions(network(rng, (3, 2)), np.ones((1, 3)), **{name: value})
