"""What pages say of results: one row a kind of result, known by its keys."""

from typing import NamedTuple

from keras_spectral.report.findings import (
    analyses,
    checkpoints,
    compressions,
    experiments,
    recipes,
)
from keras_spectral.report.findings.parts import Findings


class _Kind(NamedTuple):
    """A kind of result: the verb that it is of, and the keys that it has."""

    verb: str
    keys: frozenset
    say: object


_KINDS = tuple(
    _Kind(verb, frozenset(keys.split()), say)
    for verb, keys, say in (
        ("analyze", "source tensors skipped", analyses.analysis),
        ("certify", "accuracy lipschitz_constant certified", checkpoints.certificate),
        ("compress", "replacements rule replacement", compressions.compression),
        ("bound", "settings best assumptions", compressions.bound),
        ("verify", "a b equal tensors", checkpoints.comparison),
        ("inspect", "container dialect fingerprint tensors", checkpoints.inspection),
        ("convert", "source verification", checkpoints.card),
        ("demo", "training memorization spectra files", experiments.demo),
        ("evaluate-gan", "scores distributions", experiments.evaluation),
        ("sweep", "rows missing mixture", experiments.sweep),
        ("run", "rows claims", recipes.recipe),
    )
)


def findings_of(content, name: str) -> Findings:
    """Return what a page says of a result.

    Args:
        content: Dict or list, what `--json` of a verb prints.
        name: String, what it is called where the result does not say.

    Raises:
        ValueError: If it has a known result's keys, but not its values.

    Example:
    >>> findings_of({"title": "Mine", "rows": [{"name": "a", "n": 1}]}, "x").kind
    ''
    """
    keys = set(content) if isinstance(content, dict) else set()
    for kind in _KINDS:
        if kind.keys <= keys:
            break
    else:
        return experiments.anything(content, name)
    try:
        findings = kind.say(content, name)  # type: ignore[operator]
    except (
        TypeError, ValueError, KeyError, AttributeError, IndexError, OverflowError,
        ZeroDivisionError,
    ) as error:  # fmt: skip
        raise ValueError(
            f"{name} has the keys of what `{kind.verb}` leaves, but not its values "
            f"({type(error).__name__}: {error}). Run the verb again."
        ) from error
    findings.kind = kind.verb
    return findings
