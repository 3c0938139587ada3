"""What every layer must do that Keras' own layer tests ask of theirs."""

import copy
import json

import keras
import numpy as np
from keras import layers as kl

from tests.layers.kinds import numpy

HALF = {"mixed_bfloat16": "bfloat16", "mixed_float16": "float16"}


def check_layer(make, inputs, counts=None, output_dtype=None):
    """Check a layer from its config to a saved model.

    Args:
        make: Callable with the keyword argument `dtype`, to a new layer.
        inputs: Array, or a tuple of arrays for a layer that takes one.
        counts: Numbers of trainable weights, other weights, seed generators and
            losses.
        output_dtype: String, where it is not that of the policy.
    """
    check_config(make)
    check_serialization(make, inputs)
    check_build_config(make, inputs)
    check_calls(make, inputs, counts)
    check_models(make, inputs)
    check_fit(make, inputs)
    check_containers(make, inputs)
    check_precision(make, inputs, output_dtype)
    check_frozen(make, inputs)


def text(config):
    """Return a config as JSON, where a tuple and a list are one."""
    return json.dumps(config, sort_keys=True)


def dtype_of(tensor):
    return keras.backend.standardize_dtype(tensor.dtype)


def each(function, inputs):
    if isinstance(inputs, tuple):
        return tuple(function(x) for x in inputs)
    return function(inputs)


def shapes(inputs, batch=4):
    return each(lambda x: (batch, *x.shape[1:]), inputs)


def symbols(inputs):
    return each(lambda x: keras.Input(x.shape[1:], dtype=str(x.dtype)), inputs)


def called(layer, inputs):
    layer(inputs)
    return layer


def count(layer):
    """Return the numbers of weights, of seed generators and of losses."""
    generators = [g for part in layer._flatten_layers() for g in part._seed_generators]
    return (
        len(layer.trainable_weights),
        len(layer.non_trainable_weights),
        len({id(generator) for generator in generators}),
        len(layer.losses),
    )


def revived(layer):
    """Return what Keras makes of a layer that went through JSON, and compare."""
    saved = text(keras.layers.serialize(layer))
    again = keras.layers.deserialize(json.loads(saved))
    assert type(again) is type(layer)
    assert text(keras.layers.serialize(again)) == saved
    assert again.built == layer.built
    assert set(dir(again)) == set(dir(layer))
    assert [w.shape for w in again.weights] == [w.shape for w in layer.weights]
    assert [w.path.split("/")[-1] for w in again.weights] == [
        w.path.split("/")[-1] for w in layer.weights
    ]
    return again


def check_config(make):
    layer = make()
    config = layer.get_config()
    # Keras' wrappers take their layer out of the dict that they are given.
    again = type(layer).from_config(copy.deepcopy(config))
    assert again.get_config() == config
    assert set(dir(again)) == set(dir(layer))
    # A file has lists where the config has tuples.
    again = type(layer).from_config(json.loads(text(config)))
    assert again.get_config() == config


def check_serialization(make, inputs):
    revived(make())
    layer = called(make(), inputs)
    again = revived(layer)
    assert again.built
    again.set_weights(layer.get_weights())
    np.testing.assert_allclose(numpy(again(inputs)), numpy(layer(inputs)), atol=1e-6)
    # A new layer from the config of a built one is free to take other shapes.
    assert not type(layer).from_config(layer.get_config()).built


def check_build_config(make, inputs):
    assert not make().get_build_config()
    layer, again = make(), make()
    layer.build(shapes(inputs))
    again.build_from_config(json.loads(text(layer.get_build_config())))
    assert again.built
    assert count(again) == count(layer)
    assert [w.shape for w in again.weights] == [w.shape for w in layer.weights]


def check_calls(make, inputs, counts):
    built, symbolic, eager = make(), make(), make()
    built.build(shapes(inputs))
    assert built.built
    symbol = symbolic(symbols(inputs))
    outputs = eager(inputs)
    numbers = count(eager)
    if counts is not None:
        assert numbers == counts
    assert count(built)[:3] == count(symbolic)[:3] == numbers[:3]
    if keras.backend.backend() == "torch":
        assert len(eager.torch_params) == sum(numbers[:3])
    assert tuple(symbol.shape) == (None, *outputs.shape[1:])
    assert symbol.dtype == dtype_of(outputs)
    for batch in (4, None):
        shape = eager.compute_output_shape(shapes(inputs, batch))
        assert tuple(shape) == (batch, *outputs.shape[1:])
    # A layer is asked for its output before it is built, too.
    spec = eager.compute_output_spec(symbols(inputs))
    assert tuple(spec.shape) == tuple(symbol.shape)
    assert spec.dtype == symbol.dtype


