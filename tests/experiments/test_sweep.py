import json
import math
import shutil

import numpy as np
import pytest

from keras_spectral import cli, compression, data, zoo
from keras_spectral.experiments import (
    SweepRow,
    checkpoint_row,
    run_sweep,
    sweep,
)
from keras_spectral.experiments.checkpoint_files import find_checkpoints, network_name
from keras_spectral.experiments.checkpoint_task import CheckpointTask
from keras_spectral.experiments.inputs import evaluator
from tests.experiments.sweeps import QUIET, small, sweeping


def test_a_row_is_what_the_parts_say(swept):
    rows = [row for row in swept[0] if row.model == "small_digits"]
    assert [row.name for row in rows] == ["small_digits-b", "small_digits-a"]
    row, model = rows[1], small(0)
    digits = data.load("digits", image_size=8, channels=1)
    evaluate = evaluator(digits)
    expected = compression.compare_replacements(
        model, ["head"], trials=2, evaluate=evaluate
    )
    assert row.compressions == list(expected)
    assert row.original_accuracy == evaluate(model)
    kernel = model.get_layer("head").kernel.numpy().astype("float64")
    norm = np.linalg.norm(kernel, 2)
    assert row.stable_rank == pytest.approx(np.sum(kernel**2) / norm**2, rel=1e-12)
    assert row.alpha_pdf == expected[0].alpha_pdf
    error = (row.alpha_pdf - 1) / np.sqrt(row.tail_size)
    assert row.standard_error == pytest.approx(error)
    assert row.tail_size == (np.abs(kernel) >= row.xmin).sum()
    assert (row.dataset, row.classes, row.layer) == ("digits", 10, "head")
    assert (row.compressed, row.parameters) == (120, 64 * 12 + 12 + 120 + 10)
    assert row.share == 120 / row.parameters and row.note is None
    assert SweepRow.from_dict(json.loads(json.dumps(row.to_dict()))) == row


ROW = {
    **SweepRow("a", "a.pth", "0" * 64, {"trials": 2}, alpha_pdf=3.5).to_dict(),
    "compressions": [
        {
            "name": "head", "rule": "signed", "replacement": "zero", "trials": 2,
            "alpha_pdf": None, "alpha_tail": None, "kept": 0.5, "relative_error": 0.1,
            "original_accuracy": 0.9, "compressed_accuracy_mean": 0.8,
            "compressed_accuracy_sd": 0.0,
        }
    ],
}  # fmt: skip


def compressed(**values):
    return {**ROW, "compressions": [{**ROW["compressions"][0], **values}]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({**ROW, "alpha_pdf": "3.5"}, r"got `str` - at `\$.alpha_pdf`"),
        ({**ROW, "alpha_pdf": math.nan}, "not those of a row"),
        ({**ROW, "tail_size": True}, r"got `bool` - at `\$.tail_size`"),
        ({**ROW, "classes": 1.5}, r"got `float` - at `\$.classes`"),
        ({**ROW, "status": "fine"}, r"'fine' - at `\$.status`"),
        ({**ROW, "settings": []}, r"got `array` - at `\$.settings`"),
        ({**ROW, "more": 1}, "not those of a row"),
        ({k: v for k, v in ROW.items() if k != "sha256"}, "field `sha256`"),
        ({k: v for k, v in ROW.items() if k != "note"}, "not those of a row"),
        (compressed(rule="small"), r"'small' - at `\$.compressions\[0\].rule`"),
        (compressed(kept=None), r"got `null` - at `\$.compressions\[0\].kept`"),
        (compressed(more=1), "not those of a row"),
        ([], "got `array`"),
        (None, "got `null`"),
    ],
)
def test_what_is_no_row_is_refused(values, message):
    assert SweepRow.from_dict(ROW).to_dict() == ROW
    with pytest.raises(ValueError, match=message):
        SweepRow.from_dict(values)


