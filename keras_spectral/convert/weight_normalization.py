"""PyTorch's weight normalization: a weight kept as lengths g and directions v."""

import re
from functools import partial

import numpy as np

from keras_spectral.convert.files.errors import CheckpointError
from keras_spectral.convert.files.records import TensorRecord

# What `torch.nn.utils.weight_norm` and `parametrizations.weight_norm` call g and v. A
# recurrent module has weights of other names, such as `weight_hh_l0`.
_FORMS = (
    (r"(?:(?P<module>.+)\.)?(?P<weight>weight\w*)_g", "{weight}_v"),
    (
        r"(?:(?P<module>.+)\.)?parametrizations\.(?P<weight>weight\w*)\.original0",
        "parametrizations.{weight}.original1",
    ),
)


def folded(state):
    """Return a state dict with each pair (g, v) replaced by g v / ||v||.

    PyTorch's `dim`, along which the lengths are taken, is seen by the shape of g. It is
    computed in float64 and kept in the dtype of v, float32 at least; nothing is read
    before a weight is asked for.

    Args:
        state: `files.state.StateDict`.

    Returns:
        Tuple (`StateDict`, paths): `paths` lists the modules, and weights by name that
        are not called `weight`; without any the state dict is `state` itself.

    Raises:
        CheckpointError: If g or v is missing, or g is of another shape.

    Example:
    >>> from keras_spectral.convert import StateDict
    >>> parts = {"fc.weight_g": np.array([[10.0]]), "fc.weight_v": np.array([[3.0, 4]])}
    >>> state, paths = folded(StateDict(parts))
    >>> state["fc.weight"], paths
    (array([[6., 8.]]), ['fc'])

    Source: [salimans2016], eq. 2.
    """
    shapes, dtypes, aliases = state.shapes, state.dtypes, state.aliases
    names, made, paths = {key: key for key in state}, {}, []
    for lengths, directions in _FORMS:
        for g in state:
            found = re.fullmatch(lengths, g)
            if found is None:
                continue
            module, weight = found["module"] or "", found["weight"]
            prefix = module and f"{module}."
            v = prefix + directions.format(weight=weight)
            if v not in shapes:
                if weight != "weight":
                    continue  # Of this name it may be something else.
                raise CheckpointError(
                    f"{state.origin} keeps `{g}` of weight normalization without "
                    f"`{v}`. Save the whole state dict."
                )
            if not _fits(shapes[g], shapes[v]):
                raise CheckpointError(
                    f"{state.origin} keeps `{g}` of the shape {shapes[g]} beside "
                    f"`{v}` of the shape {shapes[v]}: no weight normalization. "
                    "Remove the parametrization in PyTorch by "
                    "torch.nn.utils.parametrize.remove_parametrizations, and "
                    "save again."
                )
            dtype = "float64" if dtypes[v] == "float64" else "float32"
            read = partial(_weight, state, g, v, dtype)
            # Parts that are tied make one weight.
            place = tuple(aliases.get(part, part) for part in (g, v))
            del names[g], names[v]
            made[prefix + weight] = TensorRecord(shapes[v], dtype, read, place)
            paths.append(module if weight == "weight" else prefix + weight)
    return (state.selected(names, made=made) if paths else state), paths


def _fits(lengths, directions):
    """Whether g is one number, or has one along one axis of v."""
    if lengths == ():
        return True
    pairs = list(zip(lengths, directions, strict=False))
    return (
        len(lengths) == len(directions)
        and all(length in (1, size) for length, size in pairs)
        and sum(length > 1 for length in lengths) <= 1
    )


def _weight(state, g, v, dtype):
    lengths, directions = (np.asarray(state[key], "float64") for key in (g, v))
    # One number is the length of all.
    of_each = lengths.shape or (1,) * directions.ndim
    axes = tuple(axis for axis, size in enumerate(of_each) if size == 1)
    norms = np.sqrt(np.sum(directions**2, axis=axes, keepdims=True))
    if not norms.all():
        raise CheckpointError(
            f"holds a direction of length zero in `{v}`: PyTorch computes NaN with it"
        )
    return (directions * (lengths / norms)).astype(dtype)
