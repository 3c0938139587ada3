"""A state dict: unwrapped, and checked as it is read."""

import copy
import hashlib
import math
import os
from collections.abc import Mapping
from importlib import import_module

import numpy as np

from keras_spectral.convert.files.errors import CheckpointError
from keras_spectral.convert.files.placeholders import described
from keras_spectral.convert.files.records import (
    CHUNK,
    LARGEST_EXPANDED,
    TensorRecord,
    numpy_dtype,
)

_COMPILED = "_orig_mod"
_PREFIXES = ("module.", f"{_COMPILED}.")
_COUNTER = "num_batches_tracked"
# Modules in modules to a depth that none has.
_LONGEST_KEY = 500


class StateDict(Mapping):
    """Named tensors, read from their file one at a time.

    `state[key]` is a NumPy array of finite float32 or float64 numbers, or an error
    that names the tensor. Iterating over keys, `shapes` and `dtypes` reads nothing.

    Args:
        records: Dict from key to `TensorRecord`, or to NumPy array or torch tensor.
        origin: String that errors begin with.
        container: String, the kind of file.
        notes: List of strings, what was unwrapped.
        layer_names: Dict from a layer's path in a file of Keras' to its name.
        config: Dict, from which Keras would make the model; `None` if not there.

    Raises:
        CheckpointError: If `records` is no dict from string, or a name is none.

    Example:
    >>> import numpy as np
    >>> state = StateDict({"module.fc.weight": np.ones((2, 3))})
    >>> list(state), state["fc.weight"].shape
    (['fc.weight'], (2, 3))
    """

    def __init__(
        self,
        records,
        origin="The state dict",
        container="memory",
        notes=(),
        layer_names=None,
        config=None,
    ):
        self.origin, self.container, self.notes = origin, container, list(notes)
        self.layer_names, self.config = layer_names or {}, config
        if not isinstance(records, Mapping):
            raise CheckpointError(
                "must be a dict from string to tensor. "
                f"Received: {type(records).__name__}. Pass model.state_dict().",
                origin,
            )
        for key in records:
            if not isinstance(key, str):
                raise CheckpointError(
                    "must be a dict from string to tensor. "
                    f"Received: the key {described(key)}. Pass model.state_dict().",
                    origin,
                )
            if not key.isprintable() or len(key) > _LONGEST_KEY:
                # It could not be written to a terminal, or would command it.
                raise CheckpointError(
                    f"holds the key {ascii(key[:80])[:60]}, which is no name of a "
                    "module. The file is damaged.",
                    origin,
                )
        self.prefix = ""
        self._records = self._compiled(self._unwrapped(dict(records)))

    def _unwrapped(self, records):
        """Take off what wrappers of a module put before every key."""
        average = records.keys() - {"n_averaged"}
        if "n_averaged" in records and all(k.startswith("module.") for k in average):
            del records["n_averaged"]
            self.notes.append("an average over training (`AveragedModel`)")
        shared, taken = os.path.commonprefix([*records]), ""
        while prefix := next(filter(shared[len(taken) :].startswith, _PREFIXES), ""):
            taken += prefix
            if prefix != f"{_COMPILED}.":
                self.prefix += prefix
            note = f"the prefix `{prefix}` was taken off every key"
            self.notes += [note] if note not in self.notes else []
        if not taken:
            return records
        return {key[len(taken) :]: value for key, value in records.items()}

    def _compiled(self, records):
        """Take off what `torch.compile` puts before the keys of a module inside."""
        if not any(_COMPILED in key for key in records):
            return records
        names = {
            key: ".".join(part for part in path.split(".") if part != _COMPILED)
            + f"{dot}{leaf}"
            for key in records
            for path, dot, leaf in [key.rpartition(".")]
        }
        changed = sum(name != key for key, name in names.items())
        if not changed or len(set(names.values())) < len(names):
            return records
        self.notes.append(f"`{_COMPILED}.` was taken out of {changed} keys")
        return {names[key]: value for key, value in records.items()}

    def selected(self, names, notes=(), made=()):
        """Return some of the tensors, perhaps under other names.

        Args:
            names: Dict from the new key to the present one.
            notes: List of strings, what was done.
            made: Dict from key to `TensorRecord`, tensors made of others.

        Example:
        >>> state = StateDict({"net.w": np.ones(2), "head.w": np.ones(3)})
        >>> state.selected({"w": "net.w"}).shapes
        {'w': (2,)}
        """
        other = copy.copy(self)
        other.notes = [*self.notes, *notes]
        other._records = {new: self._records[key] for new, key in names.items()}
        other._records |= made
        return other

    def __len__(self):
        return len(self._records)

    def __iter__(self):
        return iter(self._records)

    def __contains__(self, key):
        return key in self._records  # `Mapping` would read the tensor.

    def __getitem__(self, key):
        record = self._records[key]
        if getattr(record, "bytes_read", None) is not None:
            raise CheckpointError(
                f"holds `{key}` in {record.dtype}, for which there is no rule. Convert "
                "it to float32.",
                self.origin,
            )
        return _weights(key, self.stored(key), self.origin)

    def stored(self, key):
        """Return a tensor as it is stored, of whatever type, unchecked.

        Of a type that is not known here it is the bytes.
        """
        value = self._records[key]
        if isinstance(value, TensorRecord):
            try:
                value = value.read()
            except CheckpointError as error:
                reason = f"{error.reason}, at `{key}`."
                raise type(error)(reason, self.origin) from error
            except MemoryError as error:
                raise CheckpointError(
                    f"does not fit into memory, at `{key}`.", self.origin
                ) from error
        elif hasattr(value, "detach"):
            return _from_torch(key, value, self.origin)
        value = np.asarray(value)
        # In the machine's byte order, so that equal numbers have equal bytes.
        return value.astype(value.dtype.newbyteorder("="), copy=False)

    def count(self, key):
        """Return a tensor of one whole number, such as `num_batches_tracked`."""
        value = self.stored(key)
        if value.size != 1 or value.dtype.kind not in "iu":
            raise CheckpointError(
                f"holds `{key}` in {value.dtype.name} of the shape {value.shape}, "
                "where one integer is expected. Leave it out.",
                self.origin,
            )
        return value.item()

    @property
    def shapes(self):
        """Dict from key to shape, a tuple of integers."""
        return {key: tuple(value.shape) for key, value in self._arrays()}

    @property
    def dtypes(self):
        """Dict from key to the name of the stored type."""
        return {
            key: str(value.dtype).removeprefix("torch.")
            for key, value in self._arrays()
        }

    @property
    def nbytes(self):
        """Dict from key to bytes of the stored numbers."""
        return {key: int(value.nbytes) for key, value in self._arrays()}

    @property
    def aliases(self):
        """Dict from each key of tied weights but the first to the first.

        Example:
        >>> w = np.ones(2)
        >>> StateDict({"embed": w, "head": w, "other": w.copy()}).aliases
        {'head': 'embed'}
        """
        first = {}
        for key, value in self._records.items():
            place = _place(value)
            first[key] = key if place is None else first.setdefault(place, key)
        return {k: first[k] for k in self._records if first[k] != k}

    def _arrays(self):
        for key, value in self._records.items():
            yield key, value if hasattr(value, "shape") else np.asarray(value)

    def fingerprint(self):
        """Return the SHA-256 of all tensors by name, the same in every container.

        Example:
        >>> StateDict({"w": np.ones(2)}).fingerprint()[:8]
        '394d8ee5'
        """
        digest = hashlib.sha256()
        for key in sorted(self):
            value = np.ascontiguousarray(self.stored(key))
            dtype, record = value.dtype.name, self._records[key]
            if getattr(record, "bytes_read", None) is not None:
                dtype = record.dtype
            head = f"{key}\0{dtype}\0{list(value.shape)}\0"
            digest.update(head.encode())
            digest.update(memoryview(value.reshape(-1).view(np.uint8)))
        return digest.hexdigest()