def test_one_bad_checkpoint_is_a_row(swept):
    rows, path = swept
    broken = next(row for row in rows if row.model == "broken_digits")
    assert "no .keras model" in broken.error and broken.alpha_pdf is None
    assert len(rows) == 3 and sum(row.error is None for row in rows) == 2
    out = path / "out"
    table = json.loads((out / "table.json").read_text())
    assert table["status"] == "complete" and table["rows"] == rows.to_dicts()
    text = (out / "table.md").read_text()
    assert "small_digits-a" in text and "no .keras model" in text
    assert (out / "figure3.png").read_bytes()[:4] == b"\x89PNG"
    assert len(list((out / "rows").iterdir())) == 3


def fake_row(task):
    if "broken" in task.file:
        return checkpoint_row.failed_row(task, ValueError("broken"))
    return SweepRow(
        task.model,
        task.file,
        task.sha256,
        task.settings,
        dataset=task.dataset,
        note=task.note,
    )


def test_a_rerun_does_what_is_left(tmp_path, folder, monkeypatch):
    measured = []

    def measure(task):
        measured.append(task.model)
        return fake_row(task)

    monkeypatch.setattr(sweep, "measure_checkpoint", measure)
    first = sweeping(tmp_path, folder)
    assert len(measured) == 3
    measured.clear()
    assert sweeping(tmp_path, folder).to_dicts() == first.to_dicts()
    # An error may have gone away.
    assert measured == ["broken_digits"]
    measured.clear()
    # Other settings and other contents are other rows, and half of a file is none.
    sweeping(tmp_path, folder, ["small_digits"], seed=1)
    assert len(measured) == 2
    (folder / "small_digits-a.keras").write_bytes(b"other")
    sweeping(tmp_path, folder, ["small_digits"])
    assert len(measured) == 3
    for path in (tmp_path / "out" / "rows").glob("small*"):
        if "small_digits-b" in path.read_text():
            path.write_text(path.read_text()[:100])
    sweeping(tmp_path, folder, ["small_digits"])
    sweeping(tmp_path, folder, ["small_digits"])
    assert len(measured) == 4


def test_an_interrupt_keeps_finished_rows(tmp_path, folder, monkeypatch):
    def measure(task):
        if task.file.endswith("a.keras"):
            raise KeyboardInterrupt
        return fake_row(task)

    monkeypatch.setattr(sweep, "measure_checkpoint", measure)
    with pytest.raises(KeyboardInterrupt):
        sweeping(tmp_path, folder, ["small_digits"])
    table = json.loads((tmp_path / "out" / "table.json").read_text())
    assert table["status"] == "interrupted"
    assert [row["file"][-7:] for row in table["rows"]] == ["b.keras"]


def test_an_interrupt_before_any_row_leaves_no_table(tmp_path, folder, monkeypatch):
    def measure(task):
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "measure_checkpoint", measure)
    with pytest.raises(KeyboardInterrupt):
        sweeping(tmp_path, folder, ["small_digits"])
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["rows"]


def test_files_are_found_by_the_names_of_networks(tmp_path):
    assert all(network_name(f"{n}-x.y.pth") == n for n in zoo.list_models())
    for name in (
        "resnet20_cifar10-0597-9b0024ac.pth",
        "resnet20_cifar10.safetensors",
        "resnet200_cifar10.pth",
        ".resnet56_cifar10.pth",
        "digits.npz",
        "resnet110_cifar10.txt",
    ):
        # Other contents, or they would be copies.
        (tmp_path / name).write_text(name)
    shutil.copy(
        tmp_path / "resnet20_cifar10.safetensors", tmp_path / "resnet20_cifar10-c.pt"
    )
    found = find_checkpoints(["all"], tmp_path)
    assert [task.model for task in found.tasks] == ["resnet20_cifar10"] * 2
    assert [task.registered for task in found.tasks] == [True, True]
    assert len(found.copies) == 1 and found.missing == []
    unused = sorted(path.rsplit("/")[-1] for path in found.unused)
    assert unused == ["resnet200_cifar10.pth"]
    paper = find_checkpoints(["paper"], tmp_path)
    assert len(paper.missing) == 42 and len(paper.tasks) == 2
    text = paper.where()
    assert "40 more" not in text and "39 more" in text and str(tmp_path) in text
    assert ".safetensors" in text and "resnet56_cifar10.pth" in text
    some = find_checkpoints(["resnet20_c*", "resnet20_cifar10"], tmp_path)
    assert some.missing == ["resnet20_cifar100"] and len(some.tasks) == 2


