"""What a page says of `compress` and `bound`: accuracies, sizes, assumptions."""

from keras_spectral.report.charts import dots
from keras_spectral.report.findings.parts import Findings, named, percent, table_of


def compression(content, name) -> Findings:
    """Return what is to be said of `compress`."""
    rows = content["replacements"]
    findings = Findings(name, content)
    findings.tables = [replacements(rows)]
    accurate = [row for row in rows if row["compressed_accuracy_mean"] is not None]
    if accurate:
        findings.figures = [accuracies(accurate)]
    check_control(findings, accurate)
    if content.get("bytes"):
        whole, small, control = (
            content[key] for key in ("float32_bytes", "bytes", "int8_bytes")
        )
        before = rows[0]["original_accuracy"]
        sizes = [
            ("float32", whole, before),
            ("int8 alone", control, content.get("int8_accuracy")),
            (
                f"{content['rule']}, {content['replacement']}, {content['values']}",
                small,
                content["accuracy"],
            ),
        ]
        findings.tables.append(
            table_of(
                "The file",
                [
                    dict(form=form, bytes=size, smaller=whole / size, accuracy=after)
                    for form, size, after in sizes
                ],
                {
                    "form": ("form", None),
                    "bytes": ("bytes", ",d"),
                    "smaller": ("times smaller", ".2f"),
                    "accuracy": ("accuracy", ".2%"),
                },
                "int8 alone: the control, every matrix rounded, nothing replaced.",
            )
        )
        findings.check(
            small < control,
            "The file is smaller than int8 alone",
            f"{small:,} bytes, int8 alone {control:,}",
        )
        if content["accuracy"] is not None:
            lost = before - content["accuracy"]
            findings.check(
                lost <= 0.01,
                "The file loses at most one point of accuracy",
                f"{percent(before)} before, {percent(content['accuracy'])} after",
            )
    else:
        findings.check(None, "The file's size", "nothing was written: no --output")
    known = ("rule", "replacement", "deviations", "values", "rank_ratio")
    findings.source = {key: content.get(key) for key in known}
    return findings


def replacements(rows, title="Replacing small weights"):
    """Return the table of `compression.CompressionRow`s as dicts."""
    return table_of(
        title,
        rows,
        {
            "name": ("layer", None),
            "rule": ("rule", None),
            "replacement": ("replaced by", None),
            "alpha_pdf": ("alpha", ".2f"),
            "kept": ("kept", ".1%"),
            "relative_error": ("error", ".3f"),
            "original_accuracy": ("before", ".2%"),
            "compressed_accuracy_mean": ("after", ".2%"),
            "compressed_accuracy_sd": ("sd", ".2%"),
        },
        "zero is the control: noise that does not beat it has not helped.",
    )


def accuracies(rows):
    """Return the figure of accuracy before and after."""
    return dots(
        "Accuracy before and after",
        [
            (
                f"{row['rule']}, {row['replacement']}",
                [
                    (100 * row["original_accuracy"], None),
                    (
                        100 * row["compressed_accuracy_mean"],
                        100 * (row["compressed_accuracy_sd"] or 0),
                    ),
                ],
            )
            for row in rows
        ],
        ("before", "after"),
        "accuracy, %",
        "by rule and replacement; lines are one standard deviation.",
    )


def check_control(findings, accurate):
    """Check that noise does better than zeros, where accuracies are known.

    It must be so in more than half of what was tried: of many checkpoints a few gain
    more than a standard deviation by chance.

    Args:
        findings: `Findings`, which gets the check.
        accurate: List of rows as dicts. Those of several checkpoints have their `file`.
    """
    if not accurate:
        findings.check(None, "Noise beats zeros, the control", "no --data was given")
        return
    groups: dict = {}
    for row in accurate:
        mine = groups.setdefault((row.get("file"), row["rule"]), {})
        mine[row["replacement"]] = row
    wins, compared = [], 0
    for (file, rule), mine in groups.items():
        zero = mine.pop("zero", None)
        for word, row in mine.items() if zero else ():
            compared += 1
            spread = row["compressed_accuracy_sd"] or 0
            gain = row["compressed_accuracy_mean"] - zero["compressed_accuracy_mean"]
            if gain > spread:
                name = "" if file is None else f"{row['name']} "
                wins.append(f"{name}({rule}, {word})")
    which = f": {named(wins)}" if wins else ""
    findings.check(
        2 * len(wins) > compared if compared else None,
        "Noise beats zeros, the control",
        f"in {len(wins)} of {compared} comparisons, by more than a standard deviation"
        f"{which}"
        if compared
        else "zeros were not tried beside noise",
    )


def bound(content, name) -> Findings:
    """Return what is to be said of `bound`."""
    best = content["best"]
    findings = Findings(name, content)
    findings.tables = [
        table_of(
            "Settings",
            content["settings"],
            {
                "kept": ("kept", ".1%"),
                "value_bits": ("bits a value", None),
                "bits": ("all bits", ",.0f"),
                "training_error": ("training error", ".2%"),
                "bound": ("bound", ".3f"),
                "hoeffding": ("by Hoeffding", ".3f"),
                "vacuous": ("vacuous", None),
                "most_bits": ("most bits", ",.0f"),
            },
        ),
        table_of("What the bound rests on", content["assumptions"]),
    ]
    findings.check(
        not best["vacuous"],
        "The bound says more than guessing",
        f"true error at most {best['bound']:.3f}",
        f"vacuous: {best['bound']:.3f}, and guessing errs less",
    )
    if best["vacuous"]:
        findings.alert("serious", "The bound is vacuous: guessing errs less")
    for each in content["assumptions"]:
        status = {"PASS": True, "FAIL": False}.get(each["status"])
        findings.check(status, each["name"], each["detail"])
    findings.source = best
    return findings
