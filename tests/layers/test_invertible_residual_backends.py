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
