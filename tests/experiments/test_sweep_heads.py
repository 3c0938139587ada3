"""Sweeps: which layer is measured, and what is said of one without an exponent."""

import keras
import numpy as np
import pytest

from keras_spectral import data
from keras_spectral.experiments import checkpoint_row
from keras_spectral.experiments.inputs import evaluator
from keras_spectral.layers import SpectralNormalization
from tests.experiments.sweeps import small, sweeping


def test_a_network_that_does_not_end_in_a_dense_layer(rng):
    """Its head is not the output, and the sign would be forgotten."""
    inner = small()
    inputs = keras.Input((8, 8, 1))
    outputs = keras.layers.Softmax()(-1 * inner(inputs))
    model = keras.Model(inputs, outputs)
    digits = data.load("digits", image_size=8, channels=1)
    for network in (model, inner):
        evaluate = checkpoint_row.head_evaluator(network, digits)
        for _ in range(3):
            kernel = rng.standard_normal((12, 10))
            inner.get_layer("head").kernel.assign(kernel)
            assert evaluate(network) == evaluator(digits)(network)


def test_which_layer_is_the_final_dense_one(tmp_path):
    """None before it is measured in its place, and names decide nothing."""
    inputs, dense = keras.Input((8, 8, 1)), keras.layers.Dense
    flat = keras.layers.Flatten()(inputs)
    hidden = dense(12, name="hidden")(flat)
    inner = keras.Sequential([keras.Input((12,)), dense(12, name="head")])
    models = {
        "nested": dense(10, name="head")(inner(hidden)),
        "wrapped": SpectralNormalization(dense(10, name="head"))(hidden),
        "quantized": dense(10, name="head")(hidden),
        "without": keras.layers.Reshape((64,))(inputs),
        "timed": keras.layers.TimeDistributed(dense(7), name="head")(
            keras.layers.Reshape((4, 3))(hidden)
        ),
    }
    folder = tmp_path / "weights"
    folder.mkdir()
    for name, outputs in models.items():
        model = keras.Model(inputs, outputs)
        if name == "quantized":
            model.get_layer("head").quantize("int8")
        model.save(folder / f"{name}_none.keras")
    rows = {row.name.split("_")[0]: row for row in sweeping(tmp_path, folder)}
    nested = rows["nested"]
    assert (nested.layer, nested.compressed, nested.error) == ("head", 120, None)
    assert {row.name for row in nested.compressions} == {"head"}
    # Of a wrapped head the kernel that it computes with, here W / |W|.
    kernel = np.array(keras.Model(inputs, models["wrapped"]).layers[-1].layer.kernel)
    norms = np.linalg.norm(kernel), np.linalg.norm(kernel, 2)
    assert (rows["wrapped"].compressed, rows["wrapped"].error) == (120, None)
    assert rows["wrapped"].stable_rank == pytest.approx((norms[0] / norms[1]) ** 2)
    assert (rows["timed"].compressed, rows["timed"].classes) == (21, 7)
    for name, match in [
        ("quantized", "'head', which is quantized"),
        ("without", "final dense layer"),
    ]:
        assert match in rows[name].error and rows[name].alpha_pdf is None


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_a_head_without_an_exponent_is_a_row_in_this_process_too(tmp_path, value):
    """It has no alpha, and one of zeros no stable rank: they are left out."""
    model = small()
    head = model.get_layer("head").kernel
    head.assign(np.full(head.shape, value))
    (tmp_path / "weights").mkdir()
    model.save(tmp_path / "weights" / "constant_digits.keras")
    small().save(tmp_path / "weights" / "small_digits.keras")
    rows = sweeping(tmp_path, tmp_path / "weights")
    assert rows[0].alpha_pdf is None and rows[0].status == "degenerate"
    assert rows[0].stable_rank == (pytest.approx(1) if value else None)
    assert (tmp_path / "out" / "figure3.png").is_file()
    again = sweeping(tmp_path, tmp_path / "weights")
    assert list(again) == list(rows)
