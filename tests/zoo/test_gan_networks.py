"""Generators and discriminators against PyTorch modules written from the papers."""

import functools

import keras
import numpy as np
import pytest
import torch
from torch import nn

from keras_spectral import convert, zoo
from keras_spectral.layers import (
    ConditionalBatchNormalization,
    SpectralNormalization,
)
from tests.zoo.gan_peers import Conditional, Discriminator, Generator, randomized


def count(model):
    return int(sum(np.prod(w.shape) for w in model.trainable_weights))


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


@pytest.mark.parametrize("build", [zoo.dcgan_generator, zoo.resnet_generator])
def test_images_are_not_rounded_under_a_mixed_policy(build):
    arguments = {"filters": (4, 4)} if build is zoo.dcgan_generator else {"width": 4}
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        dtype = build(**arguments).output.dtype
    finally:
        keras.config.set_dtype_policy(before)
    assert dtype == "float32"


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: zoo.resnet_generator(33), "`resolution`"),
        (lambda: zoo.resnet_generator(upsampling="cubic"), "`upsampling`"),
        (lambda: zoo.resnet_gan(upsampling="cubic"), "`upsampling`"),
        (lambda: zoo.resnet_gan(epsilon=0.0), "`epsilon` must"),
        (lambda: zoo.resnet_gan(channels=0), "`channels` must"),
        (lambda: zoo.resnet_gan(seed=-1), "`seed` must"),
        (lambda: zoo.resnet_gan(seed=2**32), "`seed` must be below"),
        (lambda: zoo.resnet_gan(shortcut_from="output"), "`shortcut_from`"),
        (lambda: zoo.resnet_generator(64, width=8), "`width`"),
        (lambda: zoo.resnet_generator(32, width=0), "`width`"),
        (lambda: zoo.resnet_discriminator(32, width=0), "`width`"),
        (lambda: zoo.resnet_discriminator(shortcut_from="x"), "`shortcut_from`"),
        (lambda: ConditionalBatchNormalization(0), "`classes`"),
        (lambda: zoo.resnet_discriminator(normalize="spectral"), "must be a callable"),
        (lambda: zoo.dcgan_discriminator(normalize="spectral"), "must be a callable"),
        (lambda: zoo.dcgan_generator(()), "`filters` must be a tuple of integers"),
        (lambda: zoo.dcgan_discriminator((4, 2.5)), "`filters` must be an integer"),
        (lambda: zoo.low_rank_dcgan(filters=()), "`filters` must be a tuple"),
        (lambda: zoo.low_rank_dcgan(filters=64), "`filters` must be a tuple"),
        (lambda: zoo.low_rank_dcgan(filters="abc"), "`filters` must be a tuple"),
    ],
)
def test_bad_arguments(call, match):
    with pytest.raises(ValueError, match=match):
        call()
