"""Recipes of GANs: their measures, and what is said of mistakes."""

import json

import keras
import numpy as np
import pytest
import scipy.linalg

from keras_spectral import data, zoo
from keras_spectral.experiments import gan_results, load_recipe, run_recipe
from keras_spectral.experiments.inputs import load_keras
from keras_spectral.experiments.recipe_settings import GanProbes, GanRecipe
from keras_spectral.experiments.recipes import recipe_path
from keras_spectral.terminal import Console
from tests.experiments import tiny_gan

pytestmark = pytest.mark.filterwarnings("ignore:The Fréchet distance is of")


def test_measures_are_those_of_what_was_trained(tmp_path):
    row = tiny_gan.run(
        tmp_path / "run", ["probes.generated=300", "probes.reference=400"]
    )
    results = row["results"]
    kept = load_keras(next((tmp_path / "run" / "models").iterdir()))
    digits = data.load("digits").subset(72, 3)
    classifier = load_keras(next((tmp_path / "run" / "classifiers").iterdir()))
    inner = type(classifier)(
        classifier.inputs, classifier.get_layer("hidden_bn").output
    )
    images = np.trunc((kept.generate(300, seed=1) + 1) * 127.5 + 0.5)
    made = inner.predict(images / np.float32(127.5) - 1, verbose=0).astype("float64")
    real = inner.predict(digits.train.inputs(), verbose=0).astype("float64")
    # The other way to write it: by a matrix's square root.
    one, other = np.cov(made, rowvar=False), np.cov(real, rowvar=False)
    root = scipy.linalg.sqrtm(one @ other + 1e-12 * np.eye(len(one)))
    expected = np.sum((made.mean(0) - real.mean(0)) ** 2)
    expected += np.trace(one + other - 2 * root.real)
    assert results["frechet_distance"] == pytest.approx(expected, rel=2e-2)
    losses = [epoch["discriminator_loss"] for epoch in row["history"]]
    assert results["loss_instability"] == pytest.approx(np.diff(losses).std())
    assert results["discriminator_parameters"] == 6 * 9 + 6 + 54 + 1
    conv, fc = (
        np.linalg.svd(np.reshape(x, (-1, x.shape[-1])), compute_uv=False)
        for x in (np.asarray(layer.effective_kernel()) for layer in (
            kept.discriminator.layers[0], kept.discriminator.layers[-1]))
    )  # fmt: skip
    ratios = [(x**2).sum() / x[0] ** 2 / len(x) for x in (conv, fc)]
    assert results["stable_rank_ratio"] == pytest.approx(np.mean(ratios), rel=1e-4)
    # Another recipe of the same cell asks for more.
    again = tiny_gan.run(
        tmp_path / "run",
        ['measures=["neural_divergence_logistic", "fid", "intra_frechet_distance"]',
         "probes.logistic_steps=2", "probes.divergence_batches=1"],
    )  # fmt: skip
    assert again["history"] == row["history"]
    assert again["results"]["neural_divergence_logistic"] == pytest.approx(
        np.log(2), abs=0.1
    )
    assert "probes.inception" in again["reasons"]["fid"]
    assert "needs a conditional GAN" in again["reasons"]["intra_frechet_distance"]


def test_one_that_diverges_fails_again(tmp_path):
    """A rerun measured what had been saved with a loss that is no number."""
    errors = [
        tiny_gan.run(
            tmp_path / "run", ["optimizer.learning_rate=1e30", "schedule.steps=2"]
        )["error"]
        for _ in range(2)
    ]
    expected = "FloatingPointError: discriminator_loss is not finite after 2 steps"
    assert errors == [expected] * 2
    assert not list((tmp_path / "run" / "models").iterdir())


