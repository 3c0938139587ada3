"""The pages of the API reference have every public name, and no other."""

from tests.documentation import ROOT, public_names

FOLDER = ROOT / "docs" / "api"


def pages():
    """Text of each page of the reference by its file's name."""
    found, rows = {}, []
    for module, names in public_names().items():
        title = module.removeprefix("keras_spectral").strip(".") or "keras_spectral"
        file = f"{title.replace('.', '_')}.md"
        lines = [f"# {title}", f"::: {module}\n    options:\n      members: false"]
        lines[1] += "\n      show_root_heading: false\n      show_root_toc_entry: false"
        lines += [f"::: {module}.{name}" for name in names]
        found[file] = "\n\n".join(lines) + "\n"
        shown = ", ".join(f"[`{n}`]({file}#{module}.{n})" for n in names)
        rows.append(f"| [`{title}`]({file}) | {shown} |")
    head = (
        "# API reference\n\nEvery public name, from the docstrings. Whatever is not "
        "here is private and may change\nin any version.\n\n| module | names |\n"
        "|---|---|\n"
    )
    return {"index.md": head + "\n".join(rows) + "\n", **found}


def test_the_pages_have_every_public_name():
    """To renew them: `python -m tests.test_reference_pages`."""
    made = pages()
    assert {path.name for path in FOLDER.glob("*")} == set(made)
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for file, text in made.items():
        assert (FOLDER / file).read_text(encoding="utf-8") == text
        assert f"api/{file}" in site


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.md"):
        old.unlink()
    for file, text in pages().items():
        (FOLDER / file).write_text(text, encoding="utf-8")
