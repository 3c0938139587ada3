"""HTML as values: whatever is no markup already is text, and cannot become any."""

import html
from importlib import resources

from keras_spectral.printable import printable

# A sentence with a list of names in it; of what is longer the middle is left out.
_LONGEST = 4000
# Without an end tag; the second line is of SVG.
_VOID = {
    *("br", "img", "input", "link", "meta"),
    *("circle", "line", "path", "polyline", "rect"),
}


class Markup(str):
    """HTML that is written as it stands."""

    __slots__ = ()


def text(value) -> Markup:
    """Return a value as HTML: `Markup` as it is, anything else escaped.

    Args:
        value: `Markup`, string, number or `None`, which is nothing; or an iterable of
            these.

    Example:
    >>> text("</script>")
    '&lt;/script&gt;'
    """
    if value is None:
        return Markup()
    if isinstance(value, Markup):
        return value
    if isinstance(value, (list, tuple)) or hasattr(value, "__next__"):
        return Markup("".join(map(text, value)))
    return Markup(html.escape(printable(str(value), _LONGEST)))


def element(name: str, /, *children, **attributes) -> Markup:
    """Return an element; strings among its children and attributes are escaped.

    Args:
        name: String, the tag: ours, never a stranger's.
        *children: See `text`.
        **attributes: Values; `_` of a name stands for `-`, and is dropped at its end.
            `True` is an attribute without a value; `None` and `False` leave it out.

    Example:
    >>> element("a", "1 < 2", class_="x", href="#top", hidden=True)
    '<a class="x" href="#top" hidden>1 &lt; 2</a>'
    """
    parts = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(key)
        elif value is not None and value is not False:
            parts.append(f'{key}="{text(value)}"')
    start = " ".join(parts)
    if name in _VOID:
        return Markup(f"<{start}/>")
    return Markup(f"<{start}>{text(children)}</{name}>")


def asset(package: str, name: str) -> Markup:
    """Return a file of ours, a script or a style, that is written into a page.

    Args:
        package: String, the package that it lies in.
        name: String, the file's name.
    """
    return Markup(resources.files(package).joinpath(name).read_text(encoding="utf-8"))
