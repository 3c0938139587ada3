"""GANs from PyTorch: whose they are, and a certificate of their wiring."""

import functools

import keras
import numpy as np
import pytest
import torch
from torch import nn

from keras_spectral import convert, zoo
from keras_spectral.convert import CheckpointError, MismatchError, dialects
from keras_spectral.layers import SpectralNormalization, StableRankNormalization
from tests.convert.peers import StoresU
from tests.zoo.gan_peers import Discriminator, Generator, randomized

# Thinner networks under the registered names, so that a test takes no minute.
GENERATOR, DISCRIMINATOR = "sngan32_generator", "sngan32_discriminator"
PROJECTION = "projection_gan32_cifar10"


def certificate(model):
    return convert.provenance(model)["verification"]


@pytest.mark.parametrize("classes", [None, 10])
@pytest.mark.parametrize("project", ["chainer", "mimicry"])
def test_the_wiring_of_both_projects_is_certified(classes, project):
    mimicry = project == "mimicry"
    names = (GENERATOR, DISCRIMINATOR)
    if classes:
        names = (f"{PROJECTION}_generator", f"{PROJECTION}_discriminator")
    config = dialects.named(project).config
    for name, module in (
        (names[0], Generator(16, classes, "bilinear" if mimicry else "nearest")),
        (names[1], Discriminator(16, classes, mimicry)),
    ):
        arguments = dialects.applicable(
            config, ("upsampling", "epsilon") if "gen" in name else ("shortcut_from",)
        )
        model = zoo.build(name, width=16, **arguments)
        state = randomized(module).float().state_dict()
        convert.from_torch(state, model, dialect=project)
        found = certificate(model)
        assert (found["scope"], found["status"]) == ("network", "passed")
        assert found["relative_error"] < 1e-12
        # Every layer with weights, and what follows the last one.
        assert found["layers"] == sum(bool(lay.weights) for lay in model.layers) + 1
        other = zoo.build(name, width=16)
        if mimicry:
            with pytest.raises(MismatchError, match="does not compute"):
                convert.from_torch(state, other, dialect=project)


def test_a_gan_of_mimicrys_form_computes_what_mimicrys_do(rng):
    form = dialects.named("mimicry").config
    ours, authors = (
        zoo.resnet_gan(width=16, generator_width=16, **arguments)
        for arguments in (form, {})
    )
    latents = rng.standard_normal((2, 128)).astype("float32")
    images = rng.uniform(-1, 1, (2, 3, 32, 32)).astype("float32")
    for kind, module, inputs in (
        ("generator", Generator(16, None, "bilinear"), latents),
        ("discriminator", Discriminator(16, None, True), images),
    ):
        state = randomized(module).float().state_dict()
        with torch.no_grad():
            wanted = module(torch.from_numpy(inputs)).numpy()
        if kind == "generator":
            wanted = wanted.transpose(0, 2, 3, 1)
        else:
            inputs = inputs.transpose(0, 2, 3, 1)
        distances = []
        for gan in (ours, authors):
            network = getattr(gan, kind)
            convert.from_torch(state, network, dialect="mimicry", verify=False)
            distances.append(np.abs(np.asarray(network(inputs)) - wanted).max())
        scale = np.abs(wanted).max()
        assert distances[0] < 1e-5 * scale and distances[1] > 1e-2 * scale


@pytest.mark.parametrize("resolution", [48, 64, 128])
def test_larger_discriminators_and_generators_are_certified(resolution):
    for kind in ("generator", "discriminator"):
        name = f"sngan{resolution}_{kind}"
        state = convert.to_torch(zoo.build(name, width=32))
        model = zoo.build(name, width=32)
        convert.from_torch(state, model, dialect="chainer")
        assert certificate(model)["scope"] == "network"
        assert convert.provenance(model)["dialect"] == "chainer"


def test_a_checkpoint_that_could_be_either_projects_is_refused():
    state = randomized(Generator(256)).float().state_dict()
    with pytest.raises(CheckpointError, match="chainer and of mimicry.*`dialect`"):
        convert.from_torch(state, GENERATOR)
    model = convert.from_torch(state, GENERATOR, dialect="mimicry", verify=False)
    assert model.get_layer("block2-b1").epsilon == 1e-5
    # A model of one's own with such names belongs to no project.
    plain = zoo.resnet_generator(32, upsampling="bilinear")
    convert.from_torch(state, plain)
    assert convert.provenance(plain)["dialect"] == "pytorchcv"


