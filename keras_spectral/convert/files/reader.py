"""Reading checkpoints of strangers: by content, strictly, running nothing.

Imports neither Keras nor a backend, and needs no PyTorch.
"""

import functools
import re
from pathlib import Path

from keras_spectral.convert.files import (
    archives,
    hdf5_files,
    hdf5_links,
    shards,
    tensor_files,
    torch_files,
)
from keras_spectral.convert.files.entries import find_state_dict
from keras_spectral.convert.files.errors import CheckpointError, UnsafeCheckpointError
from keras_spectral.convert.files.pickles import read_pickle
from keras_spectral.convert.files.placeholders import Call, described
from keras_spectral.convert.files.records import Contents, unknown_types
from keras_spectral.convert.files.state import StateDict

_AGAIN = "Download or save it again."
_SAVE = "Save one with torch.save(model.state_dict(), path)."
_RESAVE = (
    "In a PyTorch and with code you trust, load it and save "
    "torch.save(model.state_dict(), path)."
)


def read_checkpoint(path: str | Path, entry: str | None = None) -> StateDict:
    """Read a checkpoint: PyTorch, safetensors, `.npz`, `.keras` or `.h5`.

    The kind is told by content, not by extension. Nothing in the file is executed,
    whatever it is, and PyTorch is not needed. Sizes are checked against the bytes that
    are there before memory is taken. Values are read, and checked, one tensor at a time
    when they are asked for.

    A state dict inside of a dict (`{"state_dict": ...}`, `{"model": ...}`) is found,
    the prefixes `module.` and `_orig_mod.` are taken off, and `_orig_mod.` inside of a
    key; `.notes` says what was done, and which other state dicts (such as an EMA copy)
    there are. `.aliases` tells which keys are one tensor (tied weights).

    Hugging Face's index of shards (`model.safetensors.index.json`,
    `pytorch_model.bin.index.json`) is one checkpoint with the shards beside it, of
    which one is open at a time. Of a folder its index, or its one file, is read.

    Args:
        path: Path of the file, the index or the folder.
        entry: String, which state dict of several; the entry's name, nested ones with
            dots. Default: the one that is there, or the one that is usually meant.

    Returns:
        A `StateDict`: a mapping from key to NumPy array, float32 or float64 (integer
        for `num_batches_tracked`). Half precision and float8 are widened to float32.

    Raises:
        UnsafeCheckpointError: If the file asks for code to be run, for memory that it
            does not fill, or for shards out of its folder.
        CheckpointError: If the file or a shard is missing, damaged, of another kind, or
            has no or several state dicts. Reading a value raises it for values that are
            no weights: NaN, infinity, complex, integer, of an unknown type.

    Example:
    >>> from keras_spectral import zoo
    >>> state = read_checkpoint(zoo.checkpoint("resnet20_digits").weights)
    >>> state.container, state["output.weight"].shape
    ('safetensors', (10, 64))
    """
    path, found = Path(path), []
    if "\0" in str(path):
        raise CheckpointError("is no path, for it has a NUL character.", path)
    try:
        if path.is_dir():
            path, found = shards.find_weights(path)
        container, (records, *known) = _read(path, entry)
        state = StateDict(records, str(path), container, *known)
        state.notes[:0] = found
    except UnsafeCheckpointError as error:
        _refuse(path, error, "" if str(error).endswith(".") else _RESAVE)
    except CheckpointError as error:
        _refuse(path, error, "" if str(error).endswith(".") else _AGAIN)
    except (MemoryError, RecursionError) as error:
        # Budgets are held before this; what remains is a machine that has less.
        raise CheckpointError(
            f"{path} takes more memory to read than there is. Read it elsewhere."
        ) from error
    except OSError as error:
        raise CheckpointError(
            f"cannot be read ({error.strerror}). Check the path and its permissions.",
            path,
        ) from error
    if not state:
        raise CheckpointError(
            f"{path} holds no tensors. Save model.state_dict() of a whole model."
        )
    return state


def _refuse(path, error, remedy):
    sentence = error.reason if error.reason.endswith(".") else f"{error.reason}."
    raise type(error)(f"{sentence} {remedy}".rstrip(), path) from error


