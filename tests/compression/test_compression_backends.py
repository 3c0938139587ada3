"""What must hold on TensorFlow, JAX and torch alike."""

import keras
import numpy as np

from keras_spectral import compression


def test_compress_and_compare_replacements():
    model = keras.Sequential([keras.Input((30,)), keras.layers.Dense(10)])
    kernel = keras.ops.convert_to_numpy(model.layers[0].kernel)
    rows = compression.compare_replacements(model, trials=2, evaluate=lambda model: 0.5)
    assert len(rows) == 6
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(model.layers[0].kernel), kernel
    )
    copy = compression.compress(model, replacement="zero")
    expected, _ = compression.compress_matrix(kernel, replacement="zero")
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(copy.layers[0].kernel), expected
    )


def test_a_compressed_checkpoint_and_its_fine_tuning(tmp_path):
    for dtype in ("float32", "bfloat16"):
        hidden = keras.layers.Dense(20, dtype=dtype, name="hidden")
        model = keras.Sequential([keras.Input((30,)), hidden, keras.layers.Dense(10)])
        copy = compression.compress(model, ["hidden"], replacement="matched", seed=1)
        frozen = ~compression.compression_of(copy)[0].kept
        before = keras.ops.convert_to_numpy(copy.weights[0]).copy()
        compression.keep_mask(copy)
        # Adam moves no bfloat16 weights: its 0.999 is 1 there.
        copy.compile(keras.optimizers.SGD(0.1), "mse")
        copy.fit(np.ones((8, 30), "float32"), np.ones((8, 10), "float32"), verbose=0)
        path = tmp_path / "model.safetensors"
        compression.save_compressed(copy, path, values="float32")
        loaded = compression.load_compressed(path)
        after = keras.ops.convert_to_numpy(loaded.weights[0])
        np.testing.assert_array_equal(after[frozen], before[frozen])
        assert (after[~frozen] != before[~frozen]).any()
        for one, two in zip(copy.weights, loaded.weights, strict=True):
            np.testing.assert_array_equal(
                keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(two)
            )


def test_kernels_of_recurrent_layers_and_attention(tmp_path):
    inputs = keras.Input((4, 6))
    tensor = keras.layers.MultiHeadAttention(2, 3, name="mha")(inputs, inputs)
    model = keras.Model(inputs, keras.layers.LSTM(5, name="lstm")(tensor))
    where = ["mha/query", "lstm/recurrent_kernel"]
    before = [keras.ops.convert_to_numpy(w) for w in model.weights]
    rows = compression.compare_replacements(model, where, trials=2)
    assert rows[0].name == "mha/query, lstm/recurrent_kernel"
    for old, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, keras.ops.convert_to_numpy(weight))
    copy = compression.compress(model, where, replacement="zero")
    compression.save_compressed(copy, tmp_path / "m.safetensors", values="float32")
    loaded = compression.load_compressed(tmp_path / "m.safetensors")
    ends = ("query/kernel", "recurrent_kernel")
    for old, weight, again in zip(before, copy.weights, loaded.weights, strict=True):
        small = np.abs(old) <= old.std(dtype="float64")
        expected = np.where(small, 0, old) if weight.path.endswith(ends) else old
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), expected)
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(again), expected)
    assert len(compression.compression_of(loaded)) == 2
