"""Runs of recipes: cells, tables, and that what was killed ends in the same numbers."""

import contextlib
import json
import os
import socket
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_spectral.experiments import (
    cells,
    recipe_run,
    run_recipe,
    training_state,
)
from keras_spectral.experiments.batches import Batches
from keras_spectral.experiments.optimizers import sgd
from keras_spectral.files import claimed
from keras_spectral.layers import StableRankNormalization
from keras_spectral.terminal import Console

RECIPE = """
title = "A small one"
source = "sanyal2020"
item = "Table 0"
shows = "Nothing."
measures = ["train_error", "test_accuracy", "gap", "parameters"]
seeds = [3]
assumed = ["seeds"]

[data]
name = "digits"
labels = "random"
count = 64
test_count = 50
augment = true

[[networks]]
name = "tiny"
builder = "cifar_resnet"
arguments = { depth = 4, classes = 10, filters = [4], input_shape = [8, 8, 1] }

[[variants]]
name = "vanilla"

[[variants]]
name = "SRN-50"
normalize = "stable_rank"
stable_rank_ratio = 0.5

[optimizer]
learning_rate = 0.05
momentum = 0.9
weight_decay = 5e-4

[schedule]
epochs = 4
batch_size = 24
decay = 0.1
decay_epochs = [2]
"""
QUIET = Console(quiet=True)


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def one(tmp_path):
    """The recipe with the variant that has more state alone."""
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.replace('[[variants]]\nname = "vanilla"\n\n', ""))
    return path


def numbers(row):
    """All that a row measured, but not how long it took."""
    return {key: value for key, value in row.items() if "seconds" not in key}


