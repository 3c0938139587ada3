"""What must hold on TensorFlow, JAX and torch alike."""

import keras
import numpy as np
import pytest

from keras_spectral import measures
from keras_spectral.layers import SpectralNormalization


def test_spectrum():
    plain = keras.layers.Dense(4, name="plain")
    wrapped = SpectralNormalization(keras.layers.Dense(3, name="wrapped"))
    spectrum = measures.spectrum(keras.Sequential([keras.Input((6,)), plain, wrapped]))
    kernel = keras.ops.convert_to_numpy(plain.kernel)
    assert spectrum[0].spectral_norm == pytest.approx(np.linalg.norm(kernel, 2))
    assert spectrum[1].spectral_norm == pytest.approx(1, rel=0.05)
