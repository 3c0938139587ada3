"""The measures on every backend, against NumPy and against torch's autograd."""

import keras
import numpy as np
import pytest
from keras import layers as kl

from keras_spectral import measures
from keras_spectral.theory import low_rank_error_bound

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def case():
    """A residual network with normalization, its twin in torch, inputs and labels."""
    rng = np.random.default_rng(0)
    x = keras.Input((6,))
    h = kl.Dense(8, name="a")(x)
    h = kl.ReLU(name="h1")(kl.BatchNormalization(name="bn")(h))
    h = kl.Add(name="h2")([h, kl.Dense(8, "tanh", name="b")(h)])
    model = keras.Model(x, kl.Dense(3, name="c")(h))
    for weight in model.weights:
        weight.assign(rng.uniform(0.1, 1, size=weight.shape) * rng.choice([-1, 1]))
    norm = model.get_layer("bn")
    norm.moving_variance.assign(rng.uniform(0.5, 2, size=8))

    def get(name, part):
        array = keras.ops.convert_to_numpy(getattr(model.get_layer(name), part))
        return torch.tensor(array.astype("float64"))

    def twin(x):
        scale = get("bn", "gamma") / torch.sqrt(get("bn", "moving_variance") + 1e-3)
        h = x @ get("a", "kernel") + get("a", "bias") - get("bn", "moving_mean")
        first = torch.relu(h * scale + get("bn", "beta"))
        second = first + torch.tanh(first @ get("b", "kernel") + get("b", "bias"))
        return first, second, second @ get("c", "kernel") + get("c", "bias")

    data = rng.normal(size=(10, 6))
    labels = twin(torch.tensor(data))[2].argmax(1).numpy()
    labels[:2] = (labels[:2] + 1) % 3
    return model, twin, data, labels


def test_complexity(case):
    model, twin, x, y = case
    found = measures.complexity_measures(model, x, y, batch_size=4)
    assert found.misclassified == 2
    for at in range(2, 10):
        z = twin(torch.tensor(x[at : at + 1]))[2][0]
        others = [j for j in range(3) if j != y[at]]
        gamma = z[y[at]] - z[others].max()
        assert found.values["margin"][at] == pytest.approx(float(gamma), rel=1e-3)
        # The hidden layers one after the other, what stands beside them is fixed.
        total = 0.0
        for name in ("h1", "h2"):
            first, second, _ = twin(torch.tensor(x[at : at + 1]))
            h = (first if name == "h1" else second).detach().requires_grad_()
            kernel, bias = (
                torch.tensor(np.asarray(keras.ops.convert_to_numpy(w), "float64"))
                for w in model.get_layer("b").weights
            )
            top = h + torch.tanh(h @ kernel + bias) if name == "h1" else h
            kernel, bias = (
                torch.tensor(np.asarray(keras.ops.convert_to_numpy(w), "float64"))
                for w in model.get_layer("c").weights
            )
            z = (top @ kernel + bias)[0]
            (slope,) = torch.autograd.grad(z[y[at]] - z[others].max(), h)
            total += float(h.detach().norm() * slope.norm())
        expected = np.log(total / float(gamma))
        assert found.values["Jac-Norm"][at] == pytest.approx(expected, abs=2e-3)
    assert np.isnan(found.values["Jac-Norm"][:2]).all()
    assert [row.folded for row in found.layers] == ["bn", "", ""]


def test_jacobians(case):
    model, twin, x, _ = case
    found = measures.jacobian_norms(model, x, batch_size=4).values["Jacobian norm"]
    for at in range(10):
        point = torch.tensor(x[at])
        jacobian = torch.autograd.functional.jacobian(lambda x: twin(x)[2], point)
        expected = float(torch.linalg.matrix_norm(jacobian, 2))
        assert found[at] == pytest.approx(expected, rel=1e-3)


def test_pairs(case):
    model, twin, x, y = case
    z = twin(torch.tensor(x))[2].numpy()
    ratios = [
        np.linalg.norm(z[i] - z[j]) / np.linalg.norm(x[i] - x[j])
        for i in range(10)
        for j in range(i)
    ]
    found = measures.empirical_lipschitz(
        model, x, labels=y, pairs=["real", "same class"], batch_size=4
    )
    assert found[0].maximum == pytest.approx(max(ratios), rel=1e-3)
    assert found[0].minimum == pytest.approx(min(ratios), rel=1e-2, abs=1e-4)
    rows = measures.segment_norms(model, x[:5], x[5:], points=65)
    for at, row in enumerate(rows):
        expected = np.linalg.norm(z[at] - z[at + 5]) / np.linalg.norm(x[at] - x[at + 5])
        assert row.ratio == pytest.approx(expected, rel=1e-3)
        assert row.ratio <= row.mean * 1.05 <= row.maximum * 1.05


