"""Networks that pytorchcv lacks, against PyTorch's modules, in float64."""

import numpy as np
import pytest
import torch
from torch import nn

from keras_spectral import convert, zoo
from keras_spectral.layers import SpectralNormalization


class Sequence(nn.Module):
    """`features.N` and one `classifier`, as bearpaw names them."""

    def __init__(self, features, units, classes):
        super().__init__()
        self.features = nn.Sequential(*features)
        self.classifier = nn.Linear(units, classes)

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


def vgg(depth, units, batch_normalization):
    stages = {11: (1, 1, 2, 2, 2), 19: (2, 2, 4, 4, 4)}[depth]
    parts, narrow = [], 3
    for count, wide in zip(stages, (64, 128, 256, 512, 512), strict=True):
        for _ in range(count):
            parts.append(nn.Conv2d(narrow, wide, 3, padding=1))
            parts += [nn.BatchNorm2d(wide)] * batch_normalization
            parts.append(nn.ReLU())
            narrow = wide
        parts.append(nn.MaxPool2d(2))
    return Sequence(parts, units, 7)


def alexnet(units):
    return Sequence(
        [
            nn.Conv2d(3, 64, 11, 4, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        ],
        units,
        7,
    )  # fmt: skip


def randomized(network):
    """Weights and statistics that hide no mistake."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.reset_parameters()
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    return network.double().eval()


def check(network, model, rng):
    convert.from_torch(network.state_dict(), model, verify=False)
    x = rng.standard_normal((2, *model.input_shape[1:]))
    with torch.no_grad():
        theirs = network(torch.tensor(x.transpose(0, 3, 1, 2).copy())).numpy()
    error = np.abs(model(x).numpy() - theirs).max() / np.abs(theirs).max()
    assert error <= 1e-10


# The sizes 64 and 75 leave 2x2 pixels, so that the order of flattening matters.
@pytest.mark.parametrize(
    ("depth", "size", "batch_normalization"),
    [(11, 64, True), (11, 75, False), (19, 32, True)],
)
def test_vgg(depth, size, batch_normalization, float64, rng):
    units = 512 * (size // 32) ** 2
    model = zoo.cifar_vgg(
        depth, 7, batch_normalization, input_shape=(size, size + 1, 3)
    )
    check(randomized(vgg(depth, units, batch_normalization)), model, rng)


@pytest.mark.parametrize(("size", "side"), [(32, 1), (64, 2), (77, 2)])
def test_alexnet(size, side, float64, rng):
    model = zoo.cifar_alexnet(7, input_shape=(size, size, 3))
    check(randomized(alexnet(256 * side**2)), model, rng)


def test_the_mnist_network(float64, rng):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5)
            self.conv3 = nn.Conv2d(50, 10, 4)

        def forward(self, x):
            x = nn.functional.max_pool2d(torch.relu(self.conv1(x)), 2)
            x = nn.functional.max_pool2d(torch.relu(self.conv2(x)), 2)
            return self.conv3(x).flatten(1)

    check(randomized(Network()), zoo.mnist_convnet(), rng)


def test_the_penalties_of_the_mnist_network():
    """Eq. 5 of the paper, at factors that are no longer orthogonal."""
    model = zoo.mnist_convnet(
        rank_ratio=0.5, orthogonal_factor=2.0, d_optimal_factor=0.25
    )
    expected = 0.0
    for layer in model.layers:
        if not layer.weights:
            continue
        first = np.array(layer.first.kernel)
        layer.first.kernel.assign(1.5 * first)
        spectrum = np.linspace(1, 0.2, layer.rank)
        layer.e.assign(spectrum)
        gram = 1.5**2 * np.eye(layer.rank)
        expected += 2.0 * ((gram - np.eye(layer.rank)) ** 2).sum()
        expected -= 0.25 * np.log(spectrum / spectrum.max()).sum()
    found = sum(float(loss) for loss in model.losses)
    assert found == pytest.approx(expected, rel=1e-4)


def test_every_kernel_of_the_mnist_network_is_normalized():
    model = zoo.mnist_convnet(normalize=SpectralNormalization)
    kinds = [type(layer) for layer in model.layers if layer.weights]
    assert kinds == [SpectralNormalization] * 3
    with pytest.raises(ValueError, match=r"`normalize`.*factored.*rank_ratio=0.5"):
        zoo.mnist_convnet(rank_ratio=0.5, normalize=SpectralNormalization)


def test_the_small_network(float64, rng):
    class Block(nn.Sequential):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
            self.bn = nn.BatchNorm2d(outputs)
            self.relu = nn.ReLU()

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            sizes = [(3, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1)]
            self.features = nn.Sequential(*(Block(*size) for size in sizes))
            # Three by two pixels are left: the order of flattening matters.
            self.hidden, self.hidden_bn = nn.Linear(64 * 6, 128), nn.BatchNorm1d(128)
            self.output = nn.Linear(128, 7)

        def forward(self, x):
            x = self.hidden(self.features(x).flatten(1))
            return self.output(torch.relu(self.hidden_bn(x)))

    check(randomized(Network()), zoo.small_convnet(7, input_shape=(10, 7, 3)), rng)
    wrapped = zoo.small_convnet(7, SpectralNormalization, (10, 7, 3))
    kernels = [x for x in wrapped.layers if type(x) is SpectralNormalization]
    assert len(kernels) == 6


class WideUnit(nn.Module):
    """Batch normalization after the shortcut's convolution."""

    def __init__(self, narrow, wide, stride):
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(narrow), nn.BatchNorm2d(wide)
        self.conv1 = nn.Conv2d(narrow, wide, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(wide, wide, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(narrow, wide, 1, stride, bias=False)
        self.shortcut_bn = nn.BatchNorm2d(wide)

    def forward(self, x):
        x = torch.relu(self.bn1(x))
        y = self.conv2(torch.relu(self.bn2(self.conv1(x))))
        return y + self.shortcut_bn(self.shortcut(x))


class WideNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.start = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.units = nn.Sequential(
            WideUnit(16, 32, 1), WideUnit(32, 64, 2), WideUnit(64, 128, 2)
        )
        self.end = nn.BatchNorm2d(128)
        self.output = nn.Linear(128, 7)

    def forward(self, x):
        x = torch.relu(self.end(self.units(self.start(x))))
        return self.output(x.mean((2, 3)))

    def state_dict(self):
        """Under our keys."""
        names = {"start": "features.init_block", "end": "features.post_activ.bn"}
        for i in range(3):
            unit = f"features.stage{i + 1}.unit1"
            names[f"units.{i}.shortcut"] = f"{unit}.identity_conv"
            names[f"units.{i}.shortcut_bn"] = f"{unit}.identity_bn"
            for j in (1, 2):
                for kind in ("conv", "bn"):
                    names[f"units.{i}.{kind}{j}"] = f"{unit}.body.conv{j}.{kind}"
        state = {}
        for key, value in super().state_dict().items():
            path, leaf = key.rsplit(".", 1)
            state[f"{names.get(path, path)}.{leaf}"] = value
        return state


@pytest.mark.parametrize("size", [16, 17])
def test_normalized_shortcuts_of_a_wide_network(size, float64, rng):
    model = zoo.cifar_wrn(
        10, 2, 7, shortcut_normalization=True, input_shape=(size, size, 3)
    )
    check(randomized(WideNetwork()), model, rng)
