"""Weights from PyTorch into a Keras model and back: one rule a layer kind."""

from pathlib import Path

import keras
import numpy as np

from keras_spectral import zoo
from keras_spectral.convert.errors import CheckpointError
from keras_spectral.convert.reader import read_checkpoint
from keras_spectral.convert.state import StateDict
from keras_spectral.files import replacing
from keras_spectral.layers import Reparametrization
from keras_spectral.traversal import leaf_layers

_BATCH_NORMALIZATION = (
    ("weight", "gamma"),
    ("bias", "beta"),
    ("running_mean", "moving_mean"),
    ("running_var", "moving_variance"),
)


def _identity(array):
    return array


# Layer kind -> rows of (PyTorch's suffix, Keras' attribute, to Keras, to PyTorch).
_RULES = {
    keras.layers.Conv2D: (
        ("weight", "kernel", lambda a: a.transpose(2, 3, 1, 0),
         lambda a: a.transpose(3, 2, 0, 1)),
        ("bias", "bias", _identity, _identity),
    ),
    keras.layers.Dense: (
        ("weight", "kernel", np.transpose, np.transpose),
        ("bias", "bias", _identity, _identity),
    ),
    keras.layers.BatchNormalization: tuple(
        (suffix, attribute, _identity, _identity)
        for suffix, attribute in _BATCH_NORMALIZATION
    ),
}  # fmt: skip


def _weighted_layers(model):
    """Yield (name, inner layer, wrapper or None) of every layer with weights."""
    for layer in leaf_layers(model):
        if not layer.weights:
            continue
        if isinstance(layer, keras.layers.Wrapper):
            yield layer.name, layer.layer, layer
        else:
            yield layer.name, layer, None


def _rule(layer):
    """Return the rows of `_RULES` that cover a layer's weights, all, or `None`."""
    rows = next((rows for kind, rows in _RULES.items() if isinstance(layer, kind)), ())
    rows = [row for row in rows if getattr(layer, row[1], None) is not None]
    covered = {id(getattr(layer, row[1])) for row in rows}
    return rows if covered == {id(weight) for weight in layer.weights} else None


def _slots(model):
    """Return {key: (layer, wrapper, attribute, to Keras, to PyTorch)}."""
    if not model.built:
        raise ValueError(
            "`model` must be built, so that its weights exist. Received: "
            f"model={model.name}. Call it on a batch first."
        )
    slots, unknown = {}, []
    for name, layer, wrapper in _weighted_layers(model):
        rule = _rule(layer)
        if rule is None:
            unknown.append(f"{name} ({type(layer).__name__})")
            continue
        for suffix, attribute, to_keras, to_torch in rule:
            key = f"{name.replace('-', '.')}.{suffix}"
            if key in slots:
                raise ValueError(
                    f"`model` has two layers for the key `{key}`. Give every layer "
                    "a name of its own."
                )
            slots[key] = (layer, wrapper, attribute, to_keras, to_torch)
    if unknown:
        raise ValueError(
            "`model` must hold weights in Conv2D, Dense and BatchNormalization "
            f"layers only. Received: {', '.join(unknown)}, for which there is no rule."
        )
    return slots


