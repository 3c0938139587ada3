"""Which of the dicts in what a pickle holds is the state dict."""

import itertools

from keras_spectral.convert.files.errors import CheckpointError, UnsafeCheckpointError
from keras_spectral.convert.files.placeholders import (
    Call,
    Storage,
    Tensor,
    Unread,
    Unreadable,
    described,
)
from keras_spectral.convert.files.records import listed, shown

# What training scripts call the state dict, the usually meant first.
_ENTRIES = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network",
    "module", "weights", "params",
)  # fmt: skip
_AVERAGES = ("ema", "average", "swa")
_HARMLESS = (int, float, str, Unread, type(None))
# What a module keeps beside its tensors, by PyTorch's `get_extra_state`.
_EXTRA = "_extra_state"
# Objects among the weights are searched for tensors, to so many parts.
_WITH_PARTS = (dict, list, tuple, Call, Tensor, Unreadable, Storage)
_MOST_PARTS = 500_000
# By reference a small file has millions of dicts in dicts; none that is meant does.
_MOST_CANDIDATES = 1000
_MOST_NOTES = 10


def find_state_dict(root, entry=None):
    """Return the state dict in what a pickle holds, and notes on the choice.

    Args:
        root: What `read_pickle` returned.
        entry: String, the dotted path of the wanted one, or `None`.

    Returns:
        Tuple (dict from string to `pickles.Tensor`, list of strings).
    """
    if isinstance(root, Tensor):
        raise CheckpointError(
            "holds one tensor, not a state dict. Save it with "
            "torch.save(model.state_dict(), path)."
        )
    if not isinstance(root, dict):
        if isinstance(root, Call):
            raise UnsafeCheckpointError(
                f"holds a pickled object of {described(root.function)}: only that "
                "class's own code could read it"
            )
        raise CheckpointError(
            f"holds a {type(root).__name__}, not a state dict of tensors. Save it with "
            "torch.save(model.state_dict(), path)."
        )
    candidates = dict(_Candidates().of(root))
    if entry is not None:
        if entry not in candidates:
            raise CheckpointError(
                f"has no state dict at `entry`. Received: entry={entry!r}. It has: "
                f"{_listed(candidates) or 'none'}."
            )
        chosen = entry
    elif not candidates:
        if not root:
            return {}, []
        _explain_emptiness(root)
    else:
        chosen = _choose(candidates)
    notes = [] if not chosen else [f"the entry `{described(chosen)}` was read"]
    others = [name for name in candidates if name != chosen]
    for name in others[:_MOST_NOTES]:
        kind = "an average (EMA)" if _is_average(name) else "another state dict"
        notes.append(f"{kind} is at the entry `{described(name)}`")
    if len(others) > _MOST_NOTES:
        notes.append(f"{len(others) - _MOST_NOTES:,} more state dicts are in the file")
    tensors, passed_over = _tensors(candidates[chosen])
    if passed_over:
        notes.append(f"passed over, no weights: {listed(passed_over)}")
    return tensors, notes


def _choose(candidates):
    """Return the candidate that is meant, or list them."""
    if len(candidates) == 1:
        return next(iter(candidates))
    if "" in candidates:
        return ""
    plain = [name for name in candidates if not _is_average(name)]
    for name in _ENTRIES:
        if name in plain:
            return name
    if len(plain) == 1:
        return plain[0]
    raise CheckpointError(
        f"holds several state dicts: {_listed(candidates)}. Choose one by `entry`."
    )


def _listed(names):
    more = f" and {len(names) - _MOST_NOTES:,} more" if len(names) > _MOST_NOTES else ""
    return ", ".join(map(described, list(names)[:_MOST_NOTES])) + more


def _is_average(name):
    return any(part in name.lower() for part in _AVERAGES)