@pytest.mark.parametrize(
    "normalize",
    [None, SpectralNormalization, functools.partial(StableRankNormalization,
                                                    stable_rank_ratio=0.5)],
)  # fmt: skip
def test_mimicrys_spectral_norm_tells_that_it_is_mimicrys(normalize):
    norm = functools.partial(StoresU, u="sn_u", sigma="sn_sigma")
    module = Discriminator(128, in_place=True, norm=norm)
    state = module.state_dict()
    assert "block1.c1.sn_u" in state
    model = zoo.build(DISCRIMINATOR, normalize=normalize, shortcut_from="relu")
    convert.from_torch(state, model)
    assert convert.provenance(model)["dialect"] == "mimicry"
    assert certificate(model)["scope"] == "network"
    assert convert.from_torch(state, DISCRIMINATOR).name == DISCRIMINATOR
    wrong = zoo.build(DISCRIMINATOR, normalize=normalize)
    before = wrong.get_weights()
    with pytest.raises(MismatchError, match="block2"):
        convert.from_torch(state, wrong)
    # All of the weights or none.
    for one, other in zip(before, wrong.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    back = convert.to_torch(
        model, spectral_normalization=None if normalize is None else "mimicry"
    )
    if normalize is SpectralNormalization:
        np.testing.assert_array_equal(
            back["block1.c1.weight"], state["block1.c1.weight"]
        )


def test_mimicrys_conditional_discriminator_evaluates_as_theirs(rng):
    """The norm that each layer evaluates with, the embedding's among them."""
    torch.manual_seed(0)
    norm = functools.partial(StoresU, u="sn_u", sigma="sn_sigma")
    module = Discriminator(16, 10, in_place=True, norm=norm)
    x, labels = rng.standard_normal((4, 32, 32, 3), "float32"), np.arange(4)
    given = torch.tensor(x).permute(0, 3, 1, 2), torch.tensor(labels)
    with torch.no_grad():
        for _ in range(3):
            module(*given)
        expected = module.eval()(*given).numpy()
    model = zoo.build(
        f"{PROJECTION}_discriminator",
        width=16,
        normalize=SpectralNormalization,
        shortcut_from="relu",
    )
    convert.from_torch(module.state_dict(), model)
    np.testing.assert_allclose(model([x, labels]), expected, rtol=1e-4, atol=1e-4)
    table = module.l_y.weight.detach().numpy()
    effective = model.get_layer("l_y").effective_kernel().numpy()
    # What its forward pass has just divided by.
    sigma = float(module.l_y.sn_sigma)
    np.testing.assert_allclose(effective, table / sigma, rtol=1e-5)
    assert abs(sigma / np.linalg.norm(table, 2) - 1) > 1e-4


def dcgan():
    up = functools.partial(nn.ConvTranspose2d, kernel_size=4, bias=False)
    modules, wide = [], 100
    for index, filters in enumerate((512, 256, 128)):
        modules += [up(wide, filters, stride=1 if index == 0 else 2,
                       padding=0 if index == 0 else 1),
                    nn.BatchNorm2d(filters), nn.ReLU()]  # fmt: skip
        wide = filters
    generator = nn.Module()
    generator.main = nn.Sequential(*modules, up(wide, 3, stride=2, padding=1))
    modules, wide = [], 3
    for filters in (128, 256, 512):
        modules += [nn.Conv2d(wide, filters, 4, 2, 1), nn.LeakyReLU(0.2)]
        wide = filters
    discriminator = nn.Module()
    discriminator.main = nn.Sequential(*modules, nn.Conv2d(wide, 1, 4))
    return {
        "dcgan32_generator": generator,
        "dcgan32_discriminator": discriminator,
    }


@pytest.mark.parametrize("name", ["dcgan32_generator", "dcgan32_discriminator"])
def test_dcgans_are_certified(name):
    torch.manual_seed(0)
    state = randomized(dcgan()[name]).float().state_dict()
    model = convert.from_torch(state, name)
    assert certificate(model)["scope"] == "network"
    assert certificate(model)["relative_error"] < 1e-12
    assert convert.provenance(model)["dialect"] == "pytorch/examples"


@pytest.mark.parametrize("kind", ["generator", "discriminator"])
def test_a_wrong_last_step_is_caught(kind):
    """Nothing with weights comes after the last convolution, yet it is compared."""
    name = f"sngan32_{kind}"
    model = zoo.build(name, width=16)
    state = convert.to_torch(zoo.build(name, width=16))
    wrong = keras.Model(model.inputs, 2 * model.outputs[0], name=name)
    with pytest.raises(MismatchError, match=r"layer `\(output\)`"):
        convert.from_torch(state, wrong, dialect="chainer")
