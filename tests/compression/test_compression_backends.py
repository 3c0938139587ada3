"""What must hold on TensorFlow, JAX and torch alike."""

import keras
import numpy as np

from keras_spectral import compression


def test_compress_and_apply():
    model = keras.Sequential([keras.Input((30,)), keras.layers.Dense(10)])
    kernel = keras.ops.convert_to_numpy(model.layers[0].kernel)
    rows = compression.compress(model, trials=2, evaluate=lambda model: 0.5)
    assert len(rows) == 6
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(model.layers[0].kernel), kernel
    )
    copy = compression.apply(model, replacement="zero")
    expected, _ = compression.compress_matrix(kernel, replacement="zero")
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(copy.layers[0].kernel), expected
    )
