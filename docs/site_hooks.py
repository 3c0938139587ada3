"""What the site does that no plugin does.

Citations in docstrings become links, examples in them blocks of code, links out of the
pages that are made elsewhere lead to pages, and no page asks for anything elsewhere.
"""

import re
from pathlib import Path

import griffe
from mkdocs.exceptions import PluginError

_KEY = re.compile(r"\[([a-z]+\d{4}\w*)\](?![(:\[])")
_EXAMPLE = re.compile(r"^(?:>>> .*\n?)(?:\S.*\n?| .*\n?)*", re.MULTILINE)


def on_page_markdown(markdown, page, config, files):
    """Let the folder of recipes be their page."""
    return markdown.replace("(../../zoo)", "(../recipes.md)")


def on_page_content(html, page, config, files):
    """Link `[sanyal2020]` to its entry, on pages made of docstrings."""
    if not page.file.src_uri.startswith("api/"):
        return html
    return _KEY.sub(r'<a href="../references.html#\1">[\1]</a>', html)


def requested(text):
    """What a page or style sheet loads from another host."""
    return [
        found
        for pattern in (
            r"<(?!a\b)\w+[^>]*?\s(?:src|href|srcset|data)=[\"']?((?:https?:)?//[^\"'\s>]+)",
            r"@import\s+(?:url\()?[\"']?((?:https?:)?//[^\"')\s;]+)",
            r"url\(\s*[\"']?((?:https?:)?//[^\"')\s]+)",
        )
        for found in re.findall(pattern, text)
    ]


def on_post_build(config):
    """Refuse a site that is not whole by itself."""
    for path in Path(config["site_dir"]).rglob("*"):
        if path.suffix in (".html", ".css"):
            found = requested(path.read_text(encoding="utf-8"))
            if found:
                raise PluginError(f"{path.name} loads {found[0]}")


class Examples(griffe.Extension):
    """Fences the examples of docstrings, which stand without an indent.

    "Call arguments" becomes a section that griffe knows.
    """

    def on_object(self, *, obj, **kwargs):
        if obj.docstring:
            text = obj.docstring.value.replace(
                "\nCall arguments:\n", "\nOther Parameters: Call arguments\n"
            )
            obj.docstring.value = _EXAMPLE.sub(
                lambda match: f"\n```pycon\n{match[0].rstrip()}\n```\n", text
            )
