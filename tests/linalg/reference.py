"""Independent NumPy formulas and the backends' own derivatives, for tests."""

import keras
import numpy as np
from keras import ops

BACKEND = keras.backend.backend()


def clip(matrix, bound):
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    return (u * np.minimum(s, bound)) @ vt


def cap_stable_rank(matrix, r, k):
    """Algorithm 1 for k >= 1 and Theorem 1 for k = 0, on the singular values."""
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    squares = s**2
    if squares.sum() <= r * squares[0]:
        return matrix
    count = 1
    while count < k and squares[: count + 1].sum() <= r * squares[0]:
        count += 1
    kept, rest = squares[:count].sum(), squares[count:].sum()
    gamma = np.sqrt(max(r * squares[0] - kept, 0) / rest)
    lead = 1.0
    if k == 0 and r > 1:
        tail = (gamma + r - 1) / r
        gamma, lead = tail, tail / gamma
    return (u * np.r_[lead * s[:count], gamma * s[count:]]) @ vt


def with_spectrum(rng, shape, values):
    """A random matrix of that shape with these singular values."""
    p = len(values)
    left = np.linalg.qr(rng.standard_normal((shape[0], p)))[0]
    right = np.linalg.qr(rng.standard_normal((shape[1], p)))[0]
    return (left * np.array(values)) @ right.T


def slope_by_differences(function, matrix, step=1e-6):
    """Central finite differences of a scalar NumPy function."""
    slopes = np.zeros_like(matrix)
    for index in np.ndindex(matrix.shape):
        shift = np.zeros_like(matrix)
        shift[index] = step
        rise = function(matrix + shift) - function(matrix - shift)
        slopes[index] = rise / (2 * step)
    return slopes


def relative_error(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


# How `gradient` computes unless it is told, for tests that are run both ways.
compiled_by_default = False


def gradient(function, x, compiled=None):
    """The gradient of a scalar function of a tensor, as a NumPy array."""
    return gradient_of(function, compiled)(x)


def gradient_of(function, compiled=None):
    """Return x -> `gradient(function, x)`: compiled once, for many x."""
    compiled = compiled_by_default if compiled is None else compiled
    if BACKEND == "tensorflow":
        import tensorflow as tf

        def slope(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                value = function(x)
            return tape.gradient(value, x)

        if compiled:
            slope = tf.function(slope, jit_compile=compiled == "xla")
        return lambda x: slope(tf.constant(x)).numpy()
    if BACKEND == "jax":
        import jax

        slope = jax.grad(function)
        if compiled:
            slope = jax.jit(slope)
        return lambda x: np.asarray(slope(ops.array(x)))
    import torch

    def slope(x):
        x = torch.tensor(x, requires_grad=True)
        function(x).backward()
        return x.grad.numpy()

    return slope


def squared_gradient_by_differences(function, matrix, step):
    """What `gradient_of_squared_gradient` is, from differences of first derivatives."""
    # JAX traces each call anew unless it is compiled.
    slope = gradient_of(function, compiled_by_default or BACKEND == "jax")
    return slope_by_differences(lambda x: (slope(x) ** 2).sum(), matrix, step)


def gradient_of_squared_gradient(function, x):
    """The gradient of |d function / d x|^2 by x: a second derivative."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        def squared(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                value = function(x)
            return tf.reduce_sum(tape.gradient(value, x) ** 2)

        return gradient(squared, x)
    if BACKEND == "jax":
        import jax

        return gradient(lambda x: ops.sum(jax.grad(function)(x) ** 2), x)
    import torch

    def squared(x):
        (slope,) = torch.autograd.grad(function(x), x, create_graph=True)
        return (slope**2).sum()

    return gradient(squared, x)


def penalty(function, x):
    """Return W -> |d function(x, W) / d x|^2, a gradient penalty."""
    x = ops.convert_to_tensor(x)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        def squared(weight):
            with tf.GradientTape() as tape:
                tape.watch(x)
                value = function(x, weight)
            return tf.reduce_sum(tape.gradient(value, x) ** 2)

        return squared
    if BACKEND == "jax":
        import jax

        return lambda weight: ops.sum(jax.grad(function)(x, weight) ** 2)
    import torch

    def squared(weight):
        live = x.detach().requires_grad_()
        value = function(live, weight)
        return (torch.autograd.grad(value, live, create_graph=True)[0] ** 2).sum()

    return squared
