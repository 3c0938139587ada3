"""What a page says of `certify`, `verify`, `convert` and `inspect`."""

import math

from keras_spectral.report.charts import Series, chart
from keras_spectral.report.findings.parts import Findings, percent, table_of

_FEW_RADII = 8


def certified_chart(found):
    """Return the figure of the accuracy that is certified, by the radius.

    Args:
        found: Dict from labels to (the clean accuracy, rows with `radius` and
            `certified_accuracy`).
    """
    return chart(
        "Certified accuracy",
        [
            Series(
                label,
                [0.0, *(row["radius"] for row in rows)],
                [100 * accuracy, *(100 * row["certified_accuracy"] for row in rows)],
                # A line would tell of radii between, which nobody asked for.
                "line" if len(rows) > _FEW_RADII else "points",
            )
            for label, (accuracy, rows) in found.items()
        ],
        "radius, pixels from 0 to 1",
        "images, %",
        note="by radius; at 0 it is the clean accuracy.",
    )


def certificate(content, name) -> Findings:
    """Return what is to be said of `certify`."""
    rows = content["certified"]
    accuracy, constant = content["accuracy"], content["lipschitz_constant"]
    best = max((row["certified_accuracy"] for row in rows), default=0)
    shown = "above any float" if constant is None else f"{constant:.4g}"
    moved = ""
    if constant is not None:
        moved = f": logits move at most {shown} times as far as the input"
    findings = Findings(name, content)
    findings.tables = [
        table_of(
            "Certified accuracy",
            rows,
            {
                "radius": ("radius", ".4g"),
                "certified_accuracy": ("certified", ".2%"),
                "samples": ("images", None),
                "radius_255": ("radius × 255", ".4g"),
            },
            "An image counts where no change of the input within the radius, in the "
            "Euclidean norm of pixels from 0 to 1, can change the right answer. "
            f"Without any change {percent(accuracy)} are right.",
        )
    ]
    findings.figures = [certified_chart({"certified": (accuracy, rows)})]
    findings.check(
        best > 0,
        "The bound certifies something",
        f"up to {percent(best)} of {content['samples']:,} images",
        f"vacuous: no image at any radius (Lipschitz constant {shown})",
    )
    if not best:
        findings.alert("serious", "The bound is vacuous: it certifies no image")
    findings.check(
        True,
        "The bound is from above",
        "a certificate of norms, not a power iteration's estimate" + moved,
    )
    findings.check(
        None,
        "Rounding",
        "the bound is of exact arithmetic, a network in float32 rounds",
    )
    findings.source = {
        "clean accuracy": percent(accuracy),
        "Lipschitz constant": shown,
        "images": content["samples"],
        "an input moves, when a pixel moves by 1, by": content["pixel_scale"],
    }
    return findings


def comparison(content, name) -> Findings:
    """Return what is to be said of `verify`."""
    rows = content["tensors"]
    findings = Findings(f"{content['a']} and {content['b']}", content)
    findings.tables = [
        table_of(
            "Tensors",
            rows,
            {
                "name": ("tensor", None),
                "status": ("status", None),
                "relative_error": ("relative error", ".3g"),
            },
        )
    ]
    known: dict = {}
    for row in rows:
        known.setdefault(row["status"], []).append(row["name"])
    equal = len(known.pop("equal", ()))
    findings.check(
        content["equal"],
        "All tensors are equal",
        f"{equal} of {len(rows)}",
    )
    for status, names in known.items():
        severity = "warning" if status == "different" else "serious"
        findings.alert(severity, status, names)  # type: ignore[arg-type]
    findings.source = {"A": content["a"], "B": content["b"]}
    return findings


def card(content, name) -> Findings:
    """Return what is to be said of `convert`, and of a model's card."""
    findings = Findings(str(content.get("output") or name), content)
    verified = content.get("verification") or {}
    scope = verified.get("scope")
    why = verified.get("reason") or "no --verify"
    if scope:
        why = (
            f"{verified['layers']} of {verified['layers_in_all']} layers in "
            f"{verified['precision']}, against {verified['reference']}; "
            f"{scope} compared"
        )
        if verified.get("relative_error") is not None:
            why += f", largest relative error {verified['relative_error']:.1e}"
    whole = scope in ("network", "layers") and not verified.get("unchecked")
    findings.check(
        True if whole else None, "Every layer computes what the reference does", why
    )
    reasons: dict = {}
    for path, reason in (verified.get("why_unchecked") or {}).items():
        reasons.setdefault(reason, []).append(path)
    for reason, paths in reasons.items():
        findings.alert("warning", f"not checked: {reason}", paths)
    for note in content.get("notes") or ():
        findings.alert("note", str(note))
    for unseen in content.get("not_seen") or ():
        findings.check(None, "What no file tells", str(unseen))
    for data, accuracy in (content.get("accuracy") or {}).items():
        findings.check(True, f"Accuracy on {data}", percent(accuracy))
    findings.source = {
        key: value
        for key, value in content.items()
        if key not in ("verification", "notes", "not_seen", "example")
    }
    return findings


def inspection(content, name) -> Findings:
    """Return what is to be said of `inspect`."""
    findings = Findings(str(content["file"]), content)
    rows = [
        {
            "name": " = ".join([row["name"], *row["aliases"]]),
            "shape": " × ".join(map(str, row["shape"])) or "scalar",
            "dtype": row["dtype"],
            "numbers": math.prod(row["shape"]),
        }
        for row in content["tensors"]
    ]
    findings.tables = [table_of("Tensors", rows)]
    findings.check(True, "The file was read", "as data: nothing in it was executed")
    findings.check(None, "The weights", "nothing is measured: `analyze` does it")
    for note in content.get("notes") or ():
        findings.alert("note", str(note))
    kept = {key: value for key, value in content.items() if key != "tensors"}
    findings.source = kept
    return findings
