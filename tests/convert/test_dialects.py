"""Other projects' networks: their keys, and what they compute."""

import re

import keras
import numpy as np
import pytest
import torch
from torch import nn

from keras_spectral import convert, zoo
from keras_spectral.convert import CheckpointError, MismatchError, dialects
from tests.convert.reference import random_network

# Our key, by rules that share nothing with the templates: pytorchcv's networks under
# bearpaw's and kuangliu's names.
RENAMED = {
    "bearpaw": ("resnet20_cifar10", (
        (r"features\.init_block\.conv", "conv1"), (r"features\.init_block\.bn", "bn1"),
        (r"body\.conv(\d)\.conv", r"conv\1"), (r"body\.conv(\d)\.bn", r"bn\1"),
        (r"identity_conv\.conv", "downsample.0"),
        (r"identity_conv\.bn", "downsample.1"),
        (r"^output", "fc"))),
    "kuangliu": ("resnet20_cifar10", (
        (r"features\.init_block\.conv", "conv1"), (r"features\.init_block\.bn", "bn1"),
        (r"body\.conv(\d)\.conv", r"conv\1"), (r"body\.conv(\d)\.bn", r"bn\1"),
        (r"identity_conv\.conv", "shortcut.0"), (r"identity_conv\.bn", "shortcut.1"),
        (r"^output", "linear"))),
    "bearpaw densenet": ("densenet40_k12_bc_cifar10", (
        (r"features\.init_block", "conv1"), (r"features\.post_activ\.bn", "bn"),
        (r"features\.stage2\.trans2\.conv\.", "trans1."),
        (r"features\.stage3\.trans3\.conv\.", "trans2."),
        (r"^(trans\d\.)(conv|bn)", r"\1\g<2>1"),
        (r"\.conv(\d)\.conv", r".conv\1"), (r"\.conv(\d)\.bn", r".bn\1"),
        (r"^output", "fc"))),
    "bearpaw densenet without bottlenecks": ("densenet40_k12_cifar10", (
        (r"features\.init_block", "conv1"), (r"features\.post_activ\.bn", "bn"),
        (r"features\.stage2\.trans2\.conv\.", "trans1."),
        (r"features\.stage3\.trans3\.conv\.", "trans2."),
        (r"^(trans\d\.)(conv|bn)", r"\1\g<2>1"),
        (r"\.conv\.conv", ".conv1"), (r"\.conv\.bn", ".bn1"),
        (r"^output", "fc"))),
    "bearpaw wrn": ("wrn16_10_cifar10", (
        (r"features\.init_block", "conv1"), (r"features\.post_activ\.bn", "bn1"),
        (r"body\.conv(\d)\.conv", r"conv\1"), (r"body\.conv(\d)\.bn", r"bn\1"),
        (r"identity_conv", "convShortcut"), (r"^output", "fc"))),
}  # fmt: skip
STAGES = {
    "bearpaw densenet": "dense{}.{}.",
    "bearpaw densenet without bottlenecks": "dense{}.{}.",
    "bearpaw wrn": "block{}.layer.{}.",
}


def renamed(state, dialect):
    """Return a state dict as another project would have saved it."""
    _, rules = RENAMED[dialect]
    stage = STAGES.get(dialect, "layer{}.{}.")

    def unit(match):
        return stage.format(match.group(1), int(match.group(2)) - 1)

    result = {}
    for key, value in state.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        result[re.sub(r"features\.stage(\d)\.unit(\d+)\.", unit, key)] = value
    return result


@pytest.mark.parametrize("dialect", RENAMED)
def test_names_of_other_projects_are_recognized_and_go_out_again(dialect):
    name, _ = RENAMED[dialect]
    state = renamed(random_network(name).state_dict(), dialect)
    assert len({key.split(".")[0] for key in state}) > 4
    # As bearpaw's training script saves it.
    wrapped = {f"module.{key}": value for key, value in state.items()}
    model = convert.from_torch(wrapped, name)
    card = convert.provenance(model)
    assert card["dialect"] == dialect
    assert card["verification"]["scope"] == "network"
    back = convert.to_torch(model)
    assert back.keys() == state.keys()
    for key, value in state.items():
        np.testing.assert_array_equal(back[key], value.numpy())
    assert dialect in dialects.guess(state)


