"""A model and its files name the same matrices and norms, for every kind of layer."""

import subprocess
import sys
import textwrap

import h5py
import keras
import numpy as np
import pytest
from keras import layers as kl

from keras_spectral import convert, experiments, zoo
from keras_spectral.layers import (
    MaskedConv2D,
    OptimalSpectralNormalization,
    SpectralNormalization,
    StableRankNormalization,
    SVDConv2D,
    SVDConv2DTranspose,
    SVDDense,
)
from keras_spectral.measures import spectrum
from keras_spectral.models.keras_files import KerasFile, stored_weights
from tests.layers.kinds import KINDS, images


def around(make, x):
    """A model of one layer, which is called `mine`."""
    inputs = keras.Input(x.shape[1:], dtype=x.dtype)
    return keras.Model(inputs, make(name="mine")(inputs))


def attention(**arguments):
    inputs = keras.Input((5, 8))
    layer = kl.MultiHeadAttention(2, 4, value_dim=3, name="mine", **arguments)
    return keras.Model(inputs, layer(inputs, inputs))


def attention_over_two_axes():
    inputs = keras.Input((3, 4, 8))
    layer = kl.MultiHeadAttention(
        2, 4, attention_axes=(1, 2), output_shape=(2, 3), name="mine"
    )
    return keras.Model(inputs, layer(inputs, inputs))


def nested():
    inner = keras.Sequential(
        [keras.Input((6,)), kl.Dense(5, name="b"), kl.BatchNormalization()], name="a"
    )
    inputs = keras.Input((6,))
    x = inner(inputs)
    x = keras.ops.add(x, kl.Dense(5, name="z")(inputs))
    x = kl.Add()([x, kl.Dense(5, name="c")(x)])
    return keras.Model(inputs, kl.Dense(3, name="head")(kl.Dense(4)(x)))


def subclassed():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.fc = kl.Dense(4, name="first")
            self.blocks = [kl.Dense(3), kl.Dense(2, name="last")]

        def call(self, x):
            return self.blocks[1](self.blocks[0](self.fc(x)))

    model = Own()
    model(np.ones((1, 5), "float32"))
    return model


MODELS = {
    **{name: (lambda pair=pair: around(*pair)) for name, pair in KINDS.items()},
    "attention": attention,
    "gated attention": lambda: attention(use_gate=True),
    "attention over two axes": attention_over_two_axes,
    "masked convolution": lambda: around(
        lambda **k: MaskedConv2D(6, 3, **k), images(6, 6, 4)
    ),
    "svd dense": lambda: around(
        lambda **k: SVDDense(6, rank_ratio=0.5, **k), images(5)
    ),
    "svd convolution": lambda: around(
        lambda **k: SVDConv2D(6, 3, **k), images(6, 6, 4)
    ),
    "svd transposed convolution": lambda: around(
        lambda **k: SVDConv2DTranspose(3, 3, strides=2, **k), images(5, 5, 4)
    ),
    "nested": nested,
    "resnet": lambda: zoo.build("resnet20_cifar10"),
}


def facts(rows):
    return {row.name: (row.kind, row.spectral_norm, row.stable_rank) for row in rows}


