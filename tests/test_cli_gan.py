"""`keras-spectral evaluate-gan`, beside the functions that it calls."""

import json

import keras
import numpy as np
import pytest
from PIL import Image

from keras_spectral import data
from keras_spectral.gan import metrics
from tests.gan.test_gan_callbacks_backends import small
from tests.test_cli import run


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gan")
    keras.utils.set_random_seed(0)
    gan = small()
    gan.save(folder / "gan.keras")
    gan.generator.save(folder / "generator.keras")
    small(classes=3).save(folder / "conditional.keras")
    kl = keras.layers
    layers = [kl.Flatten(), kl.Dense(3, "relu", name="hidden"), kl.Dense(5)]
    network = keras.Sequential([keras.Input((4, 4, 1)), *layers])
    network.save(folder / "network.keras")
    random = np.random.default_rng(0)
    images = random.uniform(-1, 1, (60, 4, 4, 1))
    np.savez(folder / "pixels.npz", x=127 * images, y=np.arange(60) % 3)
    arrays = {"x_train": images[:40], "x_test": images[40:]}
    labels = {"y_train": np.arange(40) % 3, "y_test": np.arange(20) % 3}
    np.savez(folder / "own.npz", **arrays, **labels)
    return folder, gan, network, data.load(str(folder / "own.npz"))


def evaluated(folder, capfd, model, *arguments):
    own = ["--data", folder / "own.npz", "--samples", 30, "--json"]
    assert run("evaluate-gan", folder / f"{model}.keras", *own, *arguments) == 0
    return json.loads(capfd.readouterr().out)["scores"]


@pytest.mark.filterwarnings("ignore:.*fewer:UserWarning")
def test_scores_of_features_are_the_functions(files, capfd):
    folder, gan, network, own = files
    features = ["--features", folder / "network.keras", "--layer", "hidden"]
    names = "frechet,kernel,manifold,inception_score"
    found = evaluated(folder, capfd, "gan", *features, "--metrics", names)
    expected = metrics.score_images(
        gan.generate(30, seed=0),
        own.train.images,
        metrics.Features(network, "network", "hidden"),
        logits=metrics.Features(network, "network"),
        data=f"{folder / 'own.npz'} train",
    )
    assert len(found) == 7
    for row, other in zip(found, expected.to_dicts(), strict=True):
        assert row["metric"] == other["metric"]
        np.testing.assert_allclose(row["value"], other["value"], rtol=1e-6)
    assert "network, layer 'hidden', no resize, symmetric" in found[0]["metric"]
    assert "40 / 30" in found[0]["metric"]


def test_a_reference_is_written_and_then_read(files, capfd, tmp_path):
    folder = files[0]
    arguments = ["--features", folder / "network.keras", "--metrics", "frechet"]
    arguments += ["--reference", tmp_path / "real.npz", "--reference-samples", 30]
    first = evaluated(folder, capfd, "generator", *arguments)
    assert (tmp_path / "real.npz").is_file()
    card = json.loads((tmp_path / "real.npz.json").read_text())
    assert card["count"] == 30 and card["provenance"]["data"].endswith("train")
    # Unless it is said anew, the file's count is what holds.
    assert evaluated(folder, capfd, "gan", *arguments[:-2]) == first


def test_a_gan_has_slopes_and_gradients(files, capfd, tmp_path):
    folder, gan, _, own = files
    found = evaluated(folder, capfd, "gan", "--output", tmp_path, "--seed", 2)
    given = gan.discriminator, gan.generate(30, seed=2), own.test.images
    slopes = metrics.discriminator_slopes(*given, seed=2)
    jacobians = metrics.discriminator_jacobians(*given)
    values = [*(row.percentile_95 for row in slopes), jacobians.distance]
    np.testing.assert_allclose([row["value"] for row in found], values, rtol=1e-6)
    assert found[0]["metric"].startswith("eLhist real-fake, 95th percentile of 2,000")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["evaluation.json", "jacobians.png", "slopes.png"]
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert written["scores"] == found
    assert Image.open(tmp_path / "slopes.png").width > 1000


def test_a_conditional_gan_has_pairs_of_a_class(files, capfd):
    found = evaluated(files[0], capfd, "conditional", "--metrics", "slopes")
    assert "same class" in found[-1]["metric"]


