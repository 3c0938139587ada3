"""The bounds beside tighter ones that nobody computes for large networks."""

import itertools

import keras
import numpy as np
import pytest
import scipy.optimize
from keras import layers as kl

from keras_spectral.measures import lipschitz_bound


def semidefinite_bound(first, second):
    """LipSDP-Neuron of one hidden layer with slopes in [0, 1], diagonal multipliers.

    For every T >= 0 with 2 T - W2'W2 > 0 the largest eigenvalue of
    W1' T (2 T - W2'W2)^-1 T W1 is a squared Lipschitz bound (Fazlyab et al. 2019, by
    the Schur complement of its matrix inequality); the least is searched for.
    """
    gram = second.T @ second

    def squared(logs):
        weights = np.diag(np.exp(logs))
        inner = 2 * weights - gram
        if np.linalg.eigvalsh(inner)[0] <= 1e-9:
            return 1e6
        moved = weights @ first
        return np.linalg.eigvalsh(moved.T @ np.linalg.solve(inner, moved))[-1]

    start = np.full(len(first), np.log(np.linalg.norm(gram, 2)))
    options = dict(maxiter=4000, xatol=1e-8, fatol=1e-10)
    for _ in range(3):
        found = scipy.optimize.minimize(
            squared, start, (), "Nelder-Mead", options=options
        )
        start = found.x
    return found.fun**0.5


@pytest.mark.parametrize("seed", range(4))
def test_masks_then_the_semidefinite_program_then_ours_then_the_product(seed):
    rng = np.random.default_rng(seed)
    first, second = rng.standard_normal((6, 4)), rng.standard_normal((3, 6))
    layers = [kl.Dense(6, "relu", use_bias=False), kl.Dense(3, use_bias=False)]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.set_weights([first.T, second.T])
    first, second = (w.T.astype("float64") for w in model.get_weights())
    masks = itertools.product((0.0, 1.0), repeat=6)
    attained = max(np.linalg.norm(second @ np.diag(m) @ first, 2) for m in masks)
    oracle = semidefinite_bound(first, second)
    merged = lipschitz_bound(model, method="merged").bound
    product = lipschitz_bound(model).bound
    assert attained <= oracle * (1 + 1e-9)
    assert oracle <= merged * (1 + 1e-9) and merged <= product * (1 + 1e-9)
    # On a ball in which every neuron may change, nothing below the oracle is sound.
    wide = lipschitz_bound(model, np.zeros((1, 4)), method="local", input_radius=1.0)
    assert oracle * (1 - 1e-9) <= wide.bound <= merged * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_no_mask_of_residual_and_concatenated_branches_exceeds_it(seed):
    """Every slope 0 or 1 of ten neurons, on branches that meet again twice."""
    rng = np.random.default_rng(seed)
    x = keras.Input((4,), dtype="float64")
    dense = [kl.Dense(n, use_bias=False, dtype="float64") for n in (5, 4, 5, 3)]
    relu = [kl.ReLU(dtype="float64") for _ in range(2)]
    y = kl.Add(dtype="float64")([x, dense[1](relu[0](dense[0](x)))])
    z = relu[1](dense[2](y))
    model = keras.Model(x, dense[3](kl.Concatenate(dtype="float64")([y, z, x])))
    weights = [rng.standard_normal(w.shape) for w in model.get_weights()]
    model.set_weights(weights)
    one, two, three, four = (layer.get_weights()[0].T for layer in dense)
    masks = np.array(list(itertools.product((0.0, 1.0), repeat=5)))
    first = np.eye(4) + np.einsum("ij,mj,jk->mik", two, masks, one)
    second = np.einsum("mj,jk,nkl->mnjl", masks, three, first)
    shape = (32, 32, 4, 4)
    parts = [np.broadcast_to(first, shape), second, np.broadcast_to(np.eye(4), shape)]
    attained = np.linalg.norm(four @ np.concatenate(parts, axis=2), 2, axis=(2, 3))
    merged = lipschitz_bound(model, method="merged").bound
    product = lipschitz_bound(model).bound
    assert attained.max() <= merged * (1 + 1e-9)
    assert merged <= 0.7 * product
    wide = lipschitz_bound(model, np.zeros((1, 4)), method="local", input_radius=1.0)
    assert attained.max() <= wide.bound * (1 + 1e-9)
