"""Rebuilt models against the originals and Keras' own counts."""

import sys

import keras
import numpy as np
import pytest
from keras import layers as kl

from keras_spectral.models.copying import (
    compile_like,
    copy_model,
    in_dtype,
    rebuilt,
)


def keep(layer):
    return None


def outputs(model, x):
    return keras.tree.map_structure(keras.ops.convert_to_numpy, model(x))


def wired():
    """A layer shared with a nested model, a plain operation and named inputs."""
    shared = kl.Dense(6, "relu", name="shared")
    layers = [keras.Input((6,)), shared, kl.Dropout(0.5, name="drop")]
    inner = keras.Sequential(layers, name="inner")
    one, two = keras.Input((6,), name="one"), keras.Input((6,), name="two")
    y = kl.Concatenate(name="both")([inner(one), inner(two), shared(one)]) * 2.0
    logits = kl.Dense(3, name="head")(y)
    model = keras.Model({"one": one, "two": two}, {"logits": logits}, name="wired")
    rng = np.random.default_rng(0)
    model.set_weights([rng.standard_normal(w.shape) for w in model.weights])
    return model


@pytest.fixture
def x(rng):
    return {n: rng.standard_normal((4, 6)).astype("float32") for n in ("one", "two")}


def test_what_is_kept_is_the_same(x):
    model = wired()
    model.get_layer("head").trainable = False
    copy, kept, replaced = rebuilt(model, keep)
    np.testing.assert_array_equal(
        outputs(copy, x)["logits"], outputs(model, x)["logits"]
    )
    names = [[operation.name for operation in m.operations] for m in (copy, model)]
    assert names[0] == names[1]
    assert (copy.name, copy.output_names) == (model.name, model.output_names)
    assert copy.input["one"].name == "one"
    assert len(copy.weights) == len(model.weights) == 4
    assert copy.get_layer("inner").layers[0] is copy.get_layer("shared")
    assert not copy.get_layer("head").trainable
    assert not {id(w) for w in copy.weights} & {id(w) for w in model.weights}
    assert not replaced
    assert {old.name for old, _ in kept} == {"shared", "drop", "both", "head"}
    assert all(type(old) is type(new) and old.name == new.name for old, new in kept)


def test_layers_are_replaced_by_one_and_by_several(x):
    model = wired()

    def replace(layer):
        if layer.name == "shared":
            return kl.Dense(2, name="left"), kl.Dense(4), kl.Dense(6, name="shared")
        return kl.Dense(5, name="wide") if layer.name == "head" else layer

    copy, _, replaced = rebuilt(model, replace)
    shapes = {old.name: [layer.units for layer in new] for old, new in replaced}
    assert shapes == {"shared": [2, 4, 6], "head": [5]}
    # Each once, also where the layer is called three times, in two models.
    counted = sum(layer.count_params() for _, new in replaced for layer in new)
    assert copy.count_params() == counted
    assert [layer.name for layer in copy.get_layer("inner").layers][:1] == ["left"]
    new = {old.name: layers for old, layers in replaced}
    (left, middle, right), (wide,) = new["shared"], new["head"]

    def row(x):
        return right(middle(left(x)))

    both = [row(x["one"]), row(x["two"]), row(x["one"])]
    expected = wide(keras.ops.concatenate(both, axis=-1) * 2.0)
    np.testing.assert_allclose(
        outputs(copy, x)["logits"], keras.ops.convert_to_numpy(expected), rtol=1e-5
    )


def float64(x, model):
    """What `wired` computes, in NumPy."""
    kernels = [np.asarray(w, "float64") for w in model.get_weights()]
    paths = ["/".join(w.path.split("/")[-2:]) for w in model.weights]
    named = dict(zip(paths, kernels, strict=True))

    def dense(name, x):
        return x @ named[f"{name}/kernel"] + named[f"{name}/bias"]

    one, two = (x[name].astype("float64") for name in ("one", "two"))
    hidden = [np.maximum(dense("shared", value), 0) for value in (one, two, one)]
    return dense("head", np.concatenate(hidden, axis=-1) * 2)


