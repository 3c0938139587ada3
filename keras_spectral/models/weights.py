"""Which matrices a model computes with."""

import keras


def leaf_layers(model):
    """Yield the layers of a model; nested models are entered, wrappers are not.

    Args:
        model: A `keras.Model`.

    Yields:
        `keras.layers.Layer` instances in the model's order.

    Example:
    >>> import keras
    >>> inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="a")])
    >>> outer = keras.Sequential([inner, keras.layers.Dense(1, name="b")])
    >>> [layer.name for layer in leaf_layers(outer)]
    ['a', 'b']
    """
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaf_layers(layer)
        else:
            yield layer
