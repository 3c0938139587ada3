"""Recipes of GANs: runs that are interrupted end in the same numbers."""

import numpy as np
import pytest
from PIL import Image

from keras_spectral import data
from keras_spectral.experiments import training_state
from keras_spectral.experiments.batches import StepBatches
from keras_spectral.experiments.inputs import load_keras
from tests.experiments import tiny_gan

MEASURES = (
    'measures=["slope_real_fake_95","gradient_distance","stable_rank_ratio",'
    '"discriminator_parameters","loss_instability"]'
)


def test_a_run_goes_on_where_it_was(tmp_path, monkeypatch):
    whole = tiny_gan.run(tmp_path / "whole", [MEASURES])
    assert whole["error"] is None and not whole["reasons"]
    assert all(np.isfinite(x) for x in whole["results"].values())
    assert [row["steps"] for row in whole["history"]] == [2, 4, 6]
    monkeypatch.setattr(training_state, "PERIOD", 0.0)
    save, saved = training_state.Checkpoint.save, []

    def interrupted(self, model, history, seconds, step=0):
        save(self, model, history, seconds, step)
        saved.append((len(history), step))
        # After two updates, and after three.
        if saved[-1] in ((1, 0), (1, 1)):
            raise KeyboardInterrupt

    monkeypatch.setattr(training_state.Checkpoint, "save", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            tiny_gan.run(tmp_path / "again", [MEASURES])
    again = tiny_gan.run(tmp_path / "again", [MEASURES])
    # Each of six updates once.
    assert saved == [(n // 2, n % 2) for n in range(1, 7)]
    for part in "results", "history", "layers":
        assert whole[part] == again[part]
    ours, theirs = (
        load_keras(next((tmp_path / name / "models").iterdir()))
        for name in ("whole", "again")
    )
    for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    # Samples of a fixed latent, of the averaged generator.
    (path,) = (tmp_path / "again" / "samples").iterdir()
    grid = np.asarray(Image.open(path), "float64")[2:66, 2:66]
    image = np.kron(theirs.generate(1, seed=0)[0, :, :, 0], np.ones((8, 8)))
    assert np.abs(grid - (image + 1) * 127.5).max() < 0.51


def test_batches_are_shuffles_in_a_row():
    split = data.load("digits").train[:10]
    whole = StepBatches(split, 4, seed=1, first=0, last=5, labels=True)
    images, labels = (np.concatenate(x) for x in zip(*whole, strict=True))
    assert images.shape == (20, 8, 8, 1)
    for half in labels[:10], labels[10:]:
        assert sorted(half) == sorted(split.labels)
    assert (labels[:10] != labels[10:]).any()
    later = StepBatches(split, 4, seed=1, first=3, last=5, labels=False)
    assert len(later) == 2
    for index in 0, 1:
        assert (later[index][0] == images[12 + 4 * index :][:4]).all()
