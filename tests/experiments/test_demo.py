import json
import os
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from keras_spectral import data, experiments, zoo
from keras_spectral.experiments import demo


def test_the_demo_writes_what_it_says(tmp_path):
    results = experiments.run_demo(tmp_path, epochs=4)
    assert results == json.loads((tmp_path / "results.json").read_text())
    assert results["status"] == "complete"
    assert [row["name"] for row in results["training"]] == ["plain", "SN", "SRN"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "demo.html",
        "demo.png",
        "plain.keras",
        "resnet20_digits.keras",
        "resnet20_digits_compressed.safetensors",
        "results.json",
        "sn.keras",
        "srn.keras",
    ]
    digits = data.load("digits")
    for row in results["training"]:
        name = row["name"]
        model = keras.models.load_model(tmp_path / f"{name.lower()}.keras")
        logits = model.predict(digits.test.inputs(), verbose=0)
        assert np.mean(logits.argmax(-1) == digits.test.labels) == row["test_accuracy"]
        total = sum(layer["stable_rank"] for layer in results["spectra"][name])
        assert row["sum_of_stable_ranks"] == pytest.approx(total)
        curve = results["memorization"][name]
        assert len(curve) == 4 and curve[-1] == row["random_labels_accuracy"]
        shares = [radius["certified_accuracy"] for radius in results["certified"][name]]
        assert shares == sorted(shares, reverse=True)
        assert row["certified_accuracy"] in shares
        assert row["certified_accuracy"] <= row["test_accuracy"]
    plain, sn, srn = results["training"]
    assert plain["lipschitz_bound"] > 2 * sn["lipschitz_bound"]
    assert srn["sum_of_stable_ranks"] < sn["sum_of_stable_ranks"]
    card = json.loads(zoo.checkpoint("resnet20_digits").card.read_text())
    accuracy, _, difference = results["import"]
    assert accuracy["keras"] == card["test_accuracy"]
    assert difference["keras"] <= 1e-4
    whole, _, small = results["files"]
    path = tmp_path / "resnet20_digits_compressed.safetensors"
    assert path.stat().st_size == small["bytes"] < whole["bytes"] / 3.8
    # What the demo is for: smaller, and as accurate.
    assert small["test_accuracy"] >= whole["test_accuracy"] == card["test_accuracy"]
    page = (tmp_path / "demo.html").read_text(encoding="utf-8")
    assert "Noise learned by heart" in page and 'class="status fail"' not in page


@pytest.mark.slow
def test_the_demo_shows_what_it_is_for():
    """At its own size: noise is learned by the plain network alone."""
    digits = data.load("digits").subset(demo.IMAGES, seed=0).random_labels(seed=0)
    learned = [
        demo.train(name, normalize, digits, 60, 0)[1][-1]
        for name, normalize in demo.NORMALIZERS.items()
    ]
    plain, sn, srn = learned
    assert plain > 0.9 and sn < 0.65 and srn < 0.45 and srn < sn


def test_a_model_that_is_not_its_card_is_an_error(tmp_path, monkeypatch):
    from_torch = demo.convert.from_torch

    def spoiled(*arguments):
        model = from_torch(*arguments)
        head = model.get_layer("output")
        head.kernel.assign(1.01 * head.kernel)
        return model

    monkeypatch.setattr(demo.convert, "from_torch", spoiled)
    with pytest.raises(ValueError, match="does not compute what its card says"):
        experiments.run_demo(tmp_path, epochs=1)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["status"] == "failed" and len(results["training"]) == 3


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_finished(tmp_path):
    """The first classifier is finished, the second one interrupted."""
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_spectral.cli", "demo", "--epochs", "60"]
        + ["--output", str(tmp_path)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # A shell's background job ignores Ctrl-C, and would hand that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 300
    while not (tmp_path / "plain.keras").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    results = {}
    while not results.get("training"):
        results = json.loads((tmp_path / "results.json").read_text())
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in error and "Traceback" not in error
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["status"] == "interrupted"
    assert [row["name"] for row in results["training"]] == ["plain"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plain.keras", "results.json"]


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match="`epochs`"):
        experiments.run_demo(tmp_path, epochs=0)
    assert list(tmp_path.iterdir()) == []
