"""Generators and discriminators against PyTorch modules written from the papers."""

import functools

import keras
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from keras_spectral import convert, zoo
from keras_spectral.layers import (
    ConditionalBatchNormalization,
    SpectralNormalization,
)


def count(model):
    return int(sum(np.prod(w.shape) for w in model.trainable_weights))


@pytest.fixture
def float64():
    for dtype in ("float64", "float32"):
        keras.config.set_dtype_policy(dtype)
        keras.config.set_floatx(dtype)
        if dtype == "float64":
            yield


@pytest.mark.parametrize(
    ("resolution", "classes", "generator", "discriminator"),
    [
        (32, None, 4_276_739, 1_053_825),
        (32, 10, 4_304_387, 1_055_105),
        (32, 100, 4_580_867, 1_066_625),
        (48, None, 4_878_083, 10_141_441),
        (64, None, 12_220_675, 10_141_441),
        (128, None, 32_150_787, 29_017_857),
    ],
)
def test_published_counts(resolution, classes, generator, discriminator):
    made = zoo.resnet_generator(resolution, classes)
    assert count(made) == generator
    assert count(zoo.resnet_discriminator(resolution, classes)) == discriminator
    assert made.output_shape == (None, resolution, resolution, 3)


def test_the_authors_last_layer_has_no_bias():
    assert count(zoo.resnet_discriminator(32, use_bias=False)) == 1_053_824


@pytest.mark.parametrize(
    ("rank_ratio", "expected"),
    [(None, 2_636_673), (1, 2_967_479), (0.75, 2_227_883), (0.5, 1_488_287),
     (0.25, 748_691)],
)  # fmt: skip
def test_the_low_rank_papers_counts(rank_ratio, expected):
    model = zoo.dcgan_discriminator((128, 256, 512), False, rank_ratio)
    assert count(model) == expected


class Conditional(nn.Module):
    """Batch normalization with a row of scales and offsets a class."""

    def __init__(self, channels, classes):
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, affine=False)
        self.embed = nn.Embedding(classes, 2 * channels)

    def forward(self, x, y):
        scale, offset = self.embed(y)[:, :, None, None].chunk(2, 1)
        return self.bn(x) * scale + offset


class Up(nn.Module):
    """One block of a generator."""

    def __init__(self, narrow, wide, classes, mode):
        super().__init__()
        self.mode, self.classes = mode, classes
        self.c1 = nn.Conv2d(narrow, wide, 3, padding=1)
        self.c2 = nn.Conv2d(wide, wide, 3, padding=1)
        self.c_sc = nn.Conv2d(narrow, wide, 1)
        kind = functools.partial(Conditional, classes=classes)
        kind = nn.BatchNorm2d if classes is None else kind
        self.b1, self.b2 = kind(narrow), kind(wide)

    def forward(self, x, y):
        y = () if self.classes is None else (y,)
        arguments = {} if self.mode == "nearest" else {"align_corners": False}
        up = functools.partial(
            F.interpolate, scale_factor=2, mode=self.mode, **arguments
        )
        h = self.c1(up(torch.relu(self.b1(x, *y))))
        return self.c2(torch.relu(self.b2(h, *y))) + self.c_sc(up(x))


class Generator(nn.Module):
    def __init__(self, width, classes=None, mode="nearest"):
        super().__init__()
        self.l1 = nn.Linear(128, 16 * width)
        self.block2 = Up(width, width, classes, mode)
        self.block3 = Up(width, width, classes, mode)
        self.block4 = Up(width, width, classes, mode)
        self.b5 = nn.BatchNorm2d(width)
        self.c5 = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, z, y=None):
        h = self.l1(z).view(len(z), -1, 4, 4)
        h = self.block4(self.block3(self.block2(h, y), y), y)
        return torch.tanh(self.c5(torch.relu(self.b5(h))))


