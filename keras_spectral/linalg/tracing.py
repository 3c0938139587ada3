"""Functions that TensorFlow traces once, not once a layer."""

import contextlib
import contextvars
import functools
import zlib

import keras

# Whether what runs is part of a function of `traced_once`, or of its gradient.
_shared = contextvars.ContextVar("shared", default=False)


@contextlib.contextmanager
def _sharing():
    token = _shared.set(True)
    try:
        yield
    finally:
        _shared.reset(token)


def traced_once(function):
    """Make a function be traced once for all tensors of the same shapes.

    A network has many kernels of few shapes, and what makes its first step slow is the
    number of operations in its graph. In a TensorFlow graph a call becomes one
    operation, that of a function which all such calls share; elsewhere nothing changes.

    Args:
        function: Callable of tensors, by position, and hashable Python values, by
            keyword, that returns tensors and touches no variable. What has a gradient
            of its own in it uses `with_gradient`.

    Returns:
        Callable of the same arguments.

    Example:
    >>> half = traced_once(lambda x: x / 2.0)
    >>> float(half(6.0))
    3.0
    """
    traces = {}

    @functools.wraps(function)
    def call(*tensors, **options):
        if keras.backend.backend() != "tensorflow" or _shared.get():
            return function(*tensors, **options)
        import tensorflow as tf

        if not tf.inside_function():
            return function(*tensors, **options)
        tensors = [tf.convert_to_tensor(x) for x in tensors]
        specs = [tf.TensorSpec(x.shape, x.dtype) for x in tensors]
        key = (*specs, *sorted(options.items()))
        if key not in traces:
            bound = functools.partial(function, **options)
            # Outside of what is being traced now, which other calls will not share.
            with tf.init_scope(), _sharing():
                traced = tf.function(bound, autograph=False)
                traces[key] = traced.get_concrete_function(*specs)
        return traces[key](*tensors)

    return call


def with_gradient(forward, gradient, inputs, option=None):
    """Return `forward(*inputs)` on TensorFlow, whose gradient is another function.

    It is what `tf.custom_gradient` gives, inside of `traced_once` as well. What is
    traced there and its gradient are differentiated again in graphs of their own, in
    which no tensor is known that a gradient closed over, so it gets the inputs.

    Args:
        forward: Callable, tensors to a tuple of tensors.
        gradient: Function (option, inputs, gradients by the outputs) that returns a
            gradient for each of the inputs, or `None` for no gradient.
        inputs: List of tensors.
        option: What `gradient` depends on besides; its `repr` tells all of it.

    Returns:
        Tuple of tensors.
    """
    import tensorflow as tf

    if not _shared.get():

        @tf.custom_gradient
        def call(*inputs):
            return forward(*inputs), lambda *by: gradient(option, inputs, by)

        return call(*inputs)
    outputs = forward(*inputs)
    name = _registered(gradient, option, len(outputs))
    graph = tf.compat.v1.get_default_graph()
    with graph.gradient_override_map({"IdentityN": name}):
        together = tf.raw_ops.IdentityN(input=[*outputs, *inputs])
    return tuple(together[: len(outputs)])


@functools.cache
def _registered(gradient, option, outputs):
    """Return the name by which TensorFlow finds a gradient, the same in each process.

    It belongs to an operation whose inputs are the `outputs` of a function and then
    what that was called with.
    """
    import tensorflow as tf

    option_id = zlib.crc32(repr(option).encode())
    name = f"keras_spectral.{gradient.__name__}.{outputs}.{option_id}"

    def by_inputs(operation, *upstream):
        with _sharing():
            inputs = operation.inputs[outputs:]
            found = gradient(option, inputs, upstream[:outputs])
        return [*(None for _ in range(outputs)), *found]

    # Another thread may have registered the same a moment ago.
    with contextlib.suppress(KeyError):
        tf.RegisterGradient(name)(by_inputs)
    return name
