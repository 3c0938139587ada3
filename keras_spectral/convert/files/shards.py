"""Checkpoints in several files: a folder, and Hugging Face's index of shards.

The index says in which file beside it each tensor is. It is a stranger's: a name that
leads out of its folder is refused, and no more than one shard is open at a time.
"""

import dataclasses
import os
import re
from pathlib import Path

from keras_spectral.convert.files.errors import CheckpointError, UnsafeCheckpointError
from keras_spectral.convert.files.pickle_source import Budget
from keras_spectral.convert.files.records import Contents, listed, shown
from keras_spectral.json_text import LONGEST, parse_json

# How many tensors may be found anew, because another shard was read in between: some,
# and more where finding takes no longer than reading.
_MOST_AGAIN, _BYTES_AN_AGAIN = 2**18, 2**16

_SUFFIXES = (
    ".safetensors", ".bin", ".pth", ".pt", ".ckpt", ".pth.tar", ".npz", ".keras",
    ".h5",
)  # fmt: skip
# What training scripts put beside the weights.
_NO_WEIGHTS = re.compile(r"(optimizer|scheduler|scaler|rng_state|training_args)[._-]")


def is_json(head):
    """Tell from the first bytes whether a file is a JSON object.

    A safetensors file may begin with a brace, which is the length of its header then.
    """
    return head.lstrip().startswith(b"{") and b"\0" not in head[:8]


def _is_file(entry):
    try:
        return entry.is_file()
    except OSError:  # A link to itself.
        return False


def find_weights(folder):
    """Return the path of the one checkpoint in a folder, and notes on others.

    Args:
        folder: `pathlib.Path`.

    Returns:
        Tuple (`pathlib.Path`, list of strings).

    Raises:
        CheckpointError: If there is none, or are several.
    """
    with os.scandir(folder) as entries:
        # An unprintable name would command the terminal that it is shown on.
        names = sorted(e.name for e in entries if e.name.isprintable() and _is_file(e))
    indexes = [name for name in names if name.endswith(".index.json")]
    weights = [
        name
        for name in names
        if name.endswith(_SUFFIXES) and not _NO_WEIGHTS.match(name)
    ]
    found = indexes or weights
    if len(found) == 1:
        notes = [f"the folder's `{found[0]}` was read"]
        if indexes:
            shards = set(_weight_map(folder / found[0]).values())
            notes += [
                f"`{name}` is in the folder, and not in its index"
                for name in weights
                if name not in shards
            ]
        return folder / found[0], notes
    if not found:
        raise CheckpointError(
            "is a folder without weights: no .safetensors, .pth, .bin, .npz, .keras, "
            ".h5 or .index.json is in it. Name a file."
        )
    shown = ", ".join(found[:20])
    more = f" and {len(found) - 20} more" if len(found) > 20 else ""
    raise CheckpointError(
        f"is a folder of several checkpoints: {shown}{more}. Name one of them."
    )


def _plain(name):
    """Whether a string is the name of a file in this folder, on any system."""
    return (
        isinstance(name, str)
        and 0 < len(name) < 256
        and name.isprintable()
        and name not in (".", "..")
        and not set(name) & set('/\\:*?"<>|')
    )


def _weight_map(path):
    """Return {key: name of a file} of an index, checked."""
    with path.open("rb") as file:
        text = file.read(LONGEST + 1)
    index = parse_json(text, "index of shards", CheckpointError, UnsafeCheckpointError)
    names = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(names, dict):
        raise CheckpointError(
            "is JSON without the `weight_map` of a sharded checkpoint. Name the file "
            "of the weights."
        )
    for key, name in names.items():
        if not _plain(name):
            raise UnsafeCheckpointError(
                f"puts {shown(key)} into {shown(str(name))}, which is no name of "
                "a file beside it. Write the index again, with plain names."
            )
    return names


def read_shards(path, read):
    """Return what an index and its shards hold.

    Args:
        path: `pathlib.Path` of the index.
        read: Callable from the path of a shard to (container, `Contents`).

    Returns:
        Tuple (container, `Contents`), of the tensors that the index names.
    """
    names = _weight_map(path)
    shards = _Shards(path, read)
    keys = {}
    for key, name in names.items():
        keys.setdefault(name, []).append(key)
    records, notes = {}, []
    for name, wanted in keys.items():
        container, contents = shards.open(name)
        missing = [key for key in wanted if key not in contents.records]
        if missing:
            raise CheckpointError(
                f"names {len(missing)} tensors that are not in {name}: "
                f"{listed([shown(key)[1:-1] for key in missing])}"
            )
        notes += [note for note in contents.notes if note not in notes]
        left = sorted(contents.records.keys() - set(wanted))
        if left:
            left = listed([shown(key)[1:-1] for key in left])
            notes.append(f"in {name}, not in the index, left out: {left}")
        records |= {key: shards.record(name, key) for key in wanted}
    notes.append(f"{len(keys)} shards")
    kind = container if records else "files"
    return f"sharded {kind}", Contents({key: records[key] for key in names}, notes)


class _Shards:
    """The shards of an index, the last one open.

    A pickle and a zip's directory take memory and a file each.
    """

    def __init__(self, index, read):
        self._index, self._read = index, read
        self._name = self._opened = None
        self._budget = Budget()
        self._known, self._again, self._allowed = set(), 0, _MOST_AGAIN

    def open(self, name):
        """Return (container, `Contents`) of a shard."""
        if name != self._name:
            self._name = self._opened = None
            try:
                self._opened = self._contents(name)
            except CheckpointError as error:
                raise type(error)(f"names the shard {name}, which {error}") from error
            self._name = name
            self._count(name)
        return self._opened

    def _count(self, name):
        """Refuse an index whose tensors each need another shard than the last one."""
        if name in self._known:
            self._again += len(self._opened[1].records)
        else:
            self._known.add(name)
            size = (self._index.parent / name).stat().st_size
            self._allowed += size // _BYTES_AN_AGAIN
        if self._again > self._allowed:
            raise UnsafeCheckpointError("goes back and forth between its shards")

    def _contents(self, name):
        path = self._index.parent / name
        folder = Path(os.path.realpath(path)).parent
        # In Hugging Face's cache index and shards are links into one other folder.
        here = os.path.realpath(self._index.parent), os.path.realpath(self._index)
        if folder not in (Path(here[0]), Path(here[1]).parent):
            raise UnsafeCheckpointError(
                "is a link out of the folder. Put the file itself there."
            )
        if not path.exists():
            raise CheckpointError("is missing. Put it into the folder of the index.")
        # Opened again, it was paid for.
        budget = None if name in self._known else self._budget
        container, contents = self._read(path, budget=budget)
        if not container.startswith(("safetensors", "torch")):
            raise CheckpointError(f"is no shard, but a file of the kind {container}.")
        return container, contents

    def record(self, name, key):
        """Return the record of a tensor, which opens its shard when it is read."""
        record = self._opened[1].records[key]
        shape, dtype = record.shape, record.dtype

        def read():
            # Not `record`, which may hold the shard's file open.
            now = self.open(name)[1].records.get(key)
            if now is None or (now.shape, now.dtype) != (shape, dtype):
                raise CheckpointError(f"has changed meanwhile (the shard {name})")
            return now.read()

        place = record.place and (name, record.place)
        return dataclasses.replace(record, read=read, place=place)
