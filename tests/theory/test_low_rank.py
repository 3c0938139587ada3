"""Theorem 1 of the low-rank paper: truncation never exceeds it, and how loose it is."""

import keras
import numpy as np
import pytest
from keras import layers as kl

from keras_spectral.theory import low_rank_error_bound


def dense(widths=(6, 9, 8, 7, 4), seed=0):
    layers = [kl.Dense(width, "relu", use_bias=False) for width in widths[1:]]
    model = keras.Sequential([keras.Input((widths[0],)), *layers])
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=w.shape) / 2 for w in model.get_weights()])
    return model


def truncated(matrix, rank):
    u, s, v = np.linalg.svd(matrix.astype("float64"))
    size = min(rank, len(s))
    return (u[:, :size] * s[:size]) @ v[:size]


def run(kernels, x):
    for kernel in kernels:
        x = np.maximum(x @ kernel, 0)
    return x


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_truncation_never_exceeds_the_bound(rank):
    looseness = []
    for seed in range(4):
        model = dense(seed=seed)
        kernels = [w.astype("float64") for w in model.get_weights()]
        x = np.random.default_rng(seed).normal(size=(500, 6))
        largest = np.linalg.norm(x, axis=1).max()
        found = low_rank_error_bound(model, rank, largest)
        # By hand, in the corrected form: B_x sum e_i prod_(j != i) B_j.
        values = [np.linalg.svd(kernel, compute_uv=False) for kernel in kernels]
        norms = [v[0] for v in values]
        cut = [v[rank] if rank < len(v) else 0.0 for v in values]
        product = np.prod(norms)
        by_hand = largest * sum(
            e * product / b for e, b in zip(cut, norms, strict=True)
        )
        assert found.bound == pytest.approx(by_hand, rel=1e-10)
        moved = run(kernels, x) - run([truncated(k, rank) for k in kernels], x)
        error = np.linalg.norm(moved, axis=1).max()
        assert error <= found.bound
        looseness.append(found.bound / error)
    # As docs/measures.md says of it.
    print(f"rank {rank}: bound / error is {np.median(looseness):.1f} at the median")
    assert 10 < np.median(looseness) < 1000


def test_functional_and_nested_models():
    """The same layers, in a graph with an input of its own, and a model inside."""
    model = dense()
    inputs = keras.Input((6,))
    inner = keras.Sequential([keras.Input((6,)), *model.layers[:2]])
    x = inner(inputs)
    for layer in model.layers[2:]:
        x = layer(x)
    found = low_rank_error_bound(keras.Model(inputs, x), 2, 1.0)
    assert found.bound == low_rank_error_bound(model, 2, 1.0).bound


def test_it_is_attained_by_one_layer():
    """One layer, and an input along what is cut off: nothing is lost."""
    model = dense((5, 4))
    model.layers[0].activation = keras.activations.linear
    kernel = model.get_weights()[0].astype("float64")
    u, s, _ = np.linalg.svd(kernel)
    found = low_rank_error_bound(model, 2, 3.0)
    x = 3.0 * u[:, 2]
    assert np.linalg.norm(x @ kernel - x @ truncated(kernel, 2)) == pytest.approx(
        found.bound, rel=1e-10
    )
    assert found.bound == pytest.approx(3.0 * s[2], rel=1e-10)


def test_the_whole_rank_loses_nothing():
    assert low_rank_error_bound(dense(), 9, 2.0).bound == 0.0


def test_the_printed_product_is_below_what_happens():
    """With i for both indices prod_(j=1)^L B_i / B_i is B_i^(L-1)."""
    model = dense((2, 2, 2))
    kernels = [np.diag([10.0, 10.0]), np.diag([0.1, 0.1])]
    for layer, kernel in zip(model.layers, kernels, strict=True):
        layer.activation = keras.activations.linear
        layer.kernel.assign(kernel)
    # The second layer loses the value 0.1 of the norms 10 and 0.1.
    printed = 0.1 ** (2 - 1) * 0.1
    x = np.array([0.0, 1.0])
    error = np.abs(x @ kernels[0] @ (kernels[1] - np.diag([0.1, 0.0]))).max()
    assert printed == pytest.approx(0.01) and error == pytest.approx(1.0)
    found = low_rank_error_bound(model, {model.layers[1].name: 1}, 1.0)
    assert found.bound == pytest.approx(1.0)


def test_convolutions_are_bounded_as_operators():
    layers = [
        kl.Conv2D(5, 3, padding="same", activation="relu", use_bias=False),
        kl.MaxPooling2D(2),
        kl.Conv2D(4, 3, strides=2, activation="relu", use_bias=False),
        kl.Flatten(),
        kl.Dense(3, use_bias=False),
    ]
    model = keras.Sequential([keras.Input((10, 10, 2)), *layers])
    x = np.random.default_rng(0).normal(size=(200, 10, 10, 2))
    largest = np.linalg.norm(x.reshape(200, -1), axis=1).max()
    for rank in (1, 2, 3):
        found = low_rank_error_bound(model, rank, largest)
        assert [row.rank for row in found] == [min(rank, r.largest_rank) for r in found]
        copy = keras.models.clone_model(model)
        new = [
            truncated(w.reshape(-1, w.shape[-1]), rank).reshape(w.shape)
            for w in model.get_weights()
        ]
        copy.set_weights(new)
        moved = model.predict(x, verbose=0) - copy.predict(x, verbose=0)
        error = np.linalg.norm(moved, axis=1).max()
        assert 0 < error <= found.bound < 1000 * error
        same = found.model.predict(x, verbose=0)
        np.testing.assert_allclose(same, copy.predict(x, verbose=0), atol=1e-4)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (kl.Dense(3, bias_initializer="ones"), "no biases"),
        (kl.Activation("sigmoid"), "activations through zero"),
        (kl.BatchNormalization(beta_initializer="ones"), "no shifts"),
    ],
)
def test_what_does_not_keep_zero_is_refused(layer, reason):
    model = keras.Sequential([keras.Input((4,)), layer, kl.Dense(2, use_bias=False)])
    with pytest.raises(ValueError, match=reason) as raised:
        low_rank_error_bound(model, 1, 1.0)
    assert layer.name in str(raised.value)


def test_bad_arguments():
    model = dense()
    for ranks in (0, 1.5, {"nosuch": 1}):
        with pytest.raises(ValueError, match="`ranks`"):
            low_rank_error_bound(model, ranks, 1.0)
    with pytest.raises(ValueError, match="`input_norm`"):
        low_rank_error_bound(model, 1, 0.0)
    x = keras.Input((4,))
    branches = keras.Model(x, kl.Add()([kl.Dense(4, use_bias=False)(x), x]))
    with pytest.raises(ValueError, match="must be a chain"):
        low_rank_error_bound(branches, 1, 1.0)
