"""Results as one self-contained page: no request, no script but ours, or none at all.

Plain functions make the HTML, not a template engine: most of a page is made by loops
and drawing, and `markup.element` escapes as such an engine does, with one library less.
"""

import base64
import hashlib
import json
import sys
from importlib import metadata

import keras_spectral
from keras_spectral.json_text import plain
from keras_spectral.markup import Markup, asset, element
from keras_spectral.report.comparisons import comparisons, overlays
from keras_spectral.report.findings import findings_of
from keras_spectral.report.findings.parts import SEVERITIES, Findings, facts
from keras_spectral.report.saved import read_result
from keras_spectral.results import Rows
from keras_spectral.tables import Table

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# More are no comparison by eye.
MOST = len(_LETTERS)
_VERSIONS = ("keras", "tensorflow", "numpy")
# By it a page is known that may be replaced; it stands within the first bytes.
_GENERATOR = element("meta", name="generator", content="keras_spectral")
_BEGINNING = 1024
_SEVERITY = {"serious": "Serious", "warning": "Warning", "note": "Note"}


def page(results, command: str | None = None) -> str:
    """Return an HTML page of results; several of one kind are compared.

    On top stands what was checked, then what to know before the numbers, the numbers,
    where they are from, and the numbers again as JSON and CSV. It is one file that asks
    for nothing, under a Content-Security-Policy that allows nothing else. Without
    scripts all of it can be read; with them tables sort and filter.

    Args:
        results: `Rows`, or what `--json` of a verb prints (dict or list), or a dict
            from names to several of these under the key `"results"`.
        command: String, the command that makes the page again, or `None`.

    Returns:
        String, the page.

    Raises:
        ValueError: If there is no result, too many, or one cannot be read.

    Example:
    >>> import dataclasses
    >>> from keras_spectral.results import Rows
    >>> row = dataclasses.make_dataclass("Row", ["name", "norm"])("dense", 2.5)
    >>> text = page(Rows([row], title="Norms"))
    >>> text.startswith("<!doctype html>"), "dense" in text
    (True, True)
    """
    found = _all_findings(results)
    letters = list(_LETTERS[: len(found)]) if len(found) > 1 else [""]
    title = " and ".join(each.title for each in found[:3])
    title += f" and {len(found) - 3} more" if len(found) > 3 else ""
    style = asset("keras_spectral", "tables.css") + asset(__package__, "page.css")
    script = asset("keras_spectral", "tables.js") + asset(__package__, "page.js")
    # A line feed is the same byte in the file and in the browser.
    style, script = Markup(f"\n{style}"), Markup(f"\n{script}")
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src 'sha256-{_digest(style)}'; script-src 'sha256-{_digest(script)}'"
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        _GENERATOR,
        # Quotes of a policy are no text of a stranger's.
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", style),
    )
    body = element(
        "body",
        element(
            "header", _kicker(found), element("h1", title), _contents(found, letters)
        ),
        element(
            "main",
            _checked(found, letters),
            _alerts(found, letters),
            _compared(found, letters),
            [_section(*pair) for pair in zip(found, letters, strict=True)],
            _origin(found, letters, command),
        ),
        element("script", script),
        class_="keras-spectral",
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def is_page(path) -> bool:
    """Return whether a file is a page that was made here.

    Args:
        path: `pathlib.Path` of a file.

    Example:
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "page.html")
    ...     _ = path.write_text(page([{"name": "dense", "stable_rank": 3.0}]))
    ...     is_page(path)
    True
    """
    with path.open("rb") as file:
        return str(_GENERATOR).encode() in file.read(_BEGINNING)


def page_of_files(paths, command: str | None = None) -> str:
    """Return the page of results that verbs have left in files, side by side.

    Args:
        paths: List of paths, see `saved.read_result`.
        command: See `page`.

    Returns:
        String, the page.

    Raises:
        ValueError: As `page`, or if a path holds no result.
        OSError: If a file cannot be read.

    Example:
    >>> import tempfile
    >>> from pathlib import Path
    >>> rows = '[{"name": "fc", "spectral_norm": 2.0, "stable_rank": 3.0}]'
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "spectrum.json"
    ...     _ = path.write_text(rows)
    ...     text = page_of_files([path])
    >>> text[:15]
    '<!doctype html>'
    """
    found = {}
    for path in paths:
        # The same run twice is compared with itself.
        name = str(path) if str(path) not in found else f"{path} ({len(found) + 1})"
        found[name] = read_result(path)
    return page({"results": found}, command)


def _digest(text):
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _all_findings(results):
    several = isinstance(results, dict) and set(results) == {"results"}
    named = results["results"].items() if several else [("Results", results)]
    if not 1 <= len(named) <= MOST:
        raise ValueError(
            f"`results` must be from 1 to {MOST} results. Received: {len(named)}"
        )
    return [
        _of_rows(each, name)
        if isinstance(each, Rows)
        else findings_of(plain(each), name)
        for name, each in named
    ]


def _of_rows(rows, name):
    content = rows.content()
    if type(rows).content is not Rows.content:
        return findings_of(content, rows.title or name)
    parts = rows.tables()
    findings = Findings(rows.title or name, content)
    findings.tables = [part for part in parts if isinstance(part, Table)]
    for text in getattr(rows, "alerts", ()):
        findings.alert("warning", str(text))
    for left in getattr(rows, "left_out", ()):
        findings.alert("note", f"left out: {left}")
    findings.check(None, "What the numbers mean", "this kind of result has no checks")
    return findings


def _with_letter(letter, text):
    return [element("b", letter, class_="letter"), " ", text] if letter else text


def _kicker(found):
    verbs = " and ".join(dict.fromkeys(filter(None, (each.kind for each in found))))
    return element("p", f"keras-spectral {verbs}".strip(), class_="kicker")


def _contents(found, letters):
    names = [
        element("a", _with_letter(letter, each.title), href=f"#result-{number}")
        for number, (each, letter) in enumerate(zip(found, letters, strict=True), 1)
    ]
    if len(found) == 1:
        return None
    return element("ul", [element("li", name) for name in names], class_="runs")


def _checked(found, letters):
    rows = [
        (letter, check)
        for each, letter in zip(found, letters, strict=True)
        for check in each.checks
    ]
    if not rows:
        return None
    counts = {
        status: sum(check.status == status for _, check in rows)
        for status in ("FAIL", "UNTESTED", "PASS")
    }
    rows.sort(key=lambda row: list(counts).index(row[1].status))
    items = [
        element(
            "li",
            element("span", check.status, class_=f"status {check.status.lower()}"),
            element(
                "span",
                _with_letter(letter, element("b", check.what)),
                ": ",
                check.why,
            ),
        )
        for letter, check in rows
    ]
    summary = ", ".join(f"{count} {status}" for status, count in counts.items())
    return element(
        "section",
        element("h2", "What was checked"),
        element("p", summary),
        element("ul", items, class_="checks"),
    )


def _alerts(found, letters):
    rows = [
        (letter, alert)
        for each, letter in zip(found, letters, strict=True)
        for alert in each.alerts
    ]
    rows.sort(key=lambda row: SEVERITIES.index(row[1].severity))
    if not rows:
        return None
    return element(
        "section",
        element("h2", "What to know first"),
        element("ul", [_alert(*row) for row in rows], class_="checks"),
    )


def _alert(letter, alert):
    count = len(alert.where)
    names = element("span", ", ".join(alert.where), class_="names")
    where = None
    if count > 3:
        where = element(
            "details", element("summary", f"{count} names"), element("p", names)
        )
    elif count:
        where = element("span", " ", names)
    return element(
        "li",
        element("span", _SEVERITY[alert.severity], class_=f"status {alert.severity}"),
        element("div", _with_letter(letter, element("b", alert.what)), where),
    )


def _compared(found, letters):
    groups: dict = {}
    for each, letter in zip(found, letters, strict=True):
        table = each.compared or next(iter(each.tables), None)
        if table is not None:
            groups.setdefault(each.kind, []).append((letter, table))
    parts = [
        part
        for group in groups.values()
        if len(group) > 1
        for part in comparisons(group)
    ]
    curves = [each.curves for each in found]
    parts += overlays(list(zip(letters, curves, strict=True)))
    if not parts:
        return None
    return element("section", element("h2", "Side by side"), parts)


def _section(findings, letter):
    number = _LETTERS.index(letter) + 1 if letter else 1
    title = findings.title if letter else "Results"
    figures = element("div", findings.figures, class_="figures")
    others = [table.to_html() for table in findings.tables[1:]]
    return element(
        "section",
        element("h2", _with_letter(letter, title), id=f"result-{number}"),
        [table.to_html(f"result-{number}-") for table in findings.tables[:1]],
        figures if findings.figures else None,
        element("div", others, class_="tables" if len(others) > 2 else None),
        _details(findings.details, number),
    )


def _details(details, number):
    if not details:
        return None
    parts = [
        element(
            "details",
            element("summary", each.title),
            each.content,
            id=f"result-{number}-{each.anchor}",
            class_="layer",
        )
        for each in details
    ]
    return element("div", element("h3", "In detail"), parts, class_="details")


def _origin(found, letters, command):
    versions = {"keras_spectral": keras_spectral.__version__}
    versions["Python"] = sys.version.split()[0]
    for name in _VERSIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    parts = [element("h3", "Made with"), facts(versions)]
    if command:
        parts += [
            element("h3", "This page again"),
            element("pre", element("code", command), tabindex="0"),
        ]
    for number, (each, letter) in enumerate(zip(found, letters, strict=True), 1):
        name = f"result-{number}" if letter else "results"
        if letter:
            parts.append(element("h3", _with_letter(letter, each.title)))
        if each.source:
            parts.append(facts(each.source))
        content = each.content
        if isinstance(content, dict):
            # The page shows them.
            content = {key: x for key, x in content.items() if key != "images"}
        text = json.dumps(content, separators=(",", ":"))
        links = [_download(f"{name}.json", "application/json", text, "JSON")]
        for place, table in enumerate(each.tables, 1):
            label = f"CSV of “{table.title}”"
            links.append(
                _download(f"{name}-{place}.csv", "text/csv", table.to_csv(), label)
            )
        items = [element("li", link) for link in links]
        parts.append(element("ul", items, class_="downloads"))
    return element("section", element("h2", "Where it is from, and the data"), parts)


def _download(name, kind, text, label):
    # Halves of surrogate pairs are in no file.
    data = base64.b64encode(text.encode(errors="backslashreplace")).decode()
    return Markup(
        element("a", label, download=name, href="#")
        .replace('href="#"', f'href="data:{kind};base64,{data}"')
    )  # fmt: skip