def test_where_the_data_is(tmp_path, monkeypatch):
    for name in "KERAS_SPECTRAL_DATA", "TFDS_DATA_DIR":
        monkeypatch.setenv(name, str(tmp_path / "empty"))
    (tmp_path / "resnet20_cifar10.pth").write_text("weights")
    (tmp_path / "net.keras").write_text("network")
    folder = tmp_path / "data"
    folder.mkdir()

    def fields(models, given):
        (task,) = find_checkpoints(models, tmp_path, given).tasks
        return task.dataset, task.data, task.note

    name, path, note = fields(["resnet20_cifar10"], None)
    assert (name, path) == ("cifar10", None) and "cifar10.npz" in note
    assert "there is no" in fields(["resnet20_cifar10"], folder)[2]
    np.savez(folder / "cifar10.npz", x=np.zeros((2, 32, 32, 3)), y=np.array([0, 1]))
    one = str(folder / "cifar10.npz")
    assert fields(["resnet20_cifar10"], folder) == ("cifar10", one, None)
    assert fields(["net"], one) == ("cifar10", one, None)
    assert fields(["net"], "digits") == ("digits", "digits", None)
    assert fields(["net"], None)[:2] == (None, None)
    with pytest.raises(FileNotFoundError, match="'cifar10' is not here"):
        fields(["net"], "cifar10")
    digits = data.load("digits")
    monkeypatch.setattr(data, "load", lambda name, **where: digits)
    assert fields(["net"], "fashion_mnist") == ("fashion_mnist", "fashion_mnist", None)
    (named,) = find_checkpoints(["net"], tmp_path, "fashion_mnist").tasks
    assert named.data_sha256 == digits.test.sha256()
    (before,) = find_checkpoints(["net"], tmp_path, one).tasks
    np.savez(one, x=np.ones((2, 32, 32, 3)), y=np.array([0, 1]))
    (after,) = find_checkpoints(["net"], tmp_path, one).tasks
    assert before.key != after.key
    with pytest.raises(ValueError, match="`data`"):
        find_checkpoints(["net"], tmp_path, tmp_path / "nowhere")


def test_without_data_there_are_no_accuracies(tmp_path, folder):
    (folder / "small_digits-a.keras").rename(folder / "small.keras")
    (row,) = sweeping(tmp_path, folder, ["small"])
    assert row.original_accuracy is None and row.alpha_pdf > 1
    assert "names no data set" in row.note and row.error is None
    text = (tmp_path / "out" / "table.md").read_text()
    assert "names no data set" in text and "Table 1" not in text


def test_labels_beyond_the_outputs_are_an_error(tmp_path, folder):
    small(0, classes=7).save(folder / "small_digits-a.keras")
    rows = sweeping(tmp_path, folder, ["small_digits"])
    assert "labels up to 9" in rows[1].error and rows[0].error is None


