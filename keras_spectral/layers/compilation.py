"""What XLA does badly, and a word about it."""

import warnings

import keras

# XLA's eigenvalues and singular values of smaller matrices are slow, but not many.
_LARGEST_SIDE = 64


def warn_of_factorization(layer, matrix):
    """Warn if a large matrix is about to be factored by XLA on TensorFlow.

    Args:
        layer: The `keras.layers.Layer` that factors it, in each call.
        matrix: Tensor (m, n).

    Example:
    >>> import numpy as np
    >>> warn_of_factorization(keras.layers.Dense(2, name="head"), np.eye(3))
    """
    side = min(matrix.shape)
    if side > _LARGEST_SIDE and _compiled_by_xla():
        warnings.warn(
            f"Layer '{layer.name}' factors a matrix with {side} rows in each step, "
            "which XLA makes 25 to 1,000 times slower. Compile with "
            '`jit_compile=False`, or use `SpectralNormalization(method="block")` with '
            "the default `block_size`.",
            stacklevel=2,
        )


def _compiled_by_xla():
    """Return whether a TensorFlow function is being traced for XLA."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf
    from tensorflow.python.ops import control_flow_util

    graph = tf.compat.v1.get_default_graph()
    return control_flow_util.GraphOrParentsInXlaContext(graph)
