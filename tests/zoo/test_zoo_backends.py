"""What must hold on TensorFlow, JAX and torch alike."""

import numpy as np

from keras_spectral import zoo


def test_build_and_predict(rng):
    model = zoo.cifar_resnet(8, classes=3)
    logits = model.predict(rng.standard_normal((2, 32, 32, 3)), verbose=0)
    assert logits.shape == (2, 3) and np.isfinite(logits).all()