class Preactivated(nn.Module):
    """A unit of bearpaw's (`downsample`, from the input) or kuangliu's PreResNet."""

    def __init__(self, narrow, wide, stride, shortcut):
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(narrow), nn.BatchNorm2d(wide)
        self.conv1 = nn.Conv2d(narrow, wide, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(wide, wide, 3, 1, 1, bias=False)
        self.shortcut_name = shortcut if stride > 1 or narrow != wide else None
        if self.shortcut_name:
            convolution = nn.Conv2d(narrow, wide, 1, stride, bias=False)
            setattr(self, shortcut, nn.Sequential(convolution))

    def forward(self, x):
        activated = torch.relu(self.bn1(x))
        h = self.conv2(torch.relu(self.bn2(self.conv1(activated))))
        if self.shortcut_name is None:
            return h + x
        source = x if self.shortcut_name == "downsample" else activated
        return h + getattr(self, self.shortcut_name)(source)


class Peer(nn.Module):
    def __init__(self, shortcut, filters, units, head):
        super().__init__()
        self.final, self.head = shortcut == "downsample", head
        self.conv1 = nn.Conv2d(3, filters[0], 3, 1, 1, bias=False)
        narrow = filters[0]
        for stage, wide in enumerate(filters, start=1):
            blocks = []
            for unit in range(units):
                stride = 2 if unit == 0 and stage > 1 else 1
                blocks.append(Preactivated(narrow, wide, stride, shortcut))
                narrow = wide
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.stages = len(filters)
        if self.final:
            self.bn = nn.BatchNorm2d(narrow)
        setattr(self, head, nn.Linear(narrow, 10))

    def forward(self, x):
        h = self.conv1(x)
        for stage in range(1, self.stages + 1):
            h = getattr(self, f"layer{stage}")(h)
        if self.final:
            h = torch.relu(self.bn(h))
        return getattr(self, self.head)(h.mean((2, 3)))


def random_peer(*arguments):
    torch.manual_seed(0)
    network = Peer(*arguments).eval()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.3)
            part.running_var.uniform_(0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.3)
    return network


PEERS = {
    "bearpaw preresnet": (
        ("downsample", (16, 32, 64), 3, "fc"), "preresnet20_cifar10"),
    "kuangliu preact_resnet": (
        ("shortcut", (64, 128, 256, 512), 2, "linear"),
        "preactresnet18_kuangliu_cifar10"),
}  # fmt: skip


@pytest.mark.parametrize("dialect", PEERS)
def test_networks_that_differ_in_more_than_names(dialect, rng):
    arguments, name = PEERS[dialect]
    network = random_peer(*arguments)
    model = convert.from_torch(network.state_dict(), name)
    card = convert.provenance(model)
    assert card["dialect"] == dialect and card["verification"]["scope"] == "network"
    x = rng.standard_normal((2, 32, 32, 3)).astype("float32")
    with torch.no_grad():
        expected = network(torch.tensor(x).permute(0, 3, 1, 2)).numpy()
    error = np.abs(model(x) - expected).max() / np.abs(expected).max()
    assert error <= 1e-5


def test_the_wrong_wiring_of_right_keys_and_shapes_is_caught():
    """Every key and shape of bearpaw's PreResNet fits pytorchcv's, 53 % off."""
    network = random_peer(*PEERS["bearpaw preresnet"][0])
    model = zoo.build("preresnet20_cifar10")
    with pytest.raises(MismatchError, match="stage2.unit1.identity_conv"):
        convert.from_torch(network.state_dict(), model)
    right = zoo.build("preresnet20_cifar10", shortcut_from="input")
    convert.from_torch(network.state_dict(), right)


def test_a_dialect_can_be_named():
    state = renamed(random_network("resnet20_cifar10").state_dict(), "bearpaw")
    convert.from_torch(state, "resnet20_cifar10", dialect="bearpaw")
    with pytest.raises(MismatchError, match="keys are missing"):
        convert.from_torch(state, "resnet20_cifar10", dialect="kuangliu")
    with pytest.raises(ValueError, match="`dialect` must be 'auto' or one of"):
        convert.from_torch(state, "resnet20_cifar10", dialect="timm")
    own = convert.to_torch(zoo.build("resnet20_cifar10"), dialect="bearpaw")
    assert own.keys() == {k for k in state if not k.endswith("num_batches_tracked")}


