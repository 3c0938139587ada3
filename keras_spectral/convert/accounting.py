"""Every tensor of a source and every weight of a model, used once."""

import difflib

from keras_spectral.convert.files.errors import MismatchError


def check_keys(origin, model, targets, keys, plain, shapes):
    """Raise one error about all keys without a counterpart or of another shape.

    Its message has as many as a line holds, its attributes all. Nothing is read.

    Args:
        origin: String, the source.
        model: A `keras.Model`.
        targets: Dict whose keys the model needs.
        keys: Dict from our key to the source's.
        plain: Dict, the source's keys before they were renamed.
        shapes: Dict from the source's keys to tuples.
    """
    if len(keys) < sum(not k.endswith("num_batches_tracked") for k in plain):
        raise MismatchError(
            f"{origin} has two tensors for one weight of '{model.name}' in this "
            "dialect. Choose another `dialect`."
        )
    missing = sorted(targets.keys() - keys.keys())
    unused = sorted(keys.keys() - targets.keys())
    misshaped = {
        key: f"{key} {shapes[theirs]}, not {targets[key].torch_shape}"
        f"{_advice(targets[key], shapes[theirs])}"
        for key, theirs in sorted(keys.items())
        if key in targets and not targets[key].fits(shapes[theirs])
    }
    counts, advice = [], "Choose the architecture that the file was saved from."
    if missing or unused:
        counts.append(f"{len(missing)} keys are missing, {len(unused)} unused")
        advice += _hint(missing, unused) + (
            " `prefix` takes one part of a file, `ignore` leaves keys out on purpose."
        )
    if misshaped:
        counts.append(f"{len(misshaped)} of another shape")
    if not counts:
        return
    # The source's own names, which are what `ignore` goes by.
    theirs = sorted(keys[key] for key in unused)
    lists = {
        "Missing": missing and grouped(missing),
        "Unused": theirs and grouped(theirs),
        "Of another shape": ", ".join(misshaped.values()),
    }
    raise MismatchError(
        f"{origin} does not fit the model '{model.name}': {', '.join(counts)}. "
        + " ".join([advice, *(f"{what}: {k}." for what, k in lists.items() if k)]),
        missing=missing,
        unused=theirs,
        misshaped=list(misshaped),
    )


def tied_to(state, keys, targets):
    """Return {key: key} from those that a model lacks to its own of the same tensor.

    Args:
        state: `files.state.StateDict`.
        keys: Dict from our key to the source's.
        targets: Dict whose keys the model has.

    Example:
    >>> import numpy as np
    >>> from keras_spectral.convert import StateDict
    >>> w = np.ones(2)
    >>> tied_to(StateDict({"embed": w, "head": w}), {"embed": "embed", "head": "head"},
    ...         {"embed": None})
    {'head': 'embed'}
    """
    first, own = state.aliases, {}
    for key, theirs in keys.items():
        if key in targets:
            own.setdefault(first.get(theirs, theirs), key)
    return {
        key: own[first.get(theirs, theirs)]
        for key, theirs in keys.items()
        if key not in targets and first.get(theirs, theirs) in own
    }


def grouped(keys):
    """Return all keys, those of one module together: `fc.{bias,weight}`."""
    modules = {}
    for key in keys:
        module, dot, leaf = key.rpartition(".")
        modules.setdefault(module + dot, []).append(leaf)
    return ", ".join(
        f"{module}{{{','.join(leaves)}}}"
        if module and len(leaves) > 1
        else ", ".join(module + leaf for leaf in leaves)
        for module, leaves in modules.items()
    )


def _hint(missing, unused):
    """Return a guess at what is different, if there is a good one."""
    if missing and not unused:
        return " The file may be of a shallower network."
    if unused and not missing:
        return " The file may be of a deeper network."
    near = difflib.get_close_matches(missing[0], unused, n=1, cutoff=0.6)
    return f" Perhaps {near[0]} is {missing[0]}." if near else ""


def _advice(slot, shape):
    """Return how a layer takes a tensor of another shape, or nothing."""
    if type(slot.layer).__name__ != "PReLU" or shape != (1,):
        return ""
    axes = list(range(1, len(slot.variable.shape) + 1))
    return f" (one slope for all, as PyTorch has by default: PReLU(shared_axes={axes}))"