def test_divergences_have_their_count_of_steps(files, capfd):
    folder = files[0]
    arguments = ["--metrics", "logistic_divergence", "--steps", 3, "--samples", 300]
    assert run(
        "evaluate-gan", folder / "gan.keras", "--data", folder / "own.npz", *arguments
    ) == 0  # fmt: skip
    printed = " ".join(capfd.readouterr().out.split())
    assert "3 steps" in printed and "higher" in printed and "0.6931" in printed
    assert "over 3 batches of 128" in printed


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ("gan", ["--reference", "damaged.npz"], "`path` must be an .npz file of `mu`"),
        ("gan", ["--reference", "plain.npz"], "need the reference's features"),
        (
            "gan",
            ["--reference", "wide.npz", "--metrics", "frechet"],
            "must have the dimensions of the features. Received: 9, and 5",
        ),
        ("gan", ["--samples", 3], "`--samples` must be at least 4 images"),
        ("gan", ["--reference-samples", 3], "must be at least 4 images, as 'manifold'"),
        ("gan", ["--metrics", "frechet", "--draws", 1], "`--draws` must be an integer"),
        (
            "gan",
            ["--metrics", "inception_score", "--samples", 9],
            "at least 10 images, as an inception score needs. Received: 9",
        ),
        ("conditional", ["--data", "labels.npz"], "`--data` must hold labels from 0"),
    ],
)
def test_what_is_refused_before_an_image_is_made(
    files, capfd, tmp_path, monkeypatch, model, arguments, message
):
    folder, _, network, own = files
    monkeypatch.chdir(tmp_path)
    (tmp_path / "damaged.npz").write_bytes(b"no statistics")
    metrics.Features(network, "network").statistics(own.test.images).save("plain.npz")
    np.savez("wide.npz", mu=np.zeros(9), sigma=np.eye(9))
    np.savez("labels.npz", x=own.test.images, y=np.arange(20))
    monkeypatch.setattr("keras_spectral.gan.GAN.generate", None)
    given = ["--data", folder / "own.npz", "--features", folder / "network.keras"]
    assert run("evaluate-gan", folder / f"{model}.keras", *given, *arguments) == 2
    assert message in capfd.readouterr().err


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ("gan", ["--metrics", "fid"], "`--metrics` must be one of"),
        ("gan", ["--metrics", "frechet"], "`--features` must name a network"),
        ("gan", ["--reference", "a.npz"], "`--reference` must be an .npz file"),
        ("generator", ["--metrics", "slopes"], "need a discriminator"),
        ("generator", [], "must name one that a generator alone has"),
        ("network", [], "`model` must be a keras_spectral.gan.GAN"),
        ("gan", ["--data", "digits"], "`image_size` must be at least 8"),
        ("gan", ["--data", "pixels"], "must hold images in [-1, 1]"),
        ("gan", ["--features", "gan"], "takes"),
        ("gan", ["--output", "file"], "`--output` must be a folder"),
        ("gan", ["--layer", "hidden"], "`--layer` must be one of the network"),
        ("gan", ["--draws", 5], "`--draws` must be 0 but for frechet"),
        (
            "gan",
            ["--metrics", "slopes", "--steps", 5],
            "`--steps` must be left out but for logistic_divergence",
        ),
        ("gan", ["--steps", 5], "`--steps` must be left out but for"),
        (
            "gan",
            ["--reference-samples", 30],
            "`--reference-samples` must be left out without --features",
        ),
        (
            "gan",
            ["--metrics", "slopes", "--features", "file"],
            "`--features` must be for one of frechet",
        ),
    ],
)
def test_what_is_refused(
    files, capfd, tmp_path, monkeypatch, model, arguments, message
):
    folder = files[0]
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    if arguments[:2] == ["--features", "gan"]:
        other = keras.Sequential([keras.Input((5, 5, 1)), keras.layers.Flatten()])
        other.save(tmp_path / "other.keras")
        arguments = ["--features", tmp_path / "other.keras"]
    if "pixels" in arguments:
        arguments = ["--data", folder / "pixels.npz"]
    own = ["--data", folder / "own.npz"]
    assert run("evaluate-gan", folder / f"{model}.keras", *own, *arguments) == 2
    assert message in capfd.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} <= {"file", "other.keras"}
