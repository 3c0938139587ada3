"""What lies in a run's folder, edited or damaged; and names that are no file names."""

import json

import pytest

from keras_spectral.experiments import engine, recipe_run, run_recipe
from tests.data.test_loading import _mnist
from tests.experiments.test_recipe_run import QUIET, RECIPE, numbers

START, LAST = RECIPE.index("[[variants]]"), RECIPE.rindex("[[variants]]")
ONE = (RECIPE[:START] + RECIPE[LAST:]).replace("epochs = 4", "epochs = 1")


def test_what_is_no_row_or_no_network(tmp_path):
    path, output = tmp_path / "recipe.toml", tmp_path / "out"
    path.write_text(ONE)

    def run(measures, **arguments):
        changes = [f"measures={measures}"]
        settings = {"output": output, "workers": 0, "console": QUIET, **arguments}
        return run_recipe(path, changes=changes, **settings)

    whole = run(["parameters"])
    (file,) = (output / "cells").iterdir()
    row = json.loads(file.read_text())
    for edited in (
        [row],
        {key: row[key] for key in ("settings", "error")},
        {**row, "results": [1]},
        {**row, "results": {"parameters": "many"}},
        {**row, "results": {"parameters": float("nan")}},
        {**row, "history": None},
        {**row, "layers": 3},
        {**row, "probes": 3},
        {**row, "reasons": None},
    ):
        file.write_text(json.dumps(edited))
        assert run(["parameters"], train=False).cells == []
    # Another recipe of the same training may call it otherwise.
    file.write_text(json.dumps({**row, "variant": "SRN 50", "network": "small"}))
    assert run(["parameters"], train=False).to_dicts() == whole.to_dicts()
    file.write_text(json.dumps({**row, "provenance": {}}))
    (again,) = run(["parameters"]).cells
    assert numbers(again) == numbers(whole.cells[0])
    (model,) = (output / "models").iterdir()
    model.write_bytes(model.read_bytes()[:2000])
    more = ["parameters", "train_error"]
    (failed,) = run(more).cells
    assert "remove it: the next run trains the network anew" in failed["error"]
    assert failed["history"] == again["history"]
    model.unlink()
    (mended,) = run(more).cells
    assert mended["error"] is None and mended["history"] == again["history"]


def test_names_that_are_no_file_names(tmp_path, rng, monkeypatch):
    """Of a recipe in this folder, long variants, and a folder at home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    _mnist(tmp_path / "digits", rng)
    variants = [f'[[variants]]\nname = "{"é" * 300}{x}"\n' for x in "ab"]
    text = RECIPE[:START] + "".join(variants) + RECIPE[RECIPE.index("[optimizer]") :]
    text = text.replace("[8, 8, 1]", "[28, 28, 1]").replace("epochs = 4", "epochs = 1")
    text = text.replace("count = 64", "count = 7").replace('"digits"', '"mnist"')
    text = text.replace("test_count = 50", "test_count = 3")
    (tmp_path / "recipe.toml").write_text(text, encoding="utf-8")
    table = run_recipe("recipe.toml", directory="~/digits", workers=0, console=QUIET)
    assert [cell["error"] for cell in table.cells] == [None] * 2
    name = f"{tmp_path.name}-recipe-paper"
    output = tmp_path / "keras-spectral-runs" / name
    assert (output / f"{name}.md").is_file()
    for part in "cells", "models", "curves":
        assert len(list((output / part).iterdir())) == 2


def test_a_scheduler_that_is_not_there_leaves_no_folder(tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(engine, "_PATIENCE", 0.5)
    away = {"scheduler": "tcp://127.0.0.1:9", "console": QUIET}
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    # A recipe of trainings, and one of checkpoints.
    for name, size in (recipe, None), ("heavy_tail/table_1", "small"):
        with pytest.raises(OSError, match="dask scheduler"):
            run_recipe(name, size, output=tmp_path / "out", **away)
        assert not (tmp_path / "out").exists()


def test_an_interrupt_before_any_cell_leaves_no_table(tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    one = tmp_path / "recipe.toml"
    one.write_text(ONE)
    monkeypatch.setattr(recipe_run, "train_in_worker", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(one, output=tmp_path / "out", workers=0, console=QUIET)
    files = [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert files == ["lock"]
