"""What must hold on TensorFlow, JAX and torch alike."""

import keras
import numpy as np
import pytest

from keras_spectral.constraints import LipschitzClip


@pytest.mark.parametrize("p", [1, 2, np.inf])
def test_fit_with_a_constraint(rng, p):
    constraint = LipschitzClip(0.5, p)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(3, 3, kernel_constraint=constraint),
            keras.layers.Flatten(),
            keras.layers.Dense(4, kernel_constraint=constraint),
        ]
    )
    model.compile(keras.optimizers.SGD(0.5), "mse")
    model.fit(rng.standard_normal((8, 6, 6, 2)), 9 * np.ones((8, 4)), verbose=0)
    kernel = keras.ops.convert_to_numpy(model.layers[-1].kernel)
    assert np.linalg.norm(kernel.T, p) <= 0.5 * (1 + 1e-5)
