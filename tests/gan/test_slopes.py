"""Slopes and gradients of a discriminator, and how its loss moves, in closed forms."""

import keras
import numpy as np
import pytest
import scipy.stats
from keras import layers as kl

from keras_spectral import report
from keras_spectral.gan.metrics import slopes
from keras_spectral.measures import Distributions, empirical_lipschitz


def linear(rng, shape=(4, 4, 1)):
    layer = kl.Dense(1)
    model = keras.Sequential([keras.Input(shape), kl.Flatten(), layer])
    layer.kernel.assign(rng.normal(size=layer.kernel.shape))
    return model, keras.ops.convert_to_numpy(layer.kernel)[:, 0]


def conditional(rng):
    images, labels = keras.Input((4, 4, 1)), keras.Input((), dtype="int32")
    dense = kl.Dense(1)(kl.Flatten()(images))
    embedded = kl.Flatten()(kl.Embedding(3, 1)(labels))
    return keras.Model([images, labels], dense + embedded)


def test_slopes_of_a_linear_map_are_those_of_numpy(rng):
    model, kernel = linear(rng)
    real = rng.integers(0, 256, (6, 4, 4, 1)).astype("uint8")
    fake = rng.uniform(-1, 1, (2, 4, 4, 1))
    found = slopes.discriminator_slopes(model, fake, real, count=40)
    assert [row.name for row in found] == ["real-fake", "fake", "real"]
    # Two generated images are one pair.
    step = (fake[0] - fake[1]).ravel()
    expected = abs(step @ kernel) / np.linalg.norm(step)
    np.testing.assert_allclose(found.values["fake"], np.full(40, expected), rtol=1e-4)
    everything = empirical_lipschitz(model, real / 127.5 - 1, fake, count=40)
    np.testing.assert_allclose(found.values["real"], everything.values["real"], 1e-4)


def test_equal_images_are_left_out_and_counted(rng):
    model, _ = linear(rng)
    x = np.zeros((3, 4, 4, 1))
    found = slopes.discriminator_slopes(model, x + 1, x, count=10)
    assert [(row.samples, row.left_out) for row in found] == [(10, 0), (0, 10), (0, 10)]


def test_a_conditional_discriminator_has_pairs_of_a_class(rng):
    model = conditional(rng)
    x = rng.uniform(-1, 1, (8, 4, 4, 1))
    labels = {"real_labels": np.arange(8) % 2, "generated_labels": np.arange(8) % 3}
    found = slopes.discriminator_slopes(model, -x, x, count=30, **labels)
    assert [row.name for row in found][-2:] == ["real-fake of a class", "same class"]
    labels["generated_labels"] = np.full(8, 2)
    found = slopes.discriminator_slopes(model, -x, x, count=30, **labels)
    assert [row.name for row in found][-2:] == ["real", "same class"]
    jacobians = slopes.discriminator_jacobians(model, -x, x, count=5, **labels)
    assert [row.samples for row in jacobians] == [5, 5]


def test_gradients_of_a_square_are_the_images_norms(rng):
    # |grad |x|^2| = 2 |x|.
    images = keras.Input((4, 4, 1))
    model = keras.Model(images, keras.ops.sum(images**2, axis=(1, 2)))
    real, fake = rng.uniform(-1, 1, (2, 30, 4, 4, 1))
    real *= 0.7
    found = slopes.discriminator_jacobians(model, fake, real, count=20)
    norms = {
        name: 2 * np.linalg.norm(x[:20].reshape(20, -1), axis=1)
        for name, x in (("real", real), ("generated", fake))
    }
    for name, expected in norms.items():
        np.testing.assert_allclose(found.values[name], expected, rtol=1e-5)
    # The largest difference of two step functions.
    points = np.concatenate(list(norms.values()))
    shares = [(x[:, None] <= points).mean(0) for x in norms.values()]
    assert found.distance == pytest.approx(np.abs(shares[0] - shares[1]).max())
    assert found.distance == scipy.stats.ks_2samp(*found.values.values()).statistic


@pytest.mark.parametrize(
    ("losses", "window", "expected"),
    [
        (np.full(20, 3.0), 4, 0.0),
        (7 - 0.25 * np.arange(20), 4, 0.0),
        # Of period 2: its mean over two does not move, its steps are 2 either way.
        (np.arange(21) % 2 * 2.0, 2, 0.0),
        (np.arange(21) % 2 * 2.0, 1, 2.0),
        # (t + 1)^2 - t^2 = 2 t + 1, for t = 0, 1, ... 10.
        (np.arange(12.0) ** 2, 1, 2 * np.sqrt(10.0)),
    ],
)
def test_instability_in_closed_forms(losses, window, expected):
    for shift in (0.0, 1e6):
        found = slopes.loss_instability(losses + shift, window)
        assert found == pytest.approx(expected, abs=1e-9)


def test_instability_of_noise(rng):
    found = slopes.loss_instability(rng.normal(0, 3.0, 200_000), 10)
    assert found == pytest.approx(np.sqrt(2) * 3.0 / 10, rel=0.01)


@pytest.mark.parametrize(
    ("losses", "match"), [(np.zeros(11), "window"), ([np.nan] * 12, "finite")]
)
def test_losses_that_are_refused(losses, match):
    with pytest.raises(ValueError, match=match):
        slopes.loss_instability(losses)


def test_labels_are_for_conditional_ones_alone(rng):
    x = np.zeros((2, 4, 4, 1))
    with pytest.raises(ValueError, match="`generated_labels` must be given if and"):
        slopes.discriminator_slopes(
            linear(rng)[0], x, x, real_labels=[0, 1], generated_labels=[0, 1]
        )
    with pytest.raises(ValueError, match="`real_labels` must be given if and"):
        slopes.discriminator_jacobians(conditional(rng), x, x, generated_labels=[0, 1])
    with pytest.raises(ValueError, match="`real_labels` must hold one label an image"):
        slopes.discriminator_jacobians(
            conditional(rng), x, x, generated_labels=[0, 1], real_labels=[0, 1, 0]
        )
    with pytest.raises(ValueError, match="`real_labels` must be integers.*float64"):
        slopes.discriminator_jacobians(
            conditional(rng), x, x, generated_labels=[0, 1], real_labels=[0, 0.5]
        )


def test_the_figure_has_a_panel_a_row_and_a_line_a_model(rng):
    found = {
        name: Distributions({"real": rng.gamma(3, size=50), "fake": np.full(4, np.nan)})
        for name in ("SN", "SRN-70")
    }
    figure = report.distribution_figure(found)
    first, second = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["real", "fake"]
    marks = [line.get_xdata()[0] for line in first.lines]
    assert marks == [rows.percentile("real", 95) for rows in found.values()]
    assert not second.lines
    with pytest.raises(ValueError, match="of the same rows"):
        report.distribution_figure({**found, "plain": Distributions({"real": [1.0]})})