def functional(layer, inputs):
    inputs = symbols(inputs)
    return keras.Model(inputs, layer(inputs))


def check_models(make, inputs):
    """JSON and `.keras` files of models that are built, and of one that is not."""
    if not isinstance(inputs, tuple):
        model = keras.Sequential([make()])
        again = keras.models.model_from_json(model.to_json())
        assert not again.built
        assert again.to_json() == model.to_json()
        again(inputs)
    model = functional(make(), inputs)
    again = keras.models.model_from_json(model.to_json())
    assert again.to_json() == model.to_json()
    again.set_weights(model.get_weights())
    np.testing.assert_allclose(numpy(again(inputs)), numpy(model(inputs)), atol=1e-6)


def check_saved(make, inputs, folder):
    """`.keras` files of a model that is not built, and of one that is trained."""
    path = folder / "model.keras"
    model = functional(make(), inputs)
    model(inputs, training=True)
    model.save(path)
    again = keras.models.load_model(path)
    for ours, theirs in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(numpy(ours), numpy(theirs))
    np.testing.assert_allclose(numpy(again(inputs)), numpy(model(inputs)), atol=1e-6)
    if not isinstance(inputs, tuple):
        keras.Sequential([make()]).save(path)
        again = keras.models.load_model(path)
        assert not again.built
        assert again(inputs).shape == model(inputs).shape


def check_fit(make, inputs):
    models = [functional(make(), inputs)]
    if not isinstance(inputs, tuple):
        models.append(keras.Sequential([make()]))
    jax = keras.backend.backend() == "jax"
    targets = np.zeros((4, *models[0].output_shape[1:]))
    for eagerly, model in enumerate(models):
        # Keras' own check has XLA; JAX is slower without it than with it.
        eagerly = bool(eagerly) and not jax
        model.compile("sgd", "mse", run_eagerly=eagerly, jit_compile=jax)
        loss = model.fit(inputs, targets, verbose=0).history["loss"]
        assert np.isfinite(loss).all()
        assert all(np.isfinite(w).all() for w in model.get_weights())


def check_containers(make, inputs):
    """Serialized inside another layer, before and after that is built."""
    if isinstance(inputs, tuple):
        return
    sequence = np.stack([inputs, inputs], axis=1)
    for wrap, x in (
        (kl.TimeDistributed, sequence),
        (lambda layer: kl.Pipeline([layer]), inputs),
        (lambda layer: keras.Sequential([layer]), inputs),
    ):
        revived_container(wrap(make()))
        outer = called(wrap(make()), x)
        again = revived_container(outer)
        assert count(again) == count(outer)


def revived_container(layer):
    saved = text(keras.layers.serialize(layer))
    again = keras.layers.deserialize(json.loads(saved))
    assert text(again.get_config()) == text(layer.get_config())
    return again


def check_precision(make, inputs, output_dtype=None):
    for policy, half in HALF.items():
        # PyTorch lacks some operations in float16 on a CPU, as Keras' tests say.
        if keras.backend.backend() == "torch" and half == "float16":
            continue
        layer = make(dtype=policy)
        outputs = layer(inputs)
        assert dtype_of(outputs) == (output_dtype or half)
        assert make(dtype=policy)(symbols(inputs)).dtype == dtype_of(outputs)
        check_float32(layer)
        revived(layer)
    check_global_policy(make, inputs)
    # What comes from a layer of half precision has the dtype that was announced.
    half = each(lambda x: x if "int" in str(x.dtype) else x.astype("float16"), inputs)
    assert make()(symbols(half)).dtype == dtype_of(make()(half))


def check_global_policy(make, inputs):
    """A layer of one policy is the same where another is the default."""
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        layer = called(make(), inputs)
    finally:
        keras.config.set_dtype_policy(before)
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert dtype_of(again(inputs)) == dtype_of(layer(inputs))
    check_float32(again)


def check_float32(layer):
    for weight in layer.weights:
        if keras.backend.is_float_dtype(weight.dtype):
            assert weight.dtype == "float32"


def check_frozen(make, inputs):
    """Not trainable before it is built, in its state, and when it is loaded."""
    layer = make()
    layer.trainable = False
    model = functional(layer, inputs)
    before = model.get_weights()
    model(inputs, training=True)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    again = keras.models.model_from_json(model.to_json())
    copied = keras.models.clone_model(model)
    for other in (model, again, copied):
        assert other.trainable_variables == []
        assert count(other) == count(model)
    again.layers[-1].trainable = True
    assert count(again) == count(functional(make(), inputs))
