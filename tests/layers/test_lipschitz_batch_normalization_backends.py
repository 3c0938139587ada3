import keras
import numpy as np
import pytest

from keras_spectral.layers import LipschitzBatchNormalization
from tests.layers.kinds import images, numpy


def make(bound=1.0, **arguments):
    inner = keras.layers.BatchNormalization(**arguments)
    return LipschitzBatchNormalization(inner, bound)


@pytest.mark.parametrize("bound", [0.5, 100.0])
def test_inference_is_the_layer_with_clipped_scales(bound, rng):
    layer = make(bound)
    x = images(6, 5, 4)
    layer.build(x.shape)
    gamma, variance = rng.standard_normal(4), rng.random(4) + 0.1
    layer.layer.gamma.assign(gamma)
    layer.layer.moving_variance.assign(variance)
    layer.layer.beta.assign(rng.standard_normal(4))
    slopes = gamma / np.sqrt(variance + layer.layer.epsilon)
    slopes /= max(1, np.abs(slopes).max() / bound)
    difference = numpy(layer(x)) - numpy(layer(0 * x))
    np.testing.assert_allclose(difference, x * slopes, atol=1e-5)
    np.testing.assert_allclose(numpy(layer.layer.gamma), gamma, rtol=1e-6)


def test_fit_save_and_load(tmp_path):
    model = keras.Sequential([keras.Input((6, 5, 4)), make(0.7, momentum=0.5)])
    x = images(6, 5, 4)
    jit = keras.backend.backend() != "torch"
    model.compile(keras.optimizers.SGD(0.5), "mse", jit_compile=jit)
    model.fit(x, 3 * x, epochs=4, verbose=0)
    layer = model.layers[0]
    slopes = numpy(layer.effective_gamma()) / np.sqrt(
        numpy(layer.layer.moving_variance) + layer.layer.epsilon
    )
    assert np.abs(slopes).max() == pytest.approx(0.7, rel=1e-5)
    assert np.abs(numpy(layer.layer.gamma)).max() > 1
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(numpy(loaded(x)), numpy(model(x)), atol=1e-6)


def test_mixed_precision():
    layer = make(0.7, dtype="mixed_bfloat16")
    outputs = layer(images(6, 4), training=True)
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    assert keras.backend.standardize_dtype(layer.layer.gamma.dtype) == "float32"


def test_refusals():
    with pytest.raises(ValueError, match="scale=True"):
        make(scale=False)
    with pytest.raises(ValueError, match="`layer`"):
        LipschitzBatchNormalization(keras.layers.LayerNormalization())
    with pytest.raises(ValueError, match="`bound`"):
        make(bound=-1)
