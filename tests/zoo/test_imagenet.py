"""Networks of half a gigabyte: counts, keys under three names, and one forward pass."""

import numpy as np
import pytest
import torch
from pytorchcv.model_provider import get_model
from torch import nn

from keras_spectral import convert, zoo
from keras_spectral.convert import dialects
from keras_spectral.convert.rules import slots


def count(model):
    return int(sum(np.prod(w.shape) for w in model.trainable_weights))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "theirs", "dialect", "expected"),
    [
        ("vgg19_imagenet", "vgg19", "pytorchcv vgg19", 143_667_240),
        ("vgg19_bn_imagenet", "bn_vgg19b", "pytorchcv bn_vgg19", 143_678_248),
        ("alexnet_imagenet", "alexnetb", "pytorchcv alexnetb", 61_100_840),
    ],
)
def test_counts_and_pytorchcvs_keys(name, theirs, dialect, expected):
    model = zoo.build(name)
    assert count(model) == zoo.entry(name)["parameters"] == expected
    with torch.device("meta"):
        state = get_model(theirs).state_dict()
    state = {k: tuple(v.shape) for k, v in state.items() if "num_batches" not in k}
    chosen, score = dialects.detect(state, set(slots(model)))
    assert (chosen.name, score) == (dialect, 1.0)
    renamed = {dialects.to_ours(k, chosen): shape for k, shape in state.items()}
    assert renamed == {k: slot.torch_shape for k, slot in slots(model).items()}


def alexnet():
    """torchvision's module, from its description."""
    features = nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
    )  # fmt: skip
    classifier = nn.Sequential(
        nn.Dropout(), nn.Linear(256 * 36, 4096), nn.ReLU(),
        nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 10),
    )  # fmt: skip
    return nn.ModuleDict({"features": features, "classifier": classifier}).eval()


@pytest.mark.slow
def test_alexnet_is_torchvisions(rng):
    torch.manual_seed(0)
    network = alexnet()
    model = zoo.imagenet_alexnet(10)
    convert.from_torch(network.state_dict(), model)
    certificate = convert.provenance(model)["verification"]
    assert certificate["scope"] == "layers" and certificate["layers"] == 8
    x = rng.standard_normal((2, 224, 224, 3)).astype("float32")
    with torch.no_grad():
        h = network["features"](torch.tensor(x).permute(0, 3, 1, 2))
        expected = network["classifier"](h.flatten(1)).numpy()
    np.testing.assert_allclose(model(x), expected, atol=1e-5)
    # A large layer is checked by entries; a wrong one does not pass.
    dense = model.get_layer("classifier-1")
    wrong = dense.kernel.numpy().reshape(6, 6, 256, 4096).transpose(2, 0, 1, 3)
    dense.kernel.assign(wrong.reshape(256 * 36, 4096))
    report = convert.verification.verify(
        model, _Stored(network.state_dict()), dialects.named("pytorchcv"), {}
    )
    assert report.status == "failed" and report.first_bad_layer == "classifier.1"


class _Stored:
    def __init__(self, state):
        self.state = state

    def is_read(self, key):
        return key in self.state

    def stored(self, key):
        return self.state[key].numpy()

    def rounded(self, key, effective=True):
        return self.state[key].double().numpy()

    evaluated = rounded


@pytest.mark.slow
@pytest.mark.parametrize("batch_normalization", [False, True])
def test_vgg_is_a_sequence_in_pytorch(batch_normalization, rng):
    torch.manual_seed(0)
    parts, narrow = [], 3
    for stage, wide in zip((1, 1, 2, 2, 2), (64, 128, 256, 512, 512), strict=True):
        for _ in range(stage):
            parts.append(nn.Conv2d(narrow, wide, 3, padding=1))
            parts += [nn.BatchNorm2d(wide)] * batch_normalization
            parts.append(nn.ReLU())
            narrow = wide
        parts.append(nn.MaxPool2d(2))
    classifier = nn.Sequential(
        nn.Linear(512 * 4, 4096), nn.ReLU(), nn.Dropout(),
        nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 10),
    )  # fmt: skip
    network = nn.ModuleDict(
        {"features": nn.Sequential(*parts), "classifier": classifier}
    )
    network.eval()
    model = zoo.imagenet_vgg(
        11, 10, batch_normalization=batch_normalization, input_shape=(64, 64, 3)
    )
    convert.from_torch(network.state_dict(), model)
    x = rng.standard_normal((2, 64, 64, 3)).astype("float32")
    with torch.no_grad():
        h = network["features"](torch.tensor(x).permute(0, 3, 1, 2))
        expected = network["classifier"](h.flatten(1)).numpy()
    error = np.abs(model(x) - expected).max() / np.abs(expected).max()
    assert error <= 1e-5
