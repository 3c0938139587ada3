"""Models of a user's own: flattened images, and what could not be seen."""

import keras
import numpy as np
import pytest
import torch
from keras import layers as kl
from torch import nn

import keras_spectral as ks
from keras_spectral import convert, zoo
from keras_spectral.convert import MismatchError, layer_checks
from keras_spectral.convert.flattening import flattened_orders
from keras_spectral.layers import SpectralNormalization
from tests.convert import peers

SHAPE = (6, 5, 3)


def network(seed=0):
    """A convolution, a normalization and two dense layers, by PyTorch's habits."""
    torch.manual_seed(seed)
    modules = {
        "conv": nn.Conv2d(3, 4, 3, padding=1),
        "bn": nn.BatchNorm2d(4),
        "fc1": nn.Linear(4 * 6 * 5, 7),
        "fc2": nn.Linear(7, 3),
    }
    modules["bn"].running_mean.normal_(0, 0.3)
    modules["bn"].running_var.uniform_(1e-3, 0.02)
    return nn.ModuleDict(modules).eval()


def forward(modules, x, channels_last=False):
    with torch.no_grad():
        h = modules["conv"](torch.tensor(x).permute(0, 3, 1, 2))
        h = torch.relu(modules["bn"](h))
        h = h.permute(0, 2, 3, 1) if channels_last else h
        return modules["fc2"](torch.relu(modules["fc1"](h.flatten(1)))).numpy()


def own(epsilon=1e-5, activation="relu", dense=lambda layer: layer):
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            kl.Conv2D(4, 3, padding="same", name="conv"),
            kl.BatchNormalization(epsilon=epsilon, name="bn"),
            kl.ReLU(),
            kl.Flatten(),
            kl.Dropout(0.5),
            dense(kl.Dense(7, activation=activation, name="fc1")),
            kl.Dense(3, name="fc2"),
        ]
    )


@pytest.fixture
def images(rng):
    return rng.standard_normal((16, *SHAPE)).astype("float32")


def test_a_flattened_image_is_read_as_pytorch_does(images, tmp_path):
    theirs, model = network(), own()
    convert.from_torch(theirs.state_dict(), model)
    expected = forward(theirs, images)
    np.testing.assert_allclose(model(images), expected, atol=1e-5)
    card = convert.provenance(model)
    assert card["flattened"] == ["fc1"]
    assert any("rows of fc1" in note for note in card["notes"])
    assert card["verification"]["status"] == "passed"
    # Both ways, and from a file that has the card.
    convert.save_model(model, tmp_path / "own.keras")
    for source in (model, convert.load_model(tmp_path / "own.keras")):
        back = convert.to_torch(source)
        for key, value in theirs.state_dict().items():
            np.testing.assert_array_equal(back[key], value.numpy())


def test_a_model_that_was_never_imported_goes_out_in_pytorchs_order(images):
    model, theirs = own(), network()
    state = {k: torch.tensor(v) for k, v in convert.to_torch(model).items()}
    theirs.load_state_dict(state, strict=False)
    np.testing.assert_allclose(model(images), forward(theirs, images), atol=1e-5)


def test_the_certificate_catches_rows_in_the_wrong_order(monkeypatch):
    module = convert.torch_weights
    right = module.reordered
    monkeypatch.setattr(module, "reordered", lambda targets, orders: right(targets, {}))
    with pytest.raises(MismatchError, match="layer `fc1` is off by"):
        convert.from_torch(network().state_dict(), own())


def test_entries_of_a_large_layer_are_compared_in_its_order(monkeypatch):
    monkeypatch.setattr(layer_checks, "_LARGEST_LAYER", 100)
    test_the_certificate_catches_rows_in_the_wrong_order(monkeypatch)
    monkeypatch.undo()
    monkeypatch.setattr(layer_checks, "_LARGEST_LAYER", 100)
    model = own()
    convert.from_torch(network().state_dict(), model)
    assert convert.provenance(model)["verification"]["status"] == "passed"


