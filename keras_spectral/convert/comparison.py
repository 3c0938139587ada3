"""Whether two checkpoints hold the same tensors, whatever their containers."""

import dataclasses
import functools
import itertools
import zipfile
from pathlib import Path
from typing import Literal

import numpy as np

from keras_spectral.convert import dialects, spectral_state, weight_normalization
from keras_spectral.convert.files.errors import CheckpointError
from keras_spectral.convert.files.reader import read_checkpoint
from keras_spectral.results import Rows
from keras_spectral.validation import check_not_negative


@dataclasses.dataclass(frozen=True)
class TensorDifference:
    """How one tensor differs between two checkpoints.

    Args:
        name: String, the key.
        status: `"equal"`, `"different"`, `"of another shape"`, `"only in A"` or
            `"only in B"`.
        relative_error: Float, max |a - b| / max |a|; `None` where there is no pair.
    """

    name: str
    status: Literal["equal", "different", "of another shape", "only in A", "only in B"]
    relative_error: float | None = None


def is_keras_model(path: str | Path) -> bool:
    """Tell by its content whether a file is a `.keras` model.

    Args:
        path: Path of a file, which may be missing.

    Returns:
        Boolean.

    Example:
    >>> is_keras_model("missing.keras")
    False
    """
    path = Path(path)
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return "config.json" in archive.namelist()
    except Exception:  # A damaged archive raises nearly anything.
        return False


def compare(
    first: str | Path, second: str | Path, tolerance: float = 0.0, dialect: str = "auto"
) -> Rows:
    """Compare two checkpoints tensor by tensor.

    Keys are brought to our names first, so a file and its conversion agree; of two
    `.keras` models, or one and a PyTorch file, the weights are compared as PyTorch has
    them. A `.weights.h5` file, and two models with layers that PyTorch has no form of,
    are compared by the paths in the file, without the optimizer. `num_batches_tracked`
    is passed over.

    Args:
        first: Path of whatever `read_checkpoint` reads.
        second: Path, likewise.
        tolerance: Float >= 0, the relative error to accept; 0 asks for equal bits, as
            tensors that are no floating point numbers do always.
        dialect: String, of the keys of a file that is no `.keras` model.

    Returns:
        `Rows` of `TensorDifference`, one a tensor, in the order of the keys.

    Raises:
        CheckpointError: If a file cannot be read, or a `.weights.h5` file is compared
            with a PyTorch file: it does not tell the classes of its layers.
        ValueError: On a tolerance that is negative or no number, or a layer for which
            there is no rule.

    Example:
    >>> from keras_spectral import zoo
    >>> path = zoo.checkpoint("resnet20_digits").weights
    >>> {row.status for row in compare(path, path)}
    {'equal'}
    """
    check_not_negative("tolerance", tolerance)
    a, b = _tensors(read_checkpoint(first), read_checkpoint(second))
    if dialect != "auto":
        named = (dialects.named(dialect),)
        a, b = ((keys, known if len(known) == 1 else named) for keys, known in (a, b))
    a, b = _in_one_dialect(a, b)
    rows = []
    for key in sorted(a.keys() | b.keys()):
        if key.endswith("num_batches_tracked"):
            continue
        if key not in a or key not in b:
            rows.append(TensorDifference(key, "only in B" if key in b else "only in A"))
        else:
            rows.append(_difference(key, a[key](), b[key](), tolerance))
    return Rows(rows)


def _difference(key, a, b, tolerance):
    if a.shape != b.shape:
        return TensorDifference(key, "of another shape")
    if np.array_equal(a, b):
        return TensorDifference(key, "equal", 0.0)
    wide = a.astype("complex128" if "c" in (a.dtype.kind, b.dtype.kind) else "float64")
    error = float(np.abs(wide - b).max()) / (float(np.abs(wide).max()) or 1.0)
    # Positions, labels and masks are right or wrong.
    near = error <= tolerance and all(_is_float(x.dtype.name) for x in (a, b))
    return TensorDifference(key, "equal" if near else "different", error)


def _is_float(dtype):
    return "float" in dtype


def _tensors(*states):
    """Return ({key: callable to array}, the dialects of the keys) of two files."""
    kinds = [state.container for state in states]
    if not {"keras", "hdf5"} & set(kinds):
        return [_theirs(state) for state in states]
    if {"keras", "hdf5"} >= set(kinds) and "hdf5" in kinds:
        return [_by_path(state) for state in states]
    if "hdf5" in kinds:
        path = states[kinds.index("hdf5")].origin
        raise CheckpointError(
            f"{path} holds weights of Keras' without their model, so they cannot be "
            "brought to PyTorch's names. Save the model as .keras, and compare that."
        )
    try:
        return [
            _as_pytorch(state) if state.container == "keras" else _theirs(state)
            for state in states
        ]
    except CheckpointError:
        raise
    except ValueError:
        if set(kinds) != {"keras"}:
            raise
        # A layer that PyTorch has no form of.
        return [_by_path(state) for state in states]


def _values(state, keys):
    """Return {name: function that reads a tensor, an integer one as it is}.

    Args:
        state: `StateDict`.
        keys: Dict from name to key.
    """
    dtypes = state.dtypes
    return {
        name: functools.partial(
            state.__getitem__ if _is_float(dtypes[key]) else state.stored, key
        )
        for name, key in keys.items()
    }


def _theirs(state):
    state, _ = weight_normalization.folded(state)
    plain, _ = spectral_state.parse(state)
    return _values(state, plain), dialects.DIALECTS


def _as_pytorch(state):
    from keras_spectral.convert.torch_export import to_torch

    found = to_torch(_loaded(state.origin), dialect="pytorchcv")
    tensors = {key: (lambda value=value: value) for key, value in found.items()}
    return tensors, dialects.DIALECTS[:1]


def _by_path(state):
    """Return a Keras file's tensors, but for the state of training."""
    keys = {
        key: key
        for key in state
        if not key.startswith("optimizer") and "seed_generator" not in key.split("/")
    }
    return _values(state, keys), dialects.DIALECTS[:1]


def _loaded(path):
    from keras_spectral.convert.cards import load_model

    try:
        return load_model(path)
    except Exception as error:  # Keras raises nearly anything on a damaged model.
        said = str(error).strip().split("\n")[0][:200]
        raise CheckpointError(
            f"{path} is no Keras model that can be loaded here ({said}). Save it with "
            "the layers of Keras and keras_spectral alone."
        ) from error


def _in_one_dialect(first, second):
    """Return two files' tensors under the names in which most of them meet.

    Their own names count as well as any: `conv1` and `fc` are bearpaw's words, but of a
    network that is not in the zoo they mean themselves.
    """
    spellings = [
        [
            {dialects.to_ours(key, dialect): value for key, value in tensors.items()}
            for dialect in known
        ]
        for tensors, known in (first, second)
    ]
    return max(
        itertools.product(*spellings),
        key=lambda pair: (len(pair[0].keys() & pair[1].keys()), *map(len, pair)),
    )
