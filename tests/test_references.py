"""Citations resolve: every key has an entry in docs/references.md, and the reverse."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
REFERENCES = (ROOT / "docs" / "references.md").read_text(encoding="utf-8")
KEY = re.compile(r"\[([a-z]+\d{4}\w*)\]")
# "Gouk et al. 2018", "Fan and Hoffman 1955": a work cited without its key.
AUTHOR_AND_YEAR = re.compile(r"\b[A-Z]\w+(?: et al\.)? (?:19|20)\d\d[a-z]?\b")
ENTRIES = dict(
    re.findall(
        r"^## \[(\S+)\]\n\n(.*?)(?=^## |\Z)", REFERENCES, re.MULTILINE | re.DOTALL
    )
)


def texts():
    """Everything but the references and this file that may cite, by its path."""
    folders = ("keras_spectral", "docs", "benchmarks", "examples", "tests")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    for path in sorted([*ROOT.glob("*.md"), *files]):
        if path.suffix in (".py", ".md", ".json") and path != Path(__file__):
            if path.name != "references.md":
                yield path.relative_to(ROOT), path.read_text(encoding="utf-8")


TEXTS = dict(texts())
SOURCES = [  # (where, a docstring's block on one line)
    (f"{path}:{node.name}", " ".join(block.split()))
    for path, text in TEXTS.items()
    if path.parts[0] == "keras_spectral" and path.suffix == ".py"
    for node in ast.walk(ast.parse(text))
    if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    for block in re.findall(
        r"^Source:.*?(?=\n\n|\Z)", ast.get_docstring(node) or "", re.M | re.S
    )
]


def mistakes(text):
    """What in a text names a source that a reader cannot find."""
    unknown = [key for key in KEY.findall(text) if key not in ENTRIES]
    anchors = re.findall(r"references\.md#(\w+)", text)
    unknown += [anchor for anchor in anchors if anchor not in ENTRIES]
    return unknown + re.findall(r"\bpapers/\S+", text)


def source_mistakes(text):
    """What in a `Source:` block does: it has a key, and cites by nothing else."""
    missing = [] if KEY.search(text) else ["no key"]
    return missing + AUTHOR_AND_YEAR.findall(text) + mistakes(text)


def test_mistakes_are_found():
    assert mistakes("[sanyal2020], and [nobody1999a]") == ["nobody1999a"]
    assert mistakes("[x]: references.md#nobody1999") == ["nobody1999"]
    assert mistakes("[x](docs/references.md#nobody1999)") == ["nobody1999"]
    assert mistakes("`papers/some.md`, eq. 1") == ["papers/some.md`,"]
    assert source_mistakes("Source: [sanyal2020], eq. 5 ([gouk2018]).") == []
    assert source_mistakes("Source: mimicry's module names.") == ["no key"]
    for work in ("Gouk et al. 2018", "Fan and Hoffman 1955", "He et al. 2016b"):
        (found,) = source_mistakes(f"Source: [sanyal2020]; {work}, eq. 1.")
        assert work.endswith(found)


def test_the_entries_are_told_apart_and_say_what_is_known_of_arxiv():
    assert len(ENTRIES) == REFERENCES.count("\n## ") > 40
    assert mistakes(REFERENCES) == []
    for key, entry in ENTRIES.items():
        known = " ".join(entry.split())
        assert re.search(
            r"arXiv: \d{4}\.\d{4,5}\.|arXiv id: not verified here\.|Older than arXiv\.",
            known,
        ), key
        assert "\n- " in entry, f"{key}: what of it is used?"


def test_citations_resolve():
    found = {path: mistakes(text) for path, text in TEXTS.items()}
    assert {path: wrong for path, wrong in found.items() if wrong} == {}


def test_sources_are_cited_by_key():
    assert len(SOURCES) > 100
    found = {name: source_mistakes(block) for name, block in SOURCES}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_every_entry_is_cited():
    cited = {key for text in TEXTS.values() for key in KEY.findall(text)}
    assert set(ENTRIES) - cited == set()
