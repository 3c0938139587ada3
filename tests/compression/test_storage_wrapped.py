"""Compressed checkpoints of models in spectral wrappers: plain layers at the bound."""

import keras
import numpy as np
import pytest
from keras import layers as kl

import keras_spectral as ks
from keras_spectral import compression, zoo
from keras_spectral.layers import (
    OptimalSpectralNormalization,
    SpectralNormalization,
    StableRankNormalization,
    SVDDense,
)
from keras_spectral.layers.reparametrization import Reparametrization

BOUND = 0.7
WRAPPERS = {
    "block": lambda layer: SpectralNormalization(layer, BOUND),
    "one vector": lambda layer: SpectralNormalization(
        layer, BOUND, method="power_iteration"
    ),
    "exact": lambda layer: SpectralNormalization(layer, BOUND, method="exact"),
    "clip": lambda layer: SpectralNormalization(layer, BOUND, clip=True),
    "stable rank": lambda layer: StableRankNormalization(layer, 0.4, bound=BOUND),
    "optimal": lambda layer: OptimalSpectralNormalization(layer, BOUND),
}


def network(wrap, rng):
    """A model whose singular vectors are those of kernels that it no longer has."""
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            wrap(kl.Conv2D(5, 3, activation="relu", name="conv")),
            kl.BatchNormalization(),
            kl.Flatten(),
            wrap(kl.Dense(20, name="hidden")),
            kl.Dense(3, name="head"),
        ]
    )
    for layer in model.layers:
        if isinstance(layer, Reparametrization):
            layer.kernel.assign(rng.standard_normal(layer.kernel.shape))
            layer.layer.bias.assign(rng.standard_normal(layer.layer.bias.shape))
    # One step: files of untrained vectors are loaded with new ones.
    model(rng.standard_normal((4, 6, 6, 2)), training=True)
    return model


def norm(layer):
    kernel = np.asarray(layer.kernel, "float64")
    return np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), 2)