class _Candidates:
    """The dicts of named tensors in a tree that may be no tree.

    An optimizer's state is none: its tensors lie under numbers. Nor is what holds
    another one beside tensors of its own.
    """

    def __init__(self):
        self._found, self._optimizers = {}, {}

    def of(self, value, depth=0):
        """Return pairs of a dotted path from a value and the dict there."""
        if not isinstance(value, dict):
            return []
        # What hangs at several places is looked through once at each depth.
        where = id(value), depth
        if where not in self._found:
            self._found[where] = []  # It may hold itself.
            self._found[where] = self._look(value, depth)
        return self._found[where]

    def _look(self, value, depth):
        tensors = [
            key for key, item in value.items() if isinstance(item, (Tensor, Unreadable))
        ]
        inner = []
        # Weights have a module and a dot, or the name of a single module's;
        # `best_acc1` or `rng_state`, which scripts keep as tensors beside the state
        # dict, do not.
        weights = any(
            isinstance(key, str) and ("." in key or key in ("weight", "bias"))
            for key in tensors
        )
        if depth < 3 and not weights:
            for key, item in value.items():
                if isinstance(item, dict) and not self._is_optimizers(key):
                    for name, found in self.of(item, depth + 1):
                        inner.append((f"{key}.{name}" if name else key, found))
                    if len(inner) > _MOST_CANDIDATES:
                        raise UnsafeCheckpointError(
                            f"holds more than {_MOST_CANDIDATES:,} dicts of tensors"
                        )
        return inner or ([("", value)] if tensors else [])

    def _is_optimizers(self, key):
        """Tell what is no module's; of a long key that is everywhere, once."""
        if key not in self._optimizers:
            self._optimizers[key] = not isinstance(key, str) or "optim" in key.lower()
        return self._optimizers[key]


def _explain_emptiness(root):
    modules = [
        (key, value.function) for key, value in root.items() if isinstance(value, Call)
    ]
    if modules:
        names = ", ".join(
            f"{described(key)} ({described(function)})" for key, function in modules[:5]
        )
        raise UnsafeCheckpointError(
            f"holds no state dict, but pickled objects: {names}. Only their classes' "
            "own code could read them"
        )
    keys = ", ".join(described(key, 40) for key in itertools.islice(root, 5))
    raise CheckpointError(
        f"is not a plain state dict: {keys} are no tensors. Save it with "
        "torch.save(model.state_dict(), path)."
    )


def _tensors(state):
    """Return the tensors of a state dict, and the names of what holds none."""
    result, passed_over, search = {}, [], _Search()
    for key, value in state.items():
        if not isinstance(key, str):
            raise CheckpointError(
                f"has the key {described(key, 40)}, where a state dict has strings. "
                "Save it with torch.save(model.state_dict(), path)."
            )
        if isinstance(value, Tensor):
            result[key] = value
        elif key == "_metadata" or isinstance(value, _HARMLESS):
            continue
        elif key.rpartition(".")[2] == _EXTRA or not search.finds_tensors(value):
            passed_over.append(shown(key))
        elif isinstance(value, Unreadable):
            raise CheckpointError(
                f"holds `{described(key)}` as a tensor without plain values "
                f"({described(value.kind)}): sparse, quantized or without data. "
                "Convert it to a dense float32 tensor."
            )
        else:
            kind = value.function if isinstance(value, Call) else type(value).__name__
            raise CheckpointError(
                f"is not a plain state dict: `{described(key)}` is a "
                f"{described(kind)}, not a tensor. Save "
                "it with torch.save(model.state_dict(), path)."
            )
    return result, passed_over


class _Search:
    """Tells whether tensors are inside of objects; each is gone through once."""

    def __init__(self):
        self._seen, self._left = set(), _MOST_PARTS

    def finds_tensors(self, value):
        """Tell whether there are tensors; of what is too large, that there may be."""
        waiting = [value]
        while waiting:
            value = waiting.pop()
            if isinstance(value, (Tensor, Unreadable, Storage)):
                return True
            if id(value) in self._seen:
                continue
            if isinstance(value, dict):
                parts = [*value.values(), getattr(value, "attributes", None)]
            elif isinstance(value, (list, tuple)):
                parts = value
            elif isinstance(value, Call):
                parts = [value.arguments, value.items, value.state]
            else:
                continue
            parts = [part for part in parts if isinstance(part, _WITH_PARTS)]
            self._left -= 1 + len(parts)
            if self._left < 0:
                return True
            self._seen.add(id(value))
            waiting += parts
        return False