def test_what_was_interrupted_ends_in_the_same_numbers(one, tmp_path, monkeypatch):
    whole = run_recipe(one, output=tmp_path / "whole", workers=0, console=QUIET)
    save, saved = training_state.Checkpoint.save, []

    def interrupted(self, model, history, seconds, step=0):
        save(self, model, history, seconds, step)
        saved.append((len(history), step))
        # After an epoch, and within one.
        if saved[-1] in ((1, 0), (2, 2)):
            raise KeyboardInterrupt

    monkeypatch.setattr(training_state.Checkpoint, "save", interrupted)
    monkeypatch.setattr(training_state, "PERIOD", 0.0)
    begun = {"output": tmp_path / "again", "workers": 0, "console": QUIET}
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_recipe(one, **begun)
    again = run_recipe(one, **begun)
    # Each of three batches of each of four epochs once.
    assert saved == [(n // 3, n % 3) for n in range(1, 13)]
    (first,), (other,) = whole.cells, again.cells
    assert numbers(first) == numbers(other)
    assert len(first["history"]) == 4 and first["error"] is None
    # Each layer's kernel at the end, to the last bit.
    assert len(first["layers"]) == 4
    assert not list((tmp_path / "again" / "state").iterdir())
    assert "random labels, seed 3" in first["provenance"]["steps"]
    # The network counts as the papers count, and errors are of what was memorized.
    results = first["results"]
    assert results["gap"] == pytest.approx(
        1 - results["train_error"] - results["test_accuracy"]
    )
    # What is finished is not computed again.
    monkeypatch.setattr(recipe_run, "train_in_worker", None)
    third = run_recipe(one, **begun)
    assert third.to_dicts() == again.to_dicts()
    curve = (tmp_path / "again" / "curves").glob("*.jsonl")
    lines = [json.loads(line) for line in next(curve).read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    # What was trained twice is told once, as a reader of TensorFlow's finds it.
    read = tf.compat.v1.train.summary_iterator
    (folder,) = (tmp_path / "again" / "tensorboard").iterdir()
    events = [event for path in sorted(folder.iterdir()) for event in read(str(path))]
    told = [
        {"epoch": event.step, **{x.tag: x.simple_value for x in event.summary.value}}
        for event in events
        if event.summary.value
    ]
    assert told == [
        {key: np.float32(value) for key, value in line.items()} for line in lines
    ]


@pytest.mark.slow
def test_a_worker_is_silent(one, tmp_path, capfd, recwarn):
    """It unpacks a cell, which imports Keras, before a line of ours runs."""
    pytest.importorskip("distributed")
    settings = {"changes": ["schedule.epochs=1"], "workers": 1, "console": QUIET}
    with socket.socket() as other:
        with contextlib.suppress(OSError):
            # As beside another run, which has the port that Dask asks for.
            other.bind(("127.0.0.1", 8787))
            other.listen()
        rows = run_recipe(one, output=tmp_path / "out", **settings)
    assert not [x for x in recwarn if "8787" in str(x.message)]
    (row,) = rows.cells
    assert row["error"] is None and row["layers"]
    said = capfd.readouterr().err
    assert "oneDNN" not in said and "cudart" not in said


def test_recipes_share_cells_and_networks(one, tmp_path, monkeypatch):
    """Another recipe of the same training measures more of the trained network."""
    other = tmp_path / "other.toml"
    text = one.read_text().replace("Table 0", "Figure 0")
    other.write_text(text.replace('"parameters"]', '"train_accuracy"]'))
    less = text.replace('"gap", "parameters"]', '"gap"]')
    one.write_text(less.replace("epochs = 4", "epochs = 1"))
    other.write_text(other.read_text().replace("epochs = 4", "epochs = 1"))
    settings = {"output": tmp_path / "out", "workers": 0, "console": QUIET}
    (first,) = run_recipe(one, **settings).cells
    monkeypatch.setattr(cells, "_trained", None)
    (second,) = run_recipe(other, **settings).cells
    results = second["results"]
    assert results["train_accuracy"] == pytest.approx(1 - results["train_error"])
    assert first["results"].items() < results.items()
    assert {**second, "results": first["results"]} == first
    # What is there can be shown while another process holds the folder.
    before = {path: path.read_bytes() for path in settings["output"].rglob("*.*")}
    with claimed(settings["output"]):
        shown = run_recipe(one, seeds=2, train=False, **settings)
        assert shown.cells == [] and shown[0].seeds == 0
        assert run_recipe(other, train=False, **settings).cells == [second]
    assert before == {path: path.read_bytes() for path in before}
    with pytest.raises(ValueError, match="`measures` must be one or more"):
        run_recipe(other, changes=["measures=[]"], train=False, **settings)
    with pytest.raises(FileNotFoundError, match="folder of a run"):
        run_recipe(one, train=False, output=tmp_path / "typo", console=QUIET)
    with pytest.raises(ValueError, match="`train` must be left out"):
        run_recipe("heavy_tail/figure_1", train=False, **settings)
    # The first recipe finds all that it needs, and a table stands for each.
    (third,) = run_recipe(one, **settings).cells
    assert third == second
    (path,) = (tmp_path / "out" / "models").iterdir()
    with zipfile.ZipFile(path) as archive:  # It loads where our optimizer is not known.
        assert b"SGD" not in archive.read("config.json")
    # A measure that fails does not cost what was trained.
    (path,) = (tmp_path / "out" / "cells").iterdir()
    before = path.read_bytes()
    monkeypatch.setattr(cells, "measured", None)
    more = 'measures=["margin_50"]'
    (failed,) = run_recipe(one, changes=[more], **settings).cells
    assert "TypeError" in failed["error"] and path.read_bytes() == before
    folder = tmp_path.name
    tables = {path.name for path in (tmp_path / "out").glob("*.md")}
    assert tables == {f"{folder}-{name}-paper.md" for name in ("recipe", "other")}


def model(seed):
    keras.utils.set_random_seed(seed)
    layers = [
        keras.Input((8, 8, 1)),
        keras.layers.Flatten(),
        StableRankNormalization(keras.layers.Dense(32), stable_rank_ratio=0.3),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(10),
    ]
    found = keras.Sequential(layers)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    found.compile(sgd(0.1, 0.9, weight_decay=1e-3), loss, metrics=["accuracy"])
    found.optimizer.build(found.trainable_variables)
    return found


def test_a_checkpoint_has_all_of_the_state(tmp_path):
    """Seeds of dropout, momenta, statistics, singular vectors: by position."""
    from keras_spectral import data

    train = data.load("digits").train[:256]

    def fit(network, epoch):
        network.fit(Batches(train, 64, 0, epoch), shuffle=False, verbose=0)

    def state(network):
        variables = [*network.variables, *network.optimizer.variables]
        return [np.array(variable) for variable in variables]

    first = model(0)
    fit(first, 0)
    checkpoint = training_state.Checkpoint(tmp_path / "state.npz", {"versions": 1})
    checkpoint.save(first, [{"epoch": 1}], [2.0, 1.0])
    fit(first, 1)
    other = model(1)  # Another start: all that counts comes from the file.
    progress = checkpoint.restore(other)
    assert (progress.history, progress.seconds) == ([{"epoch": 1}], [2.0, 1.0])
    fit(other, 1)
    compared = 0
    for one, two in zip(state(first), state(other), strict=True):
        np.testing.assert_array_equal(one, two)
        compared += one.size
    assert compared > 2 * 64 * 32
    # Of other versions, or damaged, it is as if it were not there.
    assert (
        training_state.Checkpoint(checkpoint.path, {"versions": 2})
        .restore(other)
        .history
        == []
    )
    content = checkpoint.path.read_bytes()
    for cut in 0, 100, len(content) // 2, len(content) - 1:
        checkpoint.path.write_bytes(content[:cut])
        assert checkpoint.restore(other).history == []
    # As if encrypted, or written by something else.
    flag = content.index(b"PK\x01\x02") + 8
    checkpoint.path.write_bytes(content[:flag] + b"\1" + content[flag + 1 :])
    assert checkpoint.restore(other).history == []
    about = {"environment": {"versions": 1}, "kinds": checkpoint._kinds(other)}
    for text in json.dumps(about), "[]", '"x"':
        arrays = {f"variable_{n}": x for n, x in enumerate(state(first))}
        np.savez(checkpoint.path, about=np.array(text), **arrays)
        assert checkpoint.restore(other).history == []


def test_batches_are_a_function_of_seed_epoch_and_step(rng):
    from keras_spectral.data import Split

    split = Split(
        rng.integers(256, size=(100, 8, 8, 1)).astype("uint8"), np.arange(100)
    )
    epoch = Batches(split, 32, seed=1, epoch=2, augment=True)
    assert [len(epoch[step][1]) for step in range(len(epoch))] == [32, 32, 32, 4]
    backwards = [epoch[step] for step in reversed(range(4))][::-1]
    again = Batches(split, 32, seed=1, epoch=2, augment=True)
    for (x, y), other in zip(backwards, (again[s] for s in range(4)), strict=True):
        np.testing.assert_array_equal(x, other[0])
        np.testing.assert_array_equal(y, other[1])
    assert sorted(np.concatenate([y for _, y in backwards])) == list(range(100))
    later = Batches(split, 32, seed=1, epoch=3)
    assert sorted(later[0][1]) != sorted(epoch[0][1])


def test_weight_decay_is_pytorchs(rng):
    torch = pytest.importorskip("torch")
    start, gradients = rng.standard_normal(5), rng.standard_normal((4, 5))
    ours = keras.Variable(start, dtype="float32")
    theirs = torch.nn.Parameter(torch.tensor(start, dtype=torch.float32))
    settings = {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}
    optimizer = sgd(0.5, **settings)
    reference = torch.optim.SGD([theirs], 0.5, **settings)
    optimizer.build([ours])
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient, "float32")], [ours])
        theirs.grad = torch.tensor(gradient, dtype=torch.float32)
        reference.step()
        np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=1e-5)


