"""Empirical Lipschitz constants of pairs: linear maps, and which pairs are drawn."""

import keras
import numpy as np
import pytest
from keras import layers as kl

from keras_spectral.measures import empirical_lipschitz

KINDS = ["real", "fake", "real-fake", "same class", "real-fake of a class"]


def linear(kernel):
    kernel = np.asarray(kernel)
    layer = kl.Dense(kernel.shape[1], use_bias=False)
    model = keras.Sequential([keras.Input((len(kernel),)), layer])
    model.set_weights([kernel])
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_no_pair_of_a_linear_map_exceeds_its_norm(rng, kind):
    kernel = rng.normal(size=(5, 3))
    real, fake = rng.normal(size=(2, 30, 5))
    labels = rng.integers(3, size=30)
    model = linear(kernel)
    given = {"labels": labels, "fake_labels": labels[::-1]}
    found = empirical_lipschitz(model, real, fake, **given, pairs=kind, count=500)
    assert 0.5 * np.linalg.norm(kernel, 2) < found[0].maximum
    assert found[0].maximum <= np.linalg.norm(kernel, 2) * (1 + 1e-5)
    counts, edges = found.histogram(kind, bins=10)
    assert counts.sum() == found[0].samples and len(edges) == 11
    assert found[0].percentile_95 == np.percentile(found.values[kind], 95)


def test_the_identity_is_all_ones(rng):
    found = empirical_lipschitz(linear(np.eye(5)), rng.normal(size=(9, 5)))
    np.testing.assert_allclose(found.values["real"], 1, rtol=1e-5)


@pytest.mark.parametrize("order", [1, 2, np.inf])
def test_the_norm_of_inputs(rng, order):
    """A scalar's ratios stay below its gradient's dual norm, which a pair meets."""
    slope = rng.normal(size=5)
    dual = {1: np.inf, 2: 2, np.inf: 1}[order]
    real = rng.normal(size=(6, 5))
    worst = {1: np.eye(5)[np.abs(slope).argmax()], 2: slope, np.inf: np.sign(slope)}
    fake = real[:1] + worst[order]
    found = empirical_lipschitz(
        linear(slope[:, None]), real, fake, pairs="real-fake", count=200, order=order
    )
    expected = np.linalg.norm(slope, dual)
    assert found[0].maximum == pytest.approx(expected, rel=1e-4)


def drawn(size, kind="real", labels=None, count=20_000):
    """Which pairs are drawn, told by f(x) = 2^x of one-hot samples."""
    powers = 2.0 ** np.arange(size)
    found = empirical_lipschitz(
        linear(powers[:, None]), np.eye(size), labels=labels, pairs=kind, count=count
    )
    moved = np.round(found.values[kind] * np.sqrt(2)).astype(int)
    table = {abs(2**i - 2**j): (i, j) for i in range(size) for j in range(i) if i != j}
    return [table[value] for value in moved]


def test_every_pair_is_as_likely(rng):
    pairs = drawn(5)
    counts = np.array([pairs.count((i, j)) for i in range(5) for j in range(i)])
    assert len(pairs) == counts.sum() == 20_000
    # Binomial with p = 1 / 10, at 4.5 standard deviations.
    assert np.abs(counts - 2000).max() < 4.5 * np.sqrt(20_000 * 0.1 * 0.9)


def test_pairs_of_a_class(rng):
    labels = np.array([1, 0, 1, 2, 0, 1])
    pairs = set(drawn(6, "same class", labels, 2000))
    # 3 is alone in its class.
    assert pairs == {(2, 0), (5, 0), (5, 2), (4, 1)}


