"""The certificate of layers alone: every kind and axis, and what it did not check."""

import keras
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_spectral import convert
from keras_spectral.convert import (
    MismatchError,
    layer_checks,
    reference_layers,
    rules,
)
from keras_spectral.layers import ConditionalBatchNormalization
from tests.convert.layer_pairs import NAMES_1D, PAIRS, outputs, pair


def certificate(model):
    return convert.provenance(model)["verification"]


@pytest.mark.parametrize("layers", ["TorchLayers", "NumpyLayers"])
@pytest.mark.parametrize("name", PAIRS)
def test_every_kind_is_checked_and_is_pytorchs(name, layers, monkeypatch, rng):
    monkeypatch.setattr(reference_layers, "layers", getattr(reference_layers, layers))
    model, module, state = pair(name)
    convert.from_torch(state, model)
    found = certificate(model)
    assert found["status"] == "passed" and found["unchecked"] == []
    assert found["layers"] == found["layers_in_all"] == 1
    x = rng.standard_normal((2, *model.input_shape[1:])).astype("float32")
    expected = outputs(module, x, name in NAMES_1D)
    np.testing.assert_allclose(model(x), expected, atol=2e-5)


# One row, flipped, is itself.
@pytest.mark.parametrize(
    "name", sorted(PAIRS.keys() - {"transposed, stride over kernel"})
)
def test_flipped_variables_of_every_kind_are_caught(name, monkeypatch):
    right = rules._rows

    def wrong(layer):
        def flipped(row):
            to_keras = row.layout.to_keras
            layout = row.layout._replace(to_keras=lambda a, s: to_keras(a, s)[::-1])
            return row._replace(layout=layout) if row.suffix == "weight" else row

        rows = right(layer)
        return rows and [flipped(row) for row in rows]

    model, _, state = pair(name)
    monkeypatch.setattr(rules, "_rows", wrong)
    with pytest.raises(MismatchError, match="layer `m` is off by [0-9]"):
        convert.from_torch(state, model)


@pytest.mark.parametrize("kind", ["LayerNormalization", "GroupNormalization"])
def test_scales_for_offsets_are_caught(kind, monkeypatch):
    name = {"LayerNormalization": "layer", "GroupNormalization": "group"}[kind]
    model, _, state = pair(f"{name} normalization")
    right = rules._rows
    other = {"weight": "beta", "bias": "gamma"}
    monkeypatch.setattr(
        rules,
        "_rows",
        lambda layer: [r._replace(attribute=other[r.suffix]) for r in right(layer)],
    )
    with pytest.raises(MismatchError, match="layer `m` is off by"):
        convert.from_torch(state, model)


@pytest.mark.parametrize(
    ("name", "argument", "other"),
    [
        ("transposed, dilated", "dilation_rate", (1, 1)),
        ("transposed, output padding", "output_padding", (0, 0)),
    ],
)
def test_settings_of_transposed_convolutions_are_checked(name, argument, other):
    kind, arguments, shape, _ = PAIRS[name]

    class Forgetful(kind):
        """A layer that has a setting and computes without it."""

        def call(self, inputs):
            value = getattr(self, argument)
            setattr(self, argument, other)
            try:
                return super().call(inputs)
            finally:
                setattr(self, argument, value)

    layers = [keras.Input(shape), Forgetful(**arguments, name="m")]
    with pytest.raises(MismatchError, match="layer `m` has outputs of shape"):
        convert.from_torch(pair(name)[2], keras.Sequential(layers))


def test_channels_first_layers_are_checked():
    layers = [
        keras.Input((3, 9, 8)),
        keras.layers.Conv2D(4, 3, (2, 1), data_format="channels_first", name="conv"),
        keras.layers.BatchNormalization(axis=1, epsilon=1e-5, name="bn"),
    ]
    model = keras.Sequential(layers)
    network = torch.nn.ModuleDict(
        {"conv": torch.nn.Conv2d(3, 4, 3), "bn": torch.nn.BatchNorm2d(4)}
    )
    convert.from_torch(network.state_dict(), model)
    assert certificate(model)["layers"] == 2
    assert certificate(model)["status"] == "passed"


