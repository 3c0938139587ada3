"""The Inception network against the vector of pytorch-fid's, without its weights."""

import keras
import numpy as np

from keras_spectral import convert, zoo
from keras_spectral.gan import metrics
from tests.gan.inception_state import IMAGES, state


def test_features_are_those_of_pytorch_fids_network(monkeypatch):
    # On JAX drawing 94 kernels, each of a shape of its own, takes 20 seconds.
    monkeypatch.setattr(
        keras.initializers.GlorotUniform,
        "__call__",
        lambda self, shape, dtype=None: keras.ops.zeros(shape, dtype),
    )
    model = zoo.fid_inception()
    convert.from_torch(state(), model, verify=False)
    features = metrics.inception(model, batch_size=2)
    found = features(IMAGES)
    expected = [[18.967615, 0.0476458, 0], [18.440256, 0.0567979, 0]]
    np.testing.assert_allclose(found[:, :3], expected, rtol=1e-5, atol=1e-6)
    assert abs(found.sum(dtype="float64") - 23148.92) < 0.02
    assert features.name == "Inception of unknown weights, TF1 resize"
