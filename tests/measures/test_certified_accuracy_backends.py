"""Certified radii on every backend: what NumPy makes of the same weights."""

import keras
import numpy as np
import pytest
from keras import layers as kl

from keras_spectral.layers import AlmostOrthogonal, GroupSort
from keras_spectral.measures import certify


def test_a_classifier_of_one_lipschitz_layers(rng):
    layers = [AlmostOrthogonal(kl.Dense(8)), GroupSort(), kl.Dense(3)]
    model = keras.Sequential([keras.Input((6,)), *layers])
    images = rng.standard_normal((20, 6)).astype("float32")
    logits = keras.ops.convert_to_numpy(model(images)).astype("float64")
    labels = logits.argmax(1)
    found = certify(model, images, labels, method="product")
    kernel = keras.ops.convert_to_numpy(model.layers[-1].kernel).astype("float64")
    expected = [
        min(
            (row[y] - row[j]) / np.linalg.norm(kernel[:, y] - kernel[:, j])
            for j in range(3)
            if j != y
        )
        for row, y in zip(logits, labels, strict=True)
    ]
    # A bound of at most one, which the kernel's own norm can only better.
    assert 0.3 < found.lipschitz_constant <= 1 + 2e-5
    radii = found.sample_radii * found.lipschitz_constant
    np.testing.assert_allclose(radii, expected, rtol=1e-4, atol=1e-5)
    assert found.accuracy == pytest.approx(1)
