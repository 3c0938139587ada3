"""Noise sensitivity against its closed form for linear networks."""

import keras
import numpy as np
import pytest
from keras import layers as kl

from keras_spectral.measures import noise_sensitivity


def linear(kernels):
    layers = [kl.Dense(k.shape[1], use_bias=False) for k in kernels]
    model = keras.Sequential([keras.Input((len(kernels[0]),)), *layers])
    model.set_weights(kernels)
    return model


@pytest.mark.parametrize("noise", [1.0, 0.1])
def test_linear_networks(rng, noise):
    kernels = [rng.normal(size=(6, 5)), rng.normal(size=(5, 4))]
    w = (kernels[0] @ kernels[1]).T
    x = rng.normal(size=(8, 6))
    # The last is the leading singular vector, where it is the stable rank.
    x = np.concatenate([x, np.linalg.svd(w)[2][:1]])
    found = noise_sensitivity(linear(kernels), x, noise=noise, draws=4000)
    value = found.values["noise sensitivity"]
    norms = np.linalg.norm(x, axis=1) / np.linalg.norm(x @ w.T, axis=1)
    expected = noise**2 * (w**2).sum() * norms**2
    # Draws are shared by the samples: their errors go together.
    assert (np.abs(value - expected) < 4.5 * found.standard_errors).all()
    assert found.standard_errors.max() < 0.05 * expected.max()
    stable_rank = (w**2).sum() / np.linalg.norm(w, 2) ** 2
    assert expected[-1] == pytest.approx(noise**2 * stable_rank)
    assert (expected >= noise**2 * stable_rank * (1 - 1e-12)).all()
    assert found.maximum == value.max()


def test_the_standard_error_is_what_seeds_differ_by(rng):
    model, x = linear([rng.normal(size=(6, 5))]), rng.normal(size=(3, 6))
    found = [noise_sensitivity(model, x, draws=50, seed=seed) for seed in range(25)]
    spread = np.std([f.values["noise sensitivity"] for f in found], axis=0)
    error = np.mean([f.standard_errors for f in found], axis=0)
    np.testing.assert_allclose(spread, error, rtol=0.5)


def test_batches_change_nothing_and_zero_outputs_are_counted(rng):
    model = linear([rng.normal(size=(6, 5))])
    x = rng.normal(size=(7, 6))
    x[2] = 0
    whole = noise_sensitivity(model, x, draws=5)
    parts = noise_sensitivity(model, x, draws=5, batch_size=3)
    np.testing.assert_allclose(
        whole.values["noise sensitivity"], parts.values["noise sensitivity"], rtol=1e-4
    )
    assert whole[0].left_out == 1 and whole[0].samples == 6
    assert np.isnan(whole.values["noise sensitivity"][2])


def test_only_floats_move():
    """A discriminator that takes labels keeps them."""
    x, label = keras.Input((4,)), keras.Input((), dtype="int32")
    y = kl.Dot(-1)([x, kl.Embedding(3, 4, embeddings_initializer="ones")(label)])
    model = keras.Model([x, label], y)
    one = np.eye(4)[:1]
    found = noise_sensitivity(model, [one, np.zeros(1, int)], draws=4000)
    # f is the sum of the entries: E (sum eta)^2 / 1 = 4.
    assert abs(found.maximum - 4) < 4.5 * found.standard_errors[0]
