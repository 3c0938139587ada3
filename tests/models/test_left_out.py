"""What has no matrix is left out in the same words, of a model and of its files."""

import keras
import pytest
from keras import layers as kl

from keras_spectral import experiments
from keras_spectral.layers import InvertibleResidual
from keras_spectral.measures import spectrum


class Cell(kl.Layer):
    """A cell that makes its recurrent kernel first."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def build(self, shape):
        self.recurrent = self.add_weight(shape=(self.units, self.units))
        self.kernel = self.add_weight(shape=(shape[-1], self.units))
        self.built = True

    def call(self, x, states):
        y = x @ self.kernel + states[0] @ self.recurrent
        return y, [y]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


STRANGE = {
    "cells": lambda: keras.Sequential([keras.Input((4, 8)), kl.RNN(Cell(6))]),
    "invertible": lambda: keras.Sequential(
        [keras.Input((8,)), InvertibleResidual([kl.Dense(5, name="x"), kl.Dense(8)])]
    ),
    "quantized": lambda: quantized("int8"),
    "packed": lambda: quantized("int4"),
    "normalized": lambda: keras.Sequential(
        [keras.Input((8,)), kl.BatchNormalization()]
    ),
    "vectors": lambda: keras.Sequential([keras.Input((8,)), kl.LayerNormalization()]),
    "einsum": lambda: keras.Sequential(
        [keras.Input((3, 4)), kl.EinsumDense("abc,bcd->abd", (3, 5))]
    ),
}
# What a file without a config tells less of.
GUESSED = ("cells", "einsum")


def quantized(mode):
    model = keras.Sequential([keras.Input((8,)), kl.Dense(6), kl.Dense(4)])
    for layer in model.layers:
        layer.quantize(mode)
    return model


def norms(rows):
    return {row.name: row.spectral_norm for row in rows}


def refused(measure, *arguments):
    with pytest.raises(ValueError, match="must hold a .* with ") as error:
        measure(*arguments)
    return str(error.value).rsplit(" with ", 1)[1]


@pytest.mark.parametrize("kind", STRANGE)
def test_what_has_nothing_to_measure_says_why_everywhere(kind, tmp_path):
    model = STRANGE[kind]()
    reasons = refused(experiments.analyze_model, model)
    assert reasons == refused(spectrum, model)
    model.save(tmp_path / "model.keras")
    assert refused(experiments.analyze_checkpoint, tmp_path / "model.keras") == reasons
    model.save_weights(tmp_path / "model.weights.h5")
    bare = tmp_path / "model.weights.h5"
    if kind in GUESSED:
        assert all(row.note for row in experiments.analyze_checkpoint(bare))
    else:
        assert refused(experiments.analyze_checkpoint, bare) == reasons


def test_what_was_left_out_has_the_same_words_in_a_file(tmp_path):
    inputs = keras.Input((5, 6))
    x = kl.MultiHeadAttention(2, 3, name="attention")(inputs, inputs)
    x = kl.Dropout(0.1)(kl.LayerNormalization(name="norm")(x))
    x = kl.TimeDistributed(kl.Dense(6), name="timed")(x)
    x = InvertibleResidual([kl.Dense(5), kl.Dense(6)], name="residual")(x)
    model = keras.Model(inputs, kl.Dense(7, name="head")(x))
    model.get_layer("attention").query_dense.quantize("int8")
    model.get_layer("timed").layer.quantize("int8")
    measured = experiments.analyze_model(model)
    assert measured.skipped.keys() == {
        "attention/query (MultiHeadAttention)", "norm (LayerNormalization)",
        "timed (TimeDistributed)", "residual (InvertibleResidual)",
    }  # fmt: skip
    assert measured.skipped["attention/query (MultiHeadAttention)"] == "int8 kernel"
    assert measured.skipped["timed (TimeDistributed)"] == "int8 kernel"
    assert [row.name for row in measured] == [
        *(f"attention/{part}" for part in ("key", "value", "output")), "head",
    ]  # fmt: skip
    model.save(tmp_path / "model.keras")
    found = experiments.analyze_checkpoint(tmp_path / "model.keras")
    assert norms(found) == pytest.approx(norms(measured))
    assert found.skipped == measured.skipped


def test_an_embedding_read_backwards_is_one_matrix_or_two(tmp_path):
    for tied in (True, False):
        inputs = keras.Input((4,), dtype="int32")
        both = kl.ReversibleEmbedding(9, 6, tie_weights=tied, name="both")
        model = keras.Model(inputs, both(both(inputs), reverse=True))
        measured = norms(experiments.analyze_model(model))
        names = ["both"] if tied else ["both/embeddings", "both/reverse_embeddings"]
        assert list(measured) == names
        model.save(tmp_path / "model.keras")
        model.save_weights(tmp_path / "model.weights.h5")
        for file in ("model.keras", "model.weights.h5"):
            found = experiments.analyze_checkpoint(tmp_path / file)
            assert norms(found) == pytest.approx(measured)


def test_the_name_of_what_was_left_out_is_told_why():
    layers = [keras.Input((8,)), kl.BatchNormalization(name="norm"), kl.Dense(4)]
    with pytest.raises(ValueError, match="'norm', a BatchNormalization: scales"):
        spectrum(keras.Sequential(layers), where=["norm"])
