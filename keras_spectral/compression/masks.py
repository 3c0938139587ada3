"""What a compression froze in each kernel: remembered, rebuilt, held in training."""

import dataclasses
import weakref
from typing import Literal

import keras
import numpy as np

from keras_spectral.compression.coding import dtype_named
from keras_spectral.gaussian import normals
from keras_spectral.layers.singular_vectors import SingularVectors
from keras_spectral.models.keras_internals import flatten_layers

# Which entries are small, and what is put in their place: see `compress_matrix`.
Rule = Literal["magnitude", "signed"]
Replacement = Literal["gaussian", "matched", "zero"]

# Model -> {index of the weight: ReplacedKernel}. A model cannot carry it: Keras would
# track and save it.
_COMPRESSIONS = weakref.WeakKeyDictionary()

# Of kernels that nothing is known of: fewer zeros are chance, and no mask.
_MOST_KEPT = 0.9
_BLOCK = 2**20


@dataclasses.dataclass(frozen=True, eq=False)
class ReplacedKernel:
    """Which entries of a kernel were kept, and what stands in place of the others.

    Args:
        kept: Boolean array of the kernel's shape.
        rule: `"magnitude"` or `"signed"`, or `None` where zeros were found.
        replacement: `"gaussian"`, `"matched"` or `"zero"`.
        threshold: Float, or `None` where zeros were found.
        mean: Float, of the normal noise.
        deviation: Float >= 0, its standard deviation; 0 for `"zero"`.
        seed: Integer or sequence of integers, see `gaussian.normals`.
        key: Sequence of integers, see `gaussian.normals`.
    """

    kept: np.ndarray
    rule: Rule | None = None
    replacement: Replacement = "zero"
    threshold: float | None = None
    mean: float = 0.0
    deviation: float = 0.0
    seed: int | tuple = 0
    key: tuple = ()

    def normals(self):
        """Return G, the standard normals under the noise, float32."""
        return normals(self.kept.size, self.seed, self.key).reshape(self.kept.shape)

    def frozen(self, dtype, standard=None):
        """Return what stands in place of the entries that were not kept.

        Args:
            dtype: String, the kernel's.
            standard: G, where it is at hand.

        Returns:
            Array of the kernel's shape.
        """
        dtype = dtype_named(dtype)
        if self.replacement == "zero":
            return np.zeros(self.kept.shape, dtype)
        standard = self.normals() if standard is None else standard
        standard, frozen = standard.reshape(-1), np.empty(self.kept.size, dtype)
        # In blocks: float64 takes four times the memory of float16.
        for start in range(0, frozen.size, _BLOCK):
            part = standard[start : start + _BLOCK].astype("float64")
            noise = self.mean + self.deviation * part
            # By float32, so that bfloat16 is rounded alike by all of its versions.
            frozen[start : start + _BLOCK] = noise.astype("float32").astype(dtype)
        return frozen.reshape(self.kept.shape)


def remember(model, compression):
    """Keep what was compressed for as long as the model lives."""
    _COMPRESSIONS[model] = _without_zero_kernels(compression)


def _without_zero_kernels(compression):
    """Leave out kernels found to be all zeros: they may begin so, as adapters do."""
    return {
        index: record
        for index, record in compression.items()
        if record.rule is not None or record.kept.any()
    }


def compression_of(model):
    """Return what `compress` or `load_compressed` froze in a model's kernels.

    It is the `compression=` of `save_compressed` and `keep_mask` for another model of
    the same weights, such as one that went through `keras.models.load_model`.

    Args:
        model: A `keras.Model`.

    Returns:
        Dict from an index into `model.weights` to a `ReplacedKernel`; empty if nothing
        is known of the model.

    Example:
    >>> import keras
    >>> from keras_spectral import compression
    >>> model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(10)])
    >>> compression_of(model)
    {}
    >>> compression_of(compression.compress(model))[0].replacement
    'matched'
    """
    return dict(_COMPRESSIONS.get(model, {}))


def as_numpy(variable):
    """Return a variable's values."""
    return np.asarray(keras.ops.convert_to_numpy(variable))


def is_float(array):
    """Whether an array holds floats of two bytes or more, bfloat16 among them."""
    return array.dtype.name in ("float16", "bfloat16", "float32", "float64")


