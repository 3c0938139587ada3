"""What is said of recipes and changes that cannot be, before anything is trained."""

import pytest

from keras_spectral.experiments import load_recipe
from keras_spectral.experiments.recipes import recipe_path

PATH = recipe_path("stable_rank/table_6")
TEXT = PATH.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "change, match",
    [
        ("schedule=3", "`schedule` Expected `object`"),
        ("data.conut=3", "unknown key `conut`. Did you mean `count`?"),
        ("data.count=" + "9" * 400, "`data.count` must be finite"),
        ("seeds=[4294967296]", "`seeds` must be different integers"),
        ("optimizer.momentum=0.1\nother=2", "must look like"),
        ("optimizer.momentum=0.1\n[other]", "must look like"),
        ("measures=['gap','gap']", "`measures` must be one or more, each once"),
        ("schedule.decay=-1.0", "`schedule.decay` must be positive"),
        ("schedule.decay_epochs=[3,2]", "`schedule.decay_epochs` must be"),
        ("schedule.decay_epochs=[0]", "`schedule.decay_epochs` must be"),
        ("schedule.stop_at_train_accuracy=99", "must be in"),
        ("variants=[{name='a',weight_decay=-1.0}]", "must be a number >= 0"),
        ("variants=[{name=''}]", "with names of their own"),
    ],
)
def test_changes(change, match):
    with pytest.raises(ValueError, match=match):
        load_recipe(PATH, None, ["claims=[]", change])


def test_a_claim_names_each_variant_once():
    claim = "claims=[{name='c',says='s',measure='train_error',order=['SN','SN']}]"
    with pytest.raises(ValueError, match="must name each variant once"):
        load_recipe(PATH, None, [claim])


@pytest.mark.parametrize("changes", ["seeds=[1]", None, [3]])
def test_changes_are_a_list_of_strings(changes):
    with pytest.raises(ValueError, match="`changes` must be a list of strings"):
        load_recipe(PATH, None, changes)


@pytest.mark.parametrize(
    "content, match",
    [
        (b"# \xe9", "is no TOML file"),
        (b"x = " + b"[" * 5000, "is no TOML file"),
        (b"small = 3", "`small` must be a table"),
        (b'[small]\nlike = "latin"', "latin.toml is no TOML file"),
        (b'[small]\nlike = "number"', "a whole table"),
        (b'[small]\nlike = "without"', "a whole table"),
        (b'[small]\nlike = "more"', "a whole table"),
    ],
)
def test_files(content, match, tmp_path):
    others = {
        "latin": b"# \xe9",
        "number": b"small = 3",
        "without": b"x = 3",
        "more": b'[small]\nlike = "number"',
    }
    for name, other in others.items():
        (tmp_path / f"{name}.toml").write_bytes(other)
    path = tmp_path / "recipe.toml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=match):
        load_recipe(path, "small")


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    (tmp_path / "recipe.toml").write_text(TEXT, encoding="utf-8-sig")
    found = load_recipe(tmp_path / "recipe.toml", "small")
    assert found == load_recipe(PATH, "small")


@pytest.mark.parametrize("name", ["", ".", None, 3])
def test_names_that_are_none(name):
    with pytest.raises(FileNotFoundError, match="`recipe` must be a TOML file"):
        recipe_path(name)
