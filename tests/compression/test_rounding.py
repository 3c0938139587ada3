"""The control of int8 against its definition."""

import keras
import numpy as np
import pytest

from keras_spectral.compression import round_weights


def test_int8_is_the_nearest_of_255_multiples(small_network):
    copy = round_weights(small_network)
    for before, after in zip(
        small_network.get_weights(), copy.get_weights(), strict=True
    ):
        if before.ndim < 2:
            np.testing.assert_array_equal(after, before)
            continue
        scale = np.abs(before).max() / 127
        expected = np.rint(before.astype("float64") / scale) * scale
        np.testing.assert_allclose(after, expected, rtol=1e-6, atol=1e-6 * scale)
        assert len(np.unique(after)) <= 255 and (after != before).any()


def test_types(small_network):
    for values, rounded in (("float32", False), ("bfloat16", True)):
        copy = round_weights(small_network, values)
        same = np.array_equal(copy.get_weights()[0], small_network.get_weights()[0])
        assert same is not rounded
    with pytest.raises(ValueError, match="`values`.*int4"):
        round_weights(small_network, "int4")
    large = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    large.layers[0].kernel.assign(np.full((2, 2), 1e6))
    with pytest.raises(ValueError, match="`values` must be a type for all weights"):
        round_weights(large, "float16")
