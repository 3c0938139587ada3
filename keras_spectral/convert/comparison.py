"""Whether two checkpoints hold the same tensors, whatever their containers."""

import dataclasses
import zipfile
from pathlib import Path

import numpy as np

from keras_spectral.convert import dialects, spectral_state
from keras_spectral.convert.reader import read_checkpoint
from keras_spectral.results import Rows


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
    status: str
    relative_error: float | None = None


def is_keras_model(path):
    """Tell by its content whether a file is a `.keras` model.

    Example:
    >>> is_keras_model("missing.keras")
    False
    """
    path = Path(path)
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return "config.json" in archive.namelist()


def compare(first, second, tolerance=0.0, dialect="auto"):
    """Compare two checkpoints tensor by tensor.

    Keys are brought to our names first, so a file and its conversion agree; of two
    `.keras` models, or one and a PyTorch file, the weights are compared as PyTorch has
    them. `num_batches_tracked` is passed over.

    Args:
        first: Path: PyTorch, safetensors, `.npz` or `.keras`.
        second: Path, likewise.
        tolerance: Float >= 0, the relative error to accept; 0 asks for equal bits.
        dialect: String, of the keys of a file that is no `.keras` model.

    Returns:
        `Rows` of `TensorDifference`, one a tensor, in the order of the keys.

    Raises:
        CheckpointError: If a file cannot be read.

    Example:
    >>> from keras_spectral import zoo
    >>> path = zoo.checkpoint("resnet20_digits").weights
    >>> {row.status for row in compare(path, path)}
    {'equal'}
    """
    a, b = _tensors(first, dialect), _tensors(second, dialect)
    rows = []
    for key in sorted(a.keys() | b.keys()):
        if key.endswith("num_batches_tracked"):
            continue
        if key not in a or key not in b:
            rows.append(TensorDifference(key, f"only in {'B' if key in b else 'A'}"))
        else:
            rows.append(_difference(key, a[key](), b[key](), tolerance))
    return Rows(rows)


def _difference(key, a, b, tolerance):
    if a.shape != b.shape:
        return TensorDifference(key, "of another shape")
    if np.array_equal(a, b):
        return TensorDifference(key, "equal", 0.0)
    scale = float(np.abs(a).max()) or 1.0
    error = float(np.abs(a.astype("float64") - b).max()) / scale
    return TensorDifference(key, "equal" if error <= tolerance else "different", error)


def _tensors(path, dialect):
    """Return {our key: callable to array}."""
    if is_keras_model(path):
        from keras_spectral.convert.cards import load_model
        from keras_spectral.convert.torch_weights import to_torch

        state = to_torch(load_model(path), dialect="pytorchcv")
        return {key: (lambda value=value: value) for key, value in state.items()}
    state = read_checkpoint(path)
    plain, _ = spectral_state.parse(state)
    if dialect == "auto":
        grammar = dialects.named(dialects.guess(plain)[0])
    else:
        grammar = dialects.named(dialect)
    return {
        dialects.to_ours(key, grammar): (lambda theirs=theirs: state[theirs])
        for key, theirs in plain.items()
    }