def test_two_runs_in_one_folder(recipe, tmp_path):
    with (
        claimed(tmp_path),
        pytest.raises(OSError, match=f"in use by process {os.getpid()}"),
    ):
        run_recipe(recipe, output=tmp_path, workers=0, console=QUIET)


def test_the_low_rank_papers_counts(tmp_path):
    """Table 1 of the paper, by its recipe."""
    changes = ["data.name=digits", "data.image_size=28", "data.count=64"]
    changes += ["data.test_count=64", "schedule.epochs=1"]
    table = run_recipe(
        "low_rank/table_1", changes=changes, output=tmp_path, workers=0, console=QUIET
    )
    # Variants of a seed have the same images and labels.
    assert len({str(cell["provenance"]) for cell in table.cells}) == 1
    rows = [row for row in table if row.measure == "parameters"]
    assert [row.mean for row in rows] == [row.published for row in rows]
    assert [row.mean for row in rows] == [33580, 36663, 26837, 18373, 8547]
    text = (tmp_path / "low_rank-table_1-paper.md").read_text(encoding="utf-8")
    assert "36,663" in text and max(map(len, text.splitlines())) <= 110


def test_training_stops_where_the_recipe_says(one, tmp_path):
    changes = ["schedule.stop_at_train_accuracy=0.2", "schedule.epochs=30"]
    table = run_recipe(one, None, 1, changes, tmp_path, workers=0, console=QUIET)
    (row,) = table.cells
    reached = [epoch["accuracy"] >= 0.2 for epoch in row["history"]]
    assert reached == [False] * (len(reached) - 1) + [True]


