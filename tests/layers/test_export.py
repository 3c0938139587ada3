import keras
import numpy as np
import tensorflow as tf

from keras_spectral.layers import SpectralNormalization, StableRankNormalization


def test_saved_model_export(tmp_path, rng):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            SpectralNormalization(keras.layers.Conv2D(4, 3), norm="operator"),
            keras.layers.Flatten(),
            StableRankNormalization(keras.layers.Dense(5), stable_rank_ratio=0.5),
        ]
    )
    x = rng.standard_normal((2, 8, 8, 3)).astype("float32")
    model.export(tmp_path / "saved", verbose=False)
    saved = tf.saved_model.load(str(tmp_path / "saved"))
    np.testing.assert_allclose(saved.serve(x), model(x), atol=1e-5)
