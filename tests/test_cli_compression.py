"""`keras-spectral compress` and `keras-spectral bound`."""

import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest

import keras_spectral
from keras_spectral import compression
from keras_spectral.cli.compression import _sizes
from tests.test_cli import WEIGHTS, run


def test_compress_writes_a_smaller_file_by_its_best_rule(tmp_path, capfd, rng):
    x = rng.standard_normal((12, 32, 32, 3)).astype("float32")
    np.savez(tmp_path / "mine.npz", x=x, y=np.arange(12) % 10)
    out = tmp_path / "out"
    arguments = ["--model", "resnet20_digits", "--trials", "2", "--deviations", "0.3"]
    arguments += ["--data", tmp_path / "mine.npz", "--output", out]
    assert run("compress", WEIGHTS, *arguments) == 0
    found = json.loads((out / "compression.json").read_text())
    rows = found["replacements"]
    assert len(rows) == 6
    best = max(row["compressed_accuracy_mean"] for row in rows)
    assert best in [
        row["compressed_accuracy_mean"]
        for row in rows
        if (row["rule"], row["replacement"]) == (found["rule"], found["replacement"])
    ]
    size = (out / "compressed.safetensors").stat().st_size
    assert size == found["bytes"] < found["int8_bytes"] < found["float32_bytes"] / 3
    small = compression.load_compressed(out / "compressed.safetensors")
    predicted = small.predict(x, batch_size=64, verbose=0).argmax(-1)
    assert np.mean(predicted == np.arange(12) % 10) == pytest.approx(found["accuracy"])
    assert (out / "compression.png").exists()
    printed = capfd.readouterr().out
    assert "int8 alone" in printed and "The file is smaller." in printed


def test_wrapped_networks_are_taken_by_what_they_compute_with(tmp_path, capfd):
    head = keras_spectral.layers.SpectralNormalization(keras.layers.Dense(10))
    keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), head]).save(
        tmp_path / "wrapped.keras"
    )
    for verb, more in (
        ("compress", ["--trials", "2", "--output", tmp_path / "out"]),
        ("bound", ["--kept", "0.1", "--value-bits", "2"]),
    ):
        assert run(verb, tmp_path / "wrapped.keras", "--data", "digits", *more) == 0
        said = capfd.readouterr()
        assert "Traceback" not in said.err
    found = json.loads((tmp_path / "out" / "compression.json").read_text())
    assert found["float32_bytes"] > 64 * 10 * 4


@pytest.mark.parametrize("after,says", [(0.97, "loses 2.0 points"), (0.985, "smaller")])
def test_a_file_that_lost_its_accuracy_says_how_to_go_on(after, says):
    row = SimpleNamespace(rule="magnitude", replacement="zero", original_accuracy=0.99)
    sizes = SimpleNamespace(bytes=10, int8_bytes=20, float32_bytes=80)
    caption = _sizes(row, sizes, sizes, "int8", after, 0.99).caption
    assert says in caption and ("--deviations" in caption) == (after < 0.98)


def test_compress_takes_the_rule_that_is_asked_for(tmp_path, capfd):
    layers = [keras.Input((90,)), keras.layers.Dense(80, name="head")]
    keras.Sequential(layers).save(tmp_path / "mine.keras")
    out = tmp_path / "out"
    arguments = ["--rule", "signed", "--replacement", "matched", "--values", "float16"]
    arguments += ["--rank-ratio", "0.25", "--layer", "head", "--output", out]
    assert run("compress", tmp_path / "mine.keras", *arguments) == 0
    found = json.loads((out / "compression.json").read_text())
    (row,) = found["replacements"]
    assert (row["rule"], row["replacement"]) == ("signed", "matched")
    assert row["name"] == "head-left, head"
    small = compression.load_compressed(out / "compressed.safetensors")
    assert [layer.units for layer in small.layers] == [20, 80]
    assert found["accuracy"] is None
    # 3,400 weights of which half are kept, where there were 7,200.
    assert found["bytes"] < found["float32_bytes"] / 3
    capfd.readouterr()


def test_bound_prints_the_certificate(capfd):
    arguments = ["--model", "resnet20_digits", "--data", "digits"]
    arguments += ["--kept", "0.1", "--value-bits", "2,3"]
    assert run("bound", WEIGHTS, *arguments) == 0
    printed = capfd.readouterr().out
    assert "vacuous, guessing errs less" in printed and "UNTESTED" in printed
    assert run("bound", WEIGHTS, *arguments, "--json") == 0
    found = json.loads(capfd.readouterr().out)
    assert [row["value_bits"] for row in found["settings"]] == [2, 3]
    assert found["best"]["samples"] == 1347 and found["assumptions"]


def test_compress_a_keras_file_without_data(tmp_path, capfd):
    model = keras.Sequential([keras.Input((30,)), keras.layers.Dense(10, name="head")])
    model.save(tmp_path / "mine.keras")
    assert run("compress", tmp_path / "mine.keras", "--layer", "head") == 0
    assert "zero" in capfd.readouterr().out


def test_compress_takes_all_kernels_or_those_that_are_named(tmp_path, capfd):
    layers = [keras.Input((5, 8)), keras.layers.LSTM(6, name="lstm")]
    model = keras.Sequential([*layers, keras.layers.Dense(10, name="head")])
    model.save(tmp_path / "mine.keras")
    out = tmp_path / "out"
    for arguments, name in [
        ([], "lstm/kernel, lstm/recurrent_kernel, head"),
        (["--layer", "head", "--layer", "lstm/kernel"], "lstm/kernel, head"),
    ]:
        arguments = [*arguments, "--values", "float32", "--trials", "2"]
        arguments += ["--output", out]
        assert run("compress", tmp_path / "mine.keras", *arguments) == 0
        found = json.loads((out / "compression.json").read_text())
        assert {row["name"] for row in found["replacements"]} == {name}
        small = compression.load_compressed(out / "compressed.safetensors")
        same = [
            np.mean(keras.ops.convert_to_numpy(new) == keras.ops.convert_to_numpy(old))
            for new, old in zip(small.weights, model.weights, strict=True)
        ]
        assert (same[1] == 1) == (name == "lstm/kernel, head") and same[0] < 1
    capfd.readouterr()
