"""What must hold on TensorFlow, JAX and torch alike."""

import functools

import keras
import numpy as np
import pytest

from keras_spectral.layers import SpectralNormalization, StableRankNormalization
from tests.layers.reference import stable_rank

WRAPPERS = [
    SpectralNormalization,
    functools.partial(SpectralNormalization, norm="operator"),
    functools.partial(StableRankNormalization, stable_rank_ratio=0.4),
    functools.partial(
        StableRankNormalization,
        power_iterations=3,
        stable_rank_ratio=0.4,
        norm="operator",
    ),
]


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_fit_save_load(wrap, rng, tmp_path):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            wrap(keras.layers.Conv2D(6, 3, strides=2, padding="same", name="conv")),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            wrap(keras.layers.Dense(5, name="head")),
        ]
    )
    x = rng.standard_normal((64, 8, 8, 3)).astype("float32")
    y = np.argmax(x[:, :5, 0, 0], axis=1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    head = model.layers[-1]
    before = keras.ops.convert_to_numpy(head.effective_kernel())
    assert 1 - 1e-5 <= np.linalg.norm(before, 2) <= 1.05
    model.compile(keras.optimizers.Adam(0.005), loss)
    history = model.fit(x, y, batch_size=16, epochs=12, verbose=0).history["loss"]
    assert history[-1] < history[0]
    assert int(head.norm_states[0].updates) == 48
    # u and v are those of the last step, before its update of the kernel.
    for _ in range(40):
        model(x, training=True)
    effective = keras.ops.convert_to_numpy(head.effective_kernel())
    assert np.linalg.norm(effective, 2) == pytest.approx(1, rel=0.01)
    if hasattr(head, "stable_rank"):
        assert stable_rank(effective) <= 2.0 * 1.1
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6
    )


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_stateless_call_is_what_jax_trains_with(wrap, rng):
    """The outer scope's values are used, and the state comes back."""
    if keras.backend.backend() == "torch":
        pytest.skip("torch keeps state in place; Keras trains it without scopes")
    layer = wrap(keras.layers.Dense(5))
    x = rng.standard_normal((4, 7)).astype("float32")
    layer.build((None, 7))
    expected = keras.ops.convert_to_numpy(layer(x))
    trainable = [v.value for v in layer.trainable_variables]
    trainable[1] = trainable[1] + 100.0
    state = [v.value for v in layer.non_trainable_variables]
    outputs, new_state = layer.stateless_call(trainable, state, x, training=False)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(outputs), expected + 100, rtol=1e-5
    )
    _, new_state = layer.stateless_call(trainable, state, x, training=True)
    assert int(new_state[-1]) == 1
    assert int(layer.norm_states[0].updates) == 0
