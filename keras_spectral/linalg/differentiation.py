"""Gradients, directional derivatives and compiled functions, on every backend."""

import functools

import keras


def gradients(function, tensors):
    """Return the gradients of a number by some tensors, and what came of it besides.

    Args:
        function: Callable of a list of tensors that returns a scalar tensor and a
            structure of tensors.
        tensors: List of float tensors.

    Returns:
        Tuple of a list of tensors of the shapes of `tensors`, zero where nothing
        depends on one, and the structure.

    Example:
    >>> from keras import ops
    >>> (slope,), _ = gradients(lambda x: (ops.sum(x[0] ** 2), ()), [ops.ones((2,))])
    >>> ops.convert_to_numpy(slope).tolist()
    [2.0, 2.0]
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(tensors)
            number, others = function(tensors)
        return tape.gradient(number, tensors, unconnected_gradients="zero"), others
    if backend == "jax":
        import jax

        return jax.grad(function, has_aux=True)(tensors)
    import torch

    with torch.enable_grad():
        live = [x.detach().requires_grad_() for x in tensors]
        number, others = function(live)
        found = [None] * len(live)
        if number.requires_grad:
            found = torch.autograd.grad(number, live, allow_unused=True)
    found = [
        torch.zeros_like(x) if slope is None else slope
        for x, slope in zip(live, found, strict=True)
    ]
    return found, keras.tree.map_structure(lambda x: x.detach(), others)


class NoDerivative(Exception):
    """What `directional` raises of a tensor; `args[0]` is its index."""


def directional(function, tensor, tangent):
    """Return the derivative of tensors along a direction, by forward differentiation.

    Args:
        function: Callable of a tensor that returns a list of float tensors, each of
            which depends on it.
        tensor: Float tensor.
        tangent: Float tensor of its shape.

    Returns:
        List of tensors.

    Raises:
        NoDerivative: If there is none, as TensorFlow has none of an interpolation.

    Example:
    >>> from keras import ops
    >>> (along,) = directional(lambda x: [x**2], ops.ones((2,)), ops.ones((2,)))
    >>> ops.convert_to_numpy(along).tolist()
    [2.0, 2.0]
    """
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.jvp(function, (tensor,), (tangent,))[1]
    if backend == "torch":
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel

        # The fused attention has no forward derivative.
        with sdpa_kernel(SDPBackend.MATH):
            return torch.func.jvp(function, (tensor,), (tangent,))[1]
    import tensorflow as tf

    try:
        with tf.autodiff.ForwardAccumulator(tensor, tangent) as accumulator:
            values = function(tensor)
        found = [accumulator.jvp(value) for value in values]
    except TypeError:
        # Loops, as of recurrent layers, have none: J v is linear in c of J' c.
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                inner.watch(tensor)
                values = function(tensor)
            weights = [tf.zeros_like(value) for value in values]
            outer.watch(weights)
            pulled = inner.gradient(values, tensor, weights)
        found = outer.gradient(pulled, weights, tangent)
    for index, along in enumerate(found):
        if along is None:
            # Zero would be wrong where a gradient has no gradient of its own.
            raise NoDerivative(index)
    return found


def compiled(function, variables=()):
    """Return a function of tensors that is compiled once for each of their shapes.

    TensorFlow has one graph for the first shapes, and one with open sizes for the
    others. torch runs as it is written, without keeping anything for a backward pass.

    Args:
        function: Callable of structures of tensors that returns one.
        variables: List of `keras.Variable` that it reads, and leaves as they are. What
            they are when it is called counts, not when it was compiled.

    Returns:
        Callable of the same arguments.

    Example:
    >>> from keras import ops
    >>> double = compiled(lambda x: 2.0 * x)
    >>> float(double(ops.ones(())))
    2.0
    """

    def inference(values, arguments):
        # As constants of JAX's program the values would double in memory, and never
        # change. What a layer would assign, or add as a loss, is dropped.
        mapping = list(zip(variables, values, strict=True)) if values else None
        with keras.StatelessScope(state_mapping=mapping):
            return function(*arguments)

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        run = tf.function(inference, autograph=False, reduce_retracing=True)
        return lambda *arguments: run([], arguments)
    if backend == "jax":
        import jax

        run = jax.jit(inference)
        return lambda *arguments: run([v.value for v in variables], arguments)
    import torch

    @functools.wraps(function)
    def without_tape(*arguments):
        with torch.no_grad():
            return inference([], arguments)

    return without_tape
