"""Spec-Fro, Spec-L1 and Jac-Norm: closed forms, invariances, bad input."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers as kl

import keras_spectral as ks
from keras_spectral.measures import complexity_measures

FROM_WEIGHTS = ("Spec-Fro", "Spec-L1")


def network(kernels, activation="relu", bias=False):
    layers = [kl.Dense(k.shape[1], activation, use_bias=bias) for k in kernels]
    layers[-1].activation = keras.activations.linear
    model = keras.Sequential([keras.Input((len(kernels[0]),)), *layers])
    for layer, kernel in zip(layers, kernels, strict=True):
        layer.kernel.assign(kernel)
    return model


def orthogonal(rng, count, size):
    return [np.linalg.qr(rng.normal(size=(size, size)))[0] for _ in range(count)]


def logits(model, x):
    return keras.ops.convert_to_numpy(model(x)).astype("float64")


def unit_margin(kernels):
    """Return an input of a linear network whose first logit is 1, the others 0."""
    w = kernels[0]
    for kernel in kernels[1:]:
        w = w @ kernel
    return np.linalg.solve(w.T, np.eye(len(w))[0])[None]


def test_orthogonal_networks(rng):
    """Spec-Fro is L n, Spec-L1 (L n^(2/3))^3: 24 and 2304 for L = 4, n = 6."""
    kernels = orthogonal(rng, 4, 6)
    model = network(kernels, None)
    found = complexity_measures(model, unit_margin(kernels), [0], measures=FROM_WEIGHTS)
    assert found.values["margin"] == pytest.approx(1, abs=1e-5)
    exact = np.exp([found.values[name][0] for name in FROM_WEIGHTS])
    np.testing.assert_allclose(exact, [24, 2304], rtol=2e-5)
    # But for the float32 margin they are exact.
    square = found.values["margin"][0] ** 2
    np.testing.assert_allclose(exact * square, [24, 2304], rtol=1e-6)


def test_a_product_that_overflows_has_a_logarithm(rng):
    """110 layers of norm 2: 2^220 in float32 is infinite, its logarithm 152.49."""
    kernels = [2 * kernel for kernel in orthogonal(rng, 110, 4)]
    model = network(kernels, None)
    x = 2.0**-110 * unit_margin([kernel / 2 for kernel in kernels])
    found = complexity_measures(model, x, [0], measures="Spec-Fro")
    assert np.prod(np.full(220, 2, "float32")) == np.inf
    value = found.values["Spec-Fro"][0] + 2 * np.log(found.values["margin"][0])
    assert value - np.log(110 * 4) == pytest.approx(152.49, abs=0.005)


def test_formulas_by_hand(rng):
    kernels = [rng.normal(size=size) for size in ((5, 7), (7, 6), (6, 3))]
    model, x = network(kernels), rng.normal(size=(40, 5)).astype("float32")
    y = rng.integers(3, size=40)
    found = complexity_measures(model, x, y, measures=FROM_WEIGHTS, batch_size=16)
    z = logits(model, x)
    gamma = z[np.arange(40), y] - np.where(np.eye(3)[y] == 1, -np.inf, z).max(1)
    norms = [np.linalg.norm(w, 2) for w in kernels]
    ranks = [(w**2).sum() / s**2 for w, s in zip(kernels, norms, strict=True)]
    # Bartlett: of W = kernel', the norms of the rows, so of the kernel along axis 0.
    sums = [np.linalg.norm(w, axis=0).sum() for w in kernels]
    expected = {
        "Spec-Fro": np.prod(norms) ** 2 * sum(ranks) / gamma**2,
        "Spec-L1": np.prod(norms) ** 2
        * sum((a / s) ** (2 / 3) for a, s in zip(sums, norms, strict=True)) ** 3
        / gamma**2,
    }
    wrong = gamma <= 0
    np.testing.assert_allclose(found.values["margin"], gamma, atol=1e-5)
    for name, values in expected.items():
        assert (np.isnan(found.values[name]) == wrong).all()
        right = found.values[name][~wrong]
        np.testing.assert_allclose(right, np.log(values[~wrong]), rtol=1e-4)
        row = next(row for row in found if row.name == name)
        assert (row.samples, row.left_out) == (40 - wrong.sum(), wrong.sum())
        assert row.percentile_90 == np.percentile(right, 90)
        assert found.percentile(name, 90) == row.percentile_90
    assert found.misclassified == wrong.sum() and found.error == wrong.mean()


def test_ties_are_errors():
    model = network([np.ones((2, 3))], None)
    found = complexity_measures(model, np.ones((2, 2)), [0, 1], measures="Spec-Fro")
    assert found.misclassified == 2 and found[1].samples == 0


def test_jac_norm_of_bias_free_relu_networks(rng):
    """<h, d gamma / d h> = gamma, so each hidden layer adds at least 1."""
    kernels = [rng.normal(size=size) for size in ((5, 9), (9, 8), (8, 7), (7, 3))]
    model, x = network(kernels), rng.normal(size=(60, 5)).astype("float32")
    y = logits(model, x).argmax(1)
    found = complexity_measures(model, x, y, measures="Jac-Norm")
    assert found.misclassified == 0
    assert found.values["Jac-Norm"].min() >= np.log(3) - 1e-5
    # By hand, from the last layer backwards.
    hidden = [x.astype("float64")]
    for kernel in kernels[:-1]:
        hidden.append(np.maximum(hidden[-1] @ kernel, 0))
    z = hidden[-1] @ kernels[-1]
    second = np.where(np.eye(3)[y] == 1, -np.inf, z).argmax(1)
    slope = np.eye(3)[y] - np.eye(3)[second]
    total, gamma = 0, (slope * z).sum(1)
    for h, kernel in zip(hidden[:0:-1], kernels[:0:-1], strict=True):
        slope = slope @ kernel.T
        np.testing.assert_allclose((h * slope).sum(1), gamma, rtol=1e-9)
        total += np.linalg.norm(h, axis=1) * np.linalg.norm(slope, axis=1)
        slope = slope * (h > 0)
    np.testing.assert_allclose(
        found.values["Jac-Norm"], np.log(total / gamma), rtol=1e-4, atol=1e-4
    )


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 2), st.floats(0.1, 10), st.floats(0.1, 10), st.integers(0, 99))
def test_scaling_changes_nothing(layer, scale, everything, seed):
    """One layer scaled up and the next down; and the logits scaled with the margin."""
    rng = np.random.default_rng(seed)
    sizes = ((5, 7), (7, 6), (6, 4), (4, 3))
    kernels = [rng.normal(size=size) for size in sizes]
    x, y = rng.normal(size=(12, 5)), rng.integers(3, size=12)
    before = complexity_measures(network(kernels), x, y)
    kernels[layer] *= scale
    kernels[layer + 1] /= scale
    kernels[-1] *= everything
    after = complexity_measures(network(kernels), x, y)
    for name in ("Spec-Fro", "Spec-L1", "Jac-Norm"):
        np.testing.assert_allclose(
            after.values[name], before.values[name], rtol=1e-4, atol=2e-3
        )


def convolutional(**settings):
    layers = [
        kl.Conv2D(4, 3, padding="same", use_bias=False, name="conv"),
        kl.BatchNormalization(name="bn", **settings),
        kl.ReLU(),
        kl.DepthwiseConv2D(3, strides=2, depth_multiplier=2, name="depthwise"),
        kl.BatchNormalization(name="bn2"),
        kl.ReLU(),
        kl.Flatten(),
        kl.Dense(3, name="fc"),
    ]
    model = keras.Sequential([keras.Input((6, 6, 2)), *layers])
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if "seed" not in weight.path:
            weight.assign(rng.uniform(0.5, 2, size=weight.shape))
    return model


def test_batch_normalization_is_folded():
    model = convolutional()
    x, y = np.random.default_rng(0).normal(size=(6, 6, 6, 2)), np.arange(6) % 3
    kinds = dict(measures="Spec-Fro")
    folded = complexity_measures(model, x, y, **kinds).layers
    bare = complexity_measures(
        model, x, y, batch_normalization="ignore", **kinds
    ).layers
    assert [row.folded for row in folded] == ["bn", "bn2", ""]
    assert [row.folded for row in bare] == ["", "", ""]
    norm = model.get_layer("bn")
    scale = norm.gamma.numpy() / np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
    kernel = model.get_layer("conv").kernel.numpy().reshape(-1, 4)
    assert bare[0].spectral_norm == pytest.approx(np.linalg.norm(kernel, 2))
    assert folded[0].spectral_norm == pytest.approx(np.linalg.norm(kernel * scale, 2))
    assert folded[0].norm_21 == pytest.approx(
        np.linalg.norm(kernel * scale, axis=0).sum(), rel=1e-6
    )


def test_the_operator_of_a_convolution():
    """Against the matrices themselves, made of what the layers do to a basis."""
    model = convolutional()
    x, y = np.random.default_rng(0).normal(size=(6, 6, 6, 2)), np.arange(6) % 3
    found = complexity_measures(
        model, x, y, measures="Spec-Fro", norm="operator"
    ).layers

    def matrix(first, second, shape):
        basis = np.eye(np.prod(shape), dtype="float32").reshape(-1, *shape)
        chain = [model.get_layer(first), model.get_layer(second)]
        run = lambda x: chain[1](chain[0](x), training=False).numpy()  # noqa: E731
        rows = (run(basis) - run(np.zeros_like(basis[:1]))).reshape(len(basis), -1)
        return rows.T.astype("float64")

    for row, pair, shape in zip(
        found,
        (("conv", "bn"), ("depthwise", "bn2")),
        ((6, 6, 2), (6, 6, 4)),
        strict=False,
    ):
        w = matrix(*pair, shape)
        assert row.norm == "operator"
        assert row.spectral_norm == pytest.approx(np.linalg.norm(w, 2), rel=1e-4)
        assert row.frobenius_norm == pytest.approx(np.linalg.norm(w), rel=1e-4)
        assert row.norm_21 == pytest.approx(np.linalg.norm(w, axis=1).sum(), rel=1e-4)
        assert row.stable_rank == pytest.approx(
            (np.linalg.norm(w) / np.linalg.norm(w, 2)) ** 2, rel=1e-3
        )


def test_a_normalization_elsewhere_is_refused(rng):
    inputs = keras.Input((4,))
    x = kl.Dense(4, name="one")(inputs)
    x = kl.BatchNormalization(name="lonely")(kl.Add()([x, inputs]))
    x = kl.BatchNormalization(name="late")(kl.Dense(4, "relu", name="two")(x))
    model = keras.Model(inputs, kl.Dense(3)(x))
    data = rng.normal(size=(5, 4)), rng.integers(3, size=5)
    with pytest.raises(ValueError, match="'lonely' after 'add.*'; 'late' after 'two'"):
        complexity_measures(model, *data)
    found = complexity_measures(model, *data, batch_normalization="ignore")
    assert len(found.layers) == 3


def test_wrappers_count_with_the_kernel_they_compute_with(rng):
    """Under spectral normalization every norm is 1: stable ranks are counted."""
    kernels = [rng.normal(size=size) for size in ((5, 7), (7, 6), (6, 3))]
    model = ks.wrap(network(kernels), ks.layers.SpectralNormalization, method="exact")
    x, y = rng.normal(size=(20, 5)), rng.integers(3, size=20)
    found = complexity_measures(model, x, y)
    np.testing.assert_allclose(
        [row.spectral_norm for row in found.layers], 1, rtol=1e-5
    )
    ranks = sum(row.stable_rank for row in found.layers)
    right = found.values["margin"] > 0
    np.testing.assert_allclose(
        found.values["Spec-Fro"][right],
        np.log(ranks / found.values["margin"][right] ** 2),
        rtol=1e-5,
    )
    assert "only counts stable ranks" in str(found).replace("\n", " ")


def test_residual_networks_and_named_hidden_layers(rng):
    x = keras.Input((4,))
    h = kl.Dense(4, "relu", name="stem")(x)
    h = kl.Add(name="sum")([h, kl.Dense(4, "relu", name="branch")(h)])
    model = keras.Model(x, kl.Dense(3, name="head")(h))
    data = rng.normal(size=(20, 4)), rng.integers(3, size=20)
    found = complexity_measures(model, *data)
    named = complexity_measures(model, *data, hidden=["stem", "sum"])
    np.testing.assert_array_equal(found.values["Jac-Norm"], named.values["Jac-Norm"])
    one = complexity_measures(model, *data, hidden=["sum"]).values["Jac-Norm"]
    right = found.values["margin"] > 0
    assert (one[right] < found.values["Jac-Norm"][right]).all()


def test_a_model_inside_that_is_used_twice(rng):
    """Its layers are hidden ones at each use, as two models with its weights have."""
    layers = [kl.Dense(4, "tanh"), kl.Dense(4, "relu")]
    inner = keras.Sequential([keras.Input((4,)), *layers])
    x = keras.Input((4,))
    head = kl.Dense(3)
    model = keras.Model(x, head(inner(inner(x))))
    flat = [kl.Dense(4, activation) for activation in ("tanh", "relu") * 2]
    flat = keras.Sequential([keras.Input((4,)), *flat, kl.Dense(3)])
    flat.set_weights([*inner.get_weights() * 2, *head.get_weights()])
    data = rng.normal(size=(10, 4)), rng.integers(3, size=10)
    ours, theirs = (
        complexity_measures(network, *data, measures="Jac-Norm").values["Jac-Norm"]
        for network in (model, flat)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