def test_conditional_normalization_is_checked(rng):
    image, label = keras.Input((4, 4, 3)), keras.Input((), dtype="int32")
    layer = ConditionalBatchNormalization(5, name="m")
    model = keras.Model([image, label], layer([image, label]))
    state = {
        "m.embed.weight": rng.standard_normal((5, 6)),
        "m.bn.running_mean": rng.standard_normal(3),
        "m.bn.running_var": rng.uniform(0.5, 2, 3),
    }
    convert.from_torch(state, model)
    assert certificate(model)["status"] == "passed"


def test_what_has_no_check_is_named():
    """PyTorch normalizes the last axes; of several nobody can tell the order."""
    layers = [
        keras.Input((4, 5)),
        keras.layers.Dense(6, name="fc"),
        keras.layers.LayerNormalization(axis=[1, 2], name="norm"),
    ]
    model = keras.Sequential(layers)
    network = torch.nn.ModuleDict(
        {"fc": torch.nn.Linear(5, 6), "norm": torch.nn.LayerNorm((4, 6))}
    )
    convert.from_torch(network.state_dict(), model)
    found = certificate(model)
    assert found["status"] == "partial" and found["unchecked"] == ["norm"]
    assert "no check of a LayerNormalization" in found["why_unchecked"]["norm"]
    assert (found["layers"], found["layers_in_all"]) == (1, 2)


def test_nothing_checked_is_not_passed(monkeypatch):
    monkeypatch.setattr(layer_checks, "CHECKS", ())
    model, _, state = pair("convolution 1D")
    convert.from_torch(state, model)
    found = certificate(model)
    assert found["status"] == found["scope"] == "none" and found["unchecked"] == ["m"]


def test_another_shape_is_told_by_its_shapes():
    class Twice(keras.layers.Dense):
        def call(self, inputs):
            return keras.ops.repeat(super().call(inputs), 2, -1)

    model = keras.Sequential([keras.Input((3,)), Twice(2, name="fc")])
    state = {"fc.weight": np.ones((2, 3)), "fc.bias": np.ones(2)}
    with pytest.raises(
        MismatchError, match=r"`fc` has outputs of shape \(4, 4\), not of .*\(4, 2\)"
    ) as error:
        convert.from_torch(state, model)
    assert " inf" not in str(error.value)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), count=st.integers(1, 3), groups=st.integers(1, 2))
def test_the_numpy_layers_are_pytorchs_on_every_axis(data, count, groups):
    def each(least, most):
        return data.draw(st.tuples(*[st.integers(least, most)] * count))

    size, stride, padding, dilation = each(1, 3), each(1, 3), each(0, 2), each(1, 2)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    edges = [
        d * (k - 1) + 1 + e for d, k, e in zip(dilation, size, each(0, 3), strict=True)
    ]
    x = rng.standard_normal((2, 2 * groups, *edges))
    ours, theirs = reference_layers.NumpyLayers(), reference_layers.TorchLayers()
    weight, bias = rng.standard_normal((3 * groups, 2, *size)), rng.standard_normal(3)
    arguments = (x, weight, np.tile(bias, groups), stride, padding, groups, dilation)
    np.testing.assert_allclose(
        ours.convolution(*arguments), theirs.convolution(*arguments), atol=1e-12
    )
    weight = rng.standard_normal((2 * groups, 3, *size))
    more = tuple(data.draw(st.integers(0, s - 1)) for s in stride)
    arguments = (x, weight, bias, stride, 0, dilation, more)
    np.testing.assert_allclose(
        ours.transposed_convolution(*arguments),
        theirs.transposed_convolution(*arguments),
        atol=1e-12,
    )


def test_the_numpy_normalizations_are_pytorchs(rng):
    ours, theirs = reference_layers.NumpyLayers(), reference_layers.TorchLayers()
    x, weight, bias = (rng.standard_normal(shape) for shape in ((2, 6, 4, 3), 6, 6))
    for given_bias in (bias, None):
        arguments = (x, 3, weight, given_bias, 1e-3)
        np.testing.assert_allclose(
            ours.group_normalization(*arguments),
            theirs.group_normalization(*arguments),
            atol=1e-12,
        )
        arguments = (x.transpose(0, 2, 3, 1), weight, given_bias, 1e-3)
        np.testing.assert_allclose(
            ours.layer_normalization(*arguments),
            theirs.layer_normalization(*arguments),
            atol=1e-12,
        )
