"""What a training step needs of a backend: gradients, scopes, replicas, devices."""

import contextlib

import keras
from keras import ops


def update(loss, network, optimizer, everything):
    """Let an optimizer move a network by the gradient of a loss.

    Args:
        loss: Callable without arguments, returns what to minimize and what to return;
            it may change state, such as moving statistics.
        network: `keras.Model`, whose trainable variables the optimizer was built for.
        optimizer: A Keras optimizer.
        everything: List of all `keras.Variable` that `loss` reads or changes.

    Returns:
        Scalar tensor, without a gradient.
    """
    if not network.trainable_variables:
        return ops.stop_gradient(loss()[1])
    step = {"tensorflow": _tape, "jax": _transformed, "torch": _recorded}
    value = step[keras.backend.backend()](
        loss, network.trainable_variables, optimizer, everything
    )
    return ops.stop_gradient(value)


def _tape(loss, variables, optimizer, everything):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        total, value = loss()
        # The gradients of replicas are added up.
        total = optimizer.scale_loss(total / replicas())
    optimizer.apply(tape.gradient(total, variables), variables)
    return value


def _transformed(loss, variables, optimizer, everything):
    import jax

    own = {id(variable) for variable in variables}
    others = [variable for variable in everything if id(variable) not in own]

    def scaled(values):
        mapping = [*zip(variables, values, strict=True), *((x, x) for x in others)]
        scope = keras.StatelessScope(
            mapping, collect_losses=True, initialize_variables=False
        )
        with scope:
            total, value = loss()
            total = optimizer.scale_loss(total)
        return total, (value, [scope.get_current_value(x) for x in others])

    before = [ops.convert_to_tensor(x) for x in variables]
    gradients, (value, after) = jax.grad(scaled, has_aux=True)(before)
    _assign(others, after)
    state = optimizer.variables
    # Where half precision overflows it branches, and does not assign.
    after, state_after = optimizer.stateless_apply(
        [ops.convert_to_tensor(x) for x in state], gradients, before
    )
    _assign([*variables, *state], [*after, *state_after])
    return value


def _recorded(loss, variables, optimizer, everything):
    import torch

    total, value = loss()
    gradients = torch.autograd.grad(
        optimizer.scale_loss(total), [x.value for x in variables], allow_unused=True
    )
    with torch.no_grad():
        optimizer.apply(list(gradients), variables)
    return value


def replicas():
    """Return over how many replicas of TensorFlow a batch is shared out here."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def _assign(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def gradient_by(function, x):
    """Return the gradient of a function by its input, itself differentiable.

    Args:
        function: Callable from a tensor to a tensor, whose entries are added up; it
            changes no state.
        x: Float tensor.

    Returns:
        Tensor of the shape of `x`.

    Example:
    >>> x = ops.convert_to_tensor([1.0, 2.0])
    >>> ops.convert_to_numpy(gradient_by(ops.square, x)).tolist()
    [2.0, 4.0]
    """
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.grad(lambda x: ops.sum(function(x)))(x)
    if backend == "torch":
        import torch

        x = x.detach().requires_grad_(True)
        return torch.autograd.grad(ops.sum(function(x)), x, create_graph=True)[0]
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(x)
        total = ops.sum(function(x))
    return tape.gradient(total, x)


def without_gradients():
    """Return a context in which nothing is recorded for a gradient."""
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()


def stepped(model, step, given):
    """Run a step as the trainer of Keras' backend asks for it.

    On JAX it hands over the values of all variables, and takes the new ones.

    Args:
        model: `keras.Model`.
        step: Callable from a batch to logs.
        given: Tuple, what `train_step` or `test_step` was given.
    """
    if keras.backend.backend() != "jax":
        return step(*given)
    state, data = given
    groups = [model.trainable_variables, model.non_trainable_variables]
    # A test step gets no optimizer.
    groups += [model.optimizer.variables] if len(state) == 4 else []
    groups.append(model.metrics_variables)
    mapping = [
        pair
        for variables, values in zip(groups, state, strict=True)
        for pair in zip(variables, values, strict=True)
    ]
    with keras.StatelessScope(mapping, initialize_variables=False) as scope:
        logs = step(data)
    return logs, tuple([scope.get_current_value(x) for x in group] for group in groups)


def shared_out(tensor):
    """Return a batch laid out over the devices of a `keras.distribution`.

    Of a part of a batch JAX would not know that each device should have its share.

    Args:
        tensor: Tensor (batch, ...), or `None`.
    """
    distribution = keras.distribution.distribution()
    if tensor is None or distribution is None:
        return tensor
    layout = distribution.get_data_layout(tensor.shape)
    return keras.distribution.distribute_tensor(tensor, layout)