def test_what_changed_or_is_not_there_is_an_error(tmp_path):
    task = CheckpointTask(
        "resnet20_digits", str(tmp_path / "w.pth"), "0" * 64, True, None, None, None,
        None, 2, 0,
    )  # fmt: skip
    assert "same paths" in checkpoint_row.measure_checkpoint(task).error
    (tmp_path / "w.pth").write_bytes(b"new")
    assert "changed" in checkpoint_row.measure_checkpoint(task).error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"models": []}, "list of names"),
        ({"models": "paper"}, "list of names"),
        ({"models": ["resnet20_cifar1"]}, "Did you mean"),
        ({"models": ["nothing*"]}, "matches none"),
        ({"models": ["resnet20_svhn"]}, "No weights of resnet20_svhn"),
        ({"models": ["all"]}, "holds no weights"),
        ({"models": ["paper"], "checkpoints": "/nowhere"}, "must be a folder"),
        ({"trials": 1}, "`trials`"),
        ({"seed": -1}, "`seed`"),
        ({"workers": -1}, "`workers`"),
    ],
)
def test_bad_arguments(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run_sweep(output=tmp_path / "out", **{"console": QUIET, **arguments})
    assert not (tmp_path / "out").exists()


def test_the_command_line(tmp_path, folder, capfd):
    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            cli.main(["sweep", *map(str, arguments), "--workers", "0"])
        return stop.value.code

    out = ["--output", tmp_path / "out", "--trials", "2", "--checkpoints", folder]
    names = "resnet20_digits,broken_digits"
    assert run("--models", names, *out) == 1
    assert "Table 1" in capfd.readouterr().out
    table = json.loads((tmp_path / "out" / "table.json").read_text())
    row, failed = table["rows"]
    assert "no .keras model" in failed["error"]
    card = json.loads(zoo.checkpoint("resnet20_digits").card.read_text())
    assert row["original_accuracy"] == card["test_accuracy"]
    assert row["compressed"] == 640 and row["parameters"] == 272_474
    # Of the network, from pytorchcv's shapes.
    assert row["share"] == pytest.approx(0.00235, abs=1e-5)
    assert run("--models", "resnet20_digits", *out) == 0
    assert "rows are there already" in capfd.readouterr().out
    assert run("--models", "paper", *out) == 2
    error = capfd.readouterr().err
    assert "resnet20_cifar10.pth" in error and str(folder) in error


def test_a_finished_row_has_todays_names(tmp_path, folder, monkeypatch):
    """A row belongs to the content of a file, and the file may have moved."""
    monkeypatch.setattr(sweep, "measure_checkpoint", fake_row)
    sweeping(tmp_path, folder, ["small_digits"])
    (folder / "small_digits-a.keras").rename(folder / "small_digits-new.keras")
    monkeypatch.setattr(sweep, "measure_checkpoint", None)
    rows = sweeping(tmp_path, folder, ["small_digits"])
    assert {row.name for row in rows} == {"small_digits-b", "small_digits-new"}
    assert "small_digits-new" in (tmp_path / "out" / "table.md").read_text()


def test_the_note_on_missing_data_is_todays(tmp_path):
    (tmp_path / "weights").mkdir()
    small().save(tmp_path / "weights" / "small_cifar10.keras")
    (first,) = sweeping(tmp_path, tmp_path / "weights")
    (tmp_path / "images").mkdir()
    (second,) = sweeping(tmp_path, tmp_path / "weights", data=tmp_path / "images")
    assert "given by --data" in first.note
    assert str(tmp_path / "images" / "cifar10.npz") in second.note


def test_a_file_that_cannot_be_read_is_a_row(tmp_path, folder, monkeypatch):
    """Each of them one of its own, and the sweep goes on."""
    (folder / "locked_digits-1.keras").write_bytes(b"1")
    (folder / "locked_digits-2.keras").write_bytes(b"2")
    opened = open

    def refusing(path, *arguments, **keywords):
        if "locked" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **keywords)

    def measure(task):
        locked = task.model == "locked_digits"
        return (checkpoint_row.measure_checkpoint if locked else fake_row)(task)

    # Of root nothing can be locked.
    monkeypatch.setattr("builtins.open", refusing)
    monkeypatch.setattr(sweep, "measure_checkpoint", measure)
    rows = sweeping(tmp_path, folder, ["small_digits", "locked_digits"])
    assert len({row.name for row in rows}) == len(rows) == 4
    for row in rows:
        locked = row.model == "locked_digits"
        assert ("Permission denied" in row.error) if locked else row.error is None
    table = json.loads((tmp_path / "out" / "table.json").read_text())
    assert table["status"] == "complete" and len(table["rows"]) == 4