@pytest.mark.parametrize("flavour", peers.FLAVOURS[:2])
def test_spectral_normalization_behind_a_flattened_image(flavour, images):
    theirs = network()
    theirs["fc1"] = peers.normalized(theirs["fc1"], flavour).layer
    for _ in range(50):
        theirs.train()["fc1"](torch.ones(1, 120))
    theirs.eval()
    model = own(dense=SpectralNormalization)
    convert.from_torch(theirs.state_dict(), model)
    np.testing.assert_allclose(model(images), forward(theirs, images), atol=1e-5)
    back = convert.to_torch(model, spectral_normalization=flavour)
    for key, value in theirs.state_dict().items():
        np.testing.assert_array_equal(back[key], value.numpy())


def normalized_behind(model_input):
    """A normalization and two branches between `Flatten` and `Dense`."""
    x = kl.Conv2D(4, 3, padding="same", name="conv")(model_input)
    left = kl.Flatten()(x)
    left = kl.BatchNormalization(epsilon=1e-5, name="bn")(left)
    left = kl.LayerNormalization(epsilon=1e-5, name="ln")(left)
    right = kl.GlobalAveragePooling2D()(x)
    return kl.Dense(3, name="fc")(kl.Concatenate()([right, left]))


def test_normalizations_and_branches_between(rng, images):
    image = keras.Input(SHAPE)
    model = keras.Model(image, normalized_behind(image))
    torch.manual_seed(0)
    theirs = nn.ModuleDict(
        {
            "conv": nn.Conv2d(3, 4, 3, padding=1),
            "bn": nn.BatchNorm1d(120),
            "ln": nn.LayerNorm(120),
            "fc": nn.Linear(124, 3),
        }
    ).eval()
    for module in (theirs["bn"], theirs["ln"]):
        nn.init.normal_(module.weight)
        nn.init.normal_(module.bias)
    theirs["bn"].running_mean.normal_()
    theirs["bn"].running_var.uniform_(0.5, 2)
    convert.from_torch(theirs.state_dict(), model)
    with torch.no_grad():
        h = theirs["conv"](torch.tensor(images).permute(0, 3, 1, 2))
        flat = theirs["ln"](theirs["bn"](h.flatten(1)))
        expected = theirs["fc"](torch.cat([h.mean((2, 3)), flat], 1)).numpy()
    np.testing.assert_allclose(model(images), expected, atol=2e-5)
    assert convert.provenance(model)["flattened"] == ["bn", "ln", "fc"]


@pytest.mark.parametrize("count", [1, 3])
def test_sequences_and_volumes(count, rng):
    shape = (5, 4, 3)[:count]
    convolution = {1: kl.Conv1D, 3: kl.Conv3D}[count](2, 2, name="conv")
    layers = [keras.Input((*shape, 3)), convolution, kl.Flatten()]
    model = keras.Sequential([*layers, kl.Dense(3, name="fc")])
    theirs = nn.Sequential()
    theirs.conv = getattr(nn, f"Conv{count}d")(3, 2, 2)
    theirs.flatten = nn.Flatten()
    theirs.fc = nn.Linear(model.layers[-1].kernel.shape[0], 3)
    convert.from_torch(theirs.state_dict(), model)
    x = rng.standard_normal((4, *shape, 3)).astype("float32")
    with torch.no_grad():
        expected = theirs(torch.moveaxis(torch.tensor(x), -1, 1)).numpy()
    np.testing.assert_allclose(model(x), expected, atol=1e-5)


def chain(*layers, shape=(4, 3, 2)):
    return keras.Sequential([keras.Input(shape), *layers])


DENSE = {"units": 1, "name": "fc"}
LEFT = {
    "moved before": lambda: chain(
        kl.Permute((3, 1, 2)), kl.Flatten(), kl.Dense(**DENSE)
    ),
    "one channel": lambda: chain(kl.Flatten(), kl.Dense(**DENSE), shape=(4, 3, 1)),
    "one pixel": lambda: chain(kl.Flatten(), kl.Dense(**DENSE), shape=(1, 1, 4)),
    "pooled": lambda: chain(kl.GlobalMaxPooling2D(), kl.Dense(**DENSE)),
    "rows of a sequence": lambda: chain(kl.Flatten(), kl.Dense(**DENSE), shape=(4, 3)),
    "channels first": lambda: chain(
        kl.Conv2D(2, 1, data_format="channels_first", name="conv"),
        kl.Flatten(),
        kl.Dense(**DENSE),
    ),
}


@pytest.mark.parametrize("case", LEFT)
def test_rows_that_stay(case):
    assert flattened_orders(LEFT[case]()) == ({}, [])