def test_a_real_and_a_generated_one_of_a_class():
    """A class "from a discrete uniform distribution", then one of each side."""
    real, fake = np.eye(6)[:4], np.eye(6)[4:]
    # Class 2 has three real samples, class 0 one; 1 and 7 are of one side alone.
    given = {"labels": [2, 2, 0, 1], "fake_labels": [0, 2]}
    real = np.vstack([real, np.eye(6)[:1]])
    given["labels"] = [*given["labels"], 2]
    powers = 2.0 ** np.arange(6)
    found = empirical_lipschitz(
        linear(powers[:, None]), real, fake, **given, pairs="real-fake of a class",
        count=20_000,
    )  # fmt: skip
    moved = np.round(found.values["real-fake of a class"] * np.sqrt(2)).astype(int)
    counts = {
        pair: int((moved == 2 ** pair[1] - 2 ** pair[0]).sum())
        for pair in ((2, 4), (0, 5), (1, 5))
    }
    assert sum(counts.values()) == 20_000
    expected = {(2, 4): 1 / 2, (0, 5): 1 / 3, (1, 5): 1 / 6}
    for pair, share in expected.items():
        around = 4.5 * np.sqrt(20_000 * share * (1 - share))
        assert abs(counts[pair] - 20_000 * share) < around


def test_a_kind_draws_the_same_alone_and_beside_others(rng):
    model, (real, fake) = linear(rng.normal(size=(5, 3))), rng.normal(size=(2, 30, 5))
    both = empirical_lipschitz(model, real, fake, pairs=["real-fake", "real"], count=50)
    alone = empirical_lipschitz(model, real, pairs="real", count=50)
    np.testing.assert_array_equal(both.values["real"], alone.values["real"])
    other = empirical_lipschitz(model, real, pairs="real", count=50, seed=1)
    assert (other.values["real"] != alone.values["real"]).any()


def test_equal_inputs_are_counted():
    x = np.repeat(np.eye(3), 2, axis=0)
    found = empirical_lipschitz(linear(np.eye(3)), x, count=4000)
    # One of the five others is the same.
    assert abs(found[0].left_out - 800) < 4.5 * np.sqrt(4000 * 0.2 * 0.8)
    assert found[0].samples + found[0].left_out == 4000


def test_a_stream_with_labels_is_as_its_arrays(rng):
    import tensorflow as tf

    x, y = rng.normal(size=(20, 5)).astype("float32"), rng.integers(2, size=20)
    model = linear(rng.normal(size=(5, 3)))
    stream = tf.data.Dataset.from_tensor_slices((x, y)).batch(7)
    one = empirical_lipschitz(model, stream, pairs=["real", "same class"], count=50)
    other = empirical_lipschitz(
        model, x, labels=y, pairs=["real", "same class"], count=50
    )
    for kind in one.values:
        np.testing.assert_allclose(one.values[kind], other.values[kind], rtol=1e-5)


def test_bad_arguments(rng):
    model, x = linear(np.eye(3)), rng.normal(size=(4, 3))
    bad = [
        (dict(pairs="fake"), "`fake` must be given"),
        (dict(pairs="same class"), "`labels` must be given"),
        (dict(pairs="same class", labels=range(4)), "two samples of a class"),
        (dict(pairs="same class", labels=[0, 1]), "`labels` must be integers"),
        (dict(pairs="others"), "`pairs` must be one of"),
        (
            dict(pairs="real-fake of a class", fake=x, labels=range(4)),
            "`fake_labels` must be given",
        ),
        (
            dict(
                pairs="real-fake of a class",
                fake=x,
                labels=[0] * 4,
                fake_labels=[1] * 4,
            ),
            "a class in common",
        ),
        (dict(pairs=[]), "`pairs` must be one of"),
        (dict(order=3), "`order` must be one of"),
        (dict(count=0), "`count`"),
        (dict(fake=np.zeros((0, 3)), pairs="fake"), "`fake` must hold at least one"),
        (
            dict(fake=np.zeros((2, 4)), pairs="fake"),
            "`fake` must hold samples of shape",
        ),
    ]
    for arguments, message in bad:
        with pytest.raises(ValueError, match=message):
            empirical_lipschitz(model, x, **arguments)
    with pytest.raises(ValueError, match="two samples of `real`"):
        empirical_lipschitz(model, x[:1])
