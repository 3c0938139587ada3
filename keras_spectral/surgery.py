"""Wrap the layers of a model that stands, and take the wrappers off again."""

import keras

from keras_spectral.layers.reparametrization import Reparametrization
from keras_spectral.models.copying import compile_like, finalize, rebuilt
from keras_spectral.models.graph import check_graph
from keras_spectral.models.keras_internals import flatten_layers
from keras_spectral.models.slots import has_kernels, kernel_slots
from keras_spectral.models.weights import (
    check_names,
    leaf_layers,
    unknown_name,
    weights,
)


def wrap(model: keras.Model, wrapper, where=None, **arguments) -> keras.Model:
    """Return a copy of a model whose layers are wrapped.

    The copy has the weights of `model`, which stays as it is, and is not
    compiled. With `clip=True`, or an `OptimalSpectralNormalization`, a layer
    whose kernel is within the bound computes what it did before; a pretrained
    model is best wrapped so. Any other wrapper scales every kernel.

    Args:
        model: A built `keras.Sequential` or functional `keras.Model`; nested
            ones are entered.
        wrapper: A class of `keras_spectral.layers`, such as
            `SpectralNormalization`, or any callable from layer to layer.
        where: Which layers: a list of names, or a callable that gets a
            `models.Weight` and returns a boolean, the same for all kernels of a layer.
            By default every layer that the wrappers treat and that is not wrapped yet.
        **arguments: Passed to `wrapper`.

    Returns:
        A `keras.Model` of the same kind.

    Raises:
        ValueError: If the model is not of those kinds, `where` names a layer
            that is not there or cannot be wrapped, or a part of one, or nothing is to
            be wrapped.

    Example:
    >>> import keras
    >>> from keras_spectral.layers import SpectralNormalization
    >>> layers = [keras.Input((4,)), keras.layers.Dense(3, name="head")]
    >>> wrapped = wrap(keras.Sequential(layers), SpectralNormalization, bound=2.0)
    >>> type(wrapped.get_layer("head")).__name__
    'SpectralNormalization'
    """
    check_graph(model)
    chosen = _chosen(model, where)

    def replace(layer):
        return wrapper(_copy(layer), **arguments) if id(layer) in chosen else None

    return _replaced(model, replace).model


def unwrap(model: keras.Model) -> keras.Model:
    """Return a plain copy of a model, with its effective kernels.

    The copy holds none of this package's wrappers; it loads, converts and runs
    without the package. The kernels are those of `converged_kernel`: their singular
    values are found in float64, so norms are within 1e-6 of their bounds. A wrapper
    computes with an estimate of the norm, so the outputs of the copy differ from its
    own by the error of that estimate; they agree to float rounding where the estimate
    has converged. The sign is the wrapper's own, also where imported vectors make it
    another than that of the trained kernel.

    Do this before `model.export`, which would freeze the estimate.

    Args:
        model: A built `keras.Sequential` or functional `keras.Model`; nested
            ones are entered.

    Returns:
        A `keras.Model` of the same kind, not compiled.

    Raises:
        ValueError: If the model is not of those kinds, a wrapper is inside of another
            layer, or a kernel holds NaN or infinity.

    Example:
    >>> import keras
    >>> from keras_spectral.layers import SpectralNormalization
    >>> dense = SpectralNormalization(keras.layers.Dense(3, name="head"))
    >>> plain = unwrap(keras.Sequential([keras.Input((4,)), dense]))
    >>> type(plain.get_layer("head")).__name__
    'Dense'
    """
    return _replaced(model, _unwrapped_layer).model


def without_wrappers(model):
    """Return a plain copy of a model with its trained kernels, not the effective ones.

    Args:
        model: As in `unwrap`.

    Returns:
        A `keras.Model` of the same kind, not compiled.

    Example:
    >>> import keras
    >>> from keras_spectral.layers import SpectralNormalization
    >>> dense = SpectralNormalization(keras.layers.Dense(3, name="head"))
    >>> model = keras.Sequential([keras.Input((4,)), dense])
    >>> plain = without_wrappers(model)
    >>> bool((plain.get_weights()[0] == model.get_weights()[0]).all())
    True
    """
    return _replaced(model, _unwrapped_layer, effective=False).model


