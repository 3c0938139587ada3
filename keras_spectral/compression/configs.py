"""A model's Keras config as JSON, and back, without running anything of the file's."""

import concurrent.futures

import keras

from keras_spectral.models.copying import deep_graphs


def plain_config(model):
    """Return what rebuilds the architecture, without losses and optimizers.

    Args:
        model: A built `keras.Model`.

    Returns:
        Dict that JSON can hold.

    Raises:
        ValueError: If the config holds a Python function's code.
    """
    return _without_training(keras.saving.serialize_keras_object(model))


def _without_training(node):
    """Return a config without what models were compiled with; refuse code."""
    if isinstance(node, dict):
        if node.get("class_name") == "__lambda__":
            raise ValueError("it holds the code of a Python lambda")
        return {
            key: _without_training(value)
            for key, value in node.items()
            if key != "compile_config"
        }
    if isinstance(node, (list, tuple)):
        return [_without_training(value) for value in node]
    return node


def signature(model):
    """Return (name, shape, dtype) of each weight."""
    return [
        (weight.name, tuple(weight.shape), str(weight.dtype))
        for weight in model.weights
    ]


def check_config(config, expected, custom_objects=None):
    """Build a config's model without its values and compare the weights.

    Keras would take whatever memory a config asks for. Inside of a `StatelessScope` it
    puts off every initial value, until the scope of the thread ends: this thread's
    never does.

    Args:
        config: Dict, see `plain_config`.
        expected: List as `signature` returns it.
        custom_objects: Optional dict, as for `keras.models.load_model`.

    Raises:
        ValueError: If the model cannot be built or has other weights.
    """
    custom_objects = {**keras.saving.get_custom_objects(), **(custom_objects or {})}

    def build():
        with keras.StatelessScope(initialize_variables=False):
            return signature(build_model(config, custom_objects))

    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        found = thread.submit(build).result()
    if found == expected:
        return
    if len(found) != len(expected):
        raise ValueError(
            f"its Keras config has {len(found)} weights instead of {len(expected)}"
        )
    for here, there in zip(found, expected, strict=True):
        if here != there:
            raise ValueError(f"its Keras config has {here} in place of {there}")


def build_model(config, custom_objects=None):
    """Return the model of a config.

    Raises:
        ValueError: If Keras cannot build it, or it is no model.
    """
    config = _without_training(config)
    try:
        with deep_graphs():
            model = keras.saving.deserialize_keras_object(
                config, custom_objects=custom_objects, safe_mode=True
            )
    except Exception as error:  # Layers raise nearly anything on a strange config.
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"Keras cannot build its model: {reason}") from error
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError("its Keras config is of no built model")
    return model
