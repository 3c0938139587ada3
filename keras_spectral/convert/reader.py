"""Reading checkpoints of strangers: by content, strictly, running nothing.

Imports neither Keras nor a backend; PyTorch only for PyTorch's own files.
"""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

_CONTAINERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")
_COUNTER = "num_batches_tracked"

# bfloat16 is the upper half of a float32; NumPy has no type for it.
_SAFETENSORS_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "BOOL": "?",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
}  # fmt: skip


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or that does not fit the model."""


def read_checkpoint(path):
    """Read a state dict from a `.safetensors` file or a PyTorch file.

    The kind is told by content, not by extension. PyTorch files are read by
    `torch.load(weights_only=True)`, which needs PyTorch 2.10 or later. It runs
    no code, but a hostile file can still make it take much memory.

    Args:
        path: Path of the file.

    Returns:
        Dict from key to float NumPy array (and integer
        `num_batches_tracked`). Half precision is widened to float32. A
        `state_dict` entry and the prefixes `module.` and `_orig_mod.` are
        unwrapped.

    Raises:
        CheckpointError: If the file is missing, damaged, of another kind, or
            holds values that are no weights (NaN, infinity, complex, integer).

    Example:
    >>> from keras_spectral import zoo
    >>> state = read_checkpoint(zoo.checkpoint("resnet20_digits").weights)
    >>> state["output.weight"].shape
    (10, 64)
    """
    path = Path(path)
    kind = _sniff(path)
    if kind == "safetensors":
        state = _read_safetensors(path)
    else:
        state = _unwrap(_read_torch(path), path)
    if not state:
        _refuse(path, "holds no tensors", "Save model.state_dict() of a whole model.")
    return check_state_dict(state, str(path))


_AGAIN = "Download or save it again."


def _refuse(path, what, remedy):
    raise CheckpointError(f"{path} {what}. {remedy}")


def _first_line(error):
    return str(error).strip().split("\n")[0][:120] or type(error).__name__


def _sniff(path):
    """Return "safetensors" or "torch", or say what the file is instead."""
    if path.is_dir():
        _refuse(path, "is a folder, not a checkpoint", "Name a file in it.")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(512)
            file.seek(max(0, size - 512))
            tail = file.read()
    except FileNotFoundError:
        _refuse(path, "does not exist", "Check the path.")
    except OSError as error:
        _refuse(path, f"cannot be read ({error.strerror})", "Check its permissions.")
    if not head:
        _refuse(path, "is empty", _AGAIN)
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        _refuse(
            path,
            "is a web page, not a checkpoint",
            "Download the file itself, not the page that shows it.",
        )
    if text.startswith(b"version https://git-lfs"):
        _refuse(
            path,
            "is a Git LFS pointer, not the file",
            "Fetch the real file, for instance by `git lfs pull`.",
        )
    if head[:4] == b"PK\x03\x04":
        if b"PK\x05\x06" not in tail:
            _refuse(path, "is cut off", _AGAIN)
        return _sniff_zip(path)
    if head[257:262] == b"ustar":
        _refuse(
            path,
            "is a tar archive, PyTorch's format before 2018 among them",
            "Load it in a PyTorch you trust and save the state dict again.",
        )
    header = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and header < 100_000_000:
        if header + 8 > size:
            _refuse(path, "is cut off", _AGAIN)
        return "safetensors"
    # The pickle protocol mark, which PyTorch's older format begins with too.
    if head[0] == 0x80:
        return "torch"
    _refuse(
        path,
        "is neither a .safetensors file nor a PyTorch checkpoint",
        "Save one with torch.save(model.state_dict(), path).",
    )


def _sniff_zip(path):
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            # PyTorch does not look at the checksums: it loads flipped bits.
            broken = archive.testzip()
    except Exception as error:  # A damaged archive raises nearly anything.
        _refuse(path, f"is damaged ({_first_line(error)})", _AGAIN)
    if broken is not None:
        _refuse(path, f"is damaged (the checksum of {broken} is wrong)", _AGAIN)
    if any(name.endswith("constants.pkl") for name in names):
        _refuse(
            path,
            "is a TorchScript program, not a state dict",
            "In a PyTorch you trust, torch.jit.load it and save "
            "torch.save(model.state_dict(), path).",
        )
    if any(name.endswith("data.pkl") for name in names):
        return "torch"
    if "config.json" in names:
        _refuse(
            path,
            "is a Keras model, not a PyTorch checkpoint",
            "Load it with keras.models.load_model.",
        )
    if len(names) == 1 and names[0].endswith((".pth", ".pt")):
        _refuse(path, "is a zip with the checkpoint inside", "Unpack it first.")
    _refuse(
        path,
        "is a zip archive without PyTorch weights",
        "Save them with torch.save(model.state_dict(), path).",
    )


def _read_safetensors(path):
    import safetensors

    try:
        tensors = safetensors.deserialize(path.read_bytes())
    except Exception as error:  # SafetensorError, UnicodeDecodeError, ...
        _refuse(path, f"is damaged ({_first_line(error)})", _AGAIN)
    state = {}
    for key, tensor in tensors:
        if tensor["dtype"] not in _SAFETENSORS_TYPES:
            _refuse(
                path,
                f"holds `{key}` in {tensor['dtype']}, for which there is no rule",
                "Convert it to float32 and save it again.",
            )
        value = np.frombuffer(tensor["data"], _SAFETENSORS_TYPES[tensor["dtype"]])
        if tensor["dtype"] == "BF16":
            value = (value.astype("<u4") << 16).view("<f4")
        state[key] = value.reshape(tensor["shape"])
    return state


def _read_torch(path):
    try:
        import torch
    except ImportError:
        torch = None
    version = torch and tuple(map(int, torch.__version__.split(".")[:2]))
    if version is None or version < (2, 10):
        found = f"PyTorch {torch.__version__}" if torch else "no PyTorch"
        _refuse(
            path,
            f"is a PyTorch file, which needs PyTorch 2.10 or later (found {found})",
            "Install it by `pip install 'keras-spectral[torch]'`, or save the "
            "weights as .safetensors.",
        )
    try:
        # An open file, since PyTorch goes by the extension of a path; and
        # `weights_only`, since an environment variable can change the default.
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        # PyTorch's own message advises to turn the protection off.
        _refuse(
            path,
            "is not a plain state dict as PyTorch saves it: it is damaged, or holds "
            "Python objects, which could run code when read",
            "In a PyTorch and with code you trust, load it and save "
            "torch.save(model.state_dict(), path).",
        )
    except Exception as error:  # A damaged pickle raises nearly anything.
        _refuse(path, f"is damaged ({_first_line(error)})", _AGAIN)


def _unwrap(state, path):
    for _ in range(2):
        if not isinstance(state, dict):
            break
        inner = [key for key in _CONTAINERS if isinstance(state.get(key), dict)]
        if not inner:
            break
        state = state[inner[0]]
    import torch

    if not isinstance(state, dict):
        _refuse(
            path,
            f"holds a {type(state).__name__}, not a state dict of tensors",
            "Save it with torch.save(model.state_dict(), path).",
        )
    others = [str(k) for k, v in state.items() if not isinstance(v, torch.Tensor)]
    if others:
        _refuse(
            path,
            f"is not a plain state dict: {', '.join(others[:5])} are no tensors",
            "Save it with torch.save(model.state_dict(), path).",
        )
    return state


def check_state_dict(state, origin="The state dict"):
    """Return a state dict as NumPy arrays of float32 or float64, checked.

    Args:
        state: Dict from string to NumPy array or torch tensor.
        origin: String that errors begin with.

    Returns:
        Dict from string to NumPy array.

    Raises:
        CheckpointError: On NaN or infinity (tensor and count are named),
            complex, boolean or integer weights, or a negative variance.

    Example:
    >>> check_state_dict({"w": np.array([1.0, 2.0], "float16")})["w"].dtype
    dtype('float32')
    """
    if not isinstance(state, Mapping):
        raise CheckpointError(
            f"{origin} must be a dict from string to tensor. "
            f"Received: {type(state).__name__}. Pass model.state_dict()."
        )
    others = [key for key in state if not isinstance(key, str)]
    if others:
        raise CheckpointError(
            f"{origin} must be a dict from string to tensor. "
            f"Received: the key {others[0]!r}. Pass model.state_dict()."
        )
    for prefix in (*_PREFIXES, *_PREFIXES):
        if state and all(key.startswith(prefix) for key in state):
            state = {key[len(prefix) :]: value for key, value in state.items()}
    return {key: _weights(key, value, origin) for key, value in state.items()}


def _weights(key, value, origin):
    """Return one entry as a NumPy array of finite numbers."""
    if hasattr(value, "detach"):
        value = _dense(key, value, origin)
    value = np.asarray(value)
    if key.split(".")[-1] == _COUNTER and value.dtype.kind in "iu":
        return value
    if value.dtype.kind != "f":
        raise CheckpointError(
            f"{origin} holds `{key}` in {value.dtype}: weights must be floating "
            "point. Convert it to float32."
        )
    if value.dtype.itemsize < 4:
        value = value.astype("float32")
    broken = value.size - np.count_nonzero(np.isfinite(value))
    if broken:
        raise CheckpointError(
            f"{origin} holds {broken} NaN or infinite values of {value.size} in "
            f"`{key}`. Such a network computes nothing; use an earlier checkpoint."
        )
    if key.endswith("running_var") and value.size and value.min() < 0:
        raise CheckpointError(
            f"{origin} holds a negative variance in `{key}` ({value.min()}). "
            "The file is damaged or the key means something else."
        )
    return value


def _dense(key, tensor, origin):
    """Return a torch tensor as a NumPy array, if it is one in memory too."""
    try:
        tensor = tensor.detach().cpu()
        stored = tensor.untyped_storage().nbytes()
        # A few bytes may be declared to be a tensor of a terabyte.
        if tensor.numel() * tensor.element_size() <= stored:
            if str(tensor.dtype) == "torch.bfloat16":
                tensor = tensor.float()
            return tensor.resolve_conj().numpy()
    except (TypeError, RuntimeError):
        pass
    kind = f"{tensor.layout}, {tensor.dtype}, {tensor.device}".replace("torch.", "")
    raise CheckpointError(
        f"{origin} holds `{key}` as a tensor without plain values of its own ({kind}): "
        "sparse, quantized, expanded, without data or of a type NumPy lacks. Convert "
        "it to a dense float32 tensor."
    )
