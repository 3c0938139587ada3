"""Recipes as files: what is in them, and what is said of mistakes."""

import re

import msgspec
import pytest

from keras_spectral import zoo
from keras_spectral.experiments import list_recipes, load_recipe
from keras_spectral.experiments.recipe_settings import MeasureRecipe
from keras_spectral.experiments.recipes import SIZES, recipe_path, recipes_folder
from tests.test_references import REFERENCES

TEXT = recipe_path("stable_rank/table_6").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_is_whole(name):
    text = recipe_path(name).read_text(encoding="utf-8")
    recipe = load_recipe(recipe_path(name))
    assert f"## [{recipe.source}]" in REFERENCES
    for size in (None, *SIZES):
        found = load_recipe(recipe_path(name), size)
        assert (found.title, found.item) == (recipe.title, recipe.item)
        for network in getattr(found, "networks", ()):
            assert callable(getattr(zoo, network.builder))
    assert "assumed = [" in text
    if isinstance(recipe, MeasureRecipe):
        assert {row.model for row in recipe.published} <= set(zoo.list_models())
        return
    # Numbers of the paper are those of the paper's own networks and data.
    networks = {network.name for network in recipe.networks}
    variants = {variant.name for variant in recipe.variants}
    for published in recipe.published:
        assert published.network in networks and published.variant in variants
        assert published.measure in recipe.measures


def changed(tmp_path, old, new):
    assert old in TEXT
    path = tmp_path / "recipe.toml"
    path.write_text(TEXT.replace(old, new, 1), encoding="utf-8")
    return path, path.read_text().splitlines()


@pytest.mark.parametrize(
    "old, new, match",
    [
        ("epochs = 50", "epoch = 50", "unknown key `epoch`. Did you mean `epochs`?"),
        ("momentum = 0.9", "momenta = 0.9", "Did you mean `momentum`?"),
        ('name = "SN"', 'title = "SN"', "unknown key `title`"),
        ("epochs = 50", 'epochs = "50"', "`schedule.epochs` Expected `int`"),
        ("epochs = 50", "epochs = 0", "`schedule.epochs` must be an integer >= 1"),
        ("learning_rate = 0.01", "learning_rate = -1.0", "must be positive"),
        ('labels = "random"', 'labels = "some"', "`data.labels` Invalid enum"),
        ("stable_rank_ratio = 0.3", "stable_rank_ratio = 3.0", r"must be in \(0, 1\]"),
        ("seeds = [0]", "seeds = []", "`seeds` must be different"),
        ("seeds = [0]", "seeds = [0, 0]", "`seeds` must be different"),
        ('name = "SN"', 'name = "vanilla"', "with names of their own"),
        ("augment = false", "count = 0", "`data.count` must be an integer >= 1"),
        ('"optimizer.nesterov"', '"optimizer.nestrov"', "`assumed` must name keys"),
        ('"SRN-30", "SN"', '"SRN-3", "SN"', "`claims.order` must name variants"),
    ],
)
def test_mistakes_have_a_line(tmp_path, old, new, match):
    path, lines = changed(tmp_path, old, new)
    with pytest.raises(ValueError, match=match) as caught:
        load_recipe(path)
    line = re.search(rf"{re.escape(str(path))}, line (\d+)", str(caught.value))
    assert new.split(" = ")[0].strip('"').split(".")[0] in lines[int(line[1]) - 1] or (
        # Where the list begins, for a name in a list.
        re.match(r"(assumed|order) = |\[", lines[int(line[1]) - 1])
    )


def test_the_line_is_that_of_the_key(tmp_path):
    path, lines = changed(tmp_path, "epochs = 50", 'epochs = "50"')
    with pytest.raises(ValueError) as caught:
        load_recipe(path)
    number = lines.index('epochs = "50"') + 1
    assert f"line {number}: `schedule.epochs`" in str(caught.value)


def test_what_is_no_toml(tmp_path):
    (tmp_path / "recipe.toml").write_text('title = "x"\nseeds = ]')
    with pytest.raises(ValueError, match="no TOML file.*line 2"):
        load_recipe(tmp_path / "recipe.toml")


def test_sizes_and_changes_replace_key_by_key():
    path = recipe_path("zoo/stable_rank/table_6.toml")
    paper = load_recipe(path)
    small = load_recipe(path, "small", ["optimizer.momentum=0.5", "title=mine"])
    assert small.data.labels == paper.data.labels == "random"
    assert small.data.name == "digits" and small.optimizer.momentum == 0.5
    assert small.optimizer.weight_decay == paper.optimizer.weight_decay
    assert small.title == "mine"
    for change in "optimizer", "optimizer.=3", "=3":
        with pytest.raises(ValueError, match="must look like"):
            load_recipe(path, None, [change])
    with pytest.raises(ValueError, match="unknown key `rate`"):
        load_recipe(path, None, ["optimizer.rate=3"])
    with pytest.raises(ValueError, match=r"has no settings \[large\]"):
        load_recipe(path, "large")
    assert msgspec.to_builtins(paper)["schedule"]["epochs"] == 50


def test_a_size_may_begin_with_that_of_another_recipe(tmp_path):
    text = TEXT[: TEXT.index("[small]")]
    (tmp_path / "base.toml").write_text(TEXT)
    path = tmp_path / "recipe.toml"
    path.write_text(text + '[small]\nlike = "base"\nschedule = { epochs = 3 }\n')
    base, found = (
        load_recipe(tmp_path / "base.toml", "small"),
        load_recipe(path, "small"),
    )
    assert found.schedule.epochs == 3 != base.schedule.epochs
    schedule = msgspec.structs.replace(found.schedule, epochs=base.schedule.epochs)
    assert msgspec.structs.replace(found, schedule=schedule) == base
    for other in "nothing", "recipe":
        path.write_text(text + f'[small]\nlike = "{other}"\n')
        with pytest.raises(ValueError, match=f"`small.like` must .*'{other}'"):
            load_recipe(path, "small")


def test_names():
    with pytest.raises(FileNotFoundError, match="Did you mean 'stable_rank/table_6'"):
        recipe_path("stable_rank/tabel_6")
    with pytest.raises(FileNotFoundError, match="Did you mean 'stable_rank/table_6'"):
        recipe_path("table_6")
    assert recipe_path("stable_rank/table_6").parent == recipes_folder() / "stable_rank"
