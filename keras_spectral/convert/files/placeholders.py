"""What a pickle asks for, put down instead of made."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Global:
    """A class or function that the pickle names, such as `torch.FloatStorage`."""

    name: str


@dataclass(eq=False)
class Call:
    """An object that the pickle wants made: by what, from what, with which state."""

    function: str
    arguments: tuple = ()
    items: list = field(default_factory=list)
    state: object = None


class Dictionary(dict):
    """A dict, or an `OrderedDict` with attributes."""

    attributes = None


@dataclass(frozen=True)
class Storage:
    """A run of numbers outside of the pickle; `dtype` is `None` for other bytes."""

    dtype: str | None
    key: str
    numel: int


@dataclass(frozen=True)
class Tensor:
    """A view of a storage, in numbers and not bytes, unchecked."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple
    strides: tuple


@dataclass(frozen=True)
class Unreadable:
    """A tensor of a kind that has no plain values: sparse, quantized, meta."""

    kind: str
