"""Runs that are interrupted end in the same numbers, on each backend."""

import pytest

from keras_spectral.experiments import training_state
from tests.experiments import tiny


def test_dropout_goes_on_where_it_was(tmp_path, monkeypatch):
    """On torch its masks come from a generator of the whole process."""
    masked = 'builder = "tiny", arguments = { dropout = 0.3 }'
    monkeypatch.setattr(tiny, "RECIPE", tiny.RECIPE.replace('builder = "tiny"', masked))
    monkeypatch.setattr(training_state, "PERIOD", 0.0)
    changes = ["schedule.epochs=2"]
    whole = tiny.run(tmp_path / "whole", changes=changes)
    save, saved = training_state.Checkpoint.save, []

    def interrupted(self, model, history, seconds, step=0):
        save(self, model, history, seconds, step)
        saved.append((len(history), step))
        # After an epoch, and within one.
        if saved[-1] in ((1, 0), (1, 2)):
            raise KeyboardInterrupt

    monkeypatch.setattr(training_state.Checkpoint, "save", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            tiny.run(tmp_path / "again", changes=changes)
    again = tiny.run(tmp_path / "again", changes=changes)
    # Each of three batches of each of two epochs once.
    assert saved == [(n // 3, n % 3) for n in range(1, 7)]
    assert whole["error"] is again["error"] is None
    for part in "results", "history", "layers":
        assert whole[part] == again[part]
