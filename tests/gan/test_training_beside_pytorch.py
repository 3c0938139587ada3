"""Updates of an SNGAN on the papers' networks, beside the same ones in PyTorch."""

import functools

import keras
import numpy as np
import pytest
import torch
from torch.nn.utils.parametrizations import spectral_norm

from keras_spectral import convert, zoo
from keras_spectral.convert import dialects
from keras_spectral.layers import SpectralNormalization
from tests.zoo.gan_peers import Discriminator, Generator

WIDTH, BATCH, PARTS, UPDATES, RATE = 16, 8, 2, 8, 0.02


class Peer:
    """SNGAN in PyTorch: its networks, its spectral norm, its optimizer, its gradients.

    Not Adam: Keras' powers of its betas are of float32.
    """

    def __init__(self):
        torch.manual_seed(0)
        self.generator = Generator(WIDTH, None, "bilinear").double()
        self.discriminator = Discriminator(WIDTH, None, True, spectral_norm).double()
        self.optimizers = [
            torch.optim.SGD(network.parameters(), RATE)
            for network in (self.generator, self.discriminator)
        ]

    def _update(self, number, loss):
        optimizer = self.optimizers[number]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    def judge(self, images, latents):
        with torch.no_grad():
            fake = self.generator(torch.from_numpy(latents))
        real = torch.from_numpy(images.transpose(0, 3, 1, 2))
        logits = self.discriminator.train()(torch.cat([real, fake]))
        real, fake = logits[: len(images)], logits[len(images) :]
        return self._update(1, (1 - real).relu().mean() + (1 + fake).relu().mean())

    def make(self, latents):
        # Singular vectors move in the discriminator's own updates.
        fake = self.generator(torch.from_numpy(latents))
        return self._update(0, -self.discriminator.eval()(fake).mean())


@pytest.fixture
def double():
    """In float32 rounding grows to 1e-3 within these updates."""
    before = keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy(before)


def test_a_trajectory_is_pytorchs(double, rng, monkeypatch):
    peer = Peer()
    gan = zoo.resnet_gan(
        width=WIDTH,
        generator_width=WIDTH,
        discriminator_steps=PARTS,
        normalize=functools.partial(
            SpectralNormalization, method="power_iteration", update_order="u_first"
        ),
        **dialects.named("mimicry").config,
    )
    networks = ("generator", "discriminator")
    for name in networks:
        state = getattr(peer, name).state_dict()
        convert.from_torch(state, getattr(gan, name), dialect="mimicry", verify=False)
    drawn = [
        rng.standard_normal((BATCH if part < PARTS else 2 * BATCH, 128))
        for _ in range(UPDATES)
        for part in range(PARTS + 1)
    ]
    left = iter(drawn)
    monkeypatch.setattr(gan, "_latents", lambda count: next(left))
    # A graph would keep the first latents.
    gan.compile(*map(keras.optimizers.SGD, (RATE, RATE)), run_eagerly=True)
    ours, theirs, latents = [], [], iter(drawn)
    for _ in range(UPDATES):
        images = rng.uniform(-1, 1, (PARTS * BATCH, 32, 32, 3))
        logs = gan.train_on_batch(images, return_dict=True)
        gan.reset_metrics()
        ours.append([logs["discriminator_loss"], logs["generator_loss"]])
        judged = [peer.judge(x, next(latents)) for x in np.split(images, PARTS)]
        theirs.append([np.mean(judged), peer.make(next(latents))])
    # Losses are of float32.
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
    assert np.ptp(theirs, axis=0).min() > 0.1
    for name, form in zip(
        networks, (None, "parametrizations.spectral_norm"), strict=True
    ):
        mine = convert.to_torch(getattr(gan, name), spectral_normalization=form)
        for key, wanted in getattr(peer, name).state_dict().items():
            # PyTorch's running variance is the unbiased one.
            if not key.endswith(("running_var", "num_batches_tracked")):
                np.testing.assert_allclose(mine[key], wanted, atol=1e-9, err_msg=key)
