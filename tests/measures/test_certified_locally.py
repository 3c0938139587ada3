"""Radii by balls: never more than the ball, no attack, and more than by one bound."""

import keras
import numpy as np
import pytest
from keras import layers as kl

from keras_spectral.measures import certify
from tests.measures.test_certified_accuracy import (
    DATA,
    attacked,
    classifier,
    predictions,
    random_classifier,
)

RADII = [0.3, 0.01, 0.1]


def test_no_attack_inside_of_a_radius_succeeds(float64):
    model, data = random_classifier(), DATA[:30]
    labels = predictions(model, data)
    merged = certify(model, data, labels, RADII)
    found = certify(model, data, labels, RADII, method="local")
    assert [row.radius for row in found] == RADII
    assert (found.sample_radii >= merged.sample_radii).all()
    # What one bound does not reach is at most the largest ball.
    beyond = found.sample_radii > merged.sample_radii
    assert (found.sample_radii[beyond] <= 0.3 * (1 + 1e-5)).all()
    counts = [[row.samples for row in rows] for rows in (merged, found)]
    assert counts[0][2] + 5 < counts[1][2]
    assert not attacked(model, data, labels, found.sample_radii * (1 - 1e-9)).any()
    # In other units the balls are those of the inputs.
    scaled = certify(model, data, labels, np.divide(RADII, 4), 4.0, method="local")
    np.testing.assert_allclose(scaled.sample_radii * 4, found.sample_radii)


def test_of_a_linear_classifier_it_is_the_distance_or_the_ball():
    for classes in (1, 4):
        model = classifier(kl.Dense(8), kl.Dense(classes))
        labels = predictions(model)
        whole = certify(model, DATA, labels)
        # No single bound of both layers is needed to know each margin's.
        found = certify(model, DATA, labels, [0.05, 0.2], method="local")
        kernel = np.linalg.multi_dot([w.astype("float64") for w in _kernels(model)])
        kernel = np.concatenate([0 * kernel, kernel], 1) if classes == 1 else kernel
        logits = DATA.astype("float64") @ kernel
        count = np.arange(len(DATA))
        gaps = logits[count, labels][:, None] - logits
        apart = np.linalg.norm(kernel[:, labels].T[:, :, None] - kernel, axis=1)
        with np.errstate(invalid="ignore"):
            exact = np.nanmin(gaps / apart, axis=1)
        expected = np.maximum(whole.sample_radii, np.minimum(exact, 0.2))
        np.testing.assert_allclose(found.sample_radii, expected, rtol=2e-6)


def _kernels(model):
    return [layer.get_weights()[0] for layer in model.layers]


def test_what_is_wrong_stays_so():
    model = random_classifier()
    labels = (predictions(model) + 1) % 3
    found = certify(model, DATA, labels, method="local")
    assert found.accuracy == 0 and (found.sample_radii < 0).all()
    assert "Beyond it 0 balls" in found.caption


def test_gates_have_radii_on_balls_alone():
    x = keras.Input((6,))
    gated = kl.Dense(4, "relu")(x) * kl.Dense(4, "sigmoid")(x)
    model = keras.Model(x, kl.Dense(3)(gated))
    data = DATA[:6]
    labels = predictions(model, data)
    with pytest.raises(ValueError, match="Lipschitz constant is known"):
        certify(model, data, labels)
    found = certify(model, data, labels, [1e-3], method="local")
    assert found[0].certified_accuracy > 0.5
    assert found.sample_radii.max() <= 1e-3 * (1 + 1e-5)
    assert found.lipschitz_constant == np.inf
    # Where no ball has a bound the reason is told.
    square = keras.Model(x, kl.Dense(3)(kl.Lambda(lambda z: z**2)(x)))
    with pytest.raises(ValueError, match="any function can be in it"):
        certify(square, data, predictions(square, data), method="local")
