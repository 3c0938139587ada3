"""Functions that TensorFlow traces once, not once a layer."""

import functools

import keras


def traced_once(function):
    """Make a function be traced once for all tensors of the same shapes.

    A network has many kernels of few shapes, and what makes its first step slow is the
    number of operations in its graph. In a TensorFlow graph a call becomes one
    operation, that of a function which all such calls share; elsewhere nothing changes.

    Args:
        function: Callable of tensors, by position, and hashable Python values, by
            keyword, that returns tensors and touches no variable.

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
        if keras.backend.backend() != "tensorflow":
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
            with tf.init_scope():
                traced = tf.function(bound, autograph=False)
                traces[key] = traced.get_concrete_function(*specs)
        return traces[key](*tensors)

    return call
