import keras
import numpy as np
import tensorflow as tf

import keras_spectral as ks
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


def test_tensorflow_lite(tmp_path, rng):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            SpectralNormalization(keras.layers.Conv2D(4, 3)),
            keras.layers.Flatten(),
            SpectralNormalization(keras.layers.Dense(5)),
        ]
    )
    x = rng.standard_normal((1, 8, 8, 3)).astype("float32")
    # Plain layers export anywhere; a wrapper's warm-up is a loop, which it may not.
    plain = ks.unwrap(model)
    plain.export(tmp_path / "saved", verbose=False)
    content = tf.lite.TFLiteConverter.from_saved_model(
        str(tmp_path / "saved")
    ).convert()
    interpreter = tf.lite.Interpreter(model_content=content)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    outputs = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(outputs, model(x), atol=1e-5)