def test_noise(case):
    model, twin, x, _ = case
    found = measures.noise_sensitivity(model, x, draws=300)
    random = np.random.default_rng(7)
    z = twin(torch.tensor(x))[2].numpy()
    eta = random.normal(size=(300, 1, 6)) * np.linalg.norm(x, axis=1)[None, :, None]
    moved = twin(torch.tensor(x + eta))[2].numpy()
    ratios = ((moved - z) ** 2).sum(2) / (z**2).sum(1)
    error = np.hypot(found.standard_errors, ratios.std(0) / np.sqrt(300))
    difference = np.abs(found.values["noise sensitivity"] - ratios.mean(0))
    assert (difference < 4.5 * error).all()


def test_the_operator_of_a_convolution():
    layers = [kl.Conv2D(3, 3, strides=2, name="conv"), kl.ReLU(), kl.Flatten()]
    model = keras.Sequential([keras.Input((7, 7, 2)), *layers, kl.Dense(3, name="fc")])
    basis = np.eye(98, dtype="float32").reshape(-1, 7, 7, 2)
    w = keras.ops.convert_to_numpy(layers[0](basis)).reshape(98, -1).T
    x = np.random.default_rng(0).normal(size=(4, 7, 7, 2))
    found = measures.complexity_measures(
        model, x, [0] * 4, measures="Spec-L1", norm="operator"
    )
    row = found.layers[0]
    assert row.spectral_norm == pytest.approx(np.linalg.norm(w, 2), rel=1e-4)
    assert row.frobenius_norm == pytest.approx(np.linalg.norm(w), rel=1e-4)
    assert row.norm_21 == pytest.approx(np.linalg.norm(w, axis=1).sum(), rel=1e-4)


def test_alignment(case):
    """Of the parts x to h1, the block h1 to h2, and h2 to the outputs."""
    model, twin, x, _ = case
    found = measures.alignment(model, x[:4], batch_size=4)
    names = ["a to b", "b to c", "whole network", "product bound"]
    assert [row.name for row in found] == names
    for at in range(4):
        point = torch.tensor(x[at])
        # J_2 J_1 and J_3 J_2 J_1; the factors are what makes the one of the other.
        to_first, to_second, whole = (
            torch.autograd.functional.jacobian(lambda x, i=i: twin(x)[i], point)
            for i in range(3)
        )
        head = get_kernel(model, "c").T
        h = twin(point)[0]
        slope = 1 - torch.tanh(h @ get_kernel(model, "b") + get_kernel(model, "b", 1))
        slope = slope * (2 - slope)
        block = torch.eye(8, dtype=h.dtype) + slope[:, None] * get_kernel(model, "b").T
        torch.testing.assert_close(block @ to_first, to_second)
        one, two, three, pair, last, all_of = (
            float(torch.linalg.matrix_norm(j, 2))
            for j in (to_first, block, head, to_second, head @ block, whole)
        )
        expected = np.log([pair / one / two, last / two / three])
        actual = [found.values[name][at] for name in names[:2]]
        np.testing.assert_allclose(actual, expected, atol=2e-3)
        expected = np.log(all_of / one / two / three)
        assert found.values["whole network"][at] == pytest.approx(expected, abs=2e-3)
    assert (found.values["product bound"] < found.values["whole network"]).all()


def get_kernel(model, name, index=0):
    array = keras.ops.convert_to_numpy(model.get_layer(name).weights[index])
    return torch.tensor(array.astype("float64"))


def test_low_rank():
    rng = np.random.default_rng(0)
    layers = [kl.Dense(n, "relu", use_bias=False) for n in (7, 6, 5)]
    model = keras.Sequential([keras.Input((4,)), *layers])
    kernels = [rng.normal(size=w.shape) for w in model.get_weights()]
    model.set_weights(kernels)
    bound = low_rank_error_bound(model, 2, 1.0).bound
    values = [np.linalg.svd(kernel, compute_uv=False) for kernel in kernels]
    product = np.prod([v[0] for v in values])
    expected = sum(v[2] / v[0] for v in values) * product
    assert bound == pytest.approx(expected, rel=1e-5)