class Down(nn.Module):
    """One block of a discriminator."""

    def __init__(self, narrow, wide, halves, first, norm, in_place):
        super().__init__()
        self.halves, self.first, self.in_place = halves, first, in_place
        self.c1 = norm(nn.Conv2d(narrow, wide if first else narrow, 3, padding=1))
        self.c2 = norm(nn.Conv2d(wide if first else narrow, wide, 3, padding=1))
        if halves or narrow != wide:
            self.c_sc = norm(nn.Conv2d(narrow, wide, 1))

    def forward(self, x):
        pool = functools.partial(F.avg_pool2d, kernel_size=2)
        h = x if self.first else torch.relu(x)
        x = h if self.in_place else x
        h = self.c2(torch.relu(self.c1(h)))
        h = pool(h) if self.halves else h
        if hasattr(self, "c_sc"):
            x = self.c_sc(x)
            x = pool(x) if self.halves else x
        return h + x


class Discriminator(nn.Module):
    def __init__(self, width, classes=None, in_place=False, norm=lambda m: m):
        super().__init__()
        down = functools.partial(Down, norm=norm, in_place=in_place)
        self.block1 = down(3, width, True, True)
        self.block2 = down(width, width, True, False)
        self.block3 = down(width, width, False, False)
        self.block4 = down(width, width, False, False)
        self.l5 = norm(nn.Linear(width, 1))
        if classes is not None:
            self.l_y = norm(nn.Embedding(classes, width))

    def forward(self, x, y=None):
        h = self.block4(self.block3(self.block2(self.block1(x))))
        h = torch.relu(h).sum((2, 3))
        out = self.l5(h)
        return out if y is None else out + (self.l_y(y) * h).sum(1, keepdim=True)


def randomized(module, seed=0):
    torch.manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.3)
            part.running_var.uniform_(0.5, 2)
            if part.affine:
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.normal_(part.bias, 0, 0.3)
    return module.double().eval()


def agrees(model, module, inputs, tolerance=1e-12):
    """Compare outputs in float64 on inputs of Keras' layout."""
    tensors = [torch.tensor(x) for x in inputs]
    if tensors[0].ndim == 4:
        tensors[0] = tensors[0].permute(0, 3, 1, 2)
    with torch.no_grad():
        theirs = module(*tensors)
    theirs = theirs.permute(0, 2, 3, 1).numpy() if theirs.ndim == 4 else theirs.numpy()
    given = list(inputs) if len(inputs) > 1 else inputs[0]
    ours = model(given).numpy()
    assert np.abs(ours - theirs).max() <= tolerance * max(np.abs(theirs).max(), 1)


LABELS = np.array([2, 0, 1, 2], "int32")


@pytest.mark.parametrize("classes", [None, 3])
@pytest.mark.parametrize("upsampling", ["nearest", "bilinear"])
def test_generators_are_pytorchs(classes, upsampling, float64, rng):
    module = randomized(Generator(8, classes, upsampling))
    model = zoo.resnet_generator(
        32, classes, width=8, upsampling=upsampling, epsilon=1e-5
    )
    convert.from_torch(module.state_dict(), model)
    z = rng.standard_normal((4, 128))
    agrees(model, module, [z] if classes is None else [z, LABELS])


@pytest.mark.parametrize("classes", [None, 3])
@pytest.mark.parametrize("shortcut_from", ["input", "relu"])
@pytest.mark.parametrize("normalized", [False, True])
def test_discriminators_are_pytorchs(classes, shortcut_from, normalized, float64, rng):
    norm = nn.utils.spectral_norm if normalized else (lambda m: m)
    module = Discriminator(8, classes, shortcut_from == "relu", norm)
    module = randomized(module)
    x = rng.standard_normal((4, 32, 32, 3))
    inputs = [x] if classes is None else [x, LABELS]
    if normalized:
        module.train()
        for _ in range(3):
            first = torch.tensor(x).permute(0, 3, 1, 2)
            module(first, *map(torch.tensor, inputs[1:]))
        module.eval()
    model = zoo.resnet_discriminator(
        32,
        classes,
        normalize=SpectralNormalization if normalized else None,
        width=8,
        shortcut_from=shortcut_from,
    )
    convert.from_torch(module.state_dict(), model)
    agrees(model, module, inputs)


