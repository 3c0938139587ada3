"""Tables, figures and the front page of these results, from the rows in `cells/`.

    python docs/results/make.py

It trains nothing: `keras-spectral run RECIPE --evidence --output docs/results` does,
and every row that it has finished counts here.
"""

import json
import platform
from pathlib import Path

from keras_spectral.experiments import list_recipes, load_recipe, run_recipe
from keras_spectral.experiments.recipe_run import write_table
from keras_spectral.experiments.recipes import recipe_path
from keras_spectral.measures import rank_correlation

FOLDER = Path(__file__).parent

# The low-rank paper's digits, of which a public package has 5,000: docs/data.md.
DIGITS = FOLDER / "mnist_5k"
DIGITS_RECIPES = "low_rank/figure_2", "low_rank/figure_3", "low_rank/table_1"
OF_DIGITS = "data.name=mnist_5k.npz", "schedule.epochs=20"

# Networks of which one is measured for half an hour, and their samples.
GANS = FOLDER / "gan"

# The heavy-tail paper's sweep over networks that these recipes trained.
HEAVY_TAIL = FOLDER / "heavy_tail"

# What no trained network can be compared by: accuracies, and counts of parameters.
_NO_MEASURES = (
    *("accuracy", "error", "gap", "parameters", "misclassified", "epochs_to"),
    "test_correct",
)

_BACKENDS = {"jax": "JAX", "tensorflow": "TensorFlow"}


def tables(folder=FOLDER, changes=(), names=None):
    """Return a dict from recipes to their tables of the rows that are there."""
    found = {}
    for name in names or list_recipes():
        text = recipe_path(name).read_text(encoding="utf-8")
        if "[evidence" not in text or "[[networks]]" not in text:
            continue
        table = run_recipe(
            name, "evidence", changes=changes, output=folder, train=False
        )
        if table.cells:
            found[name] = table
    return found


def write(found, folder=FOLDER, changes=()):
    """Write the tables and figures."""
    for name, table in found.items():
        recipe = load_recipe(recipe_path(name), "evidence", changes)
        status = "complete" if len(table.cells) == _whole(recipe) else "interrupted"
        start = folder / _file(name)
        write_table(start, table, recipe, recipe_path(name), "evidence", status)


def claims(found, place=""):
    """Return lines of Markdown: every claim with its verdict, alike ones once."""
    recipes = {}
    for name, table in found.items():
        for row in table.claims:
            if {row.network} & {cell["network"] for cell in table.cells}:
                what = row.name, row.says, row.network, row.verdict, row.differences
                recipes.setdefault(what, []).append(
                    f"[{_item(name)}]({place}{_file(name)}.md)"
                )
    lines = ["| claim | network | verdict | paired differences, 95 % | in |"]
    lines += ["|---|---|---|---|---|"]
    for (name, says, network, verdict, differences), links in sorted(recipes.items()):
        lines.append(
            f"| {name}: {says} | {network} | **{verdict}** | {differences} "
            f"| {', '.join(links)} |"
        )
    return lines


def runs(found, folder="docs/results", changes=(), place=""):
    """Return lines of Markdown: what was run, how long it took, and how to rerun it."""
    sets = "".join(f" --set {change}" for change in changes)
    lines = ["| recipe | cells | CPU hours | command |", "|---|---|---|---|"]
    for name, table in found.items():
        recipe = load_recipe(recipe_path(name), "evidence")
        hours = sum(cell["cpu_seconds"] for cell in table.cells) / 3600
        lines.append(
            f"| [{table.title}]({place}{_file(name)}.md) "
            f"| {len(table.cells)} of {_whole(recipe)} | {hours:.2f} "
            f"| `keras-spectral run {name} --evidence{sets} --output {folder}` |"
        )
    return lines


