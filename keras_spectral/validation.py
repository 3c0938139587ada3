"""Checks of arguments, each with one form of error."""

import math
import numbers
import typing
from typing import Literal

# `norm=`: of the flattened kernel, or of the convolution as an operator on images.
Norm = Literal["reshaped", "operator"]
# `variant=` of a formula: as it holds, or as its paper prints it.
Variant = Literal["corrected", "as_printed"]


def _check_number(name, value, expected, holds):
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not holds(value):
        raise ValueError(f"`{name}` must be {expected}. Received: {name}={value}")


def check_positive(name, value):
    """Raise a ValueError unless `value` is a positive, finite number.

    Args:
        name: String, the argument's name.
        value: What was passed.

    Example:
    >>> check_positive("bound", -1)
    Traceback (most recent call last):
    ...
    ValueError: `bound` must be a positive, finite number. Received: bound=-1
    """
    _check_number(name, value, "a positive, finite number", lambda v: 0 < v < math.inf)


def check_not_negative(name, value):
    """Raise a ValueError unless `value` is a finite number >= 0.

    Args:
        name: String, the argument's name.
        value: What was passed.

    Example:
    >>> check_not_negative("tolerance", -1)
    Traceback (most recent call last):
    ...
    ValueError: `tolerance` must be a finite number >= 0. Received: tolerance=-1
    """
    _check_number(name, value, "a finite number >= 0", lambda v: 0 <= v < math.inf)


def check_ratio(name, value):
    """Raise a ValueError unless `value` is a number in (0, 1].

    Args:
        name: String, the argument's name.
        value: What was passed.

    Example:
    >>> check_ratio("rank_ratio", 2)
    Traceback (most recent call last):
    ...
    ValueError: `rank_ratio` must be a number in (0, 1]. Received: rank_ratio=2
    """
    _check_number(name, value, "a number in (0, 1]", lambda v: 0 < v <= 1)


def check_share(name, value):
    """Raise a ValueError unless `value` is a number in [0, 1].

    Args:
        name: String, the argument's name.
        value: What was passed.

    Example:
    >>> check_share("error", 1.5)
    Traceback (most recent call last):
    ...
    ValueError: `error` must be a number in [0, 1]. Received: error=1.5
    """
    _check_number(name, value, "a number in [0, 1]", lambda v: 0 <= v <= 1)


def check_probability(name, value):
    """Raise a ValueError unless `value` is in (0, 1).

    Args:
        name: String, the argument's name.
        value: What was passed.

    Example:
    >>> check_probability("delta", 1)
    Traceback (most recent call last):
    ...
    ValueError: `delta` must be in (0, 1). Received: delta=1
    """
    _check_number(name, value, "in (0, 1)", lambda v: 0 < v < 1)


def check_integer(name, value, least):
    """Raise a ValueError unless `value` is an integer of at least `least`.

    Args:
        name: String, the argument's name.
        value: What was passed.
        least: Integer.

    Example:
    >>> check_integer("trials", 1, least=2)
    Traceback (most recent call last):
    ...
    ValueError: `trials` must be an integer >= 2. Received: trials=1
    """
    integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not integer or value < least:
        raise ValueError(
            f"`{name}` must be an integer >= {least}. Received: {name}={value}"
        )


def check_choice(name, value, choices):
    """Raise a ValueError unless `value` is one of `choices`.

    Args:
        name: String, the argument's name.
        value: What was passed.
        choices: Tuple, or a `typing.Literal` of the words.

    Example:
    >>> check_choice("rule", "small", ("magnitude", "signed"))
    Traceback (most recent call last):
    ...
    ValueError: `rule` must be one of ('magnitude', 'signed'). Received: rule='small'
    >>> check_choice("norm", "operator", Norm)
    """
    choices = typing.get_args(choices) or choices
    if value not in choices:
        raise ValueError(
            f"`{name}` must be one of {choices}. Received: {name}={value!r}"
        )
