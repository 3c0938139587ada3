"""Jacobians at points, Proposition B.1, appendix C, and the example of B.2."""

import keras
import numpy as np
import pytest
from keras import layers as kl

from keras_spectral.measures import (
    alignment,
    empirical_lipschitz,
    jacobian_norms,
    lipschitz_bound,
    segment_norms,
)


def network(kernels, activation=None):
    layers = [kl.Dense(k.shape[1], activation, use_bias=False) for k in kernels]
    layers[-1].activation = keras.activations.linear
    model = keras.Sequential([keras.Input((len(kernels[0]),)), *layers])
    model.set_weights(kernels)
    return model


@pytest.mark.parametrize("sizes", [(70, 80), (80, 66), (5, 90), (90, 4)])
def test_linear_networks(rng, sizes):
    kernel = rng.normal(size=sizes)
    found = jacobian_norms(network([kernel]), rng.normal(size=(3, sizes[0])))
    # Both sides above 64: power iteration, from below.
    rtol = 0.02 if min(sizes) > 64 else 1e-5
    norm = np.linalg.norm(kernel, 2)
    np.testing.assert_allclose(found.values["Jacobian norm"], norm, rtol=rtol)
    assert found[0].maximum <= norm * (1 + 1e-5)
    assert ("power iterations" in found.caption) == (min(sizes) > 64)


def test_the_gradient_of_a_scalar(rng):
    kernels = [rng.normal(size=(5, 8)), rng.normal(size=(8, 1))]
    model, x = network(kernels, "tanh"), rng.normal(size=(7, 5))
    hidden = np.tanh(x @ kernels[0])
    slopes = ((1 - hidden**2) * kernels[1][:, 0]) @ kernels[0].T
    for order, dual in ((1, np.inf), (2, 2), (np.inf, 1)):
        found = jacobian_norms(model, x, order=order, batch_size=3)
        expected = np.linalg.norm(slopes, dual, axis=1)
        np.testing.assert_allclose(
            found.values["Jacobian norm"], expected, rtol=1e-4, atol=1e-6
        )


def test_order_one_of_several_outputs(rng):
    kernel = rng.normal(size=(5, 3))
    found = jacobian_norms(network([kernel]), np.ones((1, 5)), order=1)
    # The largest |J v| over |v|_1 = 1 is at a corner: the largest column.
    expected = np.linalg.norm(kernel, axis=1).max()
    assert found[0].maximum == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="`order` must be 1 or 2"):
        jacobian_norms(network([kernel]), np.ones((1, 5)), order=np.inf)


@pytest.mark.parametrize("order", [1, 2, np.inf])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_proposition_b_1(rng, order, activation):
    kernels = [rng.normal(size=(5, 20)), rng.normal(size=(20, 1))]
    model, (x, y) = network(kernels, activation), rng.normal(size=(2, 50, 5))
    rows = segment_norms(model, x, y, points=201, order=order)
    assert len(rows) == 50
    for row in rows:
        assert row.ratio <= row.mean * 1.02 and row.mean <= row.maximum
    ratios = [row.ratio for row in rows]
    pairs = np.abs(np.subtract(*(model.predict(z, verbose=0) for z in (x, y)))[:, 0])
    expected = pairs / np.linalg.norm(x - y, ord=order, axis=1)
    np.testing.assert_allclose(ratios, expected, rtol=1e-3, atol=1e-5)


def test_a_vector_of_outputs_keeps_b_1(rng):
    kernels = [rng.normal(size=(5, 20)), rng.normal(size=(20, 4))]
    rows = segment_norms(network(kernels, "relu"), *rng.normal(size=(2, 30, 5)))
    assert all(row.ratio <= row.mean * 1.02 for row in rows)