def correlation(found):
    """Return lines of Markdown: which measure orders the runs as their gaps do."""
    cells = {
        (cell["network"], cell["variant"], cell["seed"], str(cell["settings"])): cell
        for table in found.values()
        for cell in table.cells
    }
    kept = []
    for cell in cells.values():
        measures = {
            name: _number(cell, name)
            for name in cell["results"]
            if not any(word in name for word in _NO_MEASURES)
        }
        settings, last = cell["settings"], cell["history"][-1]
        kept.append(
            {
                "hyperparameters": {
                    "network": cell["network"],
                    "labels": settings["data"]["labels"],
                    "normalizer": cell["variant"].split(",")[0],
                    "weight decay": settings["optimizer"]["weight_decay"],
                },
                "measures": measures,
                "gap": last["accuracy"] - last["test_accuracy"],
            }
        )
    kept = [run for run in kept if "noise_sensitivity_50" in run["measures"]]
    names = set.intersection(*(set(run["measures"]) for run in kept)) if kept else ()
    for run in kept:
        run["measures"] = {name: run["measures"][name] for name in sorted(names)}
    kinds = {str(run["hyperparameters"] | {"normalizer": ""}) for run in kept}
    if len(kinds) < 2 or not names:
        return ["Not before there are runs of two networks or kinds of labels."]
    rows = rank_correlation(kept)
    lines = [f"{len(kept)} runs.", ""]
    lines += ["| measure | tau | p | sign error | worst | conditional information |"]
    lines += ["|---|---|---|---|---|---|"]
    for row in sorted(rows, key=lambda row: -abs(row.kendall_tau)):
        name = row.measure.replace("_", " ")
        lines.append(
            f"| {name} | {row.kendall_tau:.2f} | {row.p_value:.1g} "
            f"| {row.sign_error:.2f} | {row.robust_sign_error:.2f}, "
            f"{row.worst_environment} | {row.conditional_information:.2f} |"
        )
    return lines


def _number(cell, name):
    """Return a measure; NaN where it was refused, infinity where it was."""
    value, reason = cell["results"][name], cell["reasons"].get(name, "")
    if value is not None:
        return value
    return float("inf" if reason.endswith(": inf") else "nan")


def drift(found):
    """Return lines of Markdown: how the factors of SVD layers change in training."""
    kept: dict = {}
    for cell in found["low_rank/figure_2"].cells:
        kept.setdefault(cell["variant"], []).append(cell["history"])
    kept = {x: y for x, y in kept.items() if "orthogonality_error" in y[0][0]}
    epochs = range(min(len(history) for rows in kept.values() for history in rows))
    lines = ["| | measure |" + "".join(f" epoch {n + 1} |" for n in epochs)]
    lines += ["|---|---|" + "---|" * len(epochs)]
    for variant, rows in kept.items():
        for name in "orthogonality_error", "singular_value_ratio":
            means = [sum(row[n][name] for row in rows) / len(rows) for n in epochs]
            numbers = " | ".join(f"{mean:.3f}" for mean in means)
            lines.append(f"| {variant} | {name.replace('_', ' ')} | {numbers} |")
    return lines


def heavy_tails():
    """Return lines of Markdown: final layers and what compressing them costs."""
    rows = json.loads((HEAVY_TAIL / "table.json").read_text(encoding="utf-8"))["rows"]
    groups: dict = {}
    for row in rows:
        # The network and its row have one name.
        file = FOLDER / "cells" / f"{Path(row['file']).stem}.json"
        trained = json.loads(file.read_text(encoding="utf-8"))
        key = trained["network"], trained["variant"]
        groups.setdefault(key, []).append(row)
    lines = [
        "| network | | seeds | alpha | stable rank | before | noise | matched | zero |"
    ]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    ahead = {}
    for (network, variant), found in sorted(groups.items()):
        replaced: dict = {}
        for row in found:
            for each in row["compressions"]:
                if each["rule"] == "magnitude":
                    mean = each["compressed_accuracy_mean"]
                    replaced.setdefault(each["replacement"], []).append(mean)
        for name in "gaussian", "matched":
            pairs = zip(replaced[name], replaced["zero"], strict=True)
            ahead[name] = ahead.get(name, 0) + sum(
                noise > zero for noise, zero in pairs
            )
        alpha, rank, before = (
            sum(row[key] for row in found) / len(found)
            for key in ("alpha_pdf", "stable_rank", "original_accuracy")
        )
        after = " | ".join(
            f"{100 * sum(replaced[name]) / len(found):.2f}"
            for name in ("gaussian", "matched", "zero")
        )
        lines.append(
            f"| {network} | {variant} | {len(found)} | {alpha:.2f} | {rank:.2f} "
            f"| {100 * before:.2f} | {after} |"
        )
    lines += [
        "",
        f"Of {len(rows)} networks the paper's noise is ahead of zeros in "
        f"{ahead['gaussian']}, matched noise in {ahead['matched']}.",
    ]
    return lines


