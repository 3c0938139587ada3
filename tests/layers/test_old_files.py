"""Files of the release that kept one singular vector a kernel."""

import pathlib

import keras
import numpy as np
import pytest

from keras_spectral.layers import SpectralNormalization, StableRankNormalization

DATA = pathlib.Path(__file__).parent / "data"


def network(**arguments):
    """The network that wrote the files, in the form that is the default now."""
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            SpectralNormalization(
                keras.layers.Conv2D(4, 3, name="conv"), bound=2.0, **arguments
            ),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            StableRankNormalization(
                keras.layers.Dense(6, name="hidden"),
                stable_rank_ratio=0.5,
                **arguments,
            ),
            SpectralNormalization(keras.layers.Dense(3, name="head"), **arguments),
        ]
    )


def wrappers(model):
    return [layer for layer in model.layers if hasattr(layer, "norm_states")]


def stored():
    """Return the weights that the old release gave, x, and its outputs for x."""
    with np.load(DATA / "one_vector_trained.npz") as arrays:
        count = sum(name.startswith("arr_") for name in arrays)
        weights = [arrays[f"arr_{index}"] for index in range(count)]
        return weights, arrays["x"], arrays["outputs"]


def check_bounds(model):
    for layer in wrappers(model):
        effective = layer.effective_kernel().numpy().astype("float64")
        norm = np.linalg.norm(effective.reshape(-1, effective.shape[-1]), 2)
        assert norm == pytest.approx(layer.bound, rel=1e-3)


def test_a_model_file_keeps_its_method_and_its_outputs():
    model = keras.models.load_model(DATA / "one_vector_trained.keras")
    weights, x, outputs = stored()
    assert {layer.method for layer in wrappers(model)} == {"power_iteration"}
    for ours, old in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(ours, old)
    np.testing.assert_allclose(model(x), outputs, atol=1e-6)


def test_it_trains_on_and_saves_again(tmp_path):
    model = keras.models.load_model(DATA / "one_vector_trained.keras")
    _, x, _ = stored()
    before = [int(layer.norm_states[0].updates) for layer in wrappers(model)]
    model.fit(x, np.zeros(len(x)), batch_size=2, verbose=0)
    after = [int(layer.norm_states[0].updates) for layer in wrappers(model)]
    assert [b + 2 for b in before] == after
    model.save(tmp_path / "again.keras")
    again = keras.models.load_model(tmp_path / "again.keras")
    np.testing.assert_array_equal(again(x), model(x))


@pytest.mark.parametrize("name", ["trained", "untrained"])
def test_a_weights_file_starts_the_block(name):
    model = network()
    model.load_weights(DATA / f"one_vector_{name}.weights.h5")
    check_bounds(model)
    # Twelve steps of training, or none: the count is the file's.
    updates = {int(layer.norm_states[0].updates) for layer in wrappers(model)}
    assert updates == {12 if name == "trained" else 0}
    if name == "trained":
        weights, _, _ = stored()
        # Kernel, bias, u, v and the number of updates: the first two are the file's.
        for layer, index in zip(wrappers(model), (0, 5, 10), strict=True):
            np.testing.assert_array_equal(layer.kernel, weights[index])
            np.testing.assert_array_equal(layer.layer.bias, weights[index + 1])


def test_a_weights_file_in_one_vector_is_taken_as_it_is():
    model = network(method="power_iteration")
    model.load_weights(DATA / "one_vector_trained.weights.h5")
    _, x, outputs = stored()
    np.testing.assert_allclose(model(x), outputs, atol=1e-6)


def test_weights_of_layers_start_the_block():
    model = network()
    weights, _, _ = stored()
    given = iter(weights)
    for layer in wrappers(model):
        # Kernel, bias, u, v and the number of updates.
        old = [next(given) for _ in range(5)]
        layer.set_weights(old)
        np.testing.assert_array_equal(layer.kernel, old[0])
    assert next(given, None) is None
    check_bounds(model)


@pytest.mark.parametrize("way", ["list", "file"])
def test_one_vector_starts_a_wide_block(way, rng, tmp_path):
    """As the old files do, whose kernels are so small that they are factored."""

    def wide(**arguments):
        layer = SpectralNormalization(keras.layers.Dense(50), **arguments)
        return keras.Sequential([keras.Input((60,)), layer])

    old, new = wide(method="power_iteration"), wide()
    old.layers[-1].kernel.assign(rng.standard_normal((60, 50)))
    if way == "list":
        assert len(new.weights) > len(old.weights)
        new.layers[-1].set_weights(old.layers[-1].get_weights())
    else:
        old.save_weights(tmp_path / "old.weights.h5")
        new.load_weights(tmp_path / "old.weights.h5")
    np.testing.assert_array_equal(new.layers[-1].kernel, old.layers[-1].kernel)
    check_bounds(new)


def test_other_lists_are_refused_as_keras_does():
    layer = network().layers[-1]
    with pytest.raises(ValueError, match="weights"):
        layer.set_weights(layer.get_weights()[:-2])
