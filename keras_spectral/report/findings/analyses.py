"""What a page says of `analyze`: spectra and power laws of each matrix."""

import dataclasses
import math
from pathlib import Path

from keras_spectral.markup import element
from keras_spectral.report.charts import Series, chart, thinned
from keras_spectral.report.findings.parts import (
    Detail,
    Findings,
    facts,
    named,
    restored,
    table_of,
)

# Points of a curve: more are not seen, and a page of 100 layers has a size.
_POINTS = 40
# Where exponents of eigenvalues are usual [martin2021].
_USUAL = 2, 6
_NO_SPECTRUM = 1e-12


def analysis(content, name) -> Findings:
    """Return what is to be said of `analyze`."""
    from keras_spectral.experiments.analysis_rows import Analysis, AnalysisRow

    rows = [restored(AnalysisRow, row) for row in content["tensors"]]
    skipped, source = content["skipped"], content["source"]
    origin = str(source.get("file") or source.get("model") or name)
    found = Analysis(
        rows,
        title=f"{len(rows)} matrices",
        caption="norm, stable rank: of the tensor flattened by its filters. alpha: "
        "exponent of a density ± its error, ? where the fit is not to be relied on. "
        "spikes: eigenvalues above the edge of random entries, and in brackets those "
        "of the same entries shuffled.",
    )
    (table,) = found.tables()
    for number, line in enumerate(table.rows, 1):
        line[1] = line[1]._replace(anchor=f"layer-{number}")
    thin = [{**row, "eigenvalues": _thin(row)} for row in content["tensors"]]
    findings = Findings(
        Path(origin).name,
        {**content, "tensors": thin},
        tables=[table],
        source=dict(source),
    )
    _check_analysis(findings, rows, skipped)
    numbers = list(range(1, len(rows) + 1))
    findings.figures = [
        chart(
            "Stable ranks",
            [
                Series("rank at most", numbers, [len(r.eigenvalues) for r in rows]),
                Series("stable rank", numbers, [r.stable_rank for r in rows], "points"),
            ],
            "matrix, by its number in the table",
            "stable rank",
            (False, True),
            note="of each matrix, flattened by its filters.",
        ),
        chart(
            "Exponents of the eigenvalues' densities",
            [
                _exponents("reliable fit", rows, True),
                _exponents("not reliable", rows, False),
            ],
            "matrix, by its number in the table",
            "alpha of W'W",
            (False, True),
            note="of W'W. Below 2 tails are heavy, above 6 hardly any.",
        ),
    ]
    findings.curves = {row.name: _spectrum(row)[1] for row in rows}
    findings.details = [
        Detail(f"layer-{number}", f"{number}: {row.name}", _layer(row))
        for number, row in enumerate(rows, 1)
    ]
    if skipped:
        reasons: dict = {}
        for key, reason in skipped.items():
            reasons.setdefault(reason, []).append(key)
        lines = [
            {"tensors": len(keys), "reason": reason, "names": named(keys)}
            for reason, keys in reasons.items()
        ]
        findings.tables.append(table_of("What was skipped, and why", lines))
    return findings


def _exponents(label, rows, reliable):
    chosen = [
        (number, row.eigenvalue_alpha)
        for number, row in enumerate(rows, 1)
        if (row.eigenvalue_status == "ok") == reliable
        and math.isfinite(row.eigenvalue_alpha)
    ]
    return Series(label, [x for x, _ in chosen], [y for _, y in chosen], "points")


def _check_analysis(findings, rows, skipped):
    usual = "no weights", "no matrix", "a single number", "optimizer", "the same tensor"
    usual += "spectral normalization", "a mask"
    lost = {k: v for k, v in skipped.items() if not any(word in v for word in usual)}
    findings.check(
        not lost,
        "Every matrix of the file is measured",
        f"{len(rows)} matrices; {len(skipped)} other tensors are none",
        f"{len(lost)} are not: {named(lost)}; the reasons are below",
    )
    findings.alert("serious", "not measured", lost, whenever=False)
    ok = [row for row in rows if row.eigenvalue_status == "ok"]
    findings.check(
        True if len(ok) == len(rows) else None,
        "Exponents of the eigenvalues can be relied on",
        f"{len(ok)} of {len(rows)}: of the others the tail has few numbers or is "
        "narrow, and the table marks them",
    )
    shuffled = [row.name for row in rows if row.shuffled_spikes]
    findings.check(
        not shuffled,
        "Spikes come of the structure, not of large entries",
        "the same entries shuffled have none",
        f"shuffled entries have some, too: {named(shuffled)}",
    )
    findings.check(None, "Accuracy", "an analysis reads weights alone")
    dead = [row.name for row in rows if row.spectral_norm < 1e-6]
    findings.alert("serious", "nearly zero: a dead layer", dead, whenever=False)
    flat = [row.name for row in rows if row.stable_rank < 1.05]
    findings.alert(
        "warning", "stable rank 1: one direction is nearly all", flat, whenever=False
    )
    low, high = _USUAL
    findings.alert(
        "warning",
        f"alpha of W'W below {low}: heavier tails than trained networks usually have",
        [row.name for row in ok if row.eigenvalue_alpha < low],
        whenever=False,
    )
    findings.alert(
        "note",
        f"alpha of W'W above {high}: hardly a heavy tail, as after little training",
        [row.name for row in ok if row.eigenvalue_alpha > high],
        whenever=False,
    )
    notes: dict = {}
    for row in rows:
        if row.note:
            notes.setdefault(row.note, []).append(row.name)
    for note, names in notes.items():
        findings.alert("note", note, names)


def _thin(row):
    values = row["eigenvalues"]
    return [float(f"{values[i]:.5g}") for i in thinned(len(values), _POINTS)]


def _spectrum(row):
    """Return eigenvalues that are none of rounding, and their curve."""
    largest = row.eigenvalues[0] if row.eigenvalues else 0
    # Squares of rounding errors are no spectrum.
    values = [x for x in row.eigenvalues if x > _NO_SPECTRUM * largest]
    places = thinned(len(values), _POINTS)
    x = [values[i] for i in places]
    shares = [(i + 1) / len(values) for i in places]
    return values, Series("eigenvalues", x, shares, "step")


def _layer(row):
    """Return a layer's spectrum with its fitted law, and all its numbers."""
    values, curve = _spectrum(row)
    series = [curve]
    marks = [(row.bulk_edge, "edge of random entries")]
    if math.isfinite(row.eigenvalue_alpha) and math.isfinite(row.eigenvalue_xmin):
        start = row.eigenvalue_xmin
        tail = sum(value >= start * (1 - 1e-12) for value in values) / len(values)
        over = [value for value in curve.x if value > start] + [start]
        law = [tail * (value / start) ** (1 - row.eigenvalue_alpha) for value in over]
        label = f"fitted law, alpha {row.eigenvalue_alpha:.2f}"
        if row.eigenvalue_status != "ok":
            label += f" ({row.eigenvalue_status})"
        series.append(Series(label, over, law))
    figure = chart(
        "Eigenvalues of W'W",
        series,
        "eigenvalue",
        "share above",
        (True, True),
        [mark for mark in marks if math.isfinite(mark[0])],
        note=f"{row.spikes} lie above the edge.",
    )
    names = [field.name for field in dataclasses.fields(row)]
    plain = {name: getattr(row, name) for name in names if name != "eigenvalues"}
    return element("div", figure, facts(plain), class_="pair")