def test_the_two_layer_example():
    """B.2: reducing the rank leaves the product of norms, and lowers pairs' ratios."""
    rng = np.random.default_rng(0)
    u, v, w = (np.linalg.qr(rng.normal(size=(6, 6)))[0] for _ in range(3))
    sigma, lam = np.array([3, 2.5, 2, 1, 0.5, 0.1]), np.array([2, 1.5, 1, 1, 1, 0.5])
    x = rng.normal(size=(200, 6))

    def measured(sigma, aligned=False):
        # W1 = sum sigma_j u_j w_j', W2 = sum lam_i q_i v_i'.
        v_in = u if aligned else v
        w1, w2 = (u * sigma) @ w.T, (w * lam) @ v_in.T
        model = network([w1.T, w2.T])
        pairs = empirical_lipschitz(model, x)[0]
        local = jacobian_norms(model, x[:2])[0].maximum
        assert local == pytest.approx(np.linalg.norm(w2 @ w1, 2), rel=1e-5)
        product = lipschitz_bound(model).bound
        assert product == pytest.approx(sigma[0] * lam[0], rel=1e-6)
        total = sum(
            lam[i]
            * sigma[j]
            * np.outer(w[:, i], v_in[:, i])
            @ np.outer(u[:, j], w[:, j])
            for i in range(6)
            for j in range(6)
        )
        np.testing.assert_allclose(total, w2 @ w1, atol=1e-12)
        assert pairs.maximum <= local * (1 + 1e-5) and local <= product * (1 + 1e-6)
        return pairs.median, local, product

    whole = measured(sigma)
    cut = measured(np.where(np.arange(6) < 1, sigma, 0))
    assert cut[2] == pytest.approx(whole[2]) and cut[0] < 0.8 * whole[0]
    assert whole[1] < 0.95 * whole[2]
    aligned = measured(sigma, aligned=True)
    assert aligned[1] == pytest.approx(aligned[2], rel=1e-5)


def test_alignment_by_hand(rng):
    kernels = [rng.normal(size=size) for size in ((5, 7), (7, 6), (6, 3))]
    model, x = network(kernels, "relu"), rng.normal(size=(6, 5))
    found = alignment(model, x, batch_size=4)
    names = [layer.name for layer in model.layers]
    assert [row.name for row in found] == [
        f"{names[0]} to {names[1]}",
        f"{names[1]} to {names[2]}",
        "whole network",
        "product bound",
    ]
    for at in range(6):
        h, jacobians = x[at], []
        for kernel in kernels[:-1]:
            z = h @ kernel
            jacobians.append((kernel * (z > 0)).T)
            h = np.maximum(z, 0)
        jacobians.append(kernels[-1].T)
        norms = [np.linalg.norm(j, 2) for j in jacobians]
        whole = np.linalg.norm(jacobians[2] @ jacobians[1] @ jacobians[0], 2)
        pairs = [
            np.linalg.norm(jacobians[i + 1] @ jacobians[i], 2) / norms[i] / norms[i + 1]
            for i in range(2)
        ]
        product = np.prod([np.linalg.norm(kernel, 2) for kernel in kernels])
        expected = np.log([*pairs, whole / np.prod(norms), whole / product])
        actual = [values[at] for values in found.values.values()]
        np.testing.assert_allclose(actual, expected, atol=1e-4)
    # Equations 23 and 24.
    assert (found.values["product bound"] <= found.values["whole network"] + 1e-5).all()
    assert all(row.maximum <= 1e-5 for row in found)


def test_the_product_bound_is_no_less_than_the_norm(rng):
    """G11, of two layers: |W2| |W1| beside what power iteration finds of W2 W1."""
    kernels = [rng.normal(size=(70, 80)), rng.normal(size=(80, 90))]
    model = network(kernels)
    local = jacobian_norms(model, rng.normal(size=(2, 70)))[0]
    truth = np.linalg.norm(kernels[0] @ kernels[1], 2)
    assert 0.95 * truth < local.minimum and local.maximum <= truth * (1 + 1e-5)
    assert lipschitz_bound(model).bound > truth


def test_labels_stay_as_they_are(rng):
    """A projection discriminator: the gradient is the embedding of its label."""
    x, label = keras.Input((4,)), keras.Input((), dtype="int32")
    embedding = kl.Embedding(3, 4)
    model = keras.Model([x, label], kl.Dot(-1)([x, embedding(label)]))
    labels, (first, second) = np.array([0, 2, 1]), rng.normal(size=(2, 3, 4))
    found = jacobian_norms(model, [first, labels], batch_size=2)
    rows = embedding.get_weights()[0][labels]
    expected = np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(found.values["Jacobian norm"], expected, rtol=1e-5)
    pairs = segment_norms(model, [first, labels], [second, labels], points=2)
    np.testing.assert_allclose([row.maximum for row in pairs], expected, rtol=1e-5)
    slopes = np.abs(((first - second) * rows).sum(1))
    ratios = slopes / np.linalg.norm(first - second, axis=1)
    np.testing.assert_allclose([row.ratio for row in pairs], ratios, rtol=1e-4)
    with pytest.raises(ValueError, match="must agree in what are no floats"):
        segment_norms(model, [first, labels], [second, labels[::-1]])


