"""Weights from a Keras model as a PyTorch state dict."""

from pathlib import Path

import keras
import numpy as np

from keras_spectral.convert import dialects, spectral_state, wrapped_state
from keras_spectral.convert.cards import provenance
from keras_spectral.convert.flattening import flattened_orders, reordered
from keras_spectral.convert.rules import slots
from keras_spectral.convert.wrapped_state import numpy_values
from keras_spectral.files import output_file, replacing

_COUNTER = "num_batches_tracked"


def to_torch(
    model: keras.Model,
    path: str | Path | None = None,
    dialect: str | None = None,
    spectral_normalization: str | None = None,
) -> dict[str, np.ndarray]:
    """Return a model's weights as a PyTorch state dict, and write it if asked.

    A layer in a normalizing wrapper gives its effective kernel, converged in float64
    (`converged_kernel`): the plain PyTorch module computes the same but for the error
    of the norm that the layer computes with. With `spectral_normalization` it gives its
    trained kernel and the leading singular vectors as they are. PyTorch then divides by
    u' W v; `bound`, `clip` and a capped stable rank are not in its file.

    What `from_torch` read goes out as it came: in the same dialect, bit for bit, with
    the same `num_batches_tracked`; but of the two biases of an LSTM or RNN,
    `bias_ih` is their sum and `bias_hh` zero. A dense layer that reads a flattened
    image has its inputs in PyTorch's order, channels first, as in `from_torch`. Tensors
    have the dtype of the model's weights; bfloat16 is widened to float32.

    Args:
        model: A built `keras.Model` whose layers are named by module paths.
        path: Optional file to write: `.safetensors`, or `.pth` or `.pt`, which
            need PyTorch.
        dialect: String, a name in `convert.dialects`; default: the one that the model
            was imported from, else our own names.
        spectral_normalization: String, the form to write it in:
            `"parametrizations.spectral_norm"`, `"utils.spectral_norm"`,
            `"weight_bar"`, `"mimicry"` or `"BigGAN"`; default: effective kernels.

    Returns:
        Dict from key to NumPy array.

    Raises:
        ValueError: On a layer for which there is no rule, another suffix, or a wrapped
            kernel that holds NaN or infinity; nothing is written then.
        OSError: If the file cannot be written; what was at `path` stays.

    Example:
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="fc")])
    >>> {key: value.shape for key, value in to_torch(model).items()}
    {'fc.weight': (2, 3), 'fc.bias': (2,)}
    """
    suffix = None if path is None else Path(path).suffix
    if suffix not in (None, ".safetensors", ".pth", ".pt"):
        raise ValueError(
            f"`path` must end in .safetensors, .pth or .pt. Received: path={path}"
        )
    if path is not None:
        output_file(path)
    flavour = _flavour(spectral_normalization)
    card = provenance(model)
    names = dialects.named(dialect or card.get("dialect", "pytorchcv"))
    orders, _ = flattened_orders(model)
    if card:
        # As they came in.
        orders = {k: v for k, v in orders.items() if k in card.get("flattened", ())}
    state = {}
    for key, slot in reordered(slots(model), orders).items():
        module, _, leaf = key.rpartition(".")
        slot = slot._replace(shape=card.get("shapes", {}).get(key))
        theirs = dialects.to_theirs(key, names)
        takes = flavour is not None and wrapped_state.takes_vectors(slot.wrapper)
        if takes and leaf in ("weight", "bias"):
            prefix = theirs.removesuffix(leaf)
            order = orders.get(module)
            state |= wrapped_state.spectral_entries(slot, leaf, prefix, flavour, order)
            continue
        values = [_exported(holder, slot.wrapper) for holder in slot.holders]
        state[theirs] = np.ascontiguousarray(slot.to_torch(values))
    for key, value in card.get(_COUNTER, {}).items():
        state[dialects.to_theirs(key, names)] = np.array(value, "int64")
    for key, own in card.get("tied", {}).items():
        # As it came in: under each of its names.
        own = dialects.to_theirs(own, names)
        if own in state:
            state[dialects.to_theirs(key, names)] = state[own].copy()
    _write(state, path, suffix)
    return state


def _exported(holder, wrapper):
    if holder.kernel is not None and hasattr(wrapper, "effective_kernel"):
        return numpy_values(wrapper.converged_kernel(holder.kernel))
    return numpy_values(holder.variable)


def _flavour(name):
    if name is None:
        return None
    known = {flavour.name: flavour for flavour in spectral_state.FLAVOURS}
    if name not in known:
        raise ValueError(
            f"`spectral_normalization` must be one of {sorted(known)}, if any. "
            f"Received: spectral_normalization={name!r}"
        )
    return known[name]


def _write(state, path, suffix):
    if suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        with replacing(path, tells=SafetensorError) as temporary:
            save_file(state, temporary)
    elif suffix is not None:
        try:
            import torch
        except ImportError as error:
            raise ImportError(
                f"Writing {suffix} needs PyTorch: `pip install torch`. Or write "
                ".safetensors."
            ) from error
        tensors = {key: torch.from_numpy(value.copy()) for key, value in state.items()}
        # Given a path, it tells of a full disk in words alone.
        with replacing(path) as temporary, temporary.open("wb") as file:
            torch.save(tensors, file)