def effective_copy(model):
    """Return `unwrap` of a model, but for SVD layers, and where its weights are.

    Args:
        model: As in `unwrap`.

    Returns:
        Tuple (copy, places): a `keras.Model` of the same kind, not compiled, and a dict
        from an index into `model.weights` to one into `copy.weights`, of the weights
        that are in both.

    Raises:
        ValueError: As `unwrap`.

    Example:
    >>> import keras
    >>> from keras_spectral.layers import SpectralNormalization
    >>> dense = SpectralNormalization(keras.layers.Dense(3, name="head"))
    >>> model = keras.Sequential([keras.Input((4,)), dense])
    >>> len(model.weights) > 2, effective_copy(model)[1]
    (True, {0: 0, 1: 1})
    """
    copy, kept, replaced = _replaced(model, _without_reparametrization)
    indices = {id(weight): index for index, weight in enumerate(copy.weights)}
    pairs = kept + [(layer.layer, other) for layer, (other,) in replaced]
    new = {
        id(ours): indices[id(theirs)]
        for layer, other in pairs
        for ours, theirs in zip(layer.weights, other.weights, strict=True)
    }
    places = {i: new[id(w)] for i, w in enumerate(model.weights) if id(w) in new}
    return copy, places


def copy_weights(source, target):
    """Copy the weights of one model to another that is wrapped otherwise.

    Layers with weights are paired in their order. Raw kernels are copied, not
    effective ones, so that training goes on as it would have; singular vectors
    are copied where both models keep the same ones and are found anew where only
    `target` has them, or keeps others (`method="block"` keeps more).

    Args:
        source: A built `keras.Model`.
        target: A built `keras.Model` with the same layers, wrapped or not.

    Raises:
        ValueError: If the layers differ; nothing is copied then.

    Example:
    >>> import keras
    >>> from keras_spectral.layers import SpectralNormalization
    >>> layers = [keras.Input((4,)), keras.layers.Dense(3, name="head")]
    >>> plain = keras.Sequential(layers)
    >>> wrapped = wrap(plain, SpectralNormalization)
    >>> copy_weights(wrapped, plain)
    """
    ours, theirs = (
        [layer for layer in leaf_layers(model) if layer.weights]
        for model in (source, target)
    )
    if len(ours) != len(theirs):
        raise ValueError(
            "`source` and `target` must have as many layers with weights. Received: "
            f"{[layer.name for layer in ours]} and {[layer.name for layer in theirs]}."
        )
    for one, other in zip(ours, theirs, strict=True):
        shapes = [[tuple(w.shape) for w in _inner(x).weights] for x in (one, other)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                "`source` and `target` must have weights of the same shapes. "
                f"Received: '{one.name}' with {shapes[0]} and '{other.name}' with "
                f"{shapes[1]}."
            )
    for one, other in zip(ours, theirs, strict=True):
        _copy_layer_weights(one, other)


def _copy_layer_weights(source, target):
    if _state(source) == _state(target):
        # Not `target.set_weights`: a wrapper that follows imported vectors also holds a
        # block that it does not use.
        pairs = zip(_state_weights(source), _state_weights(target), strict=True)
        for ours, theirs in pairs:
            theirs.assign(ours)
        _inner(target).set_weights(_inner(source).get_weights())
        finalize(target)
        return
    _inner(target).set_weights(_inner(source).get_weights())
    if isinstance(target, Reparametrization):
        target.restart_power_iteration()


def _state(layer):
    """Return what must agree for one layer to take all weights of another."""
    # A block of one vector keeps what `method="power_iteration"` does, whose norm may
    # be below zero.
    shapes = [tuple(weight.shape) for weight in _state_weights(layer)]
    return type(layer), getattr(layer, "method", None), shapes


