"""Weights from PyTorch into a Keras model and back."""

from pathlib import Path

import keras
import numpy as np

import keras_spectral
from keras_spectral import zoo
from keras_spectral.convert import (
    dialects,
    spectral_state,
    verification,
    wrapped_state,
)
from keras_spectral.convert.accounting import check_keys, check_shapes
from keras_spectral.convert.cards import provenance, remember
from keras_spectral.convert.files.errors import CheckpointError, MismatchError
from keras_spectral.convert.files.reader import read_checkpoint
from keras_spectral.convert.files.records import numpy_dtype
from keras_spectral.convert.files.state import StateDict
from keras_spectral.convert.rules import slots
from keras_spectral.convert.wrapped_state import numpy_values
from keras_spectral.files import replacing

_COUNTER = "num_batches_tracked"


def from_torch(
    source,
    model,
    dialect: str = "auto",
    entry: str | None = None,
    verify: bool = True,
) -> keras.Model:
    """Load PyTorch weights into a Keras model, all of them or none.

    The key of a layer is its name with `.` for each `-`; other projects' names for the
    same networks are recognized. Every tensor of the source and every weight of the
    model must be used once; `num_batches_tracked`, for which Keras has no variable, is
    kept in the card (see `provenance`).

    Spectral normalization in any of five forms (PyTorch's two, mimicry's,
    BigGAN-PyTorch's, `weight_bar`) is loaded into `SpectralNormalization` with its
    singular vectors: the layer computes with W / (u' W v), and training goes on as it
    would in PyTorch, until `restart_power_iteration`. A plain layer receives
    W / (u' W v). A wrapper whose source has none receives the weights as its trainable
    kernel, and its singular vectors are found anew.

    Args:
        source: Path of a checkpoint (see `read_checkpoint`), or a state dict of
            torch tensors or NumPy arrays.
        model: A built `keras.Model`, or the name of a registered one, which is then
            built as the dialect needs it.
        dialect: String, a name in `convert.dialects`, or `"auto"`.
        entry: String, which state dict of several in the file.
        verify: Boolean, whether to compare the result, in float64, with a reference
            that shares no code with it.

    Returns:
        The model. Numbers are rounded to the dtype of its weights.

    Raises:
        CheckpointError: On a file that cannot be read. A `MismatchError` among them:
            on keys that are missing, unused or of another shape, all in one message,
            or if the model does not compute what the checkpoint's network does.
        ValueError: On an unknown name, or a layer for which there is no rule.

    Example:
    >>> from keras_spectral.convert import provenance
    >>> model = from_torch(zoo.checkpoint("resnet20_digits").weights, "resnet20_digits")
    >>> provenance(model)["verification"]["status"]
    'passed'
    """
    name = model if isinstance(model, str) else None
    if name is not None:
        # An unknown name is told before a large file is read.
        zoo.entry(name)
    chosen = None if dialect == "auto" else dialects.named(dialect)
    state = _opened(source, entry)
    plain, spectral = _guarded(state, spectral_state.parse, state)
    arguments = dialects.builder_arguments(name or model.name)
    if name is not None:
        config = dialects.builder_config(chosen, arguments) if chosen else {}
        model = zoo.build(name, **config)
    targets = slots(model)
    if chosen is None:
        flavours = {found.flavour.name for found in spectral.values()}
        chosen, _ = _guarded(
            state, dialects.detect, plain, set(targets), arguments, flavours
        )
        config = dialects.applicable(chosen.config, arguments)
        if name is not None and config:
            model = zoo.build(name, **config)
            targets = slots(model)
    keys = {dialects.to_ours(key, chosen): theirs for key, theirs in plain.items()}
    # Others' counters stay among the keys, and are unused.
    counters = {
        key: theirs
        for key, theirs in keys.items()
        if key.split(".")[-1] == _COUNTER
        and f"{key.removesuffix(_COUNTER)}running_mean" in targets
    }
    keys = {k: v for k, v in keys.items() if k not in counters}
    check_keys(state.origin, model, targets, keys, plain)
    check_shapes(state.origin, model, targets, keys, state.shapes)
    spectral = {
        dialects.to_ours(f"{path}.weight", chosen).removesuffix(".weight"): found
        for path, found in spectral.items()
    }
    weights = _Weights(state, keys, spectral, targets)
    # Every value is read and checked before the first one is assigned.
    counts = {key: state.count(theirs) for key, theirs in counters.items()}
    for key in targets:
        weights.stored(key)
    before = model.get_weights() if name is None and verify else None
    _assign(targets, weights)
    report = verification.verify(model, weights, chosen) if verify else None
    if report is not None and not report.passed:
        if before is not None:
            model.set_weights(before)
        raise MismatchError(f"{state.origin} was read, but {report}")
    # Last: a wrapper that follows other vectors does not go back to its own.
    wrapped_state.assign_vectors(targets, weights)
    _forget_compiled(model)
    weights.note_dtypes()
    card = {
        "keras_spectral": keras_spectral.__version__,
        "source": state.origin,
        "container": state.container,
        "fingerprint": state.fingerprint(),
        "dialect": chosen.name,
        "notes": [*state.notes, *weights.notes],
        "dtypes": sorted(set(state.dtypes.values())),
        "spectral_normalization": {
            path: found.flavour.name for path, found in spectral.items()
        },
        _COUNTER: counts,
    }
    if report is not None:
        card["verification"] = report.to_dict()
    remember(model, card)
    return model


def _opened(source, entry):
    if not isinstance(source, (str, Path)):
        return source if isinstance(source, StateDict) else StateDict(source)
    state = read_checkpoint(source, entry)
    if state.container in ("keras", "hdf5"):
        raise CheckpointError(
            f"{source} is a Keras file, not a PyTorch checkpoint. Load it with "
            "keras.models.load_model or model.load_weights."
        )
    return state