def test_alignment_of_blocks_by_hand(rng):
    """J_f is the product of the blocks', each with what goes around it."""
    stem, a, b, head = (rng.normal(size=s) for s in ((5, 6), (6, 4), (4, 6), (6, 3)))
    scaled = inputs = keras.Input((5,))
    for layer in (kl.Rescaling(3.0), kl.Dense(6, "relu", use_bias=False, name="stem")):
        scaled = layer(scaled)
    one = kl.Dense(4, "relu", use_bias=False, name="one")
    y = kl.Dense(6, use_bias=False, name="two")(one(scaled))
    y = kl.ReLU()(kl.Add()([scaled, y]))
    outputs = kl.Dense(3, use_bias=False, name="head")(y)
    model = keras.Model(inputs, outputs)
    model.set_weights([stem, a, b, head])
    x = rng.normal(size=(4, 5))
    found = alignment(model, x)
    names = ["stem to one", "one to head", "whole network", "product bound"]
    assert [row.name for row in found] == names
    assert {row.samples for row in found} == {4}
    for at in range(4):
        h = np.maximum(3 * x[at] @ stem, 0)
        inside = np.maximum(h @ a, 0)
        after = h + inside @ b
        parts = [
            3 * stem * (h > 0),
            (np.eye(6) + a * (inside > 0) @ b) * (after > 0),
            head,
        ]
        norms = [np.linalg.norm(part, 2) for part in parts]
        whole = np.linalg.norm(parts[0] @ parts[1] @ parts[2], 2)
        pairs = [
            np.linalg.norm(parts[i] @ parts[i + 1], 2) / norms[i] / norms[i + 1]
            for i in range(2)
        ]
        sides = [np.linalg.norm(kernel, 2) for kernel in (stem, a, b, head)]
        bound = 3 * sides[0] * (1 + sides[1] * sides[2]) * sides[3]
        expected = np.log([*pairs, whole / np.prod(norms), whole / bound])
        actual = [values[at] for values in found.values.values()]
        np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_alignment_where_layers_are_used_again(rng):
    """Each use is a neighbour: of one matrix, |K K| / |K|^2."""
    kernel, inputs = rng.normal(size=(4, 4)), keras.Input((4,))
    inner = keras.Sequential([keras.Input((4,)), kl.Dense(4, None, False, name="k")])
    model = keras.Model(inputs, inner(inner(inner(inputs))))
    model.set_weights([kernel])
    found = alignment(model, rng.normal(size=(2, 4)))
    norm = np.linalg.norm(kernel, 2)
    pair = np.log(np.linalg.norm(kernel @ kernel, 2) / norm**2)
    whole = np.log(np.linalg.norm(np.linalg.matrix_power(kernel, 3), 2) / norm**3)
    expected = {"k to k": pair, "k to k (2)": pair, "whole network": whole}
    for name, value in expected.items():
        np.testing.assert_allclose(found.values[name], value, atol=1e-5)


def test_alignment_where_there_is_no_bound(rng):
    """Labels stay as they are; their embedding has no Lipschitz constant."""
    x, label = keras.Input((4,)), keras.Input((), dtype="int32")
    h = kl.Dense(5, use_bias=False, name="one")(x)
    h = kl.Concatenate()([h, kl.Embedding(3, 2, name="class")(label)])
    model = keras.Model([x, label], kl.Dense(3, use_bias=False, name="two")(h))
    first, _, second = model.get_weights()
    found = alignment(model, [rng.normal(size=(3, 4)), np.arange(3)])
    assert [row.name for row in found] == ["one to two", "whole network"]
    assert "No product bound" in found.caption and "'class'" in found.caption
    norms = [np.linalg.norm(w, 2) for w in (first, second, first @ second[:5])]
    expected = np.log(norms[2] / norms[0] / norms[1])
    np.testing.assert_allclose(found.values["one to two"], expected, atol=1e-5)


def test_branches_side_by_side_have_no_alignment(rng):
    x = keras.Input((4,))
    branches = [kl.Dense(4, name="left")(x), kl.Dense(4, name="right")(x)]
    model = keras.Model(x, kl.Add()(branches))
    with pytest.raises(ValueError, match="all paths go through.*left, right have none"):
        alignment(model, rng.normal(size=(2, 4)))


def test_bad_pairs(rng):
    model = network([rng.normal(size=(5, 3))])
    with pytest.raises(ValueError, match="`x` and `y` must be as many"):
        segment_norms(model, np.zeros((2, 5)), np.zeros((3, 5)))
    with pytest.raises(ValueError, match="`y` must hold samples of shape"):
        segment_norms(model, np.zeros((2, 5)), np.zeros((2, 4)))
    x, y = keras.Input((4,)), keras.Input((4,))
    both = keras.Model([x, y], kl.Add()([x, y]))
    with pytest.raises(ValueError, match="one input of floats"):
        jacobian_norms(both, [np.zeros((1, 4))] * 2)
