"""Calling a layer with other values in some of its variables."""

import keras
from keras import ops


def call_substituted(layer, values, function, add_loss=None):
    """Return `function()` in which variables of `layer` have other values.

    The values are visible to this call alone: no attribute of the layer is touched, so
    other threads and other traces do not see them. What the call does besides is handed
    on: losses, and the variables that it changes (seeds, statistics).

    Args:
        layer: A built `keras.layers.Layer`.
        values: List of (`keras.Variable` of the layer, tensor of its shape).
        function: Callable without arguments that calls the layer.
        add_loss: Callable that takes a loss of the call, or `None` to drop them.

    Returns:
        What `function` returns.

    Example:
    >>> import numpy as np
    >>> layer = keras.layers.Dense(1, use_bias=False)
    >>> layer.build((None, 2))
    >>> ones = ops.ones((2, 1))
    >>> x = np.ones((1, 2), "float32")
    >>> float(call_substituted(layer, [(layer.kernel, ones)], lambda: layer(x))[0, 0])
    2.0
    """
    # With some variables left out, an outer scope's values would be lost (Keras' JAX
    # trainer and `stateless_call` work by scopes), and a seed would not advance.
    variables = layer.variables
    mapping = {id(v): (v, ops.convert_to_tensor(v)) for v in variables}
    mapping |= {id(v): (v, value) for v, value in values}
    scope = keras.StatelessScope(
        state_mapping=mapping.values(),
        collect_losses=add_loss is not None,
        initialize_variables=False,
    )
    before = [scope.get_current_value(v) for v in variables]
    with scope:
        outputs = function()
    for variable, value in zip(variables, before, strict=True):
        new = scope.get_current_value(variable)
        if new is not value:
            variable.assign(new)
    for loss in scope.losses:
        add_loss(loss)
    return outputs