def _place(value):
    """Return what tells a tensor's numbers from another's; `None` if nothing does."""
    if isinstance(value, TensorRecord):
        return value.place
    try:
        if isinstance(value, np.ndarray):
            where = value.__array_interface__["data"][0], value.strides
        else:
            pointer = value.untyped_storage().data_ptr()
            where = pointer and (pointer, value.storage_offset(), value.stride())
        # Of no numbers, any address may be told.
        if where and math.prod(value.shape):
            return where, tuple(value.shape), str(value.dtype)
    except Exception:  # Sparse, quantized, meta: none has an address.
        pass
    return None


def _weights(key, value, origin):
    """Return one entry as a NumPy array of finite numbers."""
    if key.split(".")[-1] == _COUNTER and value.dtype.kind in "iu":
        return value
    name = value.dtype.name
    if value.dtype.kind != "f" and "float" not in name:
        raise CheckpointError(
            f"holds `{key}` in {name}: weights must be floating point. Convert it to "
            "float32.",
            origin,
        )
    if value.dtype.itemsize < 4:
        value = value.astype("float32")
    broken = _non_finite(value)
    if broken:
        raise CheckpointError(
            f"holds {broken} NaN or infinite values of {value.size} in `{key}`. Such a "
            "network computes nothing; use an earlier checkpoint.",
            origin,
        )
    if key.endswith("running_var") and value.size and value.min() < 0:
        raise CheckpointError(
            f"holds a negative variance in `{key}` ({value.min()}). The file is "
            "damaged or the key means something else.",
            origin,
        )
    return value


def _non_finite(value):
    """Count NaN and infinity, in pieces: a mask of the whole would take memory."""
    flat = value.reshape(-1) if value.flags.c_contiguous else value.ravel(order="K")
    return sum(
        int(np.count_nonzero(~np.isfinite(flat[start : start + CHUNK])))
        for start in range(0, flat.size, CHUNK)
    )


def _from_torch(key, tensor, origin):
    """Return a torch tensor as a NumPy array, if it is one in memory too."""
    try:
        tensor = tensor.detach().cpu()
        stored = tensor.untyped_storage().nbytes()
        # A few bytes may be declared to be a tensor of a terabyte.
        if tensor.numel() * tensor.element_size() <= max(stored, LARGEST_EXPANDED):
            name = str(tensor.dtype).removeprefix("torch.")
            if name == "bfloat16" or name.startswith("float8"):
                # Its bits, as a file's: NumPy has no such type of its own.
                bits = getattr(import_module("torch"), f"int{8 * tensor.itemsize}")
                bits = tensor.contiguous().view(bits).numpy()
                return bits.view(numpy_dtype(name))
            return tensor.resolve_conj().resolve_neg().numpy()
    except (TypeError, RuntimeError):
        pass
    kind = f"{tensor.layout}, {tensor.dtype}, {tensor.device}".replace("torch.", "")
    raise CheckpointError(
        f"holds `{key}` as a tensor without plain values of its own ({kind}): sparse, "
        "quantized, expanded, without data or of a type NumPy lacks. Convert it to a "
        "dense float32 tensor.",
        origin,
    )
