"""Rows of metrics: their names, their intervals, and what is not mixed."""

import json

import keras
import numpy as np
import pytest
from keras import layers

from keras_spectral.gan import metrics


@pytest.fixture(scope="module")
def features():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            layers.Conv2D(3, 3, name="convolution"),
            layers.GlobalAveragePooling2D(),
        ]
    )
    return metrics.Features(model, "a small network")


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(0)
    return random.uniform(-1, 1, (60, 4, 4, 1)), random.uniform(-1, 0.8, (90, 4, 4, 1))


def test_rows_name_their_protocol(features, images, tmp_path):
    generated, reference = images
    ours, theirs = features(generated), features(reference)
    statistics = features.statistics(reference, keep_features=True)
    statistics.provenance["data"] = "noise, train"
    statistics.save(tmp_path / "noise.npz")
    for given, data in (
        (reference, "noise, train"),
        (statistics, ""),
        (metrics.Statistics.load(tmp_path / "noise.npz"), ""),
    ):
        scores = metrics.score_images(
            generated, given, features, logits=features, data=data, draws=20
        )
        network = "on a small network, no resize, symmetric"
        protocol = f"{network} (noise, train 90 / 60)"
        shared = metrics.precision_recall_density_coverage(ours, theirs)
        kernel = metrics.kernel_distance(ours, theirs)
        frechet = metrics.frechet_distance(ours, theirs)
        score = metrics.inception_score(ours)
        expected = {
            f"Fréchet distance {protocol}": (frechet, "lower", None),
            f"Kernel distance, all samples {protocol}": (kernel.value, "lower", 0),
            f"Precision, k = 3, {protocol}": (shared.precision, "higher", None),
            f"Recall, k = 3, {protocol}": (shared.recall, "higher", None),
            f"Density, k = 3, {protocol}": (shared.density, "higher", None),
            f"Coverage, k = 3, {protocol}": (shared.coverage, "higher", None),
            f"Inception score {network} (10 splits, 60)": (score.mean, "higher", None),
        }
        assert [row.metric for row in scores] == list(expected)
        for row, (value, direction, chance) in zip(
            scores, expected.values(), strict=True
        ):
            assert row.value == pytest.approx(value, rel=1e-9)
            assert (row.direction, row.chance, row.generated) == (direction, chance, 60)
        assert scores[0].low < scores[0].value < scores[0].high
        assert scores[1].spread == pytest.approx(kernel.error)
        assert json.loads(scores.to_json())[0]["reference"] == 90
        assert "90 / 60" in " ".join(str(scores).split())


def test_a_stream_is_read_once(features, images):
    generated, reference = images
    whole = metrics.score_images(generated, reference, features, logits=features)
    batches = ((part, np.zeros(20)) for part in np.split(generated, 3))
    parts = metrics.score_images(batches, iter([reference]), features, logits=features)
    for row, other in zip(whole, parts, strict=True):
        assert (row.metric, row.value) == (other.metric, pytest.approx(other.value))


def test_protocols_are_not_mixed(features, images):
    generated, reference = images
    clean = metrics.Features(features.model, "a small network", resize="clean")
    with pytest.raises(ValueError, match="statistics of the same features"):
        metrics.score_images(generated, clean.statistics(reference), features)
    with pytest.raises(ValueError, match="need the reference's features"):
        metrics.score_images(generated, features.statistics(reference), features)
    with pytest.raises(ValueError, match="`metrics` must be one of"):
        metrics.score_images(generated, reference, features, metrics=["fid"])
    # A file of another project names neither count nor features.
    theirs = metrics.Statistics()
    known = features.statistics(reference)
    theirs.count, theirs.mean, theirs.scatter = None, known.mean, known.covariance
    (row,) = metrics.score_images(generated, theirs, features, ["frechet"])
    assert row.metric.endswith("(unknown / 60)")
    with pytest.warns(UserWarning, match="3 samples in 3 dimensions"):
        metrics.score_images(generated[:3], reference, features, ["frechet"])


@pytest.mark.parametrize(
    ("counts", "arguments", "match"),
    [
        ((3, 90), {}, "`generated` must be at least 4 .* Received: 3"),
        ((60, 5), {"neighbours": 5}, "`reference` must be at least 6 .* Received: 5"),
        ((9, 90), {"logits": True}, "`generated` must be at least 10 .* Received: 9"),
        ((60, 90), {"draws": -1}, "`draws` must be an integer >= 0"),
    ],
)
def test_too_few_images_are_told_before_any_is_looked_at(
    features, images, monkeypatch, counts, arguments, match
):
    if "logits" in arguments:
        arguments = {"logits": features}
    monkeypatch.setattr(metrics.Features, "__call__", None)
    monkeypatch.setattr(metrics.Features, "statistics", None)
    generated, reference = (x[:n] for x, n in zip(images, counts, strict=True))
    with pytest.raises(ValueError, match=match):
        metrics.score_images(generated, reference, features, **arguments)


def test_the_interval_has_the_spread_of_other_draws():
    """Its width against that of fresh samples of as many."""
    random = np.random.default_rng(0)
    reference = metrics.Statistics.of(random.normal(size=(5000, 3)))

    def distance(x):
        return metrics.frechet_distance(x, reference)

    def drawn():
        return random.normal(size=(100, 3)) * [1, 1, 1.5] + [0.5, 0, 0]

    values = np.array([distance(drawn()) for _ in range(400)])
    intervals = np.array(
        [metrics.bootstrap_interval(distance, drawn(), draws=60) for _ in range(60)]
    )
    width = np.quantile(values, 0.975) - np.quantile(values, 0.025)
    widths = intervals[:, 1] - intervals[:, 0]
    assert np.mean(widths) == pytest.approx(width, rel=0.15)
    # It holds the mean of such numbers; 60 trials of 95 percent have 52 or more in all
    # but 1 percent of cases, and few draws make it a little less.
    held = (intervals[:, 0] <= values.mean()) & (values.mean() <= intervals[:, 1])
    assert held.sum() >= 50


def test_the_inceptions_name_needs_its_file(features):
    assert not features.is_fid
    named = metrics.Features(features.model, "Inception")
    named.name, named.is_fid = "Inception 2015-12-05, TF1 resize", True
    assert metrics.protocol_name("Fréchet distance", named, 5000, 10000) == (
        "FID (Inception 2015-12-05, TF1 resize, 10,000 / 5,000)"
    )


def test_an_empty_batch_of_a_stream_counts_nothing(features, images):
    generated, _ = images
    stream = [generated[:7], generated[:0], generated[7:]]
    np.testing.assert_array_equal(features(stream), features(generated))
    with pytest.raises(ValueError, match="`images` must hold images"):
        features(generated[:0])