def find_masks(model, compression):
    """Return the masks that hold for a model: given, remembered, or of its zeros.

    Args:
        model: A `keras.Model`.
        compression: As `compression_of` returns it, or `None`.

    Returns:
        Dict from an index into `model.weights` to a `ReplacedKernel`.

    Raises:
        ValueError: If `compression` is no such dict, or one of another model.
    """
    weights = model.weights
    if compression is None:
        compression = compression_of(model)
        vectors = _singular_vectors(model)
        for index, weight in enumerate(weights):
            if index in compression or len(weight.shape) < 2 or id(weight) in vectors:
                continue
            values = as_numpy(weight)
            if not is_float(values) or not np.isfinite(values).all():
                continue
            # Minus zero is no zero: what is saved comes back bit for bit.
            kept = (values != 0) | np.signbit(values)
            if kept.mean() <= _MOST_KEPT:
                compression[index] = ReplacedKernel(kept)
        return compression
    if not isinstance(compression, dict) or not all(
        isinstance(record, ReplacedKernel) for record in compression.values()
    ):
        raise ValueError(
            "`compression` must be what `compression_of(model)` returns. "
            f"Received: compression={str(compression)[:80]}"
        )
    for index, record in compression.items():
        shape = tuple(weights[index].shape) if index in range(len(weights)) else None
        if record.kept.shape != shape:
            raise ValueError(
                f"`compression` must be one of '{model.name}'. Received: a mask of "
                f"{record.kept.shape} for weight {index} of {shape}"
            )
    return dict(compression)


def _singular_vectors(model):
    """Return the ids of the weights that are a wrapper's state, and no kernels."""
    return {
        id(weight)
        for layer in flatten_layers(model)
        if isinstance(layer, SingularVectors)
        for weight in layer.weights
    }


class _KeepMask(keras.constraints.Constraint):
    """Puts back what is frozen: kept entries of w, the others as they were."""

    def __init__(self, kept, frozen):
        self.kept = keras.ops.convert_to_tensor(kept)
        self.frozen = frozen if frozen is None else keras.ops.convert_to_tensor(frozen)

    def __call__(self, w):
        frozen = keras.ops.zeros_like(w) if self.frozen is None else self.frozen
        return keras.ops.where(self.kept, keras.ops.convert_to_tensor(w), frozen)


def keep_mask(model, compression=None):
    """Let only the kept weights of compressed kernels train.

    Puts a constraint on each of those kernels: now, and after every update of an
    optimizer, the other entries are again what they were, bit for bit, zeros or noise.
    `fit` then fine-tunes as ever, and `save_compressed` saves without choosing the mask
    anew. A compiled model is traced again. The constraints are not saved with a model;
    for one that was loaded by Keras call this again. Call it again, too, after training
    with `use_ema=True`: Keras averages the weights before it applies constraints.

    Args:
        model: A built `keras.Model`, changed in place.
        compression: Dict as `compression_of` returns it. By default what is known of
            the model, and the zeros of other kernels that are a tenth zeros or more,
            but not all: those train.

    Raises:
        ValueError: If nothing is frozen in the model, a kernel has a constraint of
            its own, or `compression` is not one of this model.

    Example:
    >>> import keras, numpy as np
    >>> from keras_spectral import compression
    >>> model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(10)])
    >>> model = compression.compress(model, replacement="zero")
    >>> zeros = model.get_weights()[0] == 0
    >>> keep_mask(model)
    >>> model.compile("adam", "mse")
    >>> _ = model.fit(np.ones((8, 20)), np.ones((8, 10)), verbose=0)
    >>> bool((model.get_weights()[0][zeros] == 0).all())
    True

    Source: [shin2021], section 3.2: W(t) = sqrt(t) G + B, of which B is trained.
    """
    masks = _without_zero_kernels(find_masks(model, compression))
    if not masks:
        raise ValueError(
            f"`model` must be compressed: '{model.name}' has no kernel of zeros and "
            "nothing is known of it. Take the model that `compression.compress` "
            "returns, or pass `compression=`."
        )
    weights = model.weights
    for index in masks:
        constraint = weights[index].constraint
        if constraint is not None and not isinstance(constraint, _KeepMask):
            raise ValueError(
                f"`model` must have no constraint on what is frozen. Received: "
                f"{type(constraint).__name__} on '{weights[index].path}'"
            )
    for index, record in masks.items():
        frozen = None
        if record.replacement != "zero":
            frozen = record.frozen(as_numpy(weights[index]).dtype.name)
        constraint = _KeepMask(record.kept, frozen)
        weights[index].constraint = constraint
        weights[index].assign(constraint(weights[index]))
    if model.compiled:
        # Constraints are read when the step is traced.
        model.make_train_function(force=True)
