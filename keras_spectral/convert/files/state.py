"""A state dict: found in what a file holds, unwrapped, and checked as it is read."""

import hashlib
from collections.abc import Mapping
from importlib import import_module

import numpy as np

from keras_spectral.convert.files.errors import CheckpointError, UnsafeCheckpointError
from keras_spectral.convert.files.placeholders import Call, Tensor, Unreadable
from keras_spectral.convert.files.records import CHUNK, TensorRecord, numpy_dtype

# What training scripts call the state dict, the usually meant first.
_ENTRIES = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network",
    "module", "weights", "params",
)  # fmt: skip
_AVERAGES = ("ema", "average", "swa")
_PREFIXES = ("module.", "_orig_mod.")
_HARMLESS = (int, float, str, type(None))
_COUNTER = "num_batches_tracked"


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
                f"{origin} must be a dict from string to tensor. "
                f"Received: {type(records).__name__}. Pass model.state_dict()."
            )
        for key in records:
            if not isinstance(key, str):
                raise CheckpointError(
                    f"{origin} must be a dict from string to tensor. "
                    f"Received: the key {key!r}. Pass model.state_dict()."
                )
            if not key.isprintable():
                # It could not be written to a terminal, or would command it.
                raise CheckpointError(
                    f"{origin} holds the key {ascii(key)[:60]}, which is no name of a "
                    "module. The file is damaged."
                )
        self._records = self._unwrapped(dict(records))

    def _unwrapped(self, records):
        """Take off what wrappers of a module put before every key."""
        average = records.keys() - {"n_averaged"}
        if "n_averaged" in records and all(k.startswith("module.") for k in average):
            del records["n_averaged"]
            self.notes.append("an average over training (`AveragedModel`)")
        while True:
            for prefix in _PREFIXES:
                if records and all(key.startswith(prefix) for key in records):
                    break
            else:
                return records
            records = {key[len(prefix) :]: value for key, value in records.items()}
            self.notes.append(f"the prefix `{prefix}` was taken off every key")

    def __len__(self):
        return len(self._records)

    def __iter__(self):
        return iter(self._records)

    def __getitem__(self, key):
        return _weights(key, self.stored(key), self.origin)

    def stored(self, key):
        """Return a tensor as it is stored, of whatever type, unchecked."""
        value = self._records[key]
        if isinstance(value, TensorRecord):
            try:
                value = value.read()
            except CheckpointError as error:
                reason = f"{error.reason}, at `{key}`."
                raise type(error)(reason, self.origin) from error
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
            head = f"{key}\0{value.dtype.name}\0{list(value.shape)}\0"
            digest.update(head.encode())
            digest.update(memoryview(value.reshape(-1).view(np.uint8)))
        return digest.hexdigest()


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
        if tensor.numel() * tensor.element_size() <= stored:
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