def test_a_dialect_of_other_networks_is_refused():
    path = zoo.checkpoint("resnet20_digits").weights
    with pytest.raises(MismatchError, match="'bearpaw preresnet' is of other networks"):
        convert.from_torch(path, "resnet20_digits", dialect="bearpaw preresnet")


def test_keys_that_several_dialects_fit_are_refused():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="output")])
    state = {"fc.weight": np.ones((2, 3)), "fc.bias": np.ones(2)}
    with pytest.raises(CheckpointError, match="ambiguous.*bearpaw, bearpaw preresnet"):
        convert.from_torch(state, model)
    convert.from_torch(state, model, dialect="bearpaw")


@pytest.mark.parametrize("dialect", [d.name for d in dialects.DIALECTS])
def test_templates_work_both_ways(dialect):
    chosen = dialects.named(dialect)
    for theirs, ours in chosen.rows:
        numbers = {"{i}": "2", "{i+1}": "3", "{j}": "4", "{j+1}": "5"}
        for name, value in numbers.items():
            theirs, ours = theirs.replace(name, value), ours.replace(name, value)
        assert dialects.to_ours(f"{theirs}.weight", chosen) == f"{ours}.weight"
        assert dialects.to_theirs(f"{ours}.weight", chosen) == f"{theirs}.weight"


def test_networks_of_ones_own_are_compared_by_their_own_names(tmp_path):
    # `conv1`, `bn1` and `fc` are bearpaw's words too.
    network = nn.Sequential()
    network.conv1, network.bn1 = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
    network.fc = nn.Linear(4, 2)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    kl = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            kl.Conv2D(4, 3, name="conv1"),
            kl.BatchNormalization(epsilon=1e-5, name="bn1"),
            kl.GlobalAveragePooling2D(),
            kl.Dense(2, name="fc"),
        ]
    )
    convert.from_torch(tmp_path / "w.pth", model)
    convert.save_model(model, tmp_path / "w.keras")
    for second in ("w.keras", "w.pth"):
        rows = convert.compare(tmp_path / "w.pth", tmp_path / second)
        assert len(rows) == 8 and {row.status for row in rows} == {"equal"}


@pytest.mark.parametrize("dialect", ["auto", "bearpaw"])
def test_two_dialects_are_compared_by_ours(dialect, tmp_path):
    model = zoo.build("resnet20_cifar10")
    for name in ("bearpaw", "kuangliu"):
        convert.to_torch(model, tmp_path / f"{name}.safetensors", dialect=name)
    convert.save_model(model, tmp_path / "own.keras")
    first = tmp_path / "bearpaw.safetensors"
    assert {r.status for r in convert.compare(first, tmp_path / "own.keras")} == {
        "equal"
    }
    rows = convert.compare(first, tmp_path / "kuangliu.safetensors", dialect=dialect)
    # Named for both, bearpaw's words are not kuangliu's.
    assert ({r.status for r in rows} == {"equal"}) == (dialect == "auto")


def test_the_score_is_the_share_of_all_keys_that_agree():
    """Two keys of both, one of the file's alone, three of the model's: 2 / 6."""
    theirs = ["conv1.weight", "fc.weight", "own.weight"]
    ours = {
        "features.init_block.conv.weight", "output.weight", "output.bias",
        "features.init_block.bn.weight", "features.init_block.bn.bias",
    }  # fmt: skip
    dialect, score = dialects.detect(theirs, ours)
    assert dialect.name == "bearpaw" and score == pytest.approx(2 / 6)
    assert dialects.detect(["fc.weight", "fc.bias"], {"a.weight"})[1] == 0


def test_differences_are_relative_to_the_first_file(tmp_path):
    a, b = np.array([1.0, -2.0], "float32"), np.array([1.5, -4.0], "float32")
    for name, value in (("a", a), ("b", b), ("zero", 0 * a)):
        np.savez(tmp_path / f"{name}.npz", w=value)

    def error(first, second, **arguments):
        (row,) = convert.compare(
            tmp_path / f"{first}.npz", tmp_path / f"{second}.npz", **arguments
        )
        return row.relative_error, row.status

    # max |a - b| = 2, max |a| = 2, max |b| = 4.
    assert error("a", "b") == (1.0, "different")
    assert error("b", "a") == (0.5, "different")
    assert error("b", "a", tolerance=0.5) == (0.5, "equal")
    assert error("a", "b", tolerance=0.5) == (1.0, "different")
    # There the error is absolute.
    assert error("zero", "b") == (4.0, "different")