def _read(path, entry=None, is_shard=False, budget=None):
    """Return (container, `Contents`); `budget` is one of several files' pickles."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise CheckpointError("does not exist. Check the path.") from None
    if not path.is_file():
        raise CheckpointError("is no regular file. Name a file on disk.")
    with path.open("rb") as file:
        head = file.read(512)
        file.seek(max(0, size - 2**16))
        tail = file.read()
    container = _sniff(path, head, tail, size)
    read = _ARRAYS.get(container)
    if entry is not None and (read is not None or container == "index"):
        raise CheckpointError(
            f"holds one set of tensors. Received: entry={entry!r}. Leave it out."
        )
    if container == "index":
        if is_shard:
            raise CheckpointError("is an index of shards itself")
        return shards.read_shards(path, functools.partial(_read, is_shard=True))
    if read is not None:
        return container, read(path)
    if container == "pickle":
        return _plain_pickle(path, budget)
    reader = (
        torch_files.read_zip if container == "torch zip" else torch_files.read_legacy
    )
    root, record = reader(path, budget)
    found, notes = find_state_dict(root, entry)
    # Each makes room for its record: there may be hundreds of thousands.
    del root
    for key, tensor in found.items():
        found[key] = record(tensor)
    return container, Contents(found, notes + unknown_types(found))


_ARRAYS = {
    "safetensors": tensor_files.read_safetensors,
    "npz": tensor_files.read_npz,
    "keras": tensor_files.read_keras,
    "hdf5": lambda path: hdf5_files.read_hdf5(path, path.stat().st_size),
}


def _plain_pickle(path, budget):
    """Say why a pickle that PyTorch did not write is of no use."""
    with path.open("rb") as file:
        root = read_pickle(file, budget)
    what = root.function if isinstance(root, Call) else type(root).__name__.lower()
    what = described(what)
    raise CheckpointError(
        f"is a plain pickle (of {what}), not a PyTorch checkpoint. {_SAVE}"
    )


def _sniff(path, head, tail, size):
    """Return the container, or say what the file is instead."""
    if not head:
        raise CheckpointError("is empty")
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise CheckpointError(
            "is a web page, not a checkpoint. Download the file itself, not the page "
            "that shows it."
        )
    if text.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            "is a Git LFS pointer, not the file. Fetch the real file, for instance by "
            "`git lfs pull`."
        )
    if head[:4] == b"PK\x03\x04":
        if b"PK\x05\x06" not in tail:
            raise CheckpointError("is cut off")
        return _sniff_zip(path)
    if hdf5_links.is_hdf5(path, size):
        return "hdf5"
    if head[257:262] == b"ustar":
        raise CheckpointError(
            "is a tar archive, PyTorch's format before 2018 among them. Load it in a "
            "PyTorch you trust and save the state dict again."
        )
    if head[:2] == b"\x1f\x8b":
        raise CheckpointError("is packed by gzip. Unpack it first.")
    if shards.is_json(head):
        return "index"
    header = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and header < 100_000_000:
        if header + 8 > size:
            raise CheckpointError("is cut off")
        return "safetensors"
    # The pickle protocol mark, which PyTorch's older format begins with too.
    if head[0] == 0x80:
        return "torch legacy" if torch_files.is_legacy(head) else "pickle"
    if re.match(rb"[c(].{0,100}\n", head, re.DOTALL):
        return "pickle"
    raise CheckpointError(
        "is neither a PyTorch checkpoint nor a .safetensors, .npz, .keras or .h5 file. "
        + _SAVE
    )


def _sniff_zip(path):
    with archives.opened(path) as archive:
        names = archive.namelist()
    if any(name.endswith("constants.pkl") for name in names):
        raise CheckpointError(
            "is a TorchScript program, not a state dict. In a PyTorch you trust, "
            "torch.jit.load it and save torch.save(model.state_dict(), path)."
        )
    if torch_files.is_torch_zip(names):
        return "torch zip"
    if "config.json" in names:
        return "keras"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    if len(names) == 1 and names[0].endswith((".pth", ".pt", ".bin", ".safetensors")):
        raise CheckpointError("is a zip with the checkpoint inside. Unpack it first.")
    raise CheckpointError(f"is a zip archive without weights. {_SAVE}")