def test_one_that_is_not_trained(tmp_path):
    measures = 'measures=["slope_real_fake_95", "stable_rank_ratio"]'
    changes = [measures, 'variants=[{name = "Random", steps = 0}]']
    row = tiny_gan.run(tmp_path / "run", changes)
    assert row["error"] is None and row["history"] == []
    assert row["settings"]["schedule"]["steps"] == 0
    keras.utils.set_random_seed(3)
    begun, kept = (
        tiny_gan.tiny_gan(seed=3),
        load_keras(next((tmp_path / "run" / "models").iterdir())),
    )
    for one, other in zip(begun.get_weights(), kept.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert row["results"]["slope_real_fake_95"] > 0


def test_a_conditional_gan(tmp_path):
    gan = zoo.low_rank_dcgan(
        0.5, filters=(4, 4), resolution=None, channels=1, classes=10, seed=0
    )
    digits = data.load("digits", image_size=16).subset(100)
    names = ["intra_frechet_distance", "slope_same_class_95", "gradient_distance"]
    names += ["slope_real_fake_of_a_class_95"]
    probes = GanProbes(images=50, generated=40, classifier_epochs=1)
    found = gan_results.results_of(gan, digits, names, probes, folder=tmp_path)
    assert not found.reasons and all(x >= 0 for x in found.values.values())


def changed(tmp_path, *changes):
    text = tiny_gan.RECIPE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    (tmp_path / "recipe.toml").write_text(text)
    return tmp_path / "recipe.toml"


@pytest.mark.parametrize(
    "old, new, match",
    [
        ("steps = 6", "steps = 0", "`schedule.steps` must be an integer >= 1"),
        ("batch_size = 4", "batch = 4", "Did you mean `batch_size`"),
        ("learning_rate", "weight_decay", "unknown key `weight_decay`"),
        ("images = 20", "images = 0", "`probes.images` must be an integer >= 1"),
        ("0.005", "nan", "`optimizer.learning_rate` must be finite"),
        ("0.005", "0.1, beta_2 = 1.0", "`optimizer.beta_2` must be in \\[0, 1\\)"),
        ('"SRN-50", ', '"SRN-50", steps = -1, ', "`variants.steps` must be an integer"),
        (
            '"SRN-50", ',
            '"SRN-50", seeds = [], ',
            "`variants.seeds` must be one or more",
        ),
        ("generated = 30", "generated = 1", "`probes.generated` must be .* >= 2"),
        ("test_count = 50", "augment = true", "no `augment` in a recipe of GANs"),
        (
            '"SRN-50", ',
            '"SRN-50", weight_decay = 0.1, ',
            "no place in a recipe of GANs",
        ),
        ('"loss_instability"', '"test_error"', "Invalid enum value 'test_error'"),
    ],
)
def test_mistakes(tmp_path, old, new, match):
    with pytest.raises(ValueError, match=match):
        load_recipe(changed(tmp_path, (old, new)))


def test_what_no_gan_is_made_of(tmp_path):
    changes = (
        ("tiny_gan", "small_convnet"),
        ("[{ name", "[{ arguments = { classes = 2 }, name"),
    )
    path = changed(tmp_path, *changes)
    (row,) = run_recipe(
        path, output=tmp_path / "run", workers=0, console=Console(quiet=True)
    ).cells
    assert "unexpected keyword" in row["error"] or "build a GAN" in row["error"]


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"devices": 2}, ValueError, "`devices` must be left out"),
        (
            {"changes": ["probes.inception=nowhere.pth"]},
            FileNotFoundError,
            "`probes.inception` must be the file.* Received: nowhere.pth",
        ),
    ],
)
def test_what_is_refused_before_training(tmp_path, arguments, error, match):
    path, output = changed(tmp_path), tmp_path / "run"
    with pytest.raises(error, match=match):
        run_recipe(path, output=output, console=Console(quiet=True), **arguments)
    assert not output.exists()


@pytest.mark.slow
def test_fifty_steps_of_table_2(tmp_path):
    one = '[{name = "SRN-70", normalize = "stable_rank", stable_rank_ratio = 0.7}]'
    changes = [
        f"variants={one}", "schedule.steps=50", "schedule.batch_size=4",
        "probes.logistic_steps=2", "probes.divergence_batches=1", "probes.generated=50",
        "probes.classifier_epochs=1",
    ]  # fmt: skip
    table = run_recipe(
        "stable_rank/table_2", "small", changes=changes, output=tmp_path, workers=0,
        console=Console(quiet=True),
    )  # fmt: skip
    (row,) = table.cells
    assert row["error"] is None
    assert [epoch["steps"] for epoch in row["history"]] == [20, 40, 50]
    assert row["reasons"] == {}
    written = json.loads((tmp_path / "stable_rank-table_2-small.json").read_text())
    assert written["status"] == "complete"
    assert len(list((tmp_path / "samples").glob("*.png"))) == 1


def test_it_is_known_by_its_steps():
    assert isinstance(load_recipe(recipe_path("stable_rank/table_2")), GanRecipe)
