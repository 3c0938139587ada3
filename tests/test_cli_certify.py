"""`keras-spectral certify`, beside the function that it calls."""

import json

import keras
import numpy as np
import pytest
from keras import layers as kl

from keras_spectral import data, measures
from tests.test_cli import run


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    keras.utils.set_random_seed(0)
    layers = [kl.Flatten(), kl.Dense(16, "relu"), kl.Dense(10)]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
    path = tmp_path_factory.mktemp("certify") / "model.keras"
    model.save(path)
    return model, path


def test_it_prints_what_the_function_returns(model, capfd):
    network, path = model
    test = data.load("digits").test
    found = measures.certify(
        network, test.inputs(), test.labels, [36 / 255, 0.01], pixel_scale=2.0
    )
    arguments = ["certify", path, "--data", "digits", "--radii", "36/255,0.01"]
    assert run(*arguments, "--json") == 0
    printed = json.loads(capfd.readouterr().out)
    assert printed == {
        "accuracy": found.accuracy,
        "samples": 450,
        "pixel_scale": 2.0,
        "lipschitz_constant": found.lipschitz_constant,
        "certified": found.to_dicts(),
    }
    assert run(*arguments) == 0
    printed = " ".join(capfd.readouterr().out.split())
    assert f"clean: {found.accuracy:.2%} of 450" in printed and "0.1412" in printed


def test_a_file_has_its_own_scale(model, capfd, tmp_path):
    network, path = model
    x = np.random.default_rng(0).uniform(size=(20, 8, 8, 1))
    y = network.predict(x, verbose=0).argmax(1)
    np.savez(tmp_path / "own.npz", x=x, y=y)
    arguments = ["certify", path, "--data", tmp_path / "own.npz", "--json"]
    shares = []
    for more in ([], ["--pixel-scale", 2], ["--method", "product"]):
        assert run(*arguments, "--radii", 0.002, *more) == 0
        printed = json.loads(capfd.readouterr().out)
        assert printed["accuracy"] == 1
        shares.append(printed["certified"][0]["certified_accuracy"])
    assert 1 >= shares[0] > shares[1] and shares[0] >= shares[2] > 0


def test_balls_around_the_first_images(model, capfd):
    network, path = model
    test = data.load("digits").test[:3]
    arguments = ["certify", path, "--data", "digits", "--samples", 3, "--json"]
    assert run(*arguments, "--radii", 0.01, "--method", "local") == 0
    printed = json.loads(capfd.readouterr().out)
    found = measures.certify(
        network, test.inputs(), test.labels, 0.01, pixel_scale=2.0, method="local"
    )
    assert printed["samples"] == 3 and printed["certified"] == found.to_dicts()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--radii", "a"], "`--radii` must be numbers or fractions"),
        (["--radii", "1/0"], "`--radii` must be numbers or fractions"),
        (["--radii", "-1"], "`--radii` must be a positive"),
        (["--radii", "1e400"], "`--radii` must be numbers or fractions"),
        (["--radii", "0.1,1/2/3"], "`--radii` must be numbers or fractions"),
        # Nobody waits for a fraction of as many digits.
        (["--radii", "1e99999999"], "`--radii` must be numbers or fractions"),
        (["--method", "sampled"], "`--method` must be one of"),
        (["--pixel-scale", "0"], "`--pixel-scale` must be a positive"),
    ],
)
def test_mistakes_are_one_line(model, arguments, message, capfd):
    assert run("certify", model[1], "--data", "digits", *arguments) == 2
    error = capfd.readouterr().err
    assert message in error and "Traceback" not in error


def test_softmax_is_refused(tmp_path, capfd):
    layers = [kl.Flatten(), kl.Dense(10, "softmax")]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
    model.save(tmp_path / "model.keras")
    assert run("certify", tmp_path / "model.keras", "--data", "digits") == 2
    assert "must end in logits" in capfd.readouterr().err
