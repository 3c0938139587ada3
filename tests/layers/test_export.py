import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_spectral as ks
from keras_spectral.layers import (
    OptimalSpectralNormalization,
    SpectralNormalization,
    StableRankNormalization,
)


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


BROKEN = [
    lambda: SpectralNormalization(keras.layers.Dense(4, name="head")),
    lambda: SpectralNormalization(keras.layers.Dense(4, name="head"), method="exact"),
    lambda: StableRankNormalization(keras.layers.Dense(4, name="head"), 0.5),
    lambda: OptimalSpectralNormalization(keras.layers.Dense(4, name="head")),
    lambda: ks.layers.SVDDense(4, name="head"),
]


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("make", BROKEN)
def test_a_broken_kernel_is_named_before_anything_is_written(make, number, tmp_path):
    layer = make()
    model = keras.Sequential([keras.Input((6,)), layer])
    variable = layer.e if hasattr(layer, "e") else layer.kernel
    values = variable.numpy()
    values.flat[1] = number
    variable.assign(values)
    path = tmp_path / "model.safetensors"
    exports = [
        lambda: ks.unwrap(model),
        lambda: ks.compression.save_compressed(model, path),
    ]
    if hasattr(layer, "to_layer"):
        exports = [layer.to_layer, exports[0]]
    else:
        exports += [layer.converged_kernel, lambda: ks.convert.to_torch(model, path)]
    for export in exports:
        with pytest.raises(ValueError) as caught:
            export()
        message = str(caught.value)
        assert message.startswith("`kernel` must be finite")
        assert "Received: 'kernel' of layer 'head', where " in message
        assert "an earlier checkpoint" in message
    assert not any(tmp_path.iterdir())


def test_a_broken_kernel_of_several_is_named():
    lstm = keras.layers.LSTM(4, name="memory")
    model = keras.Sequential([keras.Input((3, 6)), SpectralNormalization(lstm)])
    kernel = lstm.cell.recurrent_kernel
    kernel.assign(np.where(np.eye(4, 16), np.nan, kernel.numpy()))
    match = "'recurrent_kernel' of layer 'memory', where 4 of 64 numbers"
    with pytest.raises(ValueError, match=match):
        ks.unwrap(model)