def test_another_dtype_in_nested_models_too(x):
    model = wired()
    copy = rebuilt(model, keep, "float64").model
    inputs = {name: value.astype("float64") for name, value in x.items()}
    found = outputs(copy, inputs)["logits"]
    assert found.dtype == "float64"
    np.testing.assert_allclose(found, float64(x, model), rtol=1e-13)
    assert {w.dtype for w in copy.weights} == {"float64"}


def test_integers_keep_their_dtype():
    layers = [keras.Input((5,), dtype="int32"), kl.Embedding(7, 3, dtype="bfloat16")]
    model = keras.Sequential(layers)
    copy = rebuilt(model, keep, "float64").model
    assert copy.inputs[0].dtype == "int32"
    tokens = np.arange(5)[None]
    table = keras.ops.convert_to_numpy(keras.ops.cast(model.weights[0], "float64"))
    np.testing.assert_array_equal(outputs(copy, tokens), table[tokens])
    config = {"dtype": "int32", "a": [{"dtype": None}, ("dtype", 1)]}
    assert in_dtype(config, "float64") == config


@pytest.mark.parametrize("nested", [False, True])
def test_losses_of_the_users_own(nested):
    def loss(truth, prediction):
        return keras.ops.mean((truth - prediction) ** 2)

    model = inner = keras.Sequential([keras.Input((3,)), kl.Dense(2)])
    if nested:
        model = keras.Sequential([keras.Input((3,)), inner, kl.Dense(2)])
    inner.compile("sgd", loss)
    copy = rebuilt(model, keep).model
    assert inner.compiled and not copy.compiled
    compile_like(copy, model)
    assert not copy.compiled
    model.compile("adam", "mse")
    copy = copy_model(model)
    assert copy.compiled and type(copy.optimizer) is keras.optimizers.Adam
    assert copy.optimizer is not model.optimizer


def test_deep_models(x):
    inputs = y = keras.Input((6,))
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    for _ in range(700):
        y = kl.ReLU()(y)
    model = keras.Model(inputs, kl.Dense(2)(y))
    sys.setrecursionlimit(limit)
    copy = rebuilt(model, keep).model
    assert len(copy.layers) == len(model.layers)
    assert sys.getrecursionlimit() == limit


def test_a_sequential_model_stays_one_with_its_input():
    inputs = keras.Input((None, 4), batch_size=3, dtype="float16", name="words")
    model = keras.Sequential([inputs, kl.LSTM(2)], name="m", trainable=False)
    copy = rebuilt(model, keep).model
    assert type(copy) is keras.Sequential and copy.name == "m" and not copy.trainable
    (given,) = copy.inputs
    assert (given.shape, given.dtype, given.name) == ((3, None, 4), "float16", "words")
    called = keras.Sequential([kl.Dense(2)])
    called(np.ones((2, 3)))
    np.testing.assert_array_equal(
        rebuilt(called, keep).model.get_weights()[0], called.get_weights()[0]
    )


def test_statistics_of_normalization_are_kept():
    x = np.random.default_rng(0).normal(3, 5, size=(50, 4)).astype("float32")
    normalization = kl.Normalization()
    normalization.adapt(x)
    model = keras.Sequential([keras.Input((4,)), normalization, kl.Dense(2)])
    np.testing.assert_array_equal(
        outputs(rebuilt(model, keep).model, x), outputs(model, x)
    )


def test_models_that_cannot_be_rebuilt():
    class Own(keras.Model):
        pass

    with pytest.raises(ValueError, match="functional"):
        rebuilt(Own(), keep)
    with pytest.raises(ValueError, match="must be built"):
        rebuilt(keras.Sequential([kl.Dense(2)]), keep)
