"""The certificate: a right import passes it, each known mistake does not."""

import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_spectral import convert, zoo
from keras_spectral.convert import (
    MismatchError,
    reference,
    reference_layers,
    rules,
    torch_weights,
)
from keras_spectral.models.layouts import SAME
from tests.convert.reference import random_network

NAME = "resnet20_cifar10"


def changed_rows(monkeypatch, kind, **changes):
    """Give the rows of one kind of layer a bug, by suffix."""
    right = rules._rows

    def wrong(layer):
        rows = right(layer)
        if rows is None or not isinstance(layer, kind):
            return rows
        unchanged = {row.suffix: lambda row: row for row in rows}
        return [{**unchanged, **changes}[row.suffix](row) for row in rows]

    monkeypatch.setattr(rules, "_rows", wrong)


def convolution(to_keras):
    """Change what the right rule makes of a convolution's kernel."""

    def change(row):
        right = row.layout.to_keras
        layout = row.layout._replace(to_keras=lambda a, s: to_keras(right(a, s), a))
        return row._replace(layout=layout)

    return lambda monkeypatch: changed_rows(
        monkeypatch, keras.layers.Conv2D, weight=change
    )


def square_swapped(kernel, _):
    square = kernel.shape[2] == kernel.shape[3]
    return kernel.transpose(0, 1, 3, 2) if square else kernel


def swapped(first, second):
    """Exchange two of a normalization's variables."""
    attributes = dict(NORMALIZATION)

    def mutate(monkeypatch):
        changes = {
            here: lambda row, other=attributes[there]: row._replace(attribute=other)
            for here, there in ((first, second), (second, first))
        }
        changed_rows(monkeypatch, keras.layers.BatchNormalization, **changes)

    return mutate


NORMALIZATION = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


def statistics_left(monkeypatch):
    def at(value):
        layout = SAME._replace(to_keras=lambda a, _: np.full_like(a, value))
        return lambda row: row._replace(layout=layout)

    changed_rows(
        monkeypatch,
        keras.layers.BatchNormalization,
        running_mean=at(0),
        running_var=at(1),
    )


