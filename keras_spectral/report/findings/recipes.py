"""What a page says of `run`: verdicts, measures and learning curves."""

from keras_spectral.experiments.recipe_table import ClaimRow, RecipeRow, RecipeTable
from keras_spectral.report.charts import Series, chart, dots
from keras_spectral.report.findings.parts import (
    Detail,
    Findings,
    facts,
    picture,
    restored,
    table_of,
)
from keras_spectral.results import Rows

_POINTS = 60
# What an epoch's line has besides numbers that are learned.
_COUNTERS = ("epoch", "steps", "seconds", "cpu_seconds")


def recipe(content, name) -> Findings:
    """Return what is to be said of `run`."""
    rows = [restored(RecipeRow, row) for row in content["rows"]]
    claims = [restored(ClaimRow, row) for row in content["claims"]]
    settings = content.get("settings") or {}
    title = content.get("title") or ": ".join(
        str(settings[key]) for key in ("item", "title") if settings.get(key)
    )
    caption = content.get("caption") or "Paired differences by seed."
    cells = [x for x in content.get("cells") or () if isinstance(x, dict)]
    table = RecipeTable(rows, Rows(claims), cells, title=title, caption=caption)
    findings = Findings(title or name, content)
    tables = [part for part in table.tables() if not isinstance(part, str)]
    findings.compared = table_of(
        "All measures",
        [
            {"name": f"{row.network}, {row.variant}: {row.measure}", "ours": row.mean}
            for row in rows
        ],
    )
    # What the run says first, then its figures.
    said = Rows(claims, title="Claims").tables() if claims else []
    findings.tables = [*said, *tables]
    for claim in claims:
        status = {"holds": True, "does not hold": False}.get(claim.verdict)
        findings.check(status, f"{claim.network}: {claim.says}", claim.differences)
    if not claims:
        findings.check(None, "Claims", "the recipe makes none")
    findings.finished(content.get("status"))
    failed = [cell for cell in cells if cell.get("error")]
    if cells:
        findings.check(
            not failed,
            "Every network was trained",
            f"{len(cells)} of {len(cells)}",
            f"{len(failed)} of {len(cells)} failed",
        )
    for cell in failed:
        where = f"{cell['network']} {cell['variant']} seed {cell['seed']}"
        findings.alert("serious", str(cell["error"]), [where])
    few = [row for row in rows if row.mean is not None and row.seeds < 2]
    if few:
        findings.alert("warning", "one seed: no interval, and no verdict")
    missing = [row for row in rows if row.mean is None]
    if missing:
        findings.alert(
            "warning",
            "no number yet",
            dict.fromkeys(f"{row.network} {row.variant}" for row in missing),
        )
    findings.alert("note", caption)
    findings.figures = [*_measures(rows), *_curves(cells)]
    findings.figures += [picture(*each) for each in content.get("images") or ()]
    findings.source = {
        key: content.get(key) for key in ("recipe", "size", "keras_spectral")
    }
    if settings:
        findings.details = [Detail("settings", "Settings", facts(settings))]
    return findings


def _measures(rows):
    """Return a figure a network and measure, with the paper's numbers."""
    groups: dict = {}
    for row in rows:
        if row.mean is not None:
            groups.setdefault((row.network, row.measure), []).append(row)
    for (network, measure), found in groups.items():
        printed = any(row.published is not None for row in found)
        labels = ("ours", "the paper's") if printed else ("ours",)
        yield dots(
            f"{network}: {measure.replace('_', ' ')}",
            [
                (
                    row.variant,
                    [
                        (row.mean, row.half_width_95),
                        None if row.published is None else (row.published, None),
                    ][: len(labels)],
                )
                for row in found
            ],
            labels,
            measure.replace("_", " "),
            "Lines are 95 % intervals of the mean over seeds.",
        )


def _curves(cells):
    """Return a figure a network and a number of its epochs, means over the seeds."""
    groups: dict = {}
    for cell in cells:
        if cell.get("history"):
            known = groups.setdefault(cell["network"], {})
            known.setdefault(cell["variant"], []).append(cell["history"])
    for network, variants in groups.items():
        first = next(iter(variants.values()))[0][0]
        across = "steps" if "steps" in first else "epoch"
        for key in first:
            if key in _COUNTERS or not isinstance(first[key], (int, float)):
                continue
            series = [
                Series(variant, *_mean(histories, across, key))
                for variant, histories in variants.items()
            ]
            yield chart(
                f"{network}: {key.replace('_', ' ')}",
                series,
                across,
                key.replace("_", " "),
                note="Means over the seeds that got as far.",
            )


def _mean(histories, across, key):
    longest = max(histories, key=len)
    places = sorted(
        {round(i * (len(longest) - 1) / (_POINTS - 1)) for i in range(_POINTS)}
    )
    found = []
    for place in places:
        values = [
            history[place][key]
            for history in histories
            if len(history) > place and history[place].get(key) is not None
        ]
        found.append(sum(values) / len(values) if values else None)
    return [longest[place][across] for place in places], found
