"""Other names for the same networks: key grammars, and what else differs.

A row is two templates of a module path. `{i}` stands for a number, `{i+1}` for the next
one, so each row works both ways.
"""

import functools
import re
from typing import NamedTuple

from keras_spectral.convert.errors import CheckpointError


class Dialect(NamedTuple):
    """A key grammar, with the arguments that its authors' networks need.

    Args:
        name: String, whose dialect, and of which networks.
        rows: Tuple of (their path, our path).
        config: Dict of the builder's arguments, in place of the defaults.
    """

    name: str
    rows: tuple
    config: dict = {}  # noqa: RUF012 (never changed)


_UNIT = "features.stage{i}.unit{j+1}"


def _residual(unit, pairs, ends):
    return (*((f"{unit}.{a}", f"{_UNIT}.{b}") for a, b in pairs), *ends)


_POST = tuple(
    (f"{kind}{n}", f"body.conv{n}.{kind}") for n in (1, 2, 3) for kind in ("conv", "bn")
)
_POST_ENDS = (
    ("conv1", "features.init_block.conv"),
    ("bn1", "features.init_block.bn"),
)
_PRE_START = ("conv1", "features.init_block")


def _vgg_rows(batch_normalization):
    """Rows from pytorchcv's VGG19 to torchvision's numbers of modules."""
    rows, number = [], 0
    for stage, count in enumerate((2, 2, 4, 4, 4), start=1):
        for unit in range(1, count + 1):
            path = f"features.stage{stage}.unit{unit}"
            rows.append((f"{path}.conv", f"features.{number}"))
            if batch_normalization:
                rows.append((f"{path}.bn", f"features.{number + 1}"))
            number += 3 if batch_normalization else 2
        number += 1
    heads = (("fc1.fc", 0), ("fc2.fc", 3), ("fc3", 6))
    rows += [(f"output.{theirs}", f"classifier.{n}") for theirs, n in heads]
    return tuple(rows)


_ALEXNET = (
    ("features.stage1.unit1.conv", "features.0"),
    ("features.stage2.unit1.conv", "features.3"),
    ("features.stage3.unit1.conv", "features.6"),
    ("features.stage3.unit2.conv", "features.8"),
    ("features.stage3.unit3.conv", "features.10"),
    ("output.fc1.fc", "classifier.1"),
    ("output.fc2.fc", "classifier.4"),
    ("output.fc3", "classifier.6"),
)

DIALECTS = (
    Dialect("pytorchcv", ()),
    Dialect(
        "bearpaw",
        _residual(
            "layer{i}.{j}",
            (
                *_POST,
                ("downsample.0", "identity_conv.conv"),
                ("downsample.1", "identity_conv.bn"),
            ),
            (*_POST_ENDS, ("fc", "output")),
        ),
    ),
    Dialect(
        "kuangliu",
        _residual(
            "layer{i}.{j}",
            (
                *_POST,
                ("shortcut.0", "identity_conv.conv"),
                ("shortcut.1", "identity_conv.bn"),
            ),
            (*_POST_ENDS, ("linear", "output")),
        ),
    ),
    Dialect(
        "bearpaw preresnet",
        _residual(
            "layer{i}.{j}",
            (*_POST, ("downsample.0", "identity_conv")),
            (_PRE_START, ("bn", "features.post_activ.bn"), ("fc", "output")),
        ),
        {"shortcut_from": "input"},
    ),
    Dialect(
        "kuangliu preact_resnet",
        _residual(
            "layer{i}.{j}",
            (*_POST, ("shortcut.0", "identity_conv")),
            (_PRE_START, ("linear", "output")),
        ),
        {"final_normalization": False},
    ),
    Dialect(
        "bearpaw densenet",
        _residual(
            "dense{i}.{j}",
            tuple(
                (f"{kind}{n}", f"conv{n}.{kind}")
                for n in (1, 2)
                for kind in ("conv", "bn")
            ),
            (
                _PRE_START,
                ("trans{i}.conv1", "features.stage{i+1}.trans{i+1}.conv.conv"),
                ("trans{i}.bn1", "features.stage{i+1}.trans{i+1}.conv.bn"),
                ("bn", "features.post_activ.bn"),
                ("fc", "output"),
            ),
        ),
    ),
    Dialect(
        "bearpaw densenet without bottlenecks",
        _residual(
            "dense{i}.{j}",
            (("conv1", "conv.conv"), ("bn1", "conv.bn")),
            (
                _PRE_START,
                ("trans{i}.conv1", "features.stage{i+1}.trans{i+1}.conv.conv"),
                ("trans{i}.bn1", "features.stage{i+1}.trans{i+1}.conv.bn"),
                ("bn", "features.post_activ.bn"),
                ("fc", "output"),
            ),
        ),
    ),
    Dialect(
        "bearpaw wrn",
        _residual(
            "block{i}.layer.{j}",
            (*_POST, ("convShortcut", "identity_conv")),
            (_PRE_START, ("bn1", "features.post_activ.bn"), ("fc", "output")),
        ),
    ),
    Dialect("pytorchcv vgg19", _vgg_rows(False)),
    Dialect("pytorchcv bn_vgg19", _vgg_rows(True)),
    Dialect("pytorchcv alexnetb", _ALEXNET),
)