def test_where_a_shortcut_reads_matters(rng):
    x = rng.standard_normal((2, 32, 32, 3)).astype("float32")
    models = [zoo.resnet_discriminator(32, width=8, shortcut_from=s)
              for s in ("input", "relu")]  # fmt: skip
    models[1].set_weights(models[0].get_weights())
    one, other = (model(x).numpy() for model in models)
    assert np.abs(one - other).max() > 1e-3 * np.abs(one).max()


def test_dcgan_is_pytorchs_example(float64, rng):
    def block(*modules):
        return nn.Sequential(*modules)

    up = functools.partial(nn.ConvTranspose2d, kernel_size=4, bias=False)
    generator = nn.Module()
    generator.main = block(
        up(6, 16, stride=1), nn.BatchNorm2d(16), nn.ReLU(),
        up(16, 8, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        up(8, 3, stride=2, padding=1), nn.Tanh(),
    )  # fmt: skip
    randomized(generator)
    model = zoo.dcgan_generator((16, 8), latent=6)
    convert.from_torch(generator.state_dict(), model)
    z = rng.standard_normal((3, 6))
    agrees(model, lambda z: generator.main(z[:, :, None, None]), [z])

    down = functools.partial(nn.Conv2d, kernel_size=4, bias=False)
    discriminator = nn.Module()
    discriminator.main = block(
        down(3, 8, stride=2, padding=1), nn.LeakyReLU(0.2),
        down(8, 16, stride=2, padding=1), nn.BatchNorm2d(16), nn.LeakyReLU(0.2),
        down(16, 1),
    )  # fmt: skip
    randomized(discriminator)
    model = zoo.dcgan_discriminator((8, 16))
    convert.from_torch(discriminator.state_dict(), model)
    x = rng.standard_normal((3, 16, 16, 3))
    # TensorFlow keeps the slope 0.2 in float32 only.
    agrees(model, lambda x: discriminator.main(x).flatten(1), [x], 1e-8)


def test_dcgan_has_the_counts_of_pytorchs_example():
    assert count(zoo.dcgan_generator()) == 3_576_704
    assert count(zoo.dcgan_discriminator()) == 2_765_568


@pytest.mark.parametrize("training", [False, True])
def test_conditional_normalization_is_pytorchs(training, rng):
    module = Conditional(5, 3).train(training)
    module.bn.momentum = 0.1
    layer = ConditionalBatchNormalization(3, momentum=0.9, epsilon=1e-5)
    x = rng.standard_normal((4, 6, 6, 5)).astype("float32")
    layer([x, LABELS])
    np.testing.assert_array_equal(
        layer.embeddings, np.repeat([[1.0] * 5 + [0.0] * 5], 3, 0)
    )
    layer.embeddings.assign(module.embed.weight.detach().numpy())
    with torch.no_grad():
        theirs = module(torch.tensor(x).permute(0, 3, 1, 2), torch.tensor(LABELS))
    ours = layer([x, LABELS], training=training)
    np.testing.assert_allclose(ours, theirs.permute(0, 2, 3, 1), atol=1e-5)
    np.testing.assert_allclose(layer.moving_mean, module.bn.running_mean, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: zoo.resnet_generator(33), "`resolution`"),
        (lambda: zoo.resnet_generator(upsampling="cubic"), "`upsampling`"),
        (lambda: zoo.resnet_generator(64, width=8), "`width`"),
        (lambda: zoo.resnet_discriminator(shortcut_from="x"), "`shortcut_from`"),
        (lambda: ConditionalBatchNormalization(0), "`classes`"),
    ],
)
def test_bad_arguments(call, match):
    with pytest.raises(ValueError, match=match):
        call()