def test_a_cell_that_fails_is_a_row(recipe, tmp_path):
    table = run_recipe(
        recipe, changes=["data.count=100000"], output=tmp_path, workers=0, console=QUIET
    )
    assert len(table.cells) == 2
    for cell in table.cells:
        assert "`count` must be at most 1347" in cell["error"]
    assert all(row.mean is None for row in table)
    # Fewer images than were asked for would be another number.
    cell, _ = run_recipe(
        recipe, changes=["data.test_count=451"], output=tmp_path, workers=0,
        console=QUIET,
    ).cells  # fmt: skip
    assert "`data.test_count` must be at most 450" in cell["error"]
    with pytest.raises(FileNotFoundError, match="cifar10"):
        run_recipe(
            recipe, changes=["data.name=cifar10"], output=tmp_path, directory=tmp_path,
            workers=0, console=QUIET,
        )  # fmt: skip


def test_a_cell_is_of_its_images(one, tmp_path, rng):
    """Another file of the same name: trained anew, also from a half-way state."""

    def write():
        images = rng.integers(256, size=(40, 8, 8, 1)).astype("uint8")
        labels = np.arange(40) % 10
        np.savez(
            tmp_path / "my.npz",
            x_train=images, y_train=labels, x_test=images, y_test=labels,
        )  # fmt: skip

    changes = [f"data.name={tmp_path / 'my.npz'}", "data.count=40", "schedule.epochs=1"]
    changes += ["data.test_count=40", "measures=['test_accuracy']"]
    settings = {"changes": changes, "workers": 0, "console": QUIET}
    write()
    (first,) = run_recipe(one, output=tmp_path / "out", **settings).cells
    (again,) = run_recipe(one, output=tmp_path / "out", **settings).cells
    assert again == first
    write()
    (other,) = run_recipe(one, output=tmp_path / "out", **settings).cells
    assert other["provenance"]["sha256"] != first["provenance"]["sha256"]
    assert other["layers"] != first["layers"]


def test_what_was_trained_stays_where_a_measure_fails(one, tmp_path, monkeypatch):
    less = ["measures=['train_error']", "schedule.epochs=1"]
    more = ["measures=['train_error','gap']", "schedule.epochs=1"]
    settings = {"output": tmp_path / "out", "workers": 0, "console": QUIET}
    run_recipe(one, changes=less, **settings)

    def failing(*arguments):
        raise OSError("no memory")

    monkeypatch.setattr(cells, "measured", failing)
    table = run_recipe(one, changes=more, **settings)
    assert "no memory" in table.cells[0]["error"]
    assert {row.measure: row.seeds for row in table} == {"train_error": 1, "gap": 0}