def samples(found, folder=GANS):
    """Return lines of Markdown: the grids of each variant's first seed."""
    cells: dict = {}
    for table in found.values():
        for cell in table.cells:
            path = folder / "samples" / f"{cell['key']}.png"
            if path.is_file():
                known = cells.setdefault(cell["variant"], (cell["seed"], path))
                cells[cell["variant"]] = min(known, (cell["seed"], path))
    if not cells:
        return ["None yet."]
    texts = []
    for variant, (seed, path) in cells.items():
        place = path.relative_to(FOLDER).as_posix()
        image = f"![{variant}: 64 generated images]({place})"
        texts.append((f"{variant}, seed {seed}", image))
    # Three a row; names are cells, as a head of the first row alone would be one.
    lines = ["| | | |", "|---|---|---|"]
    for start in range(0, len(texts), 3):
        row = texts[start : start + 3]
        row += [("", "")] * (3 - len(row))
        lines += [f"| {' | '.join(part)} |" for part in zip(*row, strict=True)]
    return lines


def machine(found):
    """Return the sentence that tells where it was run."""
    environments = {
        json.dumps(cell["environment"], sort_keys=True)
        for table in found.values()
        for cell in table.cells
    }
    texts = []
    for text in sorted(environments):
        known = json.loads(text)
        backend = "jax" if "jax" in known else "tensorflow"
        devices = ", ".join(x for x in known["devices"] if x.lower() != "cpu")
        texts.append(
            f"{known['cores']} cores ({known['machine']})"
            f"{f' and {devices}' if devices else ''}, Keras {known['keras']}, "
            f"{_BACKENDS[backend]} {known[backend]}, Python {known['python']}"
        )
    return "; ".join(dict.fromkeys(texts))


def _whole(recipe):
    """Return how many cells a recipe has."""
    trained = sum(
        variant.seeds is None or seed in variant.seeds
        for variant in recipe.variants
        for seed in recipe.seeds
    )
    return trained * len(recipe.networks)


def _item(name):
    return load_recipe(recipe_path(name)).item


def _file(name):
    return "-".join([*name.split("/"), "evidence"])


def page():
    """Return the front page: what stands by hand in `front.md`, and the tables."""
    found, digits = tables(), tables(DIGITS, OF_DIGITS, DIGITS_RECIPES)
    gans = tables(GANS) if GANS.is_dir() else {}
    write(found)
    write(gans, GANS)
    write(digits, DIGITS, OF_DIGITS)
    place = f"{DIGITS.name}/"
    text = (FOLDER / "front.md").read_text(encoding="utf-8")
    parts = {
        "claims": claims(found),
        "runs": runs(found),
        "correlation": correlation(found),
        "drift": drift(found),
        "digits": [
            *claims(digits, place),
            "",
            *runs(digits, f"docs/results/{DIGITS.name}", OF_DIGITS, place),
        ],
        "gans": [
            *claims(gans, f"{GANS.name}/"),
            "",
            *runs(gans, f"docs/results/{GANS.name}", place=f"{GANS.name}/"),
        ],
        "samples": samples(gans),
        "heavy_tails": heavy_tails(),
        "machine": [machine({**found, **gans})],
    }
    for name, lines in parts.items():
        text = text.replace(f"<!-- {name} -->", "\n".join(lines))
    return text


if __name__ == "__main__":
    (FOLDER / "README.md").write_text(page(), encoding="utf-8")
    print(f"{FOLDER / 'README.md'} ({platform.python_version()})")
