"""What `keras.layers.SpectralNormalization` does and what ours does, measured.

    python benchmarks/comparison.py

prints the table of the README. Each row is a function that takes a wrapper and
returns a number; nothing is looked up.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from keras import layers as kl

from keras_spectral import data
from keras_spectral.layers import SpectralNormalization
from keras_spectral.linalg import convolution_operator, power_iteration

WRAPPERS = {
    "Keras": keras.layers.SpectralNormalization,
    "keras_spectral": SpectralNormalization,
}


def numbers(*shape, scale=1.0, seed=0):
    array = np.random.default_rng(seed).standard_normal(shape)
    return (scale * array).astype("float32")


def built(wrap, layer, x, kernel=None, **arguments):
    layer = wrap(layer, **arguments)
    layer.build(x.shape)
    if kernel is not None:
        layer.layer.kernel.assign(kernel)
        if hasattr(layer, "restart_power_iteration"):
            layer.restart_power_iteration()
    return layer


def effective(layer):
    """The kernel that the layer computes with in inference."""
    ours = hasattr(layer, "effective_kernel")
    kernel = layer.effective_kernel() if ours else layer.layer.kernel
    return keras.ops.convert_to_numpy(kernel).astype("float64")


def norm(matrix):
    return float(np.linalg.norm(matrix, 2)) if np.isfinite(matrix).all() else np.nan


def gradient_error(wrap):
    """Relative distance to the gradient of <c, x W / sigma(W)>, by the SVD formula."""
    x, c, kernel = numbers(5, 6), numbers(5, 4, seed=1), numbers(6, 4, seed=2)
    dense = kl.Dense(4, use_bias=False)
    layer = built(wrap, dense, x, kernel, power_iterations=200)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(layer(x, training=True) * c)
    gradient = tape.gradient(value, layer.layer.kernel.value).numpy()
    matrix, cotangent = kernel.T.astype("float64"), (x.T @ c).T.astype("float64")
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    inner = (cotangent * matrix).sum()
    expected = cotangent / s[0] - inner / s[0] ** 2 * np.outer(u[:, 0], vt[0])
    return norm(gradient.T - expected) / norm(expected)


def kernel_change(wrap, trainable=True):
    """How far one forward pass with training=True moves the trainable kernel."""
    x, kernel = numbers(5, 6), numbers(6, 4, scale=3)
    layer = built(wrap, kl.Dense(4), x, kernel)
    layer.trainable = trainable
    layer(x, training=True)
    return norm(layer.layer.kernel.numpy() - kernel) / norm(kernel)


def kernel_change_of_a_frozen_layer(wrap):
    return kernel_change(wrap, trainable=False)


def untrained_norm(wrap):
    """Norm in inference, before the first training step."""
    x = numbers(5, 64)
    return norm(effective(built(wrap, kl.Dense(32), x, numbers(64, 32))))


def first_step_norm(wrap):
    """Norm in the first training step, the worst of five convolutions."""
    worst = 0.0
    for seed in range(5):
        x, kernel = numbers(1, 4, 4, 128), numbers(3, 3, 128, 128, seed=seed)
        layer = built(wrap, kl.Conv2D(128, 3), x, kernel)
        layer(x, training=True)
        worst = max(worst, norm(effective(layer).reshape(-1, 128)))
    return worst


def norm_after_training(wrap):
    """The norm of a classifier's head after training, of five the farthest from 1.

    README's first example with a plain convolution, of five seeds.
    """
    digits = data.load("digits").train
    norms = []
    for seed in range(5):
        keras.utils.set_random_seed(seed)
        head = wrap(kl.Dense(10))
        convolution = kl.Conv2D(32, 3, strides=2, activation="relu")
        layers = [keras.Input((8, 8, 1)), convolution, kl.Flatten(), head]
        model = keras.Sequential(layers)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(0.003), loss)
        model.fit(digits.inputs(), digits.labels, epochs=5, verbose=0)
        norms.append(norm(effective(head)))
    return max(norms, key=lambda found: abs(found - 1))


def change_between_two_calls(wrap):
    """One input, twice in one training step, as D(real) and D(fake) are."""
    x = numbers(8, 64)
    layer = built(wrap, kl.Dense(64, use_bias=False), x, numbers(64, 64, seed=1))
    first = layer(x, training=True).numpy()
    return norm(layer(x, training=True).numpy() - first) / norm(first)


def rounded_share(wrap):
    """Share of the float32 kernel's entries that are bfloat16 numbers afterwards."""
    x = numbers(5, 64)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer = built(wrap, kl.Dense(32), x, numbers(64, 32))
    finally:
        keras.config.set_dtype_policy(policy)
    layer(x, training=True)
    kernel = layer.layer.kernel.numpy()
    rounded = tf.cast(tf.cast(kernel, "bfloat16"), "float32").numpy()
    return float(np.mean(rounded == kernel))


