"""Recipes: files that say what an experiment of a paper is."""

import difflib
import functools
import math
import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from keras_spectral.experiments.recipe_settings import (
    GanRecipe,
    MeasureRecipe,
    Recipe,
    Variant,
    kind_of,
    settings_of,
)

SIZES = ("small", "evidence")

# The fewest of `probes`, where one is too few.
_LEAST = {"draws": 2, "reference": 2, "generated": 2}


def recipes_folder() -> Path:
    """Return the folder of the recipes, of the checkout or of the installation.

    Raises:
        FileNotFoundError: If the package was installed without them.

    Example:
    >>> (recipes_folder() / "stable_rank" / "table_6.toml").is_file()
    True
    """
    package = Path(__file__).parents[1]
    checkout = package.parent
    # An editable installation may leave an old copy beside the package.
    if (checkout / "pyproject.toml").is_file() and (checkout / "zoo").is_dir():
        return checkout / "zoo"
    if (package / "_recipes").is_dir():
        return package / "_recipes"
    raise FileNotFoundError(
        f"keras_spectral was installed without its recipes: there is no "
        f"{package / '_recipes'}. Install it anew."
    )


def list_recipes() -> list[str]:
    """Return the recipes' names, which are their files below the folder.

    Returns:
        List of strings, sorted.

    Example:
    >>> "stable_rank/table_6" in list_recipes()
    True
    """
    folder = recipes_folder()
    return sorted(
        path.relative_to(folder).with_suffix("").as_posix()
        for path in folder.rglob("*.toml")
    )


