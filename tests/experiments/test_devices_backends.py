"""Recipes on two devices: the numbers of one, alike on both, and going on."""

import json

import keras
import numpy as np
import pytest

from keras_spectral.experiments import cells, training_state
from keras_spectral.experiments.batches import Batches
from keras_spectral.experiments.devices import devices_of
from tests.experiments import tiny
from tests.jax_processes import run_two

BACKEND = keras.backend.backend()
several = pytest.mark.skipif(BACKEND == "torch", reason="no data parallelism")


def replicas(variable):
    if BACKEND == "tensorflow":
        return [value.numpy() for value in variable.value.values]
    return [np.asarray(shard.data) for shard in variable.value.addressable_shards]


def numbers(row):
    found = {key: row[key] for key in ("results", "history", "layers")}
    return json.loads(json.dumps(found), parse_float=float)


def flat(row):
    """The numbers of a row by position."""
    rows = [row["results"], *row["history"], *row["layers"]]
    return [value for one in rows for value in one.values() if value != one.get("name")]


@several
def test_networks_of_other_shapes_train_one_after_another():
    """TensorFlow takes reductions of two strategies for one, by their numbers."""
    for units in (3, 5):
        with devices_of(2).scope():
            normalization = keras.layers.BatchNormalization(
                **{"synchronized": True} if BACKEND == "tensorflow" else {}
            )
            dense = keras.layers.Dense(units)
            model = keras.Sequential([keras.Input((4,)), dense, normalization])
            model.compile("sgd", "mse", jit_compile=False)
            model.fit(np.ones((8, 4)), np.ones((8, units)), batch_size=4, verbose=0)
        first, second = replicas(dense.kernel)
        np.testing.assert_array_equal(first, second)


@several
def test_two_devices_have_the_numbers_of_one(tmp_path, monkeypatch):
    trained = []
    copy_state = cells.copy_state

    def watched(source, target):
        trained.append(source)
        copy_state(source, target)

    monkeypatch.setattr(cells, "copy_state", watched)
    one = tiny.run(tmp_path / "one")
    both = tiny.run(tmp_path / "both", 2)
    assert one["error"] is both["error"] is None
    # Sums of other order; losses, accuracies, norms, ranks.
    np.testing.assert_allclose(flat(both), flat(one), rtol=2e-5)
    assert len(flat(one)) == 2 + 3 * 4 + 2 * 3
    told = both["environment"]
    assert (told["replicas"], told["processes"]) == (2, 1)
    assert "replicas" not in one["environment"]
    assert (BACKEND == "tensorflow") == ("synchronized_batch_normalization" in told)
    # All state is alike on both: singular vectors, statistics, momenta.
    model = trained[-1]
    compared = 0
    for variable in [*model.variables, *model.optimizer.variables]:
        first, second = replicas(variable)
        np.testing.assert_array_equal(first, second)
        compared += first.size
    assert compared > 2 * (54 + 540)
    # What was interrupted ends in the same numbers, to the last bit.
    save = training_state.Checkpoint.save

    def interrupted(self, model, history, *rest):
        save(self, model, history, *rest)
        if len(history) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training_state.Checkpoint, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tiny.run(tmp_path / "again", 2)
    seen = []
    monkeypatch.setattr(
        cells, "write_curves", lambda *given: seen.append(len(given[-1]))
    )
    assert numbers(tiny.run(tmp_path / "again", 2)) == numbers(both)
    assert seen == [3]


@several
def test_what_devices_cannot_do_is_said(tmp_path):
    with pytest.raises(ValueError, match="'all' or from 1 to 2.*devices=3"):
        tiny.run(tmp_path / "out", 3)
    with pytest.raises(ValueError, match="devices=two"):
        tiny.run(tmp_path / "out", "two")
    row = tiny.run(tmp_path / "out", "all", ["data.count=65"])
    assert "`devices` must divide each batch" in row["error"]


@pytest.mark.skipif(BACKEND != "torch", reason="the others can")
def test_torch_has_no_devices(tmp_path):
    with pytest.raises(ValueError, match="need TensorFlow or JAX"):
        tiny.run(tmp_path / "out", 2)


def test_shares_of_batches_make_the_batch(rng):
    from keras_spectral.data import Split

    images = rng.integers(256, size=(50, 8, 8, 1)).astype("uint8")
    settings = (Split(images, np.arange(50)), 16, 1, 2)
    whole = Batches(*settings, augment=True)[1]
    shares = [Batches(*settings, augment=True, share=(n, 2), first=1) for n in (0, 1)]
    assert [len(share) for share in shares] == [3, 3]
    for part in 0, 1:
        together = np.stack([share[0][part] for share in shares], axis=1)
        np.testing.assert_array_equal(together.reshape(whole[part].shape), whole[part])


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "jax", reason="several hosts need JAX")
def test_two_processes_have_the_numbers_of_one(tmp_path):
    one = tiny.run(tmp_path / "one")
    for out in run_two("tests.experiments.tiny", tmp_path / "both", "all"):
        # Gloo tells its connections first.
        assert out.split()[-1] == "None"
    (path,) = (tmp_path / "both" / "cells").iterdir()
    both = json.loads(path.read_text())
    np.testing.assert_allclose(flat(both), flat(one), rtol=2e-5)
    assert both["environment"]["processes"] == both["environment"]["replicas"] == 2