def nested():
    inner = chain(kl.Conv2D(2, 3, padding="same"), kl.Flatten())
    image = keras.Input((4, 3, 2))
    return keras.Model(image, kl.Dense(**DENSE)(kl.ReLU()(inner(image))))


def with_operations():
    image = keras.Input((4, 3, 2))
    x = keras.ops.relu(kl.MaxPooling2D(1)(image))
    return keras.Model(image, kl.Dense(**DENSE)(keras.ops.reshape(x, (-1, 24))))


MOVED = {
    "nested": nested,
    "operations": with_operations,
    "image at once": lambda: chain(kl.Flatten(), kl.Dense(**DENSE)),
    "reshaped": lambda: chain(kl.Reshape((24,)), kl.Dense(**DENSE)),
    "channels first, flattened last": lambda: chain(
        kl.Permute((3, 1, 2)),
        kl.Flatten(data_format="channels_first"),
        kl.Dense(**DENSE),
    ),
}


@pytest.mark.parametrize("case", MOVED)
def test_rows_that_move(case):
    orders, lost = flattened_orders(MOVED[case]())
    expected = np.arange(24).reshape(2, 4, 3).transpose(1, 2, 0).ravel()
    assert list(orders) == ["fc"] and lost == []
    np.testing.assert_array_equal(orders["fc"], expected)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.conv = kl.Conv2D(2, 1, name="conv")
        self.fc = kl.Dense(**DENSE)

    def call(self, x):
        return self.fc(keras.ops.reshape(self.conv(x), (-1, 24)))


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 4, 3, 2)))
    return model


def twice():
    image = keras.Input((2, 1, 2))
    fc = kl.Dense(**DENSE)
    flat, other = kl.Flatten()(image), kl.Flatten()(kl.Permute((3, 1, 2))(image))
    return keras.Model(image, kl.Add()([fc(flat), fc(other)]))


LOST = {
    "subclassed": subclassed,
    "transposed otherwise": lambda: chain(
        kl.Permute((2, 3, 1)), kl.Flatten(), kl.Dense(**DENSE)
    ),
    "two orders": twice,
    "tokens": lambda: chain(kl.Reshape((12, 2)), kl.Flatten(), kl.Dense(**DENSE)),
    "made an image": lambda: chain(
        kl.Reshape((2, 2, 3)), kl.Conv2D(1, 1, name="fc"), shape=(12,)
    ),
}


@pytest.mark.parametrize("case", LOST)
def test_an_order_that_cannot_be_told_is_said(case):
    model = LOST[case]()
    assert flattened_orders(model) == ({}, ["fc"])
    state = {key: np.ones_like(v) for key, v in convert.to_torch(model).items()}
    convert.from_torch(state, model)
    lines = convert.provenance(model)["not_seen"]
    assert "the order of the numbers that fc reads" in lines


ZOO = (
    "resnet20_digits", "preresnet20_cifar10", "alexnet_cifar100", "vgg19_bn_cifar100",
    "mnist_convnet", "sngan32_generator", "sngan32_discriminator", "dcgan32_generator",
    "dcgan32_discriminator",
)  # fmt: skip


@pytest.mark.parametrize("name", ZOO)
def test_networks_of_the_zoo_are_not_moved_twice(name):
    assert flattened_orders(zoo.build(name)) == ({}, [])


def test_a_registered_network_has_its_wiring_seen():
    weights = zoo.checkpoint("resnet20_digits").weights
    model = ks.convert.from_torch(weights, "resnet20_digits")
    assert convert.provenance(model)["not_seen"] == ["preprocessing of the inputs"]
    convert.from_torch(weights, model, verify=False)
    lines = convert.provenance(model)["not_seen"]
    assert lines[0].startswith("wiring")
    assert "strides, padding and dilation of features.init_block.conv" in lines[2]
    assert "18 more" in lines[2]


def test_the_number_of_heads_is_not_seen():
    inputs = keras.Input((4, 8))
    layer = kl.MultiHeadAttention(4, 2, name="a")
    model = keras.Model(inputs, layer(inputs, inputs))
    theirs = nn.MultiheadAttention(8, 2)
    state = {f"a.{k}": v for k, v in theirs.state_dict().items()}
    convert.from_torch(state, model)
    unseen = convert.provenance(model)["not_seen"]
    assert any("number of heads" in line for line in unseen)