def _state_weights(layer):
    """Return the weights of a wrapper that are in use, without those of its layer."""
    inner = {id(weight) for weight in _inner(layer).weights}
    unused = set()
    if getattr(layer, "method", None) == "power_iteration":
        for state in flatten_layers(layer, include_self=False):
            unused |= {id(weight) for weight in getattr(state, "block_weights", [])}
    if _inner(layer) is layer:
        return []
    return [w for w in layer.weights if id(w) not in inner | unused]


def _inner(layer):
    return layer.layer if isinstance(layer, Reparametrization) else layer


def _copy(layer):
    return type(layer).from_config(layer.get_config())


def _chosen(model, where):
    """Return the ids of the layers to wrap."""
    layers = list(leaf_layers(model))
    if where is None:
        chosen = [layer for layer in layers if has_kernels(layer)]
    else:
        chosen = _named(model, layers, where)
    for layer in chosen:
        if isinstance(layer, Reparametrization):
            raise ValueError(
                f"`where` must choose plain layers. Received: '{layer.name}', "
                f"a {type(layer).__name__} already. `unwrap` the model first."
            )
    if not chosen:
        raise ValueError(
            f"`where` must choose at least one layer. Received: where={where!r} for "
            f"'{model.name}'."
        )
    return {id(layer) for layer in chosen}


def _named(model, layers, where):
    """Return the layers that `where` chooses, whole; others than kernels' by name."""
    found = weights(model)
    names = [] if callable(where) else check_names(where)
    known = {layer.name for layer in layers} | {weight.name for weight in found}
    for name in names:
        if name not in known:
            raise unknown_name(model, name, known)
    # By identity: nested models may have layers of one name.
    taken, left = {}, {}
    for weight in found:
        named = weight.name in names or weight.layer.name in names
        chosen = where(weight) if callable(where) else named
        (taken if chosen else left).setdefault(id(weight.layer), []).append(weight.name)
    for layer in layers:
        if id(layer) not in taken or id(layer) not in left:
            continue
        raise ValueError(
            "`where` must choose whole layers: a wrapper treats all kernels of its "
            f"layer. Received: a part of '{layer.name}', without "
            f"{', '.join(left[id(layer)])}."
        )
    return [layer for layer in layers if id(layer) in taken or layer.name in names]


def _replaced(model, replace, effective=True):
    """Return `rebuilt` of a model, compiled alike, with weights in all layers.

    Args:
        model: A built `keras.Model`.
        replace: Callable from a layer to its new one, or `None` to keep it.
        effective: Boolean, whether layers that lose their wrapper get its effective
            kernels.
    """
    done = rebuilt(model, replace)
    for old, (new,) in done.replaced:
        _move_weights(old, new, effective)
    compile_like(done.model, model)
    return done


def _unwrapped_layer(layer):
    if hasattr(layer, "to_layer"):
        return layer.to_layer()
    return _without_reparametrization(layer)


def _without_reparametrization(layer):
    if isinstance(layer, Reparametrization):
        return _copy(layer.layer)
    for inside in flatten_layers(layer, include_self=False):
        if isinstance(inside, Reparametrization):
            raise ValueError(
                "`model` must have its wrappers outermost. Received: "
                f"'{layer.name}', a {type(layer).__name__} around a "
                f"{type(inside).__name__}. Wrap the {type(layer).__name__} instead, "
                "or make the model of its layers."
            )
    return None


def _move_weights(old, new, effective):
    if hasattr(old, "to_layer") and not hasattr(new, "to_layer"):
        return  # `to_layer` brought them.
    _copy_layer_weights(old, new)
    unwrapped = isinstance(old, Reparametrization) and _inner(new) is new
    if unwrapped and effective:
        for slot, name in zip(kernel_slots(new), old.kernel_names, strict=True):
            slot.variable.assign(old.converged_kernel(name))
