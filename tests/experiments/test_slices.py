"""The pooled spectra of a convolution's slices, of models and files, are NumPy's."""

import json

import keras
import numpy as np
import pytest
from keras import layers as kl

from keras_spectral import cli, convert
from keras_spectral.experiments import analyze_checkpoint, analyze_model
from keras_spectral.measures import fit_eigenvalues, fit_power_law


def pooled(kernel, channels, filters):
    """Squared singular values of each pixel's matrix, written out with loops."""
    size = [n for axis, n in enumerate(kernel.shape) if axis not in (channels, filters)]
    found = []
    for pixel in np.ndindex(*size):
        place = list(pixel)
        for axis in sorted((channels, filters)):
            place.insert(axis, slice(None))
        found.append(np.linalg.svd(kernel[tuple(place)], compute_uv=False) ** 2)
    return np.sort(np.concatenate(found))[::-1]


LAYERS = {
    "conv1d": (lambda: kl.Conv1D(9, 4, name="c"), (12, 7), (1, 2)),
    "conv2d": (lambda: kl.Conv2D(8, (3, 5), name="c"), (9, 9, 6), (2, 3)),
    "conv3d": (lambda: kl.Conv3D(7, 2, name="c"), (4, 4, 4, 6), (3, 4)),
    "transposed": (lambda: kl.Conv2DTranspose(8, 3, name="c"), (5, 5, 6), (3, 2)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_eigenvalues_are_those_of_all_slices(kind, tmp_path):
    make, shape, (channels, filters) = LAYERS[kind]
    layers = [make(), kl.Flatten(), kl.Dense(5, name="head")]
    model = keras.Sequential([keras.Input(shape), *layers])
    rng = np.random.default_rng(0)
    model.set_weights([rng.standard_t(3, w.shape) for w in model.weights])
    kernel = keras.ops.convert_to_numpy(model.layers[0].kernel).astype("float64")
    expected = pooled(kernel, channels, filters)
    law = fit_power_law(expected)
    flat = np.moveaxis(kernel, filters, -1).reshape(-1, kernel.shape[filters])
    model.save(tmp_path / "m.keras")
    model.save_weights(tmp_path / "m.weights.h5")
    convert.to_torch(model, tmp_path / "m.pth")
    analyses = [analyze_model(model, convolution="slices")] + [
        analyze_checkpoint(tmp_path / f"m.{end}", convolution="slices")
        for end in ("keras", "weights.h5", "pth")
    ]
    for found in analyses:
        row, head = found
        assert (row.view, head.view) == ("slices", "matrix")
        assert found.source["convolution"] == "slices" and "pooled" in found.caption
        np.testing.assert_allclose(row.eigenvalues, expected, rtol=1e-5)
        assert row.eigenvalue_alpha == pytest.approx(law.alpha_pdf, rel=1e-4)
        assert row.eigenvalue_tail == law.tail_size
        assert row.log_norm == pytest.approx(np.log10((kernel**2).sum()), rel=1e-5)
        # The norm and the stable rank stay those of the flattened kernel.
        norm = np.linalg.norm(flat, 2)
        assert row.spectral_norm == pytest.approx(norm, rel=1e-6)
        assert row.stable_rank == pytest.approx((flat**2).sum() / norm**2, rel=1e-6)
    whole = analyze_model(model)
    assert [row.view for row in whole] == ["reshaped", "matrix"]
    values = np.linalg.svd(flat, compute_uv=False) ** 2
    np.testing.assert_allclose(whole[0].eigenvalues, values, rtol=1e-5)
    assert (
        whole[1].eigenvalues
        == analyze_model(model, convolution="slices")[1].eigenvalues
    )


def test_spikes_of_a_stack_are_those_of_its_matrices(rng):
    stack = rng.normal(size=(9, 200, 60))
    assert fit_eigenvalues(stack).spikes <= 2
    for slice in stack[:3]:
        slice += 2 * np.outer(rng.choice([-1, 1], 200), rng.choice([-1, 1], 60))
    fit = fit_eigenvalues(stack)
    assert 3 <= fit.spikes <= 5 and fit.shuffled_spikes <= 2
    assert fit.bulk_deviation == pytest.approx(1, abs=0.02)
    one = fit_eigenvalues(stack[0])
    np.testing.assert_array_equal(
        fit_eigenvalues(stack[:1]).eigenvalues, one.eigenvalues
    )
    assert fit_eigenvalues(stack[:1]).spikes == one.spikes
    with pytest.raises(ValueError, match="or a stack of them"):
        fit_eigenvalues(stack[None])


def test_slices_that_are_vectors_are_skipped():
    layers = [kl.DepthwiseConv2D(3, name="depth"), kl.Conv2D(4, 3, name="plain")]
    model = keras.Sequential([keras.Input((9, 9, 5)), *layers])
    found = analyze_model(model, convolution="slices")
    assert [row.name for row in found] == ["plain"]
    assert found.skipped == {"depth": "its slices are vectors of 5 numbers"}
    with pytest.raises(ValueError, match="`convolution` must be"):
        analyze_model(model, convolution="pixels")


def test_the_command_says_which_eigenvalues_it_took(tmp_path, capfd):
    model = keras.Sequential([keras.Input((9, 9, 5)), kl.Conv2D(8, 3, name="plain")])
    model.save(tmp_path / "m.keras")
    arguments = ["analyze", str(tmp_path / "m.keras"), "--convolution"]
    for choice in ("slices", "reshaped"):
        with pytest.raises(SystemExit, match="0"):
            cli.main([*arguments, choice, "--json"])
        content = json.loads(capfd.readouterr().out)
        assert content["source"]["convolution"] == choice
        assert content["tensors"][0]["view"] == choice
        assert len(content["tensors"][0]["eigenvalues"]) == (
            45 if choice == "slices" else 8
        )
    with pytest.raises(SystemExit, match="1|2"):
        cli.main([*arguments, "pixels"])
