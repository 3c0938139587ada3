"""What Keras must make of the configuration of our objects."""

import json

import keras


def check_keras_makes_an_equal(thing, module):
    """From the registered name; Keras asks a scope to know the bare name.

    Args:
        thing: A constraint or a regularizer.
        module: `keras.constraints` or `keras.regularizers`.
    """
    cls = type(thing)
    config = json.loads(json.dumps(thing.get_config()))
    name = keras.saving.get_registered_name(cls)
    described = {"class_name": name, "config": config}
    serialized = json.loads(json.dumps(module.serialize(thing)))
    made = [module.get(described), module.get(serialized)]
    with keras.saving.custom_object_scope({cls.__name__: cls}):
        made.append(module.get({"class_name": cls.__name__, "config": config}))
    for other in made:
        assert type(other) is cls
        assert vars(other) == vars(thing)
