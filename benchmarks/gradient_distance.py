"""How far the gradient of stable rank normalization is from the exact one.

The layer holds u and v constant (the paper's estimator). The exact gradient is
autodiff through the SVD of Theorem 1, k = 1, divided by the norm. Gaussian
kernels and cotangents, float64, median of five.

    python benchmarks/gradient_distance.py
"""

import numpy as np
import tensorflow as tf

from keras_spectral import linalg


def gradients(weight, cotangent, stable_rank):
    u, _, vt = np.linalg.svd(weight, full_matrices=False)
    leading = np.outer(u[:, 0], vt[0])
    weight = tf.constant(weight)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(weight)
        # The exact projection, differentiated through the SVD.
        s, u, v = tf.linalg.svd(weight)
        rest = tf.reduce_sum(s[1:] ** 2)
        gamma = tf.sqrt((stable_rank - 1) * s[0] ** 2 / tf.maximum(rest, 1e-30))
        gamma = tf.minimum(gamma, 1.0)
        values = tf.concat([s[:1], gamma * s[1:]], axis=0) / s[0]
        exact = tf.reduce_sum((u * values) @ tf.transpose(v) * cotangent)
        sigma = tf.reduce_sum(weight * leading)
        factor = linalg.remainder_factor(tf.reduce_sum(weight**2), sigma, stable_rank)
        capped = factor * weight + (1 - factor) * sigma * leading
        estimate = tf.reduce_sum(capped / sigma * cotangent)
    return tape.gradient(exact, weight).numpy(), tape.gradient(estimate, weight).numpy()


def main():
    rng = np.random.default_rng(0)
    print("shape       ratio  relative distance  cosine")
    for shape in ((64, 32), (576, 64)):
        for ratio in (0.1, 0.3):
            rows = []
            for _ in range(5):
                weight, cotangent = rng.standard_normal((2, *shape))
                exact, estimate = gradients(weight, cotangent, ratio * min(shape))
                norm = np.linalg.norm(exact)
                cosine = (exact * estimate).sum() / norm / np.linalg.norm(estimate)
                rows.append((np.linalg.norm(exact - estimate) / norm, cosine))
            distance, cosine = np.median(rows, axis=0)
            print(f"{shape!s:12}{ratio:5}  {distance:17.3f}  {cosine:6.4f}")


if __name__ == "__main__":
    main()
