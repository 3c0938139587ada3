"""What a page says of `sweep`, `evaluate-gan`, `demo`, and of anything else."""

from pathlib import Path

from keras_spectral.report.charts import Series, chart, thinned
from keras_spectral.report.findings.checkpoints import certified_chart
from keras_spectral.report.findings.compressions import check_control, replacements
from keras_spectral.report.findings.parts import (
    Findings,
    named,
    percent,
    picture,
    table_of,
)
from keras_spectral.tables import Column, cell

_POINTS = 60
# A distance of fewer images is far from that of many.
_FEW_IMAGES = 10_000


def sweep(content, name) -> Findings:
    """Return what is to be said of `sweep`."""
    rows = [{**row, "name": Path(row["file"]).stem} for row in content["rows"]]
    good = [row for row in rows if row["error"] is None]
    findings = Findings(
        f"Sweep of {len(rows)} checkpoint{'s' * (len(rows) > 1)}", content
    )
    findings.tables = [
        table_of(
            "Final dense layers",
            good,
            {
                "name": ("checkpoint", None),
                "dataset": ("data", None),
                "classes": ("classes", None),
                "compressed": ("weights", ",d"),
                "share": ("share", ".3%"),
                "alpha_pdf": ("alpha", ".2f"),
                "standard_error": ("its error", ".2f"),
                "status": ("fit", None),
                "stable_rank": ("stable rank", ".2f"),
                "original_accuracy": ("accuracy", ".2%"),
            },
            "alpha: exponent of the density of |w|. share: compressed weights of all "
            "that the network trains.",
        )
    ]
    lines = [
        {**each, "name": row["name"], "file": row["file"]}
        for row in good
        for each in row["compressions"]
        if each["compressed_accuracy_mean"] is not None
    ]
    if lines:
        findings.tables.append(replacements(lines, "Accuracy before and after"))
    reliable = [row for row in good if row["status"] == "ok"]
    if reliable:
        findings.figures = [
            chart(
                "Stable rank against alpha",
                [
                    Series(
                        str(word),
                        [
                            row["alpha_pdf"]
                            for row in reliable
                            if row["dataset"] == word
                        ],
                        [
                            row["stable_rank"]
                            for row in reliable
                            if row["dataset"] == word
                        ],
                        "points",
                    )
                    for word in dict.fromkeys(row["dataset"] for row in reliable)
                ],
                "alpha of |w|",
                "stable rank",
                note="of fits that can be relied on.",
            )
        ]
    findings.finished(content.get("status"))
    findings.check(
        len(good) == len(rows),
        "Every checkpoint was measured",
        f"{len(good)} of {len(rows)}",
    )
    missing = content.get("missing") or []
    findings.check(
        None if missing else True,
        "Every network that was asked for has weights",
        f"no file for {named(missing)}" if missing else "all",
    )
    check_control(findings, lines)
    for row in rows:
        if row["error"]:
            findings.alert("serious", row["error"], [row["name"]])
        elif row["note"]:
            findings.alert("warning", row["note"], [row["name"]])
    unreliable = [row["name"] for row in good if row["status"] != "ok"]
    findings.alert(
        "warning", "exponent not reliable, see the fit", unreliable, whenever=False
    )
    findings.source = {"keras_spectral": content.get("keras_spectral")}
    return findings


def evaluation(content, name) -> Findings:
    """Return what is to be said of `evaluate-gan`."""
    scores = content["scores"]
    findings = Findings(name, content)
    columns = {
        "metric": ("metric and protocol", None),
        "value": ("value", ".5g"),
        "direction": ("better", None),
        "spread": ("spread", ".2g"),
        "spread_of": ("spread is", None),
        "low": ("from", ".4g"),
        "high": ("to", ".4g"),
        "chance": ("by chance", ".4g"),
    }
    findings.tables = [
        table_of(
            "Scores",
            scores,
            columns,
            "Only numbers of one protocol compare: network, resize, counts, steps.",
        )
    ]
    for title, rows in content["distributions"].items():
        findings.tables.append(table_of(title.capitalize(), rows))
        findings.figures.append(_quantiles(title, rows))
    fewest = min((row["generated"] for row in scores), default=0)
    findings.check(
        fewest >= _FEW_IMAGES or None,
        "As many images as papers take",
        f"{fewest:,} were generated",
        f"{fewest:,}; distances of fewer than {_FEW_IMAGES:,} are biased",
    )
    findings.check(None, "Whether images are copied", "no metric here looks for it")
    findings.figures += [picture(*each) for each in content.get("images") or ()]
    return findings


def _quantiles(title, rows):
    places = {
        "minimum": 0, "percentile_10": 10, "median": 50, "percentile_90": 90,
        "percentile_95": 95, "maximum": 100,
    }  # fmt: skip
    return chart(
        title.capitalize(),
        [
            Series(row["name"], list(places.values()), [row[key] for key in places])
            for row in rows
        ],
        "percentile",
        title,
        note="by percentile.",
    )