def norm_of_a_tiny_kernel(wrap):
    x = numbers(5, 16)
    layer = built(wrap, kl.Dense(8), x, numbers(16, 8, scale=1e-9), power_iterations=99)
    layer(x, training=True)
    return norm(effective(layer))


def norm_of_a_huge_kernel(wrap):
    x = numbers(5, 16)
    layer = built(wrap, kl.Dense(8), x, numbers(16, 8, scale=1e25), power_iterations=99)
    layer(x, training=True)
    return norm(effective(layer))


def _after_training_calls(wrap, layer, x, **arguments):
    layer = built(wrap, layer, x, power_iterations=99, **arguments)
    layer(x, training=True)
    return effective(layer)


def attention_projection_norm(wrap):
    dense = kl.EinsumDense("abc,cde->abde", (None, 4, 8))
    return norm(_after_training_calls(wrap, dense, numbers(2, 3, 16)).reshape(16, 32))


def depthwise_norm(wrap):
    kernel = _after_training_calls(wrap, kl.DepthwiseConv2D(3), numbers(1, 8, 8, 16))
    return norm(kernel.reshape(9, 16))


def transposed_norm(wrap):
    layer = kl.Conv2DTranspose(8, 4)
    kernel = _after_training_calls(wrap, layer, numbers(1, 6, 6, 32))
    return norm(np.moveaxis(kernel, 2, 3).reshape(-1, 8))


def convolution_norm(wrap):
    """The convolution's own norm, which a Lipschitz bound needs."""
    arguments = {} if wrap is WRAPPERS["Keras"] else {"norm": "operator"}
    layer, x = kl.Conv2D(16, 3, padding="same"), numbers(1, 16, 16, 16)
    kernel = _after_training_calls(wrap, layer, x, **arguments)
    operator = convolution_operator(kernel, (16, 16), padding="same")
    return float(power_iteration(operator, iterations=500).sigma)


def kinds(wrap):
    """Of these layers, how many can be wrapped, called and trained."""
    images, sequence, tokens = numbers(2, 8, 8, 4), numbers(2, 5, 4), np.array([[1, 2]])
    cases = [
        (kl.SeparableConv2D(4, 3), images),
        (kl.SimpleRNN(4), sequence),
        (kl.LSTM(4), sequence),
        (kl.GRU(4), sequence),
        (kl.Bidirectional(kl.LSTM(4)), sequence),
        (kl.TimeDistributed(kl.Dense(4)), sequence),
        (kl.MultiHeadAttention(2, 4), sequence),
        (kl.Embedding(5, 4), tokens),
    ]
    count = 0
    for layer, x in cases:
        inputs = (x, x) if isinstance(layer, kl.MultiHeadAttention) else (x,)
        try:
            wrapped = wrap(layer)
            with tf.GradientTape() as tape:
                total = tf.reduce_sum(
                    tf.cast(wrapped(*inputs, training=True), "float32")
                )
            gradients = tape.gradient(total, wrapped.trainable_variables)
        except (ValueError, TypeError):
            continue
        count += all(g is not None for g in gradients) and float(total) != 0
    return count


ROWS = {
    "gradient: relative error": (gradient_error, "0"),
    "trainable kernel moved by a forward pass": (kernel_change, "0"),
    "... of a frozen layer": (kernel_change_of_a_frozen_layer, "0"),
    "norm before the first training step": (untrained_norm, "1"),
    "norm in the first step, 3x3x128x128, worst of 5": (first_step_norm, "1"),
    "norm after training, worst of 5 seeds": (norm_after_training, "1"),
    "two calls in one step: outputs apart": (change_between_two_calls, "0"),
    "bfloat16: float32 weights rounded to half": (rounded_share, "0"),
    "norm of a kernel of scale 1e-9": (norm_of_a_tiny_kernel, "1"),
    "norm of a kernel of scale 1e25": (norm_of_a_huge_kernel, "1"),
    "norm, EinsumDense of attention": (attention_projection_norm, "1"),
    "norm, DepthwiseConv2D": (depthwise_norm, "1"),
    "norm, Conv2DTranspose": (transposed_norm, "1"),
    "the convolution's own norm, Conv2D 3x3": (convolution_norm, "1"),
    "recurrent, separable, attention ... of 8": (kinds, "8"),
}


def measure():
    """Return rows (what, wanted, Keras' number, ours) as text."""
    rows = []
    for what, (function, wanted) in ROWS.items():
        values = [function(wrap) for wrap in WRAPPERS.values()]
        rows.append((what, wanted, *(f"{value:.3g}" for value in values)))
    return rows


def main():
    print("| measured | wanted | Keras' own | keras_spectral |")
    print("|---|---|---|---|")
    for row in measure():
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
