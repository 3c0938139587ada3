import json
import math

import keras
import numpy as np
import pytest
import torch

from keras_spectral import measures
from keras_spectral.layers import (
    SpectralNormalization,
    StableRankNormalization,
    SVDDense,
)


def test_against_numpy_and_torch(rng):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(6, 3, name="conv"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Flatten(),
            keras.layers.Dense(4, name="head"),
        ]
    )
    spectrum = measures.spectrum(model)
    assert [row.name for row in spectrum] == ["conv", "head"]
    assert [row.kind for row in spectrum] == ["Conv2D", "Dense"]
    assert spectrum[0].shape == (6, 27)
    for row in spectrum:
        kernel = model.get_layer(row.name).kernel.numpy().astype("float64")
        values = torch.linalg.svdvals(torch.tensor(kernel.reshape(-1, row.shape[0])))
        np.testing.assert_allclose(row.singular_values, values, rtol=1e-12)
        assert row.spectral_norm == pytest.approx(values[0].item())
        assert row.frobenius_norm == pytest.approx(np.linalg.norm(kernel))
        expected = np.linalg.norm(kernel) ** 2 / values[0].item() ** 2
        assert row.stable_rank == pytest.approx(expected)
        assert row.norm == "reshaped"
    assert spectrum.sum_of_stable_ranks == pytest.approx(
        sum(row.stable_rank for row in spectrum)
    )
    assert math.exp(spectrum.log_product_of_spectral_norms) == pytest.approx(
        spectrum[0].spectral_norm * spectrum[1].spectral_norm
    )
    assert spectrum.skipped == [
        "norm (BatchNormalization): scales channels, not folded into the layer before"
    ]
    rows = json.loads(spectrum.to_json())
    assert {"name", "stable_rank", "norm"} <= rows[0].keys()
    assert "singular" not in str(spectrum)


def test_a_wrapped_layer_is_measured_by_what_it_computes_with():
    layer = StableRankNormalization(
        keras.layers.Dense(10, name="head"), stable_rank_ratio=0.2, bound=3.0
    )
    model = keras.Sequential([keras.Sequential([keras.Input((20,)), layer])])
    model.build((None, 20))
    row = measures.spectrum(model)[0]
    assert row.name == "head" and row.kind == "Dense"
    assert row.spectral_norm == pytest.approx(3, rel=0.05)
    assert row.stable_rank <= 2.2


def test_zero_and_broken_kernels():
    layer = keras.layers.Dense(3, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((2,)), layer])
    spectrum = measures.spectrum(model)
    assert math.isnan(spectrum[0].stable_rank)
    assert spectrum.log_product_of_spectral_norms == -math.inf
    assert json.loads(spectrum.to_json())[0]["stable_rank"] is None
    layer.kernel.assign(np.full((2, 3), np.nan))
    with pytest.raises(ValueError, match="NaN or infinity in 'dense"):
        measures.spectrum(model)


def test_quantized_kernels_are_left_out_and_named():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(5, name="quantized"),
            keras.layers.Dense(4, name="head"),
        ]
    )
    model.get_layer("quantized").quantize("int8")
    spectrum = measures.spectrum(model)
    # The integer codes have a norm of hundreds.
    assert [row.name for row in spectrum] == ["head"]
    assert spectrum.skipped == ["quantized (Dense): int8 kernel"]


def test_a_lora_adapter_is_part_of_the_kernel(rng):
    layer = keras.layers.Dense(4)
    model = keras.Sequential([keras.Input((6,)), layer])
    kernel = layer.kernel.numpy()
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(rng.normal(size=(2, 4)))
    scale = layer.lora_alpha / layer.lora_rank
    adapted = kernel + scale * layer.lora_kernel_a.numpy() @ layer.lora_kernel_b.numpy()
    norm = measures.spectrum(model)[0].spectral_norm
    assert norm == pytest.approx(np.linalg.norm(adapted, 2), rel=1e-5)


def test_a_model_that_is_not_built():
    with pytest.raises(ValueError, match="`model` must be built.*'head'"):
        measures.spectrum(keras.Sequential([keras.layers.Dense(2, name="head")]))


def test_a_model_without_kernels():
    with pytest.raises(ValueError, match="a layer with a kernel"):
        measures.spectrum(keras.Sequential([keras.Input((2,)), keras.layers.ReLU()]))


def test_layers_with_several_kernels_have_a_row_for_each():
    model = keras.Sequential(
        [
            keras.Input((5, 3)),
            SpectralNormalization(keras.layers.LSTM(4, name="recurrent")),
            keras.layers.Dense(2, name="head"),
        ]
    )
    rows = measures.spectrum(model)
    assert [(row.name, row.shape) for row in rows] == [
        ("recurrent/kernel", (16, 3)),
        ("recurrent/recurrent_kernel", (16, 4)),
        ("head", (2, 4)),
    ]
    # Warmed up, not converged: an orthogonal matrix has no leading direction.
    assert rows[1].spectral_norm == pytest.approx(1, rel=0.05)


def test_svd_layers_are_measured_by_the_kernel_they_stand_for():
    layer = SVDDense(4, rank_ratio=0.5, name="head")
    model = keras.Sequential([keras.Input((6,)), layer])
    layer.e.assign([1.0, 0.5])
    layer.scale.assign(3.0)
    (row,) = measures.spectrum(model)
    assert (row.name, row.shape) == ("head", (4, 6))
    np.testing.assert_allclose(row.singular_values, [3, 1.5, 0, 0], atol=1e-6)
