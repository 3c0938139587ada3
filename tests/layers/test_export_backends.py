"""Converged kernels on TensorFlow, JAX and torch: norms, signs, files, NaN."""

import functools

import keras
import numpy as np
import pytest
from keras import layers as kl

import keras_spectral as ks
from keras_spectral import compression
from keras_spectral.layers import (
    OptimalSpectralNormalization,
    SpectralNormalization,
    StableRankNormalization,
)
from tests.layers.reference import convolution_matrix

BOUND = 0.7
WRAPPERS = {
    "SN": SpectralNormalization,
    "one vector": functools.partial(SpectralNormalization, method="power_iteration"),
    "SRN": functools.partial(StableRankNormalization, stable_rank_ratio=0.4),
    "SRN, exact": functools.partial(
        StableRankNormalization, stable_rank_ratio=0.4, gradient="exact"
    ),
    "optimal": OptimalSpectralNormalization,
}


def network(wrap, rng, **arguments):
    """A model of kernels that its singular vectors were not found on."""
    conv = wrap(kl.Conv2D(4, 3, padding="same", name="conv"), bound=BOUND, **arguments)
    head = wrap(kl.Dense(6, name="head"), bound=BOUND)
    model = keras.Sequential([keras.Input((5, 5, 2)), conv, kl.Flatten(), head])
    for layer in (conv, head):
        layer.kernel.assign(rng.standard_normal(layer.kernel.shape))
    return model


def kernel(model, name):
    layer = model.get_layer(name)
    return np.asarray(keras.ops.convert_to_numpy(layer.kernel), "float64")


@pytest.mark.parametrize("operator", [False, True])
@pytest.mark.parametrize("wrap", WRAPPERS)
def test_exports_have_the_bound(wrap, operator, rng, tmp_path):
    if operator and wrap == "optimal":
        pytest.skip("It clips the flattened kernel only.")
    arguments = {"norm": "operator"} if operator else {}
    model = network(WRAPPERS[wrap], rng, **arguments)
    plain = ks.unwrap(model)
    matrix = kernel(plain, "conv").reshape(-1, 4)
    if operator:
        matrix = convolution_matrix(kernel(plain, "conv"), (5, 5), "same")
    tolerance = 1e-4 if operator else 1e-6
    assert np.linalg.norm(matrix, 2) == pytest.approx(BOUND, rel=tolerance)
    assert np.linalg.norm(kernel(plain, "head"), 2) == pytest.approx(BOUND, rel=1e-6)
    path = tmp_path / "model.safetensors"
    compression.save_compressed(model, path)
    loaded = compression.load_compressed(path)
    for one, other in zip(loaded.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert type(loaded.layers[0]) is kl.Conv2D
    x = rng.standard_normal((3, 5, 5, 2)).astype("float32")
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), plain.predict(x, verbose=0)
    )


@pytest.mark.parametrize("ratio", [None, 0.4])
@pytest.mark.parametrize("sign", [1, -1])
def test_an_export_has_the_sign_of_the_layer(sign, ratio, rng, tmp_path):
    layer = SpectralNormalization(kl.Dense(6, name="head"))
    if ratio:
        layer = StableRankNormalization(kl.Dense(6, name="head"), ratio)
    model = keras.Sequential([keras.Input((9,)), layer])
    u, s, v = np.linalg.svd(keras.ops.convert_to_numpy(layer.kernel))
    layer.load_vectors(sign * v[0], u[:, 0], "v_first")
    x = rng.standard_normal((4, 9)).astype("float32")
    expected = model.predict(x, verbose=0)
    assert sign * np.sum(keras.ops.convert_to_numpy(layer.effective_kernel())
                         * keras.ops.convert_to_numpy(layer.kernel)) > 0  # fmt: skip
    model.save(tmp_path / "model.keras")
    for wrapped in (model, keras.models.load_model(tmp_path / "model.keras")):
        outputs = ks.unwrap(wrapped).predict(x, verbose=0)
        np.testing.assert_allclose(outputs, expected, atol=1e-5)


def test_the_weights_of_an_import_start_a_block(rng):
    def make():
        layer = SpectralNormalization(kl.Dense(40, name="head"))
        return keras.Sequential([keras.Input((60,)), layer])

    model, block = make(), make()
    vectors = [x / np.linalg.norm(x) for x in map(rng.standard_normal, (40, 60))]
    model.layers[0].load_vectors(*vectors, "v_first")
    model.compile(keras.optimizers.SGD(0.1), "mse")
    x, y = rng.standard_normal((16, 60)), rng.standard_normal((16, 40))
    for epochs in (0, 5):
        if epochs:
            model.fit(x, y, epochs=epochs, batch_size=4, verbose=0)
        block.set_weights(model.get_weights())
        effective = keras.ops.convert_to_numpy(block.layers[0].effective_kernel())
        assert np.linalg.norm(effective, 2) == pytest.approx(1, rel=1e-3)


def test_a_broken_kernel_is_named(rng, tmp_path):
    model = network(SpectralNormalization, rng)
    broken = kernel(model, "head")
    broken[0, :2] = np.nan, np.inf
    model.get_layer("head").kernel.assign(broken)
    path = tmp_path / "model.safetensors"
    for export in (
        ks.unwrap,
        ks.convert.to_torch,
        lambda model: compression.save_compressed(model, path),
    ):
        with pytest.raises(ValueError, match="'kernel' of layer 'head', where 2 of"):
            export(model)
    assert not path.exists()
