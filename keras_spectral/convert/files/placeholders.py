"""What a pickle asks for, put down instead of made.

None of these prints what it holds: an object may hold itself, or another one twice that
holds another one twice.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Global:
    """A class or function that the pickle names, such as `torch.FloatStorage`."""

    name: str


@dataclass(eq=False, repr=False, slots=True)
class Call:
    """An object that the pickle wants made: by what, from what, with which state."""

    function: str
    arguments: tuple = ()
    items: list = field(default_factory=list)
    state: object = None


class Dictionary(dict):
    """A dict, or an `OrderedDict` with attributes."""

    __slots__ = ("attributes",)


@dataclass(eq=False, frozen=True, slots=True)
class Unread:
    """A text, bytes or a number, too long for a name or a size: nothing needs it."""

    size: int


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of numbers outside of the pickle; `dtype` is `None` for other bytes."""

    dtype: str | None
    key: str
    numel: int


@dataclass(eq=False, frozen=True, repr=False, slots=True)
class Tensor:
    """A view of a storage, in numbers and not bytes, unchecked."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple
    strides: tuple


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A tensor of a kind that has no plain values: sparse, quantized, meta."""

    kind: str


def described(value, longest=60):
    r"""Return what a message can say of anything that a pickle holds.

    Example:
    >>> described("fc" + chr(13)), described((1, 2)), described([[]])
    ('fc\\r', '(1, 2)', 'a list')
    """
    if isinstance(value, (tuple, list)) and len(value) <= 32:
        if all(type(part) is int and part.bit_length() < 256 for part in value):
            value = str(value)
    elif isinstance(value, int) and value.bit_length() < 256:
        value = str(value)
    if not isinstance(value, str):
        return f"a {type(value).__name__}"
    text = ascii(value[: longest + 1])[1:-1]
    return text if len(text) <= longest else f"{text[:longest]}..."