MISTAKES = {
    "height and width swapped": convolution(lambda k, _: k.transpose(1, 0, 2, 3)),
    "kernels flipped": convolution(lambda k, _: k[::-1, ::-1]),
    "inputs and outputs swapped": convolution(square_swapped),
    "raw reshape": convolution(lambda k, raw: raw.reshape(k.shape)),
    "gamma and beta": swapped("weight", "bias"),
    "mean and variance": swapped("running_mean", "running_var"),
    "statistics left at their start": statistics_left,
}
FIRST_BAD = {
    "height and width swapped": "features.init_block.conv",
    "kernels flipped": "features.init_block.conv",
    # The stem has 3 inputs and 16 outputs.
    "inputs and outputs swapped": "features.stage1.unit1.body.conv1.conv",
    "raw reshape": "features.init_block.conv",
    "gamma and beta": "features.init_block.bn",
    "mean and variance": "features.init_block.bn",
    "statistics left at their start": "features.init_block.bn",
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("scope", ["network", "layers"])
def test_mistakes_of_a_converter_are_caught(mistake, scope, monkeypatch):
    state = random_network(NAME).state_dict()
    model = zoo.build(NAME) if scope == "network" else zoo.build(NAME, name="mine")
    MISTAKES[mistake](monkeypatch)
    with pytest.raises(MismatchError, match="off by|nan") as error:
        convert.from_torch(state, model)
    layer = re.search("layer `(.*?)`", str(error.value)).group(1)
    assert layer == FIRST_BAD[mistake]
    assert f"({scope} against" in str(error.value)


def epsilon(value):
    def mutate(model):
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.epsilon = value

    return mutate


def same_padding(model):
    # What `padding="same"` does to an even image before a stride of 2.
    for stage in (2, 3):
        name = f"features-stage{stage}-unit1-body-conv1-conv-pad"
        model.get_layer(name).padding = ((0, 1), (0, 1))


@pytest.mark.parametrize(
    ("mutate", "layer"),
    [
        (epsilon(1e-3), "features.init_block.bn"),
        (epsilon(1.001e-5), "features.init_block.bn"),
        (same_padding, "features.stage2.unit1.body.conv1.conv"),
    ],
)
def test_mistakes_of_an_architecture_are_caught(mutate, layer):
    model = zoo.build(NAME)
    mutate(model)
    with pytest.raises(MismatchError, match=f"layer `{layer}`"):
        convert.from_torch(random_network(NAME).state_dict(), model)


def test_units_in_the_order_of_the_alphabet_are_caught(monkeypatch):
    state = random_network("resnet110_cifar10").state_dict()
    right = torch_weights.slots
    numbers = range(1, 19)
    order = dict(zip(numbers, sorted(numbers, key=str), strict=True))

    def wrong(model):
        def moved(match):
            return f"stage1.unit{order[int(match.group(1))]}."

        found = right(model)
        return {re.sub(r"stage1\.unit(\d+)\.", moved, k): s for k, s in found.items()}

    monkeypatch.setattr(torch_weights, "slots", wrong)
    with pytest.raises(MismatchError, match="layer `features.stage1.unit2.body.conv1"):
        convert.from_torch(state, "resnet110_cifar10")


def test_a_missing_unit_is_refused():
    state = random_network(NAME).state_dict()
    state = {k: v for k, v in state.items() if "stage2.unit3" not in k}
    with pytest.raises(MismatchError, match="shallower.*stage2.unit3.body.conv1.bn"):
        convert.from_torch(state, NAME)


@pytest.mark.parametrize(
    ("layers", "library"), [("TorchLayers", "PyTorch"), ("NumpyLayers", "NumPy")]
)
def test_a_right_import_has_a_certificate(layers, library, monkeypatch):
    monkeypatch.setattr(reference_layers, "layers", getattr(reference_layers, layers))
    model = convert.from_torch(random_network(NAME).state_dict(), NAME)
    certificate = convert.provenance(model)["verification"]
    assert certificate["status"] == "passed" and certificate["scope"] == "network"
    assert certificate["reference"] == f"{library}'s layers"
    assert 0 < certificate["relative_error"] < 1e-13
    # Every convolution, every normalization and the head.
    assert certificate["layers"] == 21 + 21 + 1


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(1, 5), stride=st.integers(1, 3), padding=st.integers(0, 2),
    groups=st.integers(1, 2), dilation=st.integers(1, 2), extra=st.integers(0, 4),
    bias=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_the_numpy_layers_are_pytorchs(
    size, stride, padding, groups, dilation, extra, bias, seed
):
    rng = np.random.default_rng(seed)
    edge = dilation * (size - 1) + 1 + extra
    x = rng.standard_normal((2, 2 * groups, edge, edge + 1))
    weight = rng.standard_normal((3 * groups, 2, size, size))
    transposed = rng.standard_normal((2 * groups, 3, size, size))
    ours, theirs = reference_layers.NumpyLayers(), reference_layers.TorchLayers()
    b = rng.standard_normal(3 * groups) if bias else None
    arguments = (x, weight, b, stride, padding, groups, dilation)
    np.testing.assert_allclose(
        ours.convolution(*arguments), theirs.convolution(*arguments), atol=1e-12
    )
    padding = min(padding, (size - 1) // 2)
    arguments = (x, transposed, None if b is None else b[:3], stride, padding)
    np.testing.assert_allclose(
        ours.transposed_convolution(*arguments),
        theirs.transposed_convolution(*arguments),
        atol=1e-12,
    )
    if edge >= 2:
        np.testing.assert_array_equal(
            ours.max_pool(x, 2, stride), theirs.max_pool(x, 2, stride)
        )


@pytest.mark.parametrize("size", [4, 5, 7])
def test_the_average_pool_counts_what_is_there(size, rng):
    x = rng.standard_normal((2, 3, size, size + 1))
    pool = torch.nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)
    np.testing.assert_allclose(
        reference.average_pool(x), pool(torch.tensor(x)).numpy(), atol=1e-14
    )


KINDS = {
    "dense on sequences": (
        keras.layers.Dense(3, "relu", name="m"), (4, 5), torch.nn.Linear(5, 3)),
    "strided": (
        keras.layers.Conv2D(4, (3, 2), 2, "same", name="m"), (9, 9, 3),
        torch.nn.Conv2d(3, 4, (3, 2))),
    "depthwise": (
        keras.layers.DepthwiseConv2D(3, depth_multiplier=2, name="m"), (8, 8, 3),
        torch.nn.Conv2d(3, 6, 3, groups=3)),
    "transposed": (
        keras.layers.Conv2DTranspose(4, 4, 2, "same", name="m"), (5, 5, 3),
        torch.nn.ConvTranspose2d(3, 4, 4)),
    "embedding": (keras.layers.Embedding(9, 4, name="m"), (), torch.nn.Embedding(9, 4)),
    "normalization without scale": (
        keras.layers.BatchNormalization(scale=False, center=False, name="m"), (3, 3, 6),
        torch.nn.BatchNorm2d(6, affine=False)),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_single_layers_of_every_kind(kind):
    layer, shape, module = KINDS[kind]
    model = keras.Sequential(
        [keras.Input(shape), type(layer).from_config(layer.get_config())]
    )
    state = {f"m.{key}": value for key, value in module.state_dict().items()}
    convert.from_torch(state, model)
    certificate = convert.provenance(model)["verification"]
    assert certificate["scope"] == "layers" and certificate["layers"] == 1
    assert "no registered architecture" in certificate["reason"]
    back = convert.to_torch(model)
    assert back.keys() == state.keys()
    for key, value in state.items():
        np.testing.assert_array_equal(back[key], value.numpy())


def test_depthwise_outputs_are_pytorchs(rng):
    layer, shape, module = KINDS["depthwise"]
    model = keras.Sequential([keras.Input(shape), layer])
    state = {f"m.{key}": value for key, value in module.state_dict().items()}
    convert.from_torch(state, model)
    x = rng.standard_normal((2, *shape)).astype("float32")
    with torch.no_grad():
        expected = module(torch.tensor(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    np.testing.assert_allclose(model(x), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_rounding_is_noted_and_no_mistake(dtype):
    module = torch.nn.Linear(5, 3, dtype=getattr(torch, dtype))
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3, name="fc")])
    state = {f"fc.{key}": value for key, value in module.state_dict().items()}
    convert.from_torch(state, model)
    (note,) = convert.provenance(model)["notes"]
    assert f"2 tensors were stored in {dtype}" in note
    assert ("at most 0.0e+00" in note) == (dtype != "float64")


def test_everything_works_without_pytorch(tmp_path):
    torch.save(random_network(NAME).state_dict(), tmp_path / "net.pth")
    code = (
        "import sys, importlib.abc\n"
        "class Absent(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name.split('.')[0] == 'torch': raise ImportError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from keras_spectral import cli\n"
        "cli.main(['convert', 'net.pth', '--model', 'resnet20_cifar10',"
        " '--output', 'net.keras'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    card = convert.provenance(tmp_path / "net.keras")["verification"]
    assert card["reference"] == "NumPy's layers" and card["status"] == "passed"
    rows = convert.compare(tmp_path / "net.pth", tmp_path / "net.keras")
    assert len(rows) == 107 and {row.status for row in rows} == {"equal"}
