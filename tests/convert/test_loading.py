"""A new process loads what this package can save, whatever it has imported."""

import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest

import keras_spectral as ks

PACKAGE = Path(ks.__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One with the file of a network that has several classes of ours."""
    folder = tmp_path_factory.mktemp("saved")
    dense = keras.layers.Dense(
        3,
        kernel_constraint=ks.constraints.SpectralClip(1.0),
        kernel_regularizer=ks.regularizers.SpectralNorm(1e-3),
    )
    layers = [keras.Input((4,)), ks.layers.SpectralNormalization(dense)]
    model = keras.Sequential(layers)
    model.compile("adam", ks.losses.MarginCrossEntropy(margin=0.5))
    model.save(folder / "model.keras")
    return folder


@pytest.mark.parametrize(
    "imports, loader",
    [
        ("import keras_spectral as ks", "ks.convert"),
        ("import keras, keras_spectral", "keras.models"),
    ],
)
def test_a_new_process_knows_every_class(folder, imports, loader):
    code = (
        f"{imports}\nimport sys\n"
        f"model = {loader}.load_model('model.keras')\n"
        "print(type(model.loss).__name__, type(model.layers[0]).__name__)\n"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, imported = done.stdout.strip().split("\n")
    assert first == "MarginCrossEntropy SpectralNormalization"
    saved = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for path in PACKAGE.rglob("*.py")
        if re.search("^@.*register_keras_serializable", path.read_text("utf-8"), re.M)
    }
    # Of a floor above: an optimizer of recipes.
    assert saved - set(imported.split()) == {"keras_spectral.experiments.optimizers"}
