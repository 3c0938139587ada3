"""Other names for the same networks: key grammars, and what else differs.

A row is two templates of a module path. `{i}` stands for a number, `{i+1}` for the next
one, so each row works both ways.
"""

import functools
import inspect
import re
from typing import NamedTuple

from keras_spectral import zoo
from keras_spectral.convert.files.errors import CheckpointError, MismatchError


class Dialect(NamedTuple):
    """A key grammar, with the arguments that its authors' networks need.

    Args:
        name: String, whose dialect, and of which networks.
        rows: Tuple of (their path, our path).
        config: Dict of the builder's arguments, in place of the defaults; those that
            a builder does not have are passed over.
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


def _shared(*paths):
    """Rows of names that are the zoo's own for these networks."""
    return tuple((path, path) for path in paths)


_SNGAN = _shared(
    "l{i}", "l_y", "b{i}", "c{i}", "block{i}.c{j}", "block{i}.c_sc", "block{i}.b{j}",
    "block{i}.b{j}.bn", "block{i}.b{j}.embed",
)  # fmt: skip

# Projects whose names are the zoo's own: no key tells them apart.
SHARED = (
    Dialect("pytorch/examples", _shared("main.{i}")),
    Dialect("torchvision", _shared("features.{i}", "classifier.{i}")),
    Dialect("chainer", _SNGAN),
    Dialect(
        "mimicry",
        _SNGAN,
        {"upsampling": "bilinear", "epsilon": 1e-5, "shortcut_from": "relu"},
    ),
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
    """Return what the first row that fits makes of a path, or `None`."""
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
    return None


def _renamed(key, rows):
    path, dot, leaf = key.rpartition(".")
    found = _translate(path, rows)
    return f"{path if found is None else found}{dot}{leaf}"


def to_ours(key, dialect):
    """Return our key for a key of a dialect.

    Example:
    >>> bearpaw = named("bearpaw")
    >>> to_ours("layer2.0.conv1.weight", bearpaw)
    'features.stage2.unit1.body.conv1.conv.weight'
    """
    return _renamed(key, dialect.rows)


def to_theirs(key, dialect):
    """Return a dialect's key for one of ours; undoes `to_ours`.

    Example:
    >>> to_theirs("features.stage2.unit1.body.conv1.conv.weight", named("bearpaw"))
    'layer2.0.conv1.weight'
    """
    return _renamed(key, tuple((ours, theirs) for theirs, ours in dialect.rows))


def named(name):
    """Return a dialect by name.

    Raises:
        ValueError: On an unknown name, with the known ones.
    """
    known = (*DIALECTS, *SHARED)
    for dialect in known:
        if dialect.name == name:
            return dialect
    raise ValueError(
        f"`dialect` must be 'auto' or one of {[d.name for d in known]}. "
        f"Received: dialect={name!r}"
    )


def detect(theirs, ours, arguments=(), flavours=()):
    """Return the dialect in which the keys fit best.

    Args:
        theirs: Iterable of a checkpoint's keys.
        ours: Set of the model's keys.
        arguments: Names of the builder's arguments, for a registered model.
        flavours: Names of the forms of spectral normalization in the checkpoint; one
            that a project alone has tells that it is this project's.

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
        return _of_shared_names(theirs, arguments, flavours), best
    for other in winners[1:]:
        same = all(to_ours(key, first) == to_ours(key, other) for key in theirs)
        if not same or first.config != other.config:
            raise CheckpointError(
                "is ambiguous: its keys fit the dialects "
                f"{', '.join(d.name for d in winners)} equally well. Choose one by "
                "`dialect`."
            )
    return first, best


def _of_shared_names(keys, arguments, flavours):
    """Return whose checkpoint it is among those who use the zoo's own names."""
    paths = {key.rpartition(".")[0] for key in keys}
    fitting = [
        dialect
        for dialect in SHARED
        if arguments and all(_translate(path, dialect.rows) for path in paths)
    ]
    fitting = [d for d in fitting if d.name in flavours] or fitting
    if len({str(applicable(d.config, arguments)) for d in fitting}) > 1:
        raise CheckpointError(
            "is ambiguous: its keys are those of "
            f"{' and of '.join(d.name for d in fitting)}, whose networks are wired "
            "differently. Choose one by `dialect`."
        )
    return fitting[0] if fitting else DIALECTS[0]


def applicable(config, arguments):
    """Return the part of a dialect's config that a builder has arguments for."""
    return {name: value for name, value in config.items() if name in arguments}


def builder_arguments(name):
    """Return the names of the arguments of a registered model's builder, or ()."""
    if name not in zoo.list_models():
        return ()
    builder = getattr(zoo, zoo.entry(name)["builder"])
    return tuple(inspect.signature(builder).parameters)


def builder_config(dialect, arguments):
    """Return what a builder must be given for a dialect's networks.

    Raises:
        MismatchError: If the builder knows none of the dialect's arguments.
    """
    config = applicable(dialect.config, arguments)
    if dialect.config and not config:
        raise MismatchError(
            f"the dialect '{dialect.name}' is of other networks: its "
            f"{', '.join(dialect.config)} are no arguments of this one's builder."
        )
    return config


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
    for dialect in (*DIALECTS, *SHARED):
        scores[dialect.name] = sum(
            _translate(path, dialect.rows) is not None for path in paths
        )
    best = max(scores.values())
    if best == 0:
        return [DIALECTS[0].name]
    return [name for name, score in scores.items() if score == best]