def recipe_path(name) -> Path:
    """Return the file of a recipe: a path, or a name such as `stable_rank/table_6`.

    Raises:
        FileNotFoundError: If there is none; the nearest name is told.
    """
    path = Path(str(name))
    if path.is_file():
        return path
    word = path.as_posix().removeprefix("zoo/").removesuffix(".toml")
    known = list_recipes()
    if word in known:
        return recipes_folder() / f"{word}.toml"
    near = [x for x in known if x.endswith(f"/{word}")]
    near = near or difflib.get_close_matches(word, known, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else " `recipes` lists them."
    raise FileNotFoundError(
        "`recipe` must be a TOML file or one of keras-spectral recipes. "
        f"Received: recipe={str(name)!r}.{hint}"
    )


def load_recipe(path, size=None, changes=()) -> Recipe | GanRecipe | MeasureRecipe:
    """Read a recipe and check it.

    Args:
        path: Path of a TOML file.
        size: `None` for the paper's own settings, `"small"` or `"evidence"` for those
            of the table of that name, which replace the others key by key. With `like =
            "table_6"` it begins with that of the recipe of this name beside it.
        changes: List of strings such as `"optimizer.learning_rate=0.01"`, in TOML.

    Returns:
        A `Recipe`; a `GanRecipe` where the schedule has `steps`; a `MeasureRecipe`
        where the file has a table `sweep` or `figure`.

    Raises:
        ValueError: On what is no TOML, an unknown key or a value of another type, with
            file, line and the nearest key.

    Example:
    >>> recipe = load_recipe(recipe_path("stable_rank/table_6"), "small")
    >>> recipe.data.name, [variant.name for variant in recipe.variants]
    ('digits', ['vanilla', 'SN', 'SRN-30'])
    """
    if not isinstance(changes, (list, tuple)) or not all(
        isinstance(change, str) for change in changes
    ):
        raise ValueError(
            "`changes` must be a list of strings such as "
            f"['optimizer.learning_rate=0.01']. Received: changes={changes!r}"
        )
    path = Path(path)
    text, content = _read(path)
    sizes = {name: _size(path, name, content.pop(name, None)) for name in SIZES}
    if size is not None:
        if sizes.get(size) is None:
            raise ValueError(
                f"{path} has no settings [{size}], which were asked for. It has "
                f"{[name for name in SIZES if sizes[name] is not None]}."
            )
        content = _merged(content, sizes[size])
    for change in changes:
        content = _merged(content, _change(change))
    measures = {"sweep", "figure"} & content.keys()
    kind: Any = kind_of(content)
    try:
        recipe = msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        message = _located(path, text, size, str(error), kind)
        if changes:  # The line is that of what was there.
            message += f" Changed by `changes`: {', '.join(changes)}."
        raise ValueError(message) from error
    if len(measures) > 1:
        raise ValueError(f"{path} must have [sweep] or [figure], not both.")
    if isinstance(recipe, (Recipe, GanRecipe)):
        _check(path, text, recipe)
    plain = msgspec.to_builtins(recipe)
    for keys, number in _numbers(plain):
        # JSON has nothing else, and no training either; NaN is below nothing.
        if not abs(number) < (2**63 if isinstance(number, int) else math.inf):
            line = _line(text, [key for key in keys if not key.isdecimal()], size)
            place = f"{path}, line {line}" if line else f"{path}"
            name = ".".join(keys)
            raise ValueError(
                f"{place}: `{name}` must be finite, an integer below 2^63. "
                f"Received: {str(number)[:40]}"
            )
    for name in recipe.assumed:
        if not _has(plain, name.split(".")):
            place = f"{path}, line {_line(text, ['assumed'])}"
            raise ValueError(
                f"{place}: `assumed` must name keys of the recipe. Received: '{name}'"
            )
    return recipe


def _read(path):
    """Return a recipe's text and the tables in it."""
    try:
        # Some editors put a mark before UTF-8.
        text = path.read_text(encoding="utf-8-sig")
        return text, tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no TOML file: {error}") from error


def _size(path, name, table):
    """Return the table of a size, which may begin with that of a recipe beside it."""
    if table is None:
        return None
    if not isinstance(table, dict):
        raise ValueError(f"{path}: `{name}` must be a table. Received: {table!r}")
    if "like" not in table:
        return table
    other = path.with_name(f"{table['like']}.toml")
    if other == path or not other.is_file():
        raise ValueError(
            f"{path}: `{name}.like` must name another recipe of its folder. Received: "
            f"{table['like']!r}"
        )
    base = _read(other)[1].get(name)
    # Without one it would be the paper's own size that is run.
    if not isinstance(base, dict) or "like" in base:
        raise ValueError(
            f"{path}: `{name}.like` must name a recipe with a whole table [{name}] of "
            f"its own. Received: {table['like']!r}"
        )
    own = {key: value for key, value in table.items() if key != "like"}
    return _merged(base, own)


def _merged(base, other):
    """Return two tables as one; the second one's keys replace the first one's."""
    result = dict(base)
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            value = _merged(result[key], value)
        result[key] = value
    return result


def _change(change):
    name, equals, value = change.partition("=")
    keys = [key.strip() for key in name.split(".")]
    try:
        found = tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError:
        found = {"value": value.strip()}  # A word without quotes.
    # More than the value would be another change, on a line of its own.
    if not equals or not all(keys) or len(found) > 1:
        raise ValueError(
            "`changes` must look like optimizer.learning_rate=0.01. "
            f"Received: {change!r}"
        )
    return functools.reduce(
        lambda inner, key: {key: inner}, reversed(keys), found["value"]
    )


def _located(path, text, size, message, recipe):
    """Return a message of `msgspec` with the line that it is about."""
    where = re.search(r" - at `\$\.?([^`]*)`", message)
    keys = re.findall(r"\w+", where[1]) if where else []
    reason = message[: where.start()] if where else message
    unknown = re.search(r"unknown field `([^`]*)`", reason)
    hint = ""
    if unknown:
        kind: Any = recipe
        for key in keys:
            kind = kind if key.isdecimal() else _kind_of(kind, key)
        known = [field.name for field in msgspec.structs.fields(kind)]
        near = difflib.get_close_matches(unknown[1], known, n=1)
        hint = f" Did you mean `{near[0]}`?" if near else f" Known: {', '.join(known)}."
        keys = [*keys, unknown[1]]
        reason = f"unknown key `{unknown[1]}`"
    line = _line(text, keys, size)
    place = f"{path}, line {line}" if line else f"{path}"
    name = f" `{'.'.join(k for k in keys if not k.isdecimal())}`" if keys else ""
    name = "" if unknown else name
    return f"{place}:{name} {reason}.{hint}"


def _kind_of(kind, key):
    """Return the class of a key's table."""
    if not hasattr(kind, "__struct_fields__"):
        return kind
    types = {field.name: field.type for field in msgspec.structs.fields(kind)}
    annotation = types.get(key, kind)
    for argument in getattr(annotation, "__args__", (annotation,)):
        if hasattr(argument, "__struct_fields__"):
            return argument
    return kind


def _line(text, keys, size=None):
    """Return the number of the line where a key is set, or `None`.

    A number among the keys counts the tables of the name before it.
    """
    wanted = next((int(key) for key in keys if key.isdecimal()), None)
    keys = tuple(key for key in keys if not key.isdecimal())
    if not keys:
        return None
    best, section, seen = None, (), -1
    for number, line in enumerate(text.splitlines(), 1):
        if head := re.match(r"\s*\[+\s*([\w.\- ]+?)\s*\]+", line):
            section = tuple(word.strip() for word in head[1].split("."))
            if section[0] in SIZES:
                section = section[1:] if section[0] == size else ("other size",)
            seen += section == keys[: len(section)] == keys[:1]
            found = section == keys
        else:
            found = section == keys[:-1] and re.match(
                rf"\s*[\"']?{re.escape(keys[-1])}[\"']?\s*=", line
            )
        if found and wanted in (None, seen):
            best = number
    return best


def _check(path, text, recipe):
    """Raise a ValueError on what is of the right type and still cannot be."""
    variants = [variant.name for variant in recipe.variants]
    networks = [network.name for network in recipe.networks]

    def fail(keys, expected):
        line = _line(text, keys)
        place = f"{path}, line {line}" if line else f"{path}"
        raise ValueError(f"{place}: `{'.'.join(keys)}` {expected}")

    for keys, names in (["variants"], variants), (["networks"], networks):
        # Files of cells are named so.
        words = {re.sub(r"[^\w.-]", "_", name) for name in names}
        if not names or len(words - {""}) < len(names):
            fail(keys, f"must be one or more, with names of their own: {names}")
    seeds = recipe.seeds
    # NumPy's global seed, which Keras sets, has 32 bits.
    if len(set(seeds)) < max(1, len(seeds)) or not all(0 <= x < 2**32 for x in seeds):
        fail(["seeds"], f"must be different integers from 0, below 2^32: {seeds}")
    if not recipe.measures or len(set(recipe.measures)) < len(recipe.measures):
        fail(["measures"], f"must be one or more, each once: {recipe.measures}")
    for name in "count", "test_count":
        count = getattr(recipe.data, name)
        if count is not None and count < 1:
            fail(["data", name], f"must be an integer >= 1. Received: {count}")
    for name, number in msgspec.to_builtins(recipe.probes).items():
        least = _LEAST.get(name, 1)
        if isinstance(number, int) and number < least:
            fail(["probes", name], f"must be an integer >= {least}")
    if isinstance(recipe, GanRecipe):
        if any(variant.weight_decay is not None for variant in recipe.variants):
            fail(["variants", "weight_decay"], "has no place in a recipe of GANs")
        if recipe.data.augment or recipe.data.labels != "true":
            fail(["data"], "must have true labels and no `augment` in a recipe of GANs")
    elif any(variant.steps is not None for variant in recipe.variants):
        fail(["variants", "steps"], "has its place in a recipe of GANs")
    for network in recipe.networks:
        try:
            optimizer, schedule = settings_of(recipe, network, Variant(name="any"))
        except msgspec.ValidationError as error:
            fail(["networks"], f"'{network.name}': {error}")
        for name in "epochs", "steps", "batch_size", "record_every":
            if getattr(schedule, name, 1) < 1:
                fail(["schedule", name], "must be an integer >= 1")
        if optimizer.learning_rate <= 0:
            fail(["optimizer", "learning_rate"], "must be positive")
        for name in "momentum", "beta_1", "beta_2":
            if not 0 <= getattr(optimizer, name, 0) < 1:
                fail(["optimizer", name], "must be in [0, 1)")
        if getattr(optimizer, "weight_decay", 0) < 0:
            fail(["optimizer", "weight_decay"], "must be a number >= 0")
        if getattr(schedule, "decay", 1) <= 0:
            fail(["schedule", "decay"], "must be positive")
        epochs = getattr(schedule, "decay_epochs", [])
        if epochs != sorted(set(epochs)) or min(epochs, default=1) < 1:
            fail(
                ["schedule", "decay_epochs"], f"must be integers >= 1, rising: {epochs}"
            )
        stop = getattr(schedule, "stop_at_train_accuracy", None)
        if stop is not None and not 0 < stop <= 1:
            fail(["schedule", "stop_at_train_accuracy"], "must be in (0, 1]")
    for variant in recipe.variants:
        if variant.steps is not None and variant.steps < 0:
            fail(["variants", "steps"], "must be an integer >= 0")
        if (variant.weight_decay or 0) < 0:
            fail(["variants", "weight_decay"], "must be a number >= 0")
        if variant.seeds is not None and not variant.seeds:
            fail(["variants", "seeds"], f"must be one or more in '{variant.name}'")
        ratio = variant.stable_rank_ratio
        if (variant.normalize == "stable_rank") != (ratio is not None) or (
            ratio is not None and not 0 < ratio <= 1
        ):
            fail(
                ["variants", "stable_rank_ratio"],
                "must be in (0, 1] where `normalize` is 'stable_rank', and only "
                f"there. Received: {ratio} in '{variant.name}'",
            )
    for claim in recipe.claims:
        if claim.measure not in recipe.measures or len(claim.order) < 2:
            fail(["claims", "measure"], f"must be one of `measures`: '{claim.name}'")
        if missing := set(claim.order) - set(variants):
            fail(["claims", "order"], f"must name variants, not {sorted(missing)}")
        if len(set(claim.order)) < len(claim.order):
            fail(["claims", "order"], f"must name each variant once: {claim.order}")


def _numbers(value, keys=()):
    """Yield the keys and the value of each number of a table and of those below it."""
    if isinstance(value, (int, float)):
        yield keys, value
    elif isinstance(value, (dict, list)):
        named = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in named:
            yield from _numbers(inner, (*keys, str(key)))


def _has(value, keys):
    """Return whether a table, or one of a list of tables, has a key below it."""
    if not keys:
        return True
    if isinstance(value, list):
        return any(_has(item, keys) for item in value)
    return (
        isinstance(value, dict) and keys[0] in value and _has(value[keys[0]], keys[1:])
    )