def _guarded(state, function, *arguments):
    """Put the file's name before an error's sentence."""
    try:
        return function(*arguments)
    except CheckpointError as error:
        raise type(error)(f"{state.origin} {error}") from error


class _Weights:
    """The tensors of a source under our keys, in PyTorch's layout."""

    def __init__(self, state, keys, spectral, targets):
        self._state, self._keys = state, keys
        self._spectral, self._targets = spectral, targets
        self._transposed = {
            key.removesuffix(".weight"): "Transpose" in type(slot.layer).__name__
            for key, slot in targets.items()
        }
        self._found = {}
        self.notes = []
        for path in spectral:
            self._found[path] = self._singular_vectors(path)

    def _singular_vectors(self, path):
        found, weight = self._spectral[path], self.stored(f"{path}.weight")
        if found.u is None and weight.ndim == 1:
            # PyTorch normalizes a vector by its Euclidean norm, without state.
            return None
        vectors = _guarded(
            self._state,
            spectral_state.read,
            self._state,
            found,
            weight,
            self._transposed.get(path, False),
        )
        if abs(vectors.sigma - vectors.true_sigma) > 0.05 * vectors.true_sigma:
            self.notes.append(
                f"the norm of {path} by its stored vectors is {vectors.sigma:.4g}, the "
                f"true one {vectors.true_sigma:.4g}: they were not trained"
            )
        if found.flavour.evaluation:
            self.notes.append(
                f"{path}: in {found.flavour.name} {found.flavour.evaluation}; here it "
                "takes the stored vectors"
            )
        return vectors

    def stored(self, key):
        """Return a tensor as it is trained."""
        return self._state[self._keys[key]]

    def effective(self, key):
        """Return a tensor as the network computes with it, in float64."""
        value = np.asarray(self.stored(key), "float64")
        path, _, leaf = key.rpartition(".")
        if leaf != "weight" or path not in self._spectral:
            return value
        vectors = self._found[path]
        return value / (np.linalg.norm(value) if vectors is None else vectors.sigma)

    def rounded(self, key, effective=True):
        """Return a tensor with the numbers that the model's dtype leaves of it."""
        value = self.effective(key) if effective else self.stored(key)
        dtype = numpy_dtype(str(self._targets[key].variable.dtype))
        return np.asarray(value).astype(dtype).astype("float64")

    def note_dtypes(self):
        """Say which numbers were widened, and by how much any were rounded."""
        dtypes = self._state.dtypes
        for dtype in sorted(set(dtypes.values()) - {"float32", "int64"}):
            keys = [k for k, theirs in self._keys.items() if dtypes[theirs] == dtype]
            error = max((self._rounding(key) for key in keys), default=0.0)
            self.notes.append(
                f"{len(keys)} tensors were stored in {dtype}; rounding them to the "
                f"model's dtype changed them by at most {error:.1e} of their largest"
            )

    def _rounding(self, key):
        value = np.asarray(self.stored(key), "float64")
        change = np.abs(self.rounded(key, effective=False) - value)
        return float(change.max(initial=0) / (np.abs(value).max(initial=0) or 1))

    def vectors(self, path):
        """Return (`SpectralState`, `Flavour`) of a module, or `None`."""
        if self._found.get(path) is None:
            return None
        return self._found[path], self._spectral[path].flavour

    def is_spectral(self, path):
        """Whether the source normalizes a module."""
        return path in self._spectral


def _assign(targets, weights):
    for key, slot in targets.items():
        path, _, leaf = key.rpartition(".")
        value = weights.stored(key)
        if leaf == "weight" and weights.is_spectral(path) and slot.wrapper is None:
            value = weights.effective(key)
            weights.notes.append(f"{path} received its normalized weight")
        slot.variable.assign(slot.to_keras(value, slot.variable.shape))


def _forget_compiled(model):
    """Let a model that has run be traced again, with the vectors it follows now."""
    for layer in model._flatten_layers():
        if isinstance(layer, keras.Model):
            layer.train_function = layer.test_function = layer.predict_function = None


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
    the same `num_batches_tracked`. Tensors have the dtype of the model's weights;
    bfloat16 is widened to float32.

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
    flavour = _flavour(spectral_normalization)
    card = provenance(model)
    names = dialects.named(dialect or card.get("dialect", "pytorchcv"))
    state = {}
    for key, slot in slots(model).items():
        module, _, leaf = key.rpartition(".")
        theirs = dialects.to_theirs(key, names)
        takes = flavour is not None and wrapped_state.takes_vectors(slot.wrapper)
        if takes and leaf in ("weight", "bias"):
            prefix = theirs.removesuffix(leaf)
            state |= wrapped_state.spectral_entries(slot, leaf, prefix, flavour)
            continue
        value = slot.variable
        if leaf == "weight" and hasattr(slot.wrapper, "effective_kernel"):
            value = slot.wrapper.converged_kernel()
        state[theirs] = np.ascontiguousarray(slot.to_torch(numpy_values(value)))
    for key, value in card.get(_COUNTER, {}).items():
        state[dialects.to_theirs(key, names)] = np.array(value, "int64")
    _write(state, path, suffix)
    return state


def _flavour(name):
    if name is None:
        return None
    known = {flavour.name: flavour for flavour in spectral_state.FLAVOURS}
    if name not in known:
        raise ValueError(
            f"`spectral_normalization` must be None or one of {sorted(known)}. "
            f"Received: spectral_normalization={name!r}"
        )
    return known[name]


def _write(state, path, suffix):
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
