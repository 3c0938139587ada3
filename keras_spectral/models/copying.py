"""Copies of models, and what Keras leaves to do after them."""

import contextlib
import sys
import warnings

import keras

from keras_spectral.models.weights import leaf_layers


def copy_model(model):
    """Return a copy of a model with its own weights, compiled as `clone` says.

    Args:
        model: A built `keras.Model`.

    Returns:
        A `keras.Model`.

    Example:
    >>> import keras
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> copy_model(model).count_params()
    8
    """
    copy = clone(model)
    set_weights(copy, model.get_weights())
    return copy


def set_weights(model, weights):
    """Set all weights of a model, and what its layers derive from them.

    Args:
        model: A built `keras.Model`.
        weights: List of arrays.

    Example:
    >>> import keras
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> set_weights(model, model.get_weights())
    """
    model.set_weights(weights)
    for layer in leaf_layers(model):
        finalize(layer)


def finalize(layer):
    """Let a `Normalization` take its statistics from its weights, which Keras does not.

    Args:
        layer: A built `keras.layers.Layer`.

    Example:
    >>> import keras
    >>> finalize(keras.layers.Dense(2))
    """
    if isinstance(layer, keras.layers.Normalization) and layer.built:
        layer.finalize_state()


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


def clone(model, **arguments):
    """Return a new model of the same architecture.

    It is compiled as the model is, with a new optimizer, unless Keras cannot save what
    that was compiled with, such as a loss of the user's own: then it is not compiled.

    Args:
        model: A `keras.Model`, of any depth.
        **arguments: See `keras.models.clone_model`.

    Example:
    >>> import keras
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile(loss=lambda truth, prediction: truth - prediction)
    >>> clone(model).compiled
    False
    """
    compiled, model.compiled = model.compiled, False
    try:
        with deep_graphs():
            copy = keras.models.clone_model(model, **arguments)
    finally:
        model.compiled = compiled
    if compiled:
        # Keras warns of each lambda, and raises nearly anything on other objects.
        with warnings.catch_warnings(), contextlib.suppress(Exception):
            warnings.simplefilter("ignore")
            copy.compile_from_config(model.get_compile_config())
    return copy
