"""What must hold on TensorFlow, JAX and torch alike."""

import keras
import numpy as np
import pytest
from keras import layers as kl

from keras_spectral.compression.factorization import factorize
from keras_spectral.compression.low_rank import truncate

# TensorFlow has no such convolutions on a CPU.
FORMATS = ["channels_last"]
if keras.backend.backend() != "tensorflow":
    FORMATS.append("channels_first")


def images(data_format):
    shape = (8, 8, 4) if data_format == "channels_last" else (4, 8, 8)
    inputs = keras.Input(shape)
    x = kl.Conv2D(16, 3, 2, "same", data_format, activation="relu", name="a")(inputs)
    x = kl.Conv2D(16, 3, data_format=data_format, dilation_rate=1, name="b")(x)
    return keras.Model(inputs, kl.Dense(5, name="c")(kl.Flatten()(x)))


def sequence(data_format):
    layers = [kl.Dense(16, activation="tanh", name="a"), kl.Dense(5, name="c")]
    return keras.Sequential([keras.Input((6, 16)), *layers])


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("build", [images, sequence])
def test_factorized_models(build, data_format, tmp_path, rng):
    model = build(data_format)
    x = rng.standard_normal((8, *model.input_shape[1:])).astype("float32")
    before = keras.ops.convert_to_numpy(model(x))
    exact, rows = factorize(model, delta=1e-9, only_if_smaller=False)
    after = keras.ops.convert_to_numpy(exact(x))
    np.testing.assert_allclose(after, before, atol=1e-5)
    positions = {"a": 16 if build is images else 6, "b": 4, "c": 6}
    if build is images:
        positions["c"] = 1
    for row in rows[:-1]:
        m, n = row.shape
        assert row.multiply_adds_before == positions[row.name] * m * n
        assert row.parameters_after == row.rank * (m + n) + n

    small, rows = factorize(model, rank_ratio=0.25)
    kernel = keras.ops.convert_to_numpy(model.get_layer("a").kernel)
    found = truncate(kernel.reshape(-1, 16), rank=4)
    right = keras.ops.convert_to_numpy(small.get_layer("a").kernel)
    np.testing.assert_allclose(right.reshape(4, 16), found.right, atol=1e-6)
    assert small.count_params() == rows[-1].parameters_after < model.count_params()
    small.save(tmp_path / "small.keras")
    loaded = keras.saving.load_model(tmp_path / "small.keras")
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(loaded(x)),
        keras.ops.convert_to_numpy(small(x)),
        atol=1e-6,
    )
    loaded.compile(keras.optimizers.Adam(1e-2), "mse")
    losses = loaded.fit(x, before, epochs=20, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_half_precision(rng):
    layer = kl.Dense(16, dtype="bfloat16", name="a")
    model = keras.Sequential([keras.Input((32,)), layer])
    copy, rows = factorize(model, rank_ratio=0.25)
    assert rows[0].rank == 4 and copy.get_layer("a-left").dtype == "bfloat16"
    assert keras.backend.standardize_dtype(copy.weights[0].dtype) == "bfloat16"
    kernel = keras.ops.convert_to_numpy(keras.ops.cast(layer.kernel, "float32"))
    parts = [
        keras.ops.convert_to_numpy(keras.ops.cast(copy.get_layer(n).kernel, "float32"))
        for n in ("a-left", "a")
    ]
    found = truncate(kernel, rank=4)
    np.testing.assert_allclose(parts[0] @ parts[1], found.left @ found.right, atol=0.02)
