"""An import against outputs that PyTorch gave for the same inputs."""

import dataclasses

import keras
import numpy as np

from keras_spectral.convert.files.errors import MismatchError
from keras_spectral.convert.verification import relative_error
from keras_spectral.models.weights import leaf_layers

# By what the layers compute in. A correct import agrees to 1e-5 in float32.
_TOLERANCES = {"float16": 1e-2, "bfloat16": 1e-1}
_TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How far a model's outputs are from those of an example.

    Args:
        inputs: Integer, how many there were.
        relative_error: Float, max |ours - theirs| / max |theirs|; `None` if outputs are
            of another shape.
        equal_argmaxes: Float, the share of rows whose largest entry is the same one;
            `None` of outputs with one entry.
        tolerance: Float.
        difference: String, what is wrong; empty if the outputs agree.
    """

    inputs: int
    relative_error: float | None
    equal_argmaxes: float | None
    tolerance: float
    difference: str = ""

    def to_dict(self):
        """Return what JSON can hold, with a `status`."""
        found = dataclasses.asdict(self)
        del found["difference"]
        return {"status": "failed" if self.difference else "passed", **found}


def read_example(example):
    """Return (inputs, outputs) with arrays for tensors of PyTorch, or raise."""
    if not isinstance(example, (tuple, list)) or len(example) != 2:
        raise ValueError(
            "`example` must be a pair (x, y): a batch of the model's inputs and what "
            f"the PyTorch network gives for it. Received: a {type(example).__name__}."
        )
    example = keras.tree.map_structure(_array, tuple(example))
    if any(array.ndim == 0 for array in keras.tree.flatten(example)):
        raise ValueError(
            "`example` must hold arrays or tensors whose first axis is the batch. "
            "Received: numbers. Pass `numpy.asarray` of them."
        )
    if not all(array.size for array in keras.tree.flatten(example)):
        raise ValueError(
            "`example` must hold a sample at least. Received: an empty array."
        )
    return example


def _array(value):
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    return np.asarray(value)


def compare_example(model, example):
    """Return the `Agreement` of a model with (inputs, outputs)."""
    x, y = example
    found = keras.tree.flatten(model(x, training=False))
    wanted = keras.tree.flatten(y)
    dtypes = {layer.compute_dtype for layer in leaf_layers(model)}
    tolerance = max(_TOLERANCES.get(dtype, _TOLERANCE) for dtype in dtypes)
    count = len(keras.tree.flatten(x)[0])
    if len(found) != len(wanted):
        numbers = f"{len(found)} outputs, the example {len(wanted)}"
        return Agreement(count, None, None, tolerance, f"the model has {numbers}")
    errors, shares = [0.0], []
    for ours, theirs in zip(found, wanted, strict=True):
        ours = keras.ops.convert_to_numpy(ours).astype("float64")
        theirs = _channels_last(theirs.astype("float64"), ours)
        if ours.shape != theirs.shape:
            shapes = f"shape {ours.shape}, the example's of {theirs.shape}"
            wrong = f"the model's outputs are of {shapes}"
            return Agreement(count, None, None, tolerance, wrong)
        errors.append(relative_error(ours, theirs))
        if ours.ndim > 1 and ours.shape[-1] > 1:
            shares.append(np.mean(ours.argmax(-1) == theirs.argmax(-1)))
    # NaN, which `max` may pass over, is the largest here.
    error = float(np.max(errors))
    share = float(min(shares)) if shares else None
    difference = ""
    if not error <= tolerance:
        difference = f"its outputs are off by {error:.1e} of the largest (the limit is "
        difference += f"{tolerance:g})"
        if share is not None:
            difference += f", and {share:.0%} of the argmaxes are equal"
    return Agreement(count, error, share, tolerance, difference)


def _channels_last(theirs, ours):
    """Return PyTorch's images as ours, if that is how they fit, or fit better."""
    moved = np.moveaxis(theirs, 1, -1) if theirs.ndim > 2 else theirs
    if moved.shape != ours.shape:
        return theirs
    if theirs.shape != ours.shape:
        return moved
    # As many channels as rows and columns.
    return min(theirs, moved, key=lambda images: np.abs(images - ours).max())


def check_example(model, example, origin, unseen):
    """Return the card's entry of an example that agrees, or raise.

    Args:
        model: A built `keras.Model`.
        example: Pair from `read_example`.
        origin: String, the source.
        unseen: List of strings, what may be the reason.
    """
    agreement = compare_example(model, example)
    if agreement.difference:
        raise MismatchError(
            f"{origin} was read, but the model does not compute what the example says: "
            f"{agreement.difference}. Compare what is not in a state dict with the "
            f"PyTorch network: {'; '.join(unseen)}."
        )
    return agreement.to_dict()
