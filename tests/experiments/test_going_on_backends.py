"""Runs that are interrupted end in the same numbers, on each backend."""

from types import SimpleNamespace

import keras
import pytest

import keras_spectral
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


def test_an_environment_names_the_gpus(monkeypatch):
    backend, name = keras.backend.backend(), "NVIDIA H100"
    plain = training_state.environment()
    if backend == "tensorflow":
        import tensorflow as tf

        found, experimental = tf.config, tf.config.experimental
        gpu = SimpleNamespace(device_type="GPU")
        monkeypatch.setattr(found, "list_physical_devices", lambda: [gpu])
        monkeypatch.setattr(
            experimental, "get_device_details", lambda device: {"device_name": name}
        )
    elif backend == "jax":
        import jax

        gpu = SimpleNamespace(platform="gpu", device_kind=name)
        monkeypatch.setattr(jax, "devices", lambda: [gpu])
    else:
        import torch

        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: name)
    assert training_state.environment() == {**plain, "devices": [name]}
    assert {x.lower() for x in plain["devices"]} == {"cpu"}
    assert plain["keras_spectral"] == keras_spectral.__version__
