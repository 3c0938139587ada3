"""Text from a stranger's file, made fit to be shown."""

_GAP = " ... "


def printable(text, most=300) -> str:
    r"""Return a text as one short line that no terminal obeys.

    What is not printable (escape sequences, line feeds, marks that turn the direction
    of writing, characters of no width, halves of surrogate pairs) is written as Python
    writes it in a string; of what is too long the middle is left out.

    Args:
        text: String, such as a tensor's name.
        most: Integer > 9, the most characters of the result.

    Returns:
        String that `str.isprintable` holds for.

    Example:
    >>> print(printable("\x1b[2Jweight\u202e"))
    \x1b[2Jweight\u202e
    >>> printable("conv" * 100, most=15)
    'convco ... conv'
    """
    if len(text) <= most and text.isprintable():
        return text
    # No more of it is looked at than is shown.
    shown = text if len(text) <= 2 * most else text[:most] + text[-most:]
    shown = "".join(x if x.isprintable() else ascii(x)[1:-1] for x in shown)
    if len(shown) <= most:
        return shown
    tail = (most - len(_GAP)) * 2 // 5
    return shown[: most - len(_GAP) - tail] + _GAP + shown[-tail:]
