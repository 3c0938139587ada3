"""A number of generated images, with what it takes to read it."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Score:
    """A metric of generated images.

    Args:
        metric: String, its name with the protocol.
        value: Float.
        direction: `"lower"` or `"higher"`, which is better.
        spread: Float, or `None`.
        spread_of: String, what the spread is.
        low, high: Floats, a bootstrap interval, or `None`.
        generated, reference: Integers, how many images of each.
        chance: Float, the value where there is no difference, or `None`.
    """

    metric: str
    value: float
    direction: Literal["lower", "higher"]
    spread: float | None = None
    spread_of: str | None = dataclasses.field(default=None, metadata={"table": False})
    low: float | None = None
    high: float | None = None
    generated: int | None = None
    reference: int | None = None
    chance: float | None = None
