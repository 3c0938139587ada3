"""The graph of a model: its operations, what each reads, where it ends."""

from typing import NamedTuple

import keras

from keras_spectral.models.keras_internals import call_arguments, functional_graph


def has_graph(model):
    """Return whether the layers of a model can be followed, and replaced, from outside.

    Args:
        model: Any object.

    Returns:
        Boolean: True for a `keras.Sequential` and a functional `keras.Model`.

    Example:
    >>> has_graph(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]))
    True
    >>> has_graph(keras.layers.Dense(2))
    False
    """
    # `keras.Function` is the public name of what a functional model is besides.
    return isinstance(model, keras.Sequential) or (
        isinstance(model, keras.Model) and isinstance(model, keras.Function)
    )


def check_graph(model):
    """Raise a ValueError unless `has_graph` of a model, and it is built.

    Args:
        model: A `keras.Model`.

    Example:
    >>> check_graph(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]))
    """
    if not has_graph(model):
        raise ValueError(
            "`model` must be a `keras.Sequential` or a functional `keras.Model`: the "
            "layers of another cannot be replaced from outside. Received: "
            f"{model!r}. Change its layers where it makes them."
        )
    if not model.built:
        raise ValueError(
            f"`model` must be built. Received: '{model.name}', which has no weights "
            "yet. Call it on a batch first."
        )


def computes_as_its_graph(model):
    """Return whether a model does what its graph says, and nothing besides.

    Args:
        model: A `keras.Model`.

    Returns:
        Boolean; False for a subclass with a `call` of its own, and without a graph.

    Example:
    >>> layers = [keras.Input((3,)), keras.layers.Dense(2)]
    >>> computes_as_its_graph(keras.Sequential(layers))
    True
    """
    told = next(kind for kind in type(model).__mro__ if "call" in vars(kind))
    return has_graph(model) and told.__module__.startswith("keras.src.")


def follow(model, values, call, seen=None):
    """Follow the calls of a model, with something in the place of its tensors.

    Shared layers are met at each use, and nested models are entered, but for those
    that do more than their graph says.

    Args:
        model: A built `keras.Sequential` or functional `keras.Model`.
        values: List of objects, one in the place of each input.
        call: Callable that gets an operation, its positional arguments and its keyword
            arguments, with objects for tensors, and a list of the `keras.KerasTensor`
            that it makes; it returns a list of objects, one for each.
        seen: Callable that gets an operation, a list of the `keras.KerasTensor` that
            it makes and the objects for them, after each call, of nested models too.

    Returns:
        List of objects, one for each output.

    Raises:
        ValueError: If a nested model is called with a dict.

    Example:
    >>> x = keras.Input((4,))
    >>> dense = keras.layers.Dense(4, name="dense")
    >>> model = keras.Model(x, keras.layers.Add(name="sum")([dense(x), x]))
    >>> def written(operation, arguments, keywords, made):
    ...     return [f"{operation.name}({', '.join(keras.tree.flatten(arguments))})"]
    >>> follow(model, ["x"], written)
    ['sum(dense(x), x)']
    """
    inputs, calls, outputs = functional_graph(model)
    known = {id(x): value for x, value in zip(inputs, values, strict=True)}
    for node in calls:
        operation = node.operation
        arguments, keywords = call_arguments(node, known)
        if isinstance(operation, keras.Model) and computes_as_its_graph(operation):
            stand = {id(value) for value in known.values()}
            given = keras.tree.flatten((arguments, keywords))
            given = [value for value in given if id(value) in stand]
            count = len(functional_graph(operation)[0])
            if any(map(_is_dict, arguments)) or len(given) != count:
                raise ValueError(
                    "`model` must call the models inside with lists of tensors. "
                    f"Received: a call of '{operation.name}' with a dict or constants."
                )
            made = follow(operation, given, call, seen)
        else:
            made = call(operation, arguments, keywords, node.outputs)
        known.update((id(x), new) for x, new in zip(node.outputs, made, strict=True))
        if seen is not None:
            seen(operation, node.outputs, made)
    return [known[id(x)] for x in outputs]


def _is_dict(value):
    return isinstance(value, dict)


