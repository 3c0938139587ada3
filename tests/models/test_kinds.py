"""The table of kinds covers Keras' own layers, by their names alone."""

import inspect

import keras
import numpy as np
import pytest
from keras import layers as kl

from keras_spectral import models
from keras_spectral.models.kinds import EXPORTED_AS, KINDS

NAMES = {name for kind in KINDS for name in kind.classes}
# Cells are the kernels of what runs them; the others have no matrix of their own.
CLASSES = [
    (name, value)
    for name, value in vars(kl).items()
    if inspect.isclass(value) and issubclass(value, kl.Layer)
]


@pytest.mark.parametrize("name, value", CLASSES, ids=lambda value: str(value))
def test_a_class_is_known_in_a_file_if_it_is_in_memory(name, value):
    derived = any(base.__name__ in NAMES for base in value.__mro__)
    # A file has the name alone, the exported one.
    assert (EXPORTED_AS.get(name, name) in NAMES) == derived or name in (
        "Convolution1D", "Convolution2D", "Convolution3D",
        "Convolution1DTranspose", "Convolution2DTranspose", "Convolution3DTranspose",
        "DepthwiseConvolution1D", "DepthwiseConvolution2D",
        "SeparableConvolution1D", "SeparableConvolution2D",
    )  # fmt: skip
    assert (value.__name__ in NAMES) == derived


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("strides, padding", [(1, "valid"), (2, "same")])
def test_operators_of_a_convolutional_lstm(strides, padding, data_format):
    """Against the convolutions of its cell, without bias, written out by units."""
    shape = (3, 6, 5, 2) if data_format == "channels_last" else (3, 2, 6, 5)
    layer = kl.ConvLSTM2D(
        3, (3, 2), strides, padding, data_format=data_format, name="mine"
    )
    model = keras.Sequential([keras.Input(shape), layer])
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=w.shape) for w in model.weights])
    inputs, states = models.weights(model)
    if data_format == "channels_first":
        # The operator is on (height, width, channels) all the same.
        assert inputs.operator("operator").input_shape[1:] == (6, 5, 2)
        assert states.operator("operator").input_shape[-1] == 3
        return
    cell = layer.cell
    x = rng.normal(size=(1, 6, 5, 2)).astype("float32")
    found = inputs.operator("operator") @ x
    expected = cell.input_conv(x, cell.kernel, padding=padding)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    state = cell.get_initial_state(1)[0]
    h = rng.normal(size=state.shape).astype("float32")
    operator = states.operator("operator")
    assert operator.input_shape[1:] == state.shape[1:]
    expected = cell.recurrent_conv(h, cell.recurrent_kernel)
    np.testing.assert_allclose(operator @ h, expected, atol=1e-5)
