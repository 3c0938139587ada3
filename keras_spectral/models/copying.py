"""Copies of models, and what Keras leaves to do after them."""

import contextlib
import sys
import warnings
from typing import NamedTuple

import keras
from keras import layers as kl

from keras_spectral.models.graph import check_graph, has_graph
from keras_spectral.models.keras_internals import taken_for_not_compiled
from keras_spectral.models.weights import leaf_layers


def copy_model(model):
    """Return a copy of a model with its own weights, compiled as `compile_like` says.

    Args:
        model: A built `keras.Model`, of any depth.

    Returns:
        A `keras.Model`.

    Example:
    >>> import keras
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> copy_model(model).count_params()
    8
    """
    with deep_graphs(), taken_for_not_compiled(model):
        copy = keras.models.clone_model(model)
    compile_like(copy, model)
    set_weights(copy, model.get_weights())
    return copy


class Rebuilt(NamedTuple):
    """What `rebuilt` returns.

    Args:
        model: The copy, not compiled.
        kept: List of (layer, its copy), which has its weights.
        replaced: List of (layer, tuple of the layers in its place), whose weights are
            their own.
    """

    model: keras.Model
    kept: list
    replaced: list


def rebuilt(model, replace, dtype=None, bare=False):
    """Return a copy of a model with other layers in the place of some.

    Nested models are entered; a layer that is used several times, in nested models too,
    is so in the copy.

    Args:
        model: A built `keras.Sequential` or functional `keras.Model`, of any depth.
        replace: Callable from a layer to the new one that takes its place, or to a
            tuple of new ones to be called one after the other; `None` keeps the layer.
        dtype: String that the inputs and the layers that are kept have in place of
            their dtypes and policies, apart from integers; `None` for as they are.
        bare: Boolean, whether Keras' layers are made without what only training asks
            for (see `bare_config`).

    Returns:
        A `Rebuilt`.

    Raises:
        ValueError: If the model is of another kind or not built.

    Example:
    >>> import keras
    >>> layers = [keras.Input((4,)), kl.Dense(3, name="a"), kl.Dense(2, name="b")]
    >>> def pair(layer):
    ...     return (kl.Dense(1), kl.Dense(3)) if layer.name == "a" else None
    >>> copy = rebuilt(keras.Sequential(layers), pair).model
    >>> [layer.units for layer in copy.layers]
    [1, 3, 2]
    """
    check_graph(model)
    rebuilder = _Rebuilder(replace, dtype, bare)
    with deep_graphs():
        copy = rebuilder.model(model)
    for old, new in rebuilder.kept:
        new.set_weights(old.get_weights())
        finalize(new)
    return Rebuilt(copy, rebuilder.kept, rebuilder.replaced)


class _Rebuilder:
    """Builds the models of `rebuilt`, and remembers what stands for which layer."""

    def __init__(self, replace, dtype, bare):
        self.replace, self.dtype, self.bare = replace, dtype, bare
        self.kept, self.replaced = [], []
        self.places = {}

    def model(self, model):
        if isinstance(model, keras.Sequential):
            layers = [new for old in model.layers for new in self._place(old)]
            return keras.Sequential(
                [*map(self._input, model.inputs), *layers],
                name=model.name,
                trainable=model.trainable,
            )
        inputs = keras.tree.map_structure(self._input, model.input)
        following = {}

        def clone(operation):
            first, *following[id(first)] = self._place(operation)
            return first

        def call(layer, *args, **kwargs):
            outputs = layer(*args, **kwargs)
            for other in following[id(layer)]:
                outputs = other(outputs)
            return outputs

        with taken_for_not_compiled(model):
            return keras.models.clone_model(
                model, inputs, clone_function=clone, call_function=call
            )

    def _input(self, tensor):
        dtype = tensor.dtype
        if self.dtype and keras.backend.is_float_dtype(dtype):
            dtype = self.dtype
        return keras.Input(batch_shape=tensor.shape, dtype=dtype, name=tensor.name)

    def _place(self, operation):
        """Return the tuple of what stands in the place of an operation."""
        # By identity, as layers may compare in ways of their own.
        if id(operation) not in self.places:
            self.places[id(operation)] = self._new(operation)
        return self.places[id(operation)]

    def _new(self, operation):
        if has_graph(operation):
            return (self.model(operation),)
        # A functional model also holds plain operations, such as `x + y`.
        is_layer = isinstance(operation, kl.Layer)
        new = self.replace(operation) if is_layer else None
        if new is not None and new is not operation:
            new = new if isinstance(new, tuple) else (new,)
            self.replaced.append((operation, new))
            return new
        config = bare_config(operation) if self.bare else operation.get_config()
        new = type(operation).from_config(in_dtype(config, self.dtype))
        if is_layer:
            self.kept.append((operation, new))
        return (new,)


def bare_config(operation):
    """Return the config of a layer of Keras without what only training asks for.

    Initializers, regularizers and constraints of the user's own need not be registered
    then. An activation is left out, too: its name may be one that Keras has.

    Args:
        operation: A `keras.Operation`. The config of one that is not Keras' own is as
            it is.

    Example:
    >>> bare_config(kl.Dense(2, "relu", kernel_constraint="non_neg"))["activation"]
    'linear'
    """
    config = operation.get_config()
    if not type(operation).__module__.startswith("keras.src.layers."):
        return config
    for key in config:
        what = key.rpartition("_")[2]
        if what in ("regularizer", "constraint"):
            config[key] = None
        elif what == "initializer":
            config[key] = "zeros"
        elif key == "activation" and getattr(operation, key, None) is not None:
            config[key] = "linear"
    return config


def in_dtype(config, dtype):
    """Return a layer's or model's config with one dtype for all that are not integers.

    Args:
        config: Dict.
        dtype: String, or `None`, which leaves it as it is.

    Example:
    >>> in_dtype({"units": 2, "dtype": "float32"}, "float64")
    {'units': 2, 'dtype': 'float64'}
    """
    if dtype is None:
        return config
    if isinstance(config, dict):
        return {
            key: dtype
            if key == "dtype" and value and "int" not in str(value)
            else in_dtype(value, dtype)
            for key, value in config.items()
        }
    if isinstance(config, (list, tuple)):
        return type(config)(in_dtype(value, dtype) for value in config)
    return config


def compile_like(copy, model):
    """Compile a copy as a model is, with a new optimizer, if that is compiled.

    What Keras cannot save of that, such as a loss of the user's own, leaves the copy
    not compiled.

    Args:
        copy: A `keras.Model`.
        model: The `keras.Model` of which it is a copy.

    Example:
    >>> import keras
    >>> layers = [keras.Input((2,)), keras.layers.Dense(1)]
    >>> model, copy = keras.Sequential(layers), keras.Sequential(layers)
    >>> model.compile(loss=lambda truth, prediction: truth - prediction)
    >>> compile_like(copy, model)
    >>> copy.compiled
    False
    """
    if model.compiled:
        # Keras warns of each lambda, and raises nearly anything on other objects.
        with warnings.catch_warnings(), contextlib.suppress(Exception):
            warnings.simplefilter("ignore")
            copy.compile_from_config(model.get_compile_config())


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
    if isinstance(layer, kl.Normalization) and layer.built:
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