def assert_alike(found, expected):
    assert found.keys() == expected.keys()
    for name, (kind, *numbers) in expected.items():
        assert found[name][0] == kind
        np.testing.assert_allclose(found[name][1:], numbers, rtol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_and_its_files_give_the_same_rows(name, tmp_path):
    model = MODELS[name]()
    model.set_weights([
        np.random.default_rng(index).normal(size=weight.shape)
        if "mask" not in weight.path else keras.ops.convert_to_numpy(weight)
        for index, weight in enumerate(model.weights)
    ])  # fmt: skip
    # One kernel of a row, a single number, has no law to be fitted.
    measured = experiments.analyze_model(model)
    expected = facts(measured)
    exact = facts(row for row in spectrum(model) if min(row.shape) > 1)
    assert_alike(expected, exact)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    found = experiments.analyze_checkpoint(tmp_path / "model.keras")
    assert_alike(facts(found), expected)
    assert [row.name for row in found] == [row.name for row in measured]
    assert [row.shape for row in found] == [row.shape for row in measured]
    assert found.skipped == measured.skipped
    assert all(row.note is None for row in found)
    bare = experiments.analyze_checkpoint(tmp_path / "model.weights.h5")
    assert facts(bare).keys() == expected.keys()
    if name not in UNTOLD:
        assert_alike(facts(bare), expected)
        assert all(row.note is None for row in bare)
    else:
        assert all(UNTOLD[name] in row.note for row in bare)


# What weights alone do not tell.
UNTOLD = {
    "bidirectional": "its cell's class is not in the file",
    "einsum": "EinsumDense's arguments are not in the file",
    "einsum with ellipsis": "EinsumDense's arguments are not in the file",
    "einsum of two axes": "EinsumDense's arguments are not in the file",
    "stacked cells": "the order of its cells",
    "time distributed": "its layer's class is not in the file",
    "convolution in time": "its layer's class is not in the file",
}


WRAPPERS = {
    "divided": lambda layer: SpectralNormalization(layer, bound=2.0),
    "within the bound": lambda layer: SpectralNormalization(layer, 1e3, clip=True),
    "clipped": lambda layer: OptimalSpectralNormalization(layer, bound=0.7),
    "stable rank": lambda layer: StableRankNormalization(layer, 0.3),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("kind", ["dense", "conv2d", "conv2d transpose", "lstm"])
def test_a_wrapped_kernel_is_that_which_is_computed_with(kind, wrapper, tmp_path):
    make, x = KINDS[kind]
    inputs = keras.Input(x.shape[1:])
    model = keras.Model(inputs, WRAPPERS[wrapper](make(name="mine"))(inputs))
    expected = facts(experiments.analyze_model(model))
    model.save(tmp_path / "model.keras")
    found = experiments.analyze_checkpoint(tmp_path / "model.keras")
    assert facts(found).keys() == expected.keys()
    for row in found:
        assert row.kind == expected[row.name][0] and row.note is None
        numbers = row.spectral_norm, row.stable_rank
        np.testing.assert_allclose(numbers, expected[row.name][1:], rtol=1e-5)
    model.save_weights(tmp_path / "model.weights.h5")
    bare = experiments.analyze_checkpoint(tmp_path / "model.weights.h5")
    assert facts(bare).keys() == expected.keys()
    assert all("what is trained" in row.note for row in bare)


def test_what_no_file_tells_of_a_wrapper_is_said(tmp_path):
    layers = [
        keras.Input((8, 8, 3)),
        SpectralNormalization(kl.Conv2D(4, 3, name="a"), norm="operator"),
        SpectralNormalization(kl.Conv2D(4, 3, name="b"), method="power_iteration"),
        StableRankNormalization(kl.Conv2D(4, 3, name="c"), 0.5, preserved=2),
        kl.Flatten(),
        SpectralNormalization(kl.Dense(4, name="d"), norm="operator"),
        kl.SpectralNormalization(kl.Dense(3), name="keras"),
    ]
    model = keras.Sequential(layers)
    model.save(tmp_path / "model.keras")
    found = experiments.analyze_checkpoint(tmp_path / "model.keras")
    notes = {row.name: row.note for row in found}
    assert list(notes) == ["a", "b", "c", "d"] and notes["d"] is None
    assert 'norm="operator"' in notes["a"] and "has an estimate" in notes["b"]
    assert "several values" in notes["c"]
    assert found.skipped == experiments.analyze_model(model).skipped


def test_layers_of_own_models_are_found_by_name(tmp_path):
    model = subclassed()
    expected = facts(experiments.analyze_model(model))
    model.save_weights(tmp_path / "model.weights.h5")
    found = experiments.analyze_checkpoint(tmp_path / "model.weights.h5")
    assert facts(found).keys() == expected.keys()
    for name, row in facts(found).items():
        np.testing.assert_allclose(row[1:], expected[name][1:], rtol=1e-6)
    # The class of an attribute is not in the file.
    assert ["class is not in the file" in (row.note or "") for row in found] == [
        row.name == "first" for row in found
    ]


def test_a_layer_of_the_users_own_is_no_kind(tmp_path):
    @keras.saving.register_keras_serializable(package="theirs", name="Dense")
    class Dense(kl.Layer):
        def build(self, shape):
            self.w = self.add_weight(shape=(shape[-1], 4))

        def call(self, x):
            return x @ self.w

    model = keras.Sequential([keras.Input((5,)), Dense(name="own"), kl.Dense(3)])
    model.save(tmp_path / "model.keras")
    found = experiments.analyze_checkpoint(tmp_path / "model.keras")
    measured = experiments.analyze_model(model)
    assert [row.name for row in found] == [row.name for row in measured]
    assert (
        found.skipped == measured.skipped == {"own (Dense)": "no rule for its kernel"}
    )


@pytest.mark.parametrize("config", [
    {"config": {"layers": 3}}, {"config": {"layers": [3, {"config": {}}, {}]}},
    {"class_name": 5, "registered_name": [], "module": {}}, {"config": None},
    {"config": {"layers": [{"class_name": "EinsumDense",
                            "config": {"name": "x", "equation": "ab"}}]}},
    {"config": {"layers": [{"class_name": "EinsumDense",
                            "config": {"name": "x", "equation": 7}}]}},
    {"config": {"layers": [{"class_name": "RNN", "config": {"name": "x"}}]}},
    {"config": {"layers": [{"class_name": "Bidirectional", "config": {"name": "x"}}]}},
])  # fmt: skip
def test_configs_that_lie_do_no_harm(config):
    shapes = {"layers/dense/vars/0": (4, 3), "layers/dense/vars/1": (3,)}
    found, left_out = stored_weights(shapes, KerasFile({"layers/dense": "x"}, config))
    assert len(found) <= 1 and found or left_out


BLOCKED = """
    import sys
    for name in ("keras", "tensorflow", "jax", "torch"):
        sys.modules[name] = None
    from keras_spectral import cli
    for file in sys.argv[1:]:
        try:
            cli.main(["analyze", file, "--output", file + " analyzed"])
        except SystemExit as stop:
            assert not stop.code, file
"""


def test_analyze_starts_no_backend(tmp_path):
    model = attention()
    files = [tmp_path / f"model.{end}" for end in ("keras", "weights.h5", "npz")]
    model.save(files[0])
    model.save_weights(files[1])
    np.savez(files[2], **{"fc.weight": np.random.rand(8, 9)})
    subprocess.run([sys.executable, "-c", textwrap.dedent(BLOCKED), *files], check=True)
    for file in files:
        assert (tmp_path / f"{file.name} analyzed" / "analysis.json").exists()


def test_bfloat16_is_read(tmp_path):
    layers = [kl.Dense(6, dtype="bfloat16", name="half"), kl.Dense(5, name="whole")]
    model = keras.Sequential([keras.Input((8,)), *layers])
    expected = facts(experiments.analyze_model(model))
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    for file in ("model.keras", "model.weights.h5"):
        assert_alike(facts(experiments.analyze_checkpoint(tmp_path / file)), expected)
    model.layers[0].kernel.assign(model.layers[0].kernel * 3)
    model.save_weights(tmp_path / "other.weights.h5")
    found = convert.compare(
        tmp_path / "model.weights.h5", tmp_path / "other.weights.h5"
    )
    assert sorted(row.status for row in found) == ["different"] + 3 * ["equal"]


def test_datasets_of_other_types_are_named(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["layers/dense/vars/0"] = np.ones((3, 2))
        file["layers/dense/vars/1"] = np.zeros(2, "V3")
    (note,) = convert.read_checkpoint(tmp_path / "w.h5").notes
    assert "`layers/dense/vars/1`" in note


class Pair(keras.Model):
    """A model of a user, who calls its layers cells."""

    def __init__(self):
        super().__init__()
        self.cells = [kl.Dense(5, name="one"), kl.Dense(4, name="two")]

    def call(self, inputs):
        return self.cells[1](self.cells[0](inputs))


def test_layers_that_are_called_cells_are_none(tmp_path):
    model = Pair()
    model(np.ones((2, 3)))
    model.save_weights(tmp_path / "model.weights.h5")
    bare = experiments.analyze_checkpoint(tmp_path / "model.weights.h5")
    assert [row.name for row in bare] == ["one", "two"]
    assert all(row.note is None for row in bare)
