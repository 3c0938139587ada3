"""Invertible blocks on TensorFlow, JAX and torch alike."""

import keras
import numpy as np
import pytest
from keras import layers as kl

from keras_spectral.layers import InvertibleResidual
from tests.layers.kinds import images, numpy

CASES = {
    "dense": ([(kl.Dense, 6, "elu"), (kl.Dense, 4, None)], (4,)),
    "convolution": ([(kl.Conv2D, 3, "elu"), (kl.Conv2D, 2, None)], (4, 4, 2)),
}


class Flow(kl.Layer):
    """Trains a block for its log-determinant alone."""

    def __init__(self, block, power_terms):
        super().__init__()
        self.block = block
        self.power_terms = power_terms

    def call(self, inputs):
        outputs = self.block(inputs)
        estimate = self.block.log_determinant(inputs, self.power_terms)
        self.add_loss(-keras.ops.mean(estimate))
        return 0 * outputs


def test_the_log_determinant_trains():
    """Of a diagonal branch the gradient is known, whatever the probe's signs.

    The derivative of v'A^k v / k by A_ii is a_i^(k-1) v_i^2 at a diagonal A.
    """
    block = InvertibleResidual([kl.Dense(3, use_bias=False)], bound=0.8)
    model = keras.Sequential([keras.Input((3,)), Flow(block, power_terms=4)])
    diagonal = np.array([0.5, -0.3, 0.1])
    kernel = block.function.layers[0].kernel
    kernel.assign(np.diag(diagonal))
    model.compile(keras.optimizers.SGD(0.01), "mse")
    model.fit(images(3), np.zeros((4, 3)), batch_size=4, verbose=0)
    gradient = sum((-diagonal) ** (k - 1) for k in range(1, 5))
    np.testing.assert_allclose(
        np.diag(numpy(kernel)), diagonal + 0.01 * gradient, atol=1e-6
    )


def test_losses_inside_a_log_determinant_do_not_escape():
    """Not into the trace of JAX, and not into the model's loss."""
    branch = [kl.Dense(3, activity_regularizer="l2")]
    flow = Flow(InvertibleResidual(branch), power_terms=2)
    model = keras.Sequential([keras.Input((3,)), flow])
    model.compile("sgd", "mse")
    loss = model.fit(images(3), np.zeros((4, 3)), verbose=0).history["loss"]
    assert np.isfinite(loss).all()
    model(images(3))
    assert len(model.losses) == 2


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "float32"])
def test_precision_of_the_branch(dtype):
    block = InvertibleResidual(
        [kl.Dense(4, "elu", dtype=dtype), kl.Dense(3, dtype=dtype)]
    )
    x = images(3)
    found = block.inverse(block(x), tolerance=0.02 if "16" in dtype else 1e-5)
    np.testing.assert_allclose(numpy(found.x), x, atol=0.05 if "16" in dtype else 1e-4)
    estimate = block.log_determinant(x, probes=2)
    assert keras.backend.standardize_dtype(estimate.dtype) == "float32"
    assert np.isfinite(numpy(estimate)).all()


@pytest.mark.parametrize("case", CASES)
def test_train_invert_and_measure(case):
    layers, shape = CASES[case]
    arguments = {"kernel_size": 3, "padding": "same"} if case == "convolution" else {}
    block = InvertibleResidual(
        [kind(size, activation=name, **arguments) for kind, size, name in layers],
        bound=0.7,
    )
    x = images(*shape)
    model = keras.Sequential([keras.Input(shape), block, kl.Flatten()])
    model.compile(keras.optimizers.Adam(0.05), "mse")
    loss = model.fit(x, 2 * x.reshape(4, -1), epochs=6, verbose=0).history["loss"]
    assert loss[-1] < loss[0]
    assert block.lipschitz_bound() <= 0.7
    found = block.inverse(block(x), tolerance=1e-5)
    np.testing.assert_allclose(numpy(found.x), x, atol=1e-3)
    assert found.rate <= 0.7 * 1.01
    estimate = numpy(block.log_determinant(x, power_terms=5, probes=2))
    assert estimate.shape == (4,) and np.isfinite(estimate).all()
    # No eigenvalue of the Jacobian leaves 1 +- 0.7.
    size = int(np.prod(shape))
    assert (np.abs(estimate) <= size * -np.log1p(-0.7)).all()
