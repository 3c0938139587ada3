"""Measures of trained networks: those of the toolkit, and of which images."""

import math
import typing

import keras
import numpy as np
import pytest

from keras_spectral import data, measures
from keras_spectral.experiments import cell_results, load_recipe
from keras_spectral.experiments.recipe_settings import Measure, Probes
from keras_spectral.experiments.recipes import recipe_path

DIGITS = data.load("digits")
OTHER = ("train_", "test_", "epochs_", "mean_", "gap")
ALL = [name for name in typing.get_args(Measure) if not name.startswith(OTHER)]


def test_of_a_linear_network_they_have_closed_forms(rng):
    """f(x) = W x + 0: what NumPy says of each image."""
    kernel = rng.standard_normal((64, 10))
    layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]
    model = keras.Sequential(layers)
    model.layers[-1].set_weights([kernel, np.zeros(10)])
    probes = Probes(images=90, draws=400)
    found = cell_results.results_of(model, DIGITS, ALL, probes)
    values, split = found.values, DIGITS.test[:90]
    x, y = split.inputs().reshape(90, 64).astype("float64"), split.labels
    logits = x @ kernel
    others = np.where(np.arange(10) == y[:, None], -np.inf, logits)
    margins = logits[np.arange(90), y] - others.max(1)
    norms = np.linalg.svd(kernel, compute_uv=False)
    right = np.log(margins[margins > 0])
    stable_rank = (norms**2).sum() / norms[0] ** 2
    fro = 2 * np.log(norms[0]) + np.log(stable_rank) - 2 * right
    sums = np.linalg.norm(kernel, axis=0).sum() / norms[0]
    l1 = 2 * np.log(norms[0]) + 2 * np.log(sums) - 2 * right
    ways = kernel.T[y] - kernel.T[others.argmax(1)]
    jacobian = np.linalg.norm(x, axis=1) * np.linalg.norm(ways, axis=1)
    noise = (kernel**2).sum() * (x**2).sum(1) / (logits**2).sum(1)
    expected = {
        "parameters": 650,
        "log_lipschitz_bound": np.log(norms[0]),
        "stable_rank_ratio": stable_rank / 10,
        "log_spectral_frobenius_90": np.percentile(fro, 90),
        "log_bare_spectral_frobenius_90": np.percentile(fro, 90),
        "log_spectral_l1_90": np.percentile(l1, 90),
        "log_bare_spectral_l1_90": np.percentile(l1, 90),
        "log_jacobian_norm_90": np.percentile(
            np.log((jacobian / margins)[margins > 0]), 90
        ),
        "margin_10": np.percentile(margins, 10),
        "margin_50": np.percentile(margins, 50),
        "misclassified": (margins <= 0).mean(),
    }
    u, s, v = np.linalg.svd(kernel, full_matrices=False)
    for percent, rank in (75, 7), (50, 5), (25, 2):
        moved = np.linalg.norm(x @ (u[:, rank:] * s[rank:]) @ v[rank:], axis=1).max()
        most = np.linalg.norm(x, axis=1).max() * s[rank]
        assert moved <= most
        expected[f"log_low_rank_error_{percent}"] = np.log(moved)
        expected[f"log_low_rank_bound_{percent}"] = np.log(most)
    assert set(values) == set(ALL) and not found.reasons
    for name, value in expected.items():
        assert values[name] == pytest.approx(value, rel=1e-4), name
    for name, samples in ("margin", margins), ("log_spectral_l1", l1):
        percentiles = np.percentile(samples, range(101))
        np.testing.assert_allclose(found.distributions[name], percentiles, rtol=1e-4)
    for name, percent in ("50", 50), ("95", 95), ("maximum", 100):
        measured = values[f"noise_sensitivity_{name}"]
        assert measured == pytest.approx(np.percentile(noise, percent), rel=0.05)


def test_how_fast_a_network_learned():
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    history = [
        {"epoch": n, "accuracy": accuracy, "test_accuracy": n / 10}
        for n, accuracy in enumerate((0.3, 0.5, 0.4, 0.95), 1)
    ]
    names = ["epochs_to_50", "epochs_to_90", "epochs_to_99", "test_accuracy_at_99"]
    names = ["mean_train_error", *names]
    arguments = model, DIGITS, names, Probes()
    found = cell_results.results_of(*arguments, history)
    assert list(found.values.values()) == [pytest.approx(0.4625), 2, 4, None, None]
    assert list(found.reasons) == names[3:]
    history.append({"epoch": 5, "accuracy": 0.99, "test_accuracy": 0.7})
    found = cell_results.results_of(*arguments, history)
    assert (
        list(found.values.values()) == [pytest.approx(0.372), 2, 4, 5, 0.7]
        and not found.reasons
    )


def test_what_has_no_number_has_a_reason(monkeypatch):
    """All logits are equal, and ties are errors: no image has a logarithm."""
    layers = [keras.layers.Flatten(), keras.layers.Dense(5), keras.layers.Dense(10)]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
    model.layers[-1].set_weights([np.ones((5, 10)), np.zeros(10)])
    monkeypatch.setattr(measures, "lipschitz_bound", None)
    found = cell_results.results_of(model, DIGITS, ALL, Probes(images=20))
    assert found.values["misclassified"] == 1
    for name in "log_jacobian_norm_90", "log_spectral_l1_90":
        assert found.values[name] is None
        assert found.reasons[name] == "there is no such number: nan"
    assert found.reasons["log_lipschitz_bound"].startswith("TypeError")
    assert math.isfinite(found.values["stable_rank_ratio"])


def test_rows_remember_what_they_are_of():
    """Other probes: what was of the first ones is measured again, or goes."""
    layers = [keras.layers.Flatten(), keras.layers.Dense(10)]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
    path = recipe_path("stable_rank/table_6")

    def of(measures, *changes):
        changes = [f"measures={measures}", "claims=[]", *changes]
        return load_recipe(path, "small", changes)

    row = {"results": {}, "reasons": {}, "probes": None, "history": []}
    recipe = of(["test_accuracy", "train_error", "margin_10", "margin_50"])
    first = cell_results.measured(row, model, DIGITS, recipe)
    assert first["probes"] == {"images": 2000, "draws": 10, "split": "test"}
    assert not cell_results.missing_measures(first, recipe)
    # What no image is asked for has nothing to remember.
    assert not cell_results.missing_measures(
        first, of(["train_error"], "probes.images=3")
    )
    recipe = of(["test_accuracy", "margin_50"], "probes.images=20")
    other = cell_results.measured(first, model, DIGITS, recipe)
    assert other["probes"] == {"images": 20, "draws": 10, "split": "test"}
    assert other["results"]["margin_50"] != first["results"]["margin_50"]
    kept = {key: first["results"][key] for key in ("test_accuracy", "train_error")}
    assert other["results"] == {**kept, "margin_50": other["results"]["margin_50"]}
    with pytest.raises(ValueError, match="`probes.images` must be"):
        of(["train_error"], "probes.images=0")
