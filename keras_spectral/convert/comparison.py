"""Whether two checkpoints hold the same tensors, whatever their containers."""

import dataclasses
import itertools
import zipfile
from pathlib import Path

import numpy as np

from keras_spectral.convert import dialects, spectral_state
from keras_spectral.convert.files.errors import CheckpointError
from keras_spectral.convert.files.reader import read_checkpoint
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


def is_keras_model(path: str | Path) -> bool:
    """Tell by its content whether a file is a `.keras` model.

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
    a, b = _tensors(first), _tensors(second)
    if dialect != "auto":
        named = (dialects.named(dialect),)
        a, b = ((keys, known if len(known) == 1 else named) for keys, known in (a, b))
    a, b = _in_one_dialect(a, b)
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


def _tensors(path):
    """Return ({key: callable to array}, the dialects that the keys may be in)."""
    if is_keras_model(path):
        from keras_spectral.convert.torch_weights import to_torch

        state = to_torch(_loaded(path), dialect="pytorchcv")
        tensors = {key: (lambda value=value: value) for key, value in state.items()}
        return tensors, dialects.DIALECTS[:1]
    state = read_checkpoint(path)
    plain, _ = spectral_state.parse(state)
    tensors = {
        key: (lambda theirs=theirs: state[theirs]) for key, theirs in plain.items()
    }
    return tensors, dialects.DIALECTS


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
