"""Which of the dicts in what a pickle holds is the state dict."""

from keras_spectral.convert.files.errors import CheckpointError, UnsafeCheckpointError
from keras_spectral.convert.files.placeholders import Call, Tensor, Unreadable

# What training scripts call the state dict, the usually meant first.
_ENTRIES = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network",
    "module", "weights", "params",
)  # fmt: skip
_AVERAGES = ("ema", "average", "swa")
_HARMLESS = (int, float, str, type(None))


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
                f"holds a pickled object of {root.function}: only that class's own "
                "code could read it"
            )
        raise CheckpointError(
            f"holds a {type(root).__name__}, not a state dict of tensors. Save it with "
            "torch.save(model.state_dict(), path)."
        )
    candidates = dict(_candidates(root, ""))
    if entry is not None:
        if entry not in candidates:
            raise CheckpointError(
                f"has no state dict at `entry`. Received: entry={entry!r}. It has: "
                f"{', '.join(candidates) or 'none'}."
            )
        chosen = entry
    elif not candidates:
        if not root:
            return {}, []
        _explain_emptiness(root)
    else:
        chosen = _choose(candidates)
    notes = [] if not chosen else [f"the entry `{chosen}` was read"]
    for name in candidates:
        if name != chosen:
            kind = "an average (EMA)" if _is_average(name) else "another state dict"
            notes.append(f"{kind} is at the entry `{name}`")
    return _tensors(candidates[chosen]), notes


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
        f"holds several state dicts: {', '.join(candidates)}. Choose one by `entry`."
    )


def _is_average(name):
    return any(part in name.lower() for part in _AVERAGES)


def _candidates(value, path, depth=0):
    """Yield (dotted path, dict) of every dict of named tensors.

    An optimizer's state is none: its tensors lie under numbers. Nor is what holds
    another one beside tensors of its own.
    """
    if not isinstance(value, dict):
        return
    tensors = [key for key in value if isinstance(value[key], (Tensor, Unreadable))]
    inner = []
    # Weights have a module and a dot, or the name of a single module's; `best_acc1` or
    # `rng_state`, which scripts keep as tensors beside the state dict, do not.
    weights = [key for key in tensors if "." in f"{key}" or key in ("weight", "bias")]
    if depth < 3 and not weights:
        for key, item in value.items():
            if isinstance(key, str) and "optim" not in key.lower():
                name = f"{path}.{key}" if path else key
                inner += _candidates(item, name, depth + 1)
    if tensors and not inner:
        yield path, value
    yield from inner


def _explain_emptiness(root):
    modules = [
        (key, value.function) for key, value in root.items() if isinstance(value, Call)
    ]
    if modules:
        names = ", ".join(f"{key} ({function})" for key, function in modules[:5])
        raise UnsafeCheckpointError(
            f"holds no state dict, but pickled objects: {names}. Only their classes' "
            "own code could read them"
        )
    keys = ", ".join(str(key)[:40] for key in list(root)[:5])
    raise CheckpointError(
        f"is not a plain state dict: {keys} are no tensors. Save it with "
        "torch.save(model.state_dict(), path)."
    )


def _tensors(state):
    """Return the entries of a state dict, which must all be tensors."""
    result = {}
    for key, value in state.items():
        if not isinstance(key, str):
            raise CheckpointError(
                f"has the key {str(key)[:40]}, where a state dict has strings. Save it "
                "with torch.save(model.state_dict(), path)."
            )
        if isinstance(value, Unreadable):
            raise CheckpointError(
                f"holds `{key}` as a tensor without plain values ({value.kind}): "
                "sparse, quantized or without data. Convert it to a dense float32 "
                "tensor."
            )
        if isinstance(value, Tensor):
            result[key] = value
        elif key != "_metadata" and not isinstance(value, _HARMLESS):
            kind = value.function if isinstance(value, Call) else type(value).__name__
            raise CheckpointError(
                f"is not a plain state dict: `{key}` is a {kind}, not a tensor. Save "
                "it with torch.save(model.state_dict(), path)."
            )
    return result