def from_torch(source, model):
    """Load PyTorch weights into a Keras model, all of them or none.

    The key of a layer is its name with `.` for each `-`. Every tensor of the
    source and every weight of the model must be used once;
    `num_batches_tracked` is passed over, since Keras has no such counter. A
    layer in a normalizing wrapper receives the weights as its trainable kernel,
    and its singular vectors are estimated anew.

    Args:
        source: Path of a checkpoint (see `read_checkpoint`), or a state dict of
            torch tensors or NumPy arrays.
        model: A built `keras.Model`, or the name of a registered one.

    Returns:
        The model. Numbers are rounded to the dtype of its weights.

    Raises:
        CheckpointError: On a file that cannot be read, and on keys that are
            missing, unused or of another shape, all in one message.
        ValueError: On an unknown name, or a layer for which there is no rule.

    Example:
    >>> from keras_spectral import zoo
    >>> model = from_torch(zoo.checkpoint("resnet20_digits").weights, "resnet20_digits")
    >>> model.output_shape
    (None, 10)
    """
    if isinstance(model, str):
        # An unknown name is told before a large file is read.
        zoo.entry(model)
    if isinstance(source, (str, Path)):
        state, origin = read_checkpoint(source), str(source)
        if state.container in ("keras", "hdf5"):
            raise CheckpointError(
                f"{origin} is a Keras file, not a PyTorch checkpoint. Load it with "
                "keras.models.load_model or model.load_weights."
            )
    else:
        state, origin = StateDict(source), "The state dict"
    if isinstance(model, str):
        model = zoo.build(model)
    slots = _slots(model)
    state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    missing = sorted(slots.keys() - state.keys())
    unused = sorted(state.keys() - slots.keys())
    values, misshaped = {}, []
    for key in sorted(slots.keys() & state.keys()):
        layer, _, attribute, to_keras, to_torch = slots[key]
        variable = getattr(layer, attribute)
        expected = to_torch(np.empty(variable.shape, "bool")).shape
        if state[key].shape != expected:
            misshaped.append(f"{key} {state[key].shape}, not {expected}")
        else:
            values[key] = to_keras(state[key])
    if missing or unused or misshaped:
        lists = {"Missing": missing, "Unused": unused, "Of another shape": misshaped}
        raise CheckpointError(
            f"{origin} does not fit the model '{model.name}': {len(missing)} keys "
            f"are missing, {len(unused)} unused, {len(misshaped)} of another shape. "
            "Choose the architecture that the file was saved from. "
            + " ".join(f"{what}: {', '.join(k)}." for what, k in lists.items() if k)
        )
    for key, value in values.items():
        layer, _, attribute, _, _ = slots[key]
        getattr(layer, attribute).assign(value)
    for _, wrapper, *_ in slots.values():
        # Vectors that were trained with another kernel say nothing of this one.
        if isinstance(wrapper, Reparametrization):
            wrapper.restart_power_iteration()
    return model


def to_torch(model, path=None):
    """Return a model's weights as a PyTorch state dict, and write it if asked.

    A layer in a normalizing wrapper gives its effective kernel, so that the
    plain PyTorch module computes the same. `num_batches_tracked` is left out;
    `load_state_dict(strict=True)` accepts that. Tensors have the dtype of the
    model's weights; bfloat16 is widened to float32.

    Args:
        model: A built `keras.Model` whose layers are named by module paths.
        path: Optional file to write: `.safetensors`, or `.pth` or `.pt`, which
            need PyTorch.

    Returns:
        Dict from key to NumPy array.

    Raises:
        ValueError: On a layer for which there is no rule, or another suffix.

    Example:
    >>> import keras
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="fc")])
    >>> {key: value.shape for key, value in to_torch(model).items()}
    {'fc.weight': (2, 3), 'fc.bias': (2,)}
    """
    suffix = None if path is None else Path(path).suffix
    if suffix not in (None, ".safetensors", ".pth", ".pt"):
        raise ValueError(
            f"`path` must end in .safetensors, .pth or .pt. Received: path={path}"
        )
    state = {}
    for key, (layer, wrapper, attribute, _, to_torch_) in _slots(model).items():
        value = getattr(layer, attribute)
        if attribute == "kernel" and hasattr(wrapper, "effective_kernel"):
            value = wrapper.effective_kernel()
        value = keras.ops.convert_to_numpy(value)
        if value.dtype.name == "bfloat16":
            value = value.astype("float32")
        state[key] = np.ascontiguousarray(to_torch_(value))
    if suffix == ".safetensors":
        from safetensors.numpy import save_file

        with replacing(path) as temporary:
            save_file(state, temporary)
    elif suffix is not None:
        try:
            import torch
        except ImportError as error:
            raise ImportError(
                f"Writing {suffix} needs PyTorch. Install it by `pip install "
                "'keras-spectral[torch]'`, or write .safetensors."
            ) from error
        tensors = {key: torch.from_numpy(value.copy()) for key, value in state.items()}
        with replacing(path) as temporary:
            torch.save(tensors, temporary)
    return state