def wrappers(model):
    layers = model._flatten_layers()
    return [layer for layer in layers if isinstance(layer, Reparametrization)]


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_file_holds_converged_kernels(wrap, rng, path, tmp_path):
    model = network(WRAPPERS[wrap], rng)
    before = model.get_weights()
    rows = compression.save_compressed(model, path)
    loaded, plain = compression.load_compressed(path), ks.unwrap(model)
    assert not wrappers(loaded) and type(loaded.layers[0]) is kl.Conv2D
    for name in ("conv", "hidden"):
        assert norm(loaded.get_layer(name)) == pytest.approx(BOUND, rel=1e-6)
    for one, other in zip(loaded.weights, plain.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    x = rng.standard_normal((4, 6, 6, 2)).astype("float32")
    np.testing.assert_array_equal(loaded(x), plain(x))
    # The rows are of what is stored, and the model is as it was.
    assert [row.name for row in rows[:-2]] == [w.path for w in plain.weights]
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    # So is a model that Keras saved before.
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    compression.save_compressed(again, tmp_path / "again.safetensors")
    again = compression.load_compressed(tmp_path / "again.safetensors")
    np.testing.assert_array_equal(again(x), plain(x))


def test_a_graph_and_an_operator_norm(rng, path):
    wrapped = zoo.cifar_resnet(8, 10, normalize=SpectralNormalization)
    compression.save_compressed(wrapped, path)
    loaded, plain = compression.load_compressed(path), ks.unwrap(wrapped)
    for one, other in zip(loaded.weights, plain.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    convolution = StableRankNormalization(
        kl.Conv2D(4, 3, use_bias=False), 0.4, bound=BOUND, norm="operator"
    )
    model = keras.Sequential([keras.Input((5, 5, 2)), convolution])
    compression.save_compressed(model, path)
    impulses = np.eye(50, dtype="float32").reshape(50, 5, 5, 2)
    operator = np.asarray(compression.load_compressed(path)(impulses), "float64")
    exact = np.linalg.norm(operator.reshape(50, -1), 2)
    assert exact == pytest.approx(BOUND, rel=1e-5)


@pytest.mark.parametrize("values", ["float32", "float16", "bfloat16", "int8"])
def test_rounding_moves_the_norm_by_no_more_than_is_said(values, rng, path):
    """Pruned, wrapped and trained on: the zeros are those of the effective kernels."""
    model = network(lambda layer: layer, rng)
    for name in ("conv", "hidden"):
        kernel = model.get_layer(name).kernel
        kernel.assign(rng.laplace(size=kernel.shape))
    pruned = compression.compress(model, ["conv", "hidden"], replacement="zero")
    wrapped = ks.wrap(pruned, SpectralNormalization, ["conv", "hidden"], bound=BOUND)
    compression.keep_mask(wrapped)
    wrapped.compile(keras.optimizers.SGD(0.1), "mse")
    x = rng.standard_normal((32, 6, 6, 2)).astype("float32")
    wrapped.fit(x, np.ones((32, 3)), verbose=0)
    rows = compression.save_compressed(wrapped, path, values=values)
    loaded, plain = compression.load_compressed(path), ks.unwrap(wrapped)
    known = compression.compression_of(pruned)
    kept = [row.kept for row in rows if row.kept]
    assert kept == pytest.approx([r.kept.mean() for r in known.values()])
    errors = [row.error for row in rows if row.kept]
    assert (max(errors) == 0) == (values == "float32")
    for name, error in zip(("conv", "hidden"), errors, strict=True):
        exact = np.asarray(plain.get_layer(name).kernel, "float64")
        most = error * np.linalg.norm(exact) / BOUND
        assert abs(norm(loaded.get_layer(name)) / BOUND - 1) <= most + 1e-6
        frozen = np.asarray(exact == 0)
        assert not np.asarray(loaded.get_layer(name).kernel)[frozen].any()
    compression.keep_mask(loaded)


def test_masks_of_plain_layers_beside_wrapped_ones(rng, path):
    model = network(WRAPPERS["stable rank"], rng)
    compressed = compression.compress(model, ["head"], replacement="matched", seed=3)
    ((index, record),) = compression.compression_of(compressed).items()
    for given in (None, {index: record}):
        rows = compression.save_compressed(
            compressed, path, values="float32", compression=given
        )
        assert [r.name.endswith("head/kernel") for r in rows if r.kept] == [True]
        loaded = compression.load_compressed(path)
        ((place, again),) = compression.compression_of(loaded).items()
        assert place < index and "head/kernel" in loaded.weights[place].path
        np.testing.assert_array_equal(again.kept, record.kept)
        kernel = compressed.get_layer("head").kernel
        np.testing.assert_array_equal(loaded.get_layer("head").kernel, kernel)
    # It trains on with that mask.
    compression.keep_mask(loaded)
    compression.save_compressed(loaded, path)


def test_what_was_frozen_in_a_trained_kernel(rng, path):
    model = keras.Sequential([keras.Input((9,)), kl.Dense(6, name="head")])
    model.layers[0].kernel.assign(rng.standard_normal((9, 6)))
    for replacement in ("zero", "matched"):
        small = compression.compress(model, replacement=replacement)
        known = compression.compression_of(small)
        # Zeros are zeros in any scale; noise is another, unless nothing is scaled.
        for wrapper, arguments, fits in [
            (SpectralNormalization, {}, replacement == "zero"),
            (SpectralNormalization, {"clip": True, "bound": 99.0}, True),
            (StableRankNormalization, {"stable_rank_ratio": 0.2}, False),
        ]:
            wrapped = ks.wrap(small, wrapper, **arguments)
            if fits:
                rows = compression.save_compressed(wrapped, path, compression=known)
                assert rows[0].kept == known[0].kept.mean()
                continue
            with pytest.raises(ValueError, match="compute with what was frozen.*head"):
                compression.save_compressed(wrapped, path, compression=known)
            rows = compression.save_compressed(wrapped, path, compression={})
            assert rows[0].kept is None
            loaded = compression.load_compressed(path).layers[0].kernel
            np.testing.assert_array_equal(loaded, wrapped.layers[0].converged_kernel())
    vectors = {2: compression.ReplacedKernel(np.ones(6, bool))}
    with pytest.raises(ValueError, match="`compression` must be of kernels.*head"):
        compression.save_compressed(wrapped, path, compression=vectors)


def test_factors_stay_factors(rng, path):
    model = keras.Sequential(
        [
            keras.Input((40,)),
            SVDDense(30, rank_ratio=0.1, name="low"),
            SpectralNormalization(kl.Dense(3, name="head")),
        ]
    )
    compression.save_compressed(model, path)
    loaded = compression.load_compressed(path)
    assert type(loaded.get_layer("low")) is SVDDense
    x = rng.standard_normal((4, 40)).astype("float32")
    np.testing.assert_allclose(loaded(x), ks.unwrap(model)(x), rtol=0, atol=1e-6)


@keras.saving.register_keras_serializable(package="storage_wrapped")
class Block(kl.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inside = SpectralNormalization(kl.Dense(4))

    def build(self, shape):
        self.inside.build(shape)

    def call(self, x):
        return x + self.inside(x)


@keras.saving.register_keras_serializable(package="storage_wrapped")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = SpectralNormalization(kl.Dense(4))

    def call(self, x):
        return self.dense(x)


def test_wrappers_that_cannot_be_taken_off_are_refused(path):
    model = keras.Sequential([keras.Input((4,)), Block(name="block")])
    for save in (lambda m: compression.save_compressed(m, path), ks.unwrap):
        with pytest.raises(ValueError, match="outermost.*'block', a Block around"):
            save(model)
    subclassed = Subclassed()
    subclassed(np.ones((2, 4), "float32"))
    with pytest.raises(ValueError, match="Sequential.*Change its layers where"):
        compression.save_compressed(subclassed, path)
    assert not path.exists()