@functools.cache
def _pattern(template):
    """Return the expression of a template, and what each number is shifted by."""
    shifts = {}

    def number(match):
        name, shift = match.group(1), int(match.group(2) or 0)
        if name in shifts:
            return f"(?P={name})"
        shifts[name] = shift
        return f"(?P<{name}>[0-9]+)"

    parts = re.split(r"(\{[^}]*\})", template)
    expression = "".join(
        re.sub(r"\{(\w)(\+\d+)?\}", number, part)
        if part.startswith("{")
        else re.escape(part)
        for part in parts
    )
    return re.compile(expression), shifts


def _translate(path, rows):
    for theirs, ours in rows:
        pattern, shifts = _pattern(theirs)
        match = pattern.fullmatch(path)
        if match is None:
            continue
        numbers = {n: int(v) - shifts[n] for n, v in match.groupdict().items()}
        if min(numbers.values(), default=0) < 0:
            continue

        def number(match, numbers=numbers):
            return str(numbers[match.group(1)] + int(match.group(2) or 0))

        return re.sub(r"\{(\w)(\+\d+)?\}", number, ours)
    return path


def to_ours(key, dialect):
    """Return our key for a key of a dialect.

    Example:
    >>> bearpaw = named("bearpaw")
    >>> to_ours("layer2.0.conv1.weight", bearpaw)
    'features.stage2.unit1.body.conv1.conv.weight'
    """
    path, dot, leaf = key.rpartition(".")
    return f"{_translate(path, dialect.rows)}{dot}{leaf}"


def to_theirs(key, dialect):
    """Return a dialect's key for one of ours; undoes `to_ours`.

    Example:
    >>> to_theirs("features.stage2.unit1.body.conv1.conv.weight", named("bearpaw"))
    'layer2.0.conv1.weight'
    """
    path, dot, leaf = key.rpartition(".")
    rows = tuple((ours, theirs) for theirs, ours in dialect.rows)
    return f"{_translate(path, rows)}{dot}{leaf}"


def named(name):
    """Return a dialect by name.

    Raises:
        ValueError: On an unknown name, with the known ones.
    """
    for dialect in DIALECTS:
        if dialect.name == name:
            return dialect
    raise ValueError(
        f"`dialect` must be 'auto' or one of {[d.name for d in DIALECTS]}. "
        f"Received: dialect={name!r}"
    )


def detect(theirs, ours):
    """Return the dialect in which the keys fit best.

    Args:
        theirs: Iterable of a checkpoint's keys.
        ours: Set of the model's keys.

    Returns:
        Tuple (dialect, score): the share of keys that agree, 1 if all do.

    Raises:
        CheckpointError: If two dialects fit equally well and mean different things.

    Example:
    >>> ours = {"output.weight", "features.init_block.bn.weight"}
    >>> detect(["linear.weight", "bn1.weight"], ours)[0].name
    'kuangliu'
    """
    theirs = list(theirs)
    scores = {}
    for dialect in DIALECTS:
        mapped = {to_ours(key, dialect) for key in theirs}
        scores[dialect.name] = len(mapped & ours) / max(1, len(mapped | ours))
    best = max(scores.values())
    winners = [named(name) for name, score in scores.items() if score == best]
    first = winners[0]
    if first is DIALECTS[0]:
        # Our own names fit as well as any renaming of them.
        return first, best
    for other in winners[1:]:
        same = all(to_ours(key, first) == to_ours(key, other) for key in theirs)
        if not same or first.config != other.config:
            raise CheckpointError(
                "is ambiguous: its keys fit the dialects "
                f"{', '.join(d.name for d in winners)} equally well. Choose one by "
                "`dialect`."
            )
    return first, best


def guess(keys):
    """Return the names of the dialects that a checkpoint's keys alone speak for.

    Args:
        keys: Iterable of strings, as a plain module has them.

    Returns:
        List of names, more than one where several fit as well; `["pytorchcv"]`, which
        are our own names, where no other one has a word for anything.

    Example:
    >>> guess(["conv1.weight", "layer1.0.shortcut.1.weight", "linear.bias"])
    ['kuangliu']
    """
    paths = {key.rpartition(".")[0] for key in keys}
    scores = {}
    for dialect in DIALECTS:
        translated = [path for path in paths if _translate(path, dialect.rows) != path]
        scores[dialect.name] = len(translated)
    best = max(scores.values())
    if best == 0:
        return [DIALECTS[0].name]
    return [name for name, score in scores.items() if score == best]
