"""Constraints and regularizers for the kernels of a model that stands."""

import keras

from keras_spectral import constraints, regularizers
from keras_spectral.models.copying import copy_model
from keras_spectral.models.weights import weights


def constrain(model: keras.Model, constraint, where=None) -> keras.Model:
    """Return a copy of a model whose kernels have a constraint.

    Every kernel is constrained as the matrix, or by the norm, that its layer computes
    with, whatever the kind of layer: a constraint by itself sees an array and takes its
    last axis for the outputs. It acts after each update of an optimizer; what the
    kernels are before is left. An earlier constraint of the kernel is replaced.

    Args:
        model: A built `keras.Model`, which stays as it is. The copy has its weights and
            is compiled as it is, with a new optimizer.
        constraint: A `keras.constraints.Constraint` that takes a matrix (inputs,
            outputs), such as those of `keras_spectral.constraints`, with neither
            `output_axis` nor `kind`.
        where: Which kernels, see `models.weights`; by default all. Those in a wrapper
            are left out: it computes with a function of them. Kernels that a layer
            gives one constraint are constrained together: those of attention, and both
            directions of `Bidirectional`.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: If `constraint` is none, `where` has a name that is none of the
            model's or a part of what must stay together, or nothing is left.

    Example:
    >>> from keras_spectral.constraints import SpectralClip
    >>> inputs = keras.Input((4, 6))
    >>> outputs = keras.layers.MultiHeadAttention(2, 3)(inputs, inputs)
    >>> model = keras.Model(inputs, outputs)
    >>> model.compile("sgd", "mse")
    >>> constrained = constrain(model, SpectralClip(1.0))
    >>> type(constrained.layers[1].query_dense.kernel.constraint).__name__
    'InView'
    """
    check = keras.constraints.Constraint
    return _attached(model, constraint, check, "constraint", constraints.InView, where)


def regularize(model: keras.Model, regularizer, where=None) -> keras.Model:
    """Return a copy of a model whose kernels have a regularizer.

    The twin of `constrain`: each kernel is penalized as the matrix that its layer
    computes with.

    Args:
        model: As in `constrain`.
        regularizer: A `keras.regularizers.Regularizer` that takes a matrix (inputs,
            outputs), such as those of `keras_spectral.regularizers`, without
            `output_axis`.
        where: As in `constrain`.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: As `constrain`.

    Example:
    >>> from keras_spectral.regularizers import SpectralNorm
    >>> dense = keras.layers.Dense(2, kernel_initializer="identity")
    >>> model = keras.Sequential([keras.Input((2,)), dense])
    >>> float(regularize(model, SpectralNorm(1.0)).losses[0])
    0.5
    """
    check = keras.regularizers.Regularizer
    return _attached(
        model, regularizer, check, "regularizer", regularizers.InView, where
    )


def _attached(model, given, kind, name, in_view, where):
    if not isinstance(given, kind):
        raise ValueError(
            f"`{name}` must be a `{kind.__module__.split('.')[0]}` {kind.__name__}. "
            f"Received: {name}={given!r}"
        )
    if getattr(given, "output_axis", -1) != -1 or getattr(given, "kind", None):
        raise ValueError(
            f"`{name}` must leave `output_axis` and `kind` out: each layer knows its "
            f"own. Received: {name}={type(given).__name__} with {given.get_config()}"
        )
    copy = copy_model(model)
    everything = [w for w in weights(copy) if not w.is_wrapped]
    chosen = [w for w in weights(copy, where) if not w.is_wrapped]
    if not chosen:
        raise ValueError(
            "`where` must choose a kernel that its layer computes with. Received: "
            f"where={where!r} for '{model.name}', which has only wrapped ones there."
        )
    variables = {id(weight.variable) for weight in chosen}
    groups = {}
    for weight in everything:
        groups.setdefault((id(weight.layer), weight.slot.setting), []).append(weight)
    for group in groups.values():
        taken = [weight for weight in group if id(weight.variable) in variables]
        if taken and len(taken) < len(group):
            raise ValueError(
                f"`where` must choose all of {', '.join(w.name for w in group)}, to "
                f"which their layer gives one {name}. Received: only "
                f"{', '.join(w.name for w in taken)}."
            )
        if taken:
            _attach([weight.slot for weight in taken], given, name, in_view)
    return copy


def _attach(slots, given, name, in_view):
    """Give the kernels in `slots`, and the configs of their layers, what is given."""
    holders = {}
    for slot in slots:
        holder = slot.configured or slot.owner
        holders.setdefault(id(holder), (holder, []))[1].append(slot)
    for holder, own in holders.values():
        fitted = _fitted(own, given, in_view)
        setattr(holder, f"{own[0].setting}_{name}", fitted)
        for slot in own:
            setattr(slot.owner, f"{_own_setting(slot)}_{name}", fitted)
            setattr(slot.variable, name, fitted)


def _own_setting(slot):
    return "kernel" if slot.configured else slot.setting


def _fitted(slots, given, in_view):
    """Return what is given, for the views of these kernels."""
    if isinstance(given, constraints.LipschitzClip):
        induced = slots[0].induced
        given = type(given)(**{**given.get_config(), "kind": induced})
        if induced != "dense":
            # It takes the kernel as it is.
            return given
    views = {slot.view for slot in slots}
    if len({view.kernel_shape for view in views}) < len(views):
        raise ValueError(
            "`where` must choose kernels that can be told apart by their shapes. "
            f"Received: {', '.join(slot.name for slot in slots)}, of the shape "
            f"{slots[0].view.kernel_shape} with other axes of outputs. Take another "
            "number of heads, or leave them out."
        )
    if all(v.output_axes == (1,) and len(v.kernel_shape) == 2 for v in views):
        return given
    pairs = sorted((view.kernel_shape, view.output_axes) for view in views)
    return in_view(given, pairs)
