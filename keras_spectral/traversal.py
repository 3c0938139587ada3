"""Walking through a model's layers."""

import contextlib
import sys

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


@contextlib.contextmanager
def deep_graphs():
    """Let Keras build, copy or load a model of hundreds of layers.

    Keras walks from the outputs to the inputs by recursion, one level an operation,
    and Python stops at 1000 of them: a ResNet of 272 layers is too deep.

    Example:
    >>> with deep_graphs():
    ...     model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    """
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, 20_000))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