def demo(content, name) -> Findings:
    """Return what is to be said of `demo`."""
    findings = Findings("Demo", content)
    # Another version's may not say.
    radius = (content.get("settings") or {}).get("radius", "a radius")
    findings.tables = [
        table_of(
            "Normalization, side by side",
            content["training"],
            {
                "name": ("network", None),
                "random_labels_accuracy": ("noise learned", ".1%"),
                "train_accuracy": ("train", ".1%"),
                "test_accuracy": ("test", ".1%"),
                "certified_accuracy": ("certified", ".1%"),
                "lipschitz_bound": ("Lipschitz bound", ".3g"),
                "sum_of_stable_ranks": ("stable ranks", ".1f"),
            },
            "Noise learned: train accuracy of the same network on labels "
            "drawn at random. There is nothing to learn but each by itself: lower is "
            "better. The other columns are of training on true labels. Certified: "
            "right, and not turned by any change of the pixels below "
            f"{radius} in the Euclidean norm. Stable ranks: "
            "their sum over all layers.",
        )
    ]
    findings.figures = list(_learned(content))
    for model, rows in content["spectra"].items():
        findings.tables.append(_spectrum(f"Spectrum of {model}", rows))
    if content["spectra"]:
        findings.figures += _spectra(content["spectra"])
    checked = {row["name"]: row for row in content["import"]}
    if checked:
        findings.tables.append(
            table_of(
                "Import from PyTorch",
                content["import"],
                caption="What PyTorch said of its file, and what the Keras model "
                "computes. Logits may differ by 1e-4.",
            )
        )
        row = checked["test accuracy"]
        findings.check(
            row["pytorch"] == row["keras"],
            "The imported network has PyTorch's accuracy",
            f"{percent(row['keras'])}, PyTorch {percent(row['pytorch'])}",
        )
    files = content["files"]
    if files:
        columns = {
            "name": ("file", None),
            "bytes": ("bytes", ",d"),
            "times_smaller": ("times smaller", ".2f"),
            "test_accuracy": ("test", ".2%"),
        }
        caption = "int8 alone is the control: every weight rounded, none left out."
        findings.tables.append(table_of("Files", files, columns, caption))
        before, after = files[0]["test_accuracy"], files[-1]["test_accuracy"]
        findings.check(
            after >= before,
            "The small file is as accurate as the network",
            f"{percent(after)}, {files[-1]['times_smaller']:.2f} times smaller",
            f"{percent(after)}, before {percent(before)}",
        )
    findings.finished(content.get("status"))
    known = "keras_spectral", "keras", "backend", "settings"
    findings.source = {key: content.get(key) for key in known}
    return findings


def _learned(content):
    """Yield the figures of what was learned by heart, and of what is certified."""
    curves = content["memorization"]
    if curves:
        yield chart(
            "Noise learned by heart",
            [
                Series(name, list(range(1, len(curve) + 1)), curve)
                for name, curve in curves.items()
            ],
            "epoch",
            "share of random labels",
            note="by epoch: train accuracy on random labels.",
        )
    clean = {row["name"]: row["test_accuracy"] for row in content["training"]}
    if content["certified"]:
        yield certified_chart(
            {name: (clean[name], rows) for name, rows in content["certified"].items()}
        )


def _spectrum(title, rows):
    columns = {
        "name": ("layer", None),
        "spectral_norm": ("norm", ".4g"),
        "frobenius_norm": ("Frobenius norm", ".4g"),
        "stable_rank": ("stable rank", ".1f"),
    }
    table = table_of(title, rows, columns, "Of the flattened kernels.")
    table.columns.append(Column("spectrum", "spectrum"))
    for line, row in zip(table.rows, rows, strict=True):
        line.append(cell(tuple(row["singular_values"])))
    return table


def _spectra(spectra):
    """Yield a figure a layer that all models have: singular values, normalized."""
    shared = set.intersection(*({r["name"] for r in x} for x in spectra.values()))
    for first in next(iter(spectra.values())):
        if first["name"] not in shared:
            continue
        series = []
        for model, rows in spectra.items():
            row = next(row for row in rows if row["name"] == first["name"])
            values = row["singular_values"]
            places = thinned(len(values), _POINTS)
            shares = [values[i] / values[0] if values[0] else None for i in places]
            label = f"{model}, stable rank {row['stable_rank']:.1f}"
            series.append(Series(label, [i + 1 for i in places], shares))
        yield chart(
            f"Singular values of {first['name']}",
            series,
            "index",
            "singular value / largest",
            note="of the flattened kernel that the layer computes with.",
        )


def _are_rows(value):
    return isinstance(value, list) and value and all(isinstance(x, dict) for x in value)


def anything(content, name) -> Findings:
    """Return what is to be said of a result of no known kind: tables of its rows."""
    if isinstance(content, list):
        content = {"rows": content}
    findings = Findings(str(content.get("title") or name), content)
    for key, value in content.items():
        if _are_rows(value):
            findings.tables.append(table_of(str(key).replace("_", " "), value))
    if not findings.tables:
        findings.alert("serious", "no rows: nothing of this result is a table")
    findings.finished(content.get("status"))
    findings.check(None, "What the numbers mean", "this kind of result has no checks")
    findings.source = {
        key: value for key, value in content.items() if not _are_rows(value)
    }
    return findings