def count_calls(model) -> int:
    """Return how often `follow` calls what it was given as `seen`.

    Args:
        model: A built `keras.Sequential` or functional `keras.Model`.

    Example:
    >>> count_calls(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))
    1
    """
    count = 0
    for node in functional_graph(model)[1]:
        operation = node.operation
        entered = isinstance(operation, keras.Model)
        if entered and computes_as_its_graph(operation):
            count += count_calls(operation)
        count += 1
    return count


class Node(NamedTuple):
    """An operation of a model.

    Args:
        operation: The `keras.Operation`: a layer, a model, or a plain operation such
            as that of `x + y`.
        reads: List of strings, the operations whose outputs it reads: one a tensor,
            in all of its calls; none for an input and the first layer of a Sequential.
    """

    operation: keras.Operation
    reads: list


def nodes(model):
    """Return the operations of a model in an order in which they can run.

    Args:
        model: A built `keras.Sequential` or functional `keras.Model`; nested ones are
            not entered.

    Returns:
        List of `Node`.

    Raises:
        ValueError: If the model is of another kind.

    Example:
    >>> x = keras.Input((4,), name="x")
    >>> dense = keras.layers.Dense(4, name="dense")
    >>> model = keras.Model(x, keras.layers.Add(name="sum")([dense(x), x]))
    >>> [(node.operation.name, node.reads) for node in nodes(model)]
    [('x', []), ('dense', ['x']), ('sum', ['dense', 'x'])]
    """
    if isinstance(model, keras.Sequential):
        names = [layer.name for layer in model.layers]
        return [
            Node(layer, names[max(at - 1, 0) : at])
            for at, layer in enumerate(model.layers)
        ]
    entries = None
    if has_graph(model):
        # A subclass of a functional model may have a config of its own.
        entries = model.get_config().get("layers")
    if entries is None:
        raise ValueError(
            "`model` must be a `keras.Sequential` or a functional `keras.Model`, "
            f"whose layers can be followed. Received: {model!r}."
        )
    named = {operation.name: operation for operation in model.operations}
    return [
        Node(named[entry["name"]], _sources(entry["inbound_nodes"]))
        for entry in entries
    ]


def _sources(value):
    """Return the names of the operations that made the tensors of serialized calls."""
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__":
            return [value["config"]["keras_history"][0]]
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [source for item in value for source in _sources(item)]
    return []


def chain(model):
    """Yield the operations of a model without branches; nested models are entered.

    Args:
        model: A built `keras.Sequential` or functional `keras.Model`.

    Yields:
        `keras.Operation` instances, each of which reads what the one before computes.

    Raises:
        ValueError: If the model is of another kind, has several inputs or outputs, an
            operation reads several tensors, or one is used twice.

    Example:
    >>> inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="a")])
    >>> outer = keras.Sequential([inner, keras.layers.Dense(1, name="b")])
    >>> [operation.name for operation in chain(outer)]
    ['a', 'b']
    """
    found = nodes(model)
    if not isinstance(model, keras.Sequential):
        _check_chain(model, found)
    for operation, _ in found:
        if isinstance(operation, keras.Model):
            yield from chain(operation)
        else:
            yield operation


def _check_chain(model, found):
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            "`model` must have one input and one output. Received: "
            f"'{model.name}' with {len(model.inputs)} and {len(model.outputs)}."
        )
    for operation, reads in found:
        if len(reads) != 1 and not isinstance(operation, keras.layers.InputLayer):
            raise ValueError(
                "`model` must be a chain: every layer is used once and reads one "
                f"tensor. Received: '{operation.name}', a "
                f"{type(operation).__name__}, which reads {len(reads)}. Take a part "
                "of the model without branches."
            )


def is_output(model, layer):
    """Return whether a model's one output is what a layer computes.

    Args:
        model: A `keras.Model`.
        layer: A `keras.layers.Layer` of it.

    Returns:
        Boolean; False for a model without a graph, and for a later use of a layer that
        is used several times.

    Example:
    >>> layers = [keras.Input((4,)), *(keras.layers.Dense(3) for _ in range(2))]
    >>> model = keras.Sequential(layers)
    >>> [is_output(model, layer) for layer in model.layers]
    [False, True]
    """
    try:
        return len(model.outputs) == 1 and model.outputs[0] is layer.output
    except (AttributeError, ValueError):
        return False
