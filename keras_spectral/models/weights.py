"""Which matrices a model computes with."""

import difflib
from dataclasses import dataclass

import keras
from keras import layers as kl

from keras_spectral.models.slots import (
    KernelSlot,
    check_plain,
    kernel_slots,
    why_unfit,
)
from keras_spectral.models.views import MatrixView

# Of names that a model has, what an error lists.
_NAMES = 30


@dataclass(frozen=True)
class Weight:
    """A kernel of a model: what is trained, and what the layer computes with.

    Args:
        name: String: that of the layer, or `layer/kernel` where it has several.
        kind: String, the class of the layer, of that in a wrapper if there is one.
        layer: The `keras.layers.Layer` of the model, a wrapper where there is one.
        slot: The `KernelSlot` in which the layer computes with it.
    """

    name: str
    kind: str
    layer: keras.layers.Layer
    slot: KernelSlot

    @property
    def is_wrapped(self):
        """Whether the layer computes with a function of what is trained."""
        return _is_reparametrized(self.layer) or _is_factored(self.layer)

    @property
    def variable(self):
        """The trained `keras.Variable`; `None` if the layer trains factors of it."""
        return None if _is_factored(self.layer) else self.slot.variable

    def effective(self):
        """Return the tensor that the layer computes with, in the kernel's shape."""
        if _is_reparametrized(self.layer):
            return self.layer.effective_kernel(self.slot.name)
        return self.slot.value

    def matrix(self):
        """Return W of y = W x, a float64 array (outputs, inputs), flattened."""
        kernel = keras.ops.convert_to_numpy(self.effective()).astype("float64")
        return keras.ops.convert_to_numpy(self.slot.view.flatten(kernel)).T

    def operator(self, norm="reshaped", input_size=None):
        """Return what the layer does with the kernel, as a `linalg.LinearOperator`.

        Args:
            norm: `"reshaped"`, the operator x -> W x of the matrix, or `"operator"`,
                that of a convolution on images.
            input_size: Tuple of integers, pixels on each spatial axis, where the layer
                was built without them.
        """
        matrix = self.slot.view.flatten(self.effective())
        return self.slot.matrix_operator(norm, input_size)(matrix)


@dataclass(frozen=True)
class LeftOut:
    """A layer with weights of which `weights` lists none, and why.

    Args:
        name: String.
        kind: String, the class of the layer.
        reason: String.
    """

    name: str
    kind: str
    reason: str

    def __str__(self):
        return f"{self.name} ({self.kind}): {self.reason}"


class Weights(list):
    """A list of `Weight`.

    Args:
        found: List of `Weight`.
        left_out: List of `LeftOut`, the other layers that have weights.
    """

    def __init__(self, found=(), left_out=()):
        super().__init__(found)
        self.left_out = list(left_out)


def weights(model: keras.Model, where=None) -> Weights:
    """Return the kernels that a model computes with.

    Args:
        model: A built `keras.Model`; nested models are entered, and a layer that is
            used twice is listed once.
        where: Which kernels: a callable that gets a `Weight` and returns a boolean, or
            a list of names, of kernels (`mha/query`) or of layers (all that they
            have). By default all.

    Returns:
        `Weights`, a list of `Weight` with `left_out`.

    Raises:
        ValueError: If it is no model, a layer is not built, `where` has a name that is
            none of the model's, or chooses nothing.

    Example:
    >>> import keras
    >>> layers = [keras.Input((6, 2)), kl.LSTM(3, name="lstm"), kl.Dense(1, name="fc")]
    >>> [weight.name for weight in weights(keras.Sequential(layers))]
    ['lstm/kernel', 'lstm/recurrent_kernel', 'fc']
    >>> weights(keras.Sequential(layers), where=["fc"])[0].matrix().shape
    (1, 3)
    """
    if not isinstance(model, kl.Layer):
        raise ValueError(f"`model` must be a `keras.Model`. Received: {model!r}")
    found, left_out = [], []
    for layer in dict.fromkeys(leaf_layers(model)):
        reason = _reason(layer)
        if reason is None:
            for weight in _of_layer(model, layer):
                reason = None if _is_adapted(weight.slot.owner) else _unfit(weight)
                if reason is None:
                    found.append(weight)
                else:
                    left_out.append(LeftOut(weight.name, weight.kind, reason))
        elif layer.weights:
            left_out.append(LeftOut(layer.name, type(layer).__name__, reason))
    if where is None:
        return Weights(found, left_out)
    chosen = _chosen(model, found, left_out, where)
    if not chosen:
        raise ValueError(
            "`where` must choose at least one kernel. Received: "
            f"where={where!r} for '{model.name}'."
        )
    left_out += [
        LeftOut(weight.name, weight.kind, "not chosen by `where`")
        for weight in found
        if not any(weight is other for other in chosen)
    ]
    return Weights(chosen, left_out)


def _unfit(weight):
    """Return why a kernel is none: attention's projections are layers of their own."""
    return why_unfit(weight.slot.owner, check_plain)


def _chosen(model, found, left_out, where):
    if callable(where):
        return [weight for weight in found if where(weight)]
    names = check_names(where)
    known = dict.fromkeys(
        name for weight in found for name in (weight.layer.name, weight.name)
    )
    for name in names:
        if name not in known:
            raise unknown_name(model, name, known, left_out)
    return [w for w in found if w.name in names or w.layer.name in names]


def check_names(where):
    """Return the names that `where` holds, or raise a ValueError."""
    names = [] if isinstance(where, str) else list(where)
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(
            "`where` must be a list of names, a callable that gets a `Weight` and "
            f"returns a boolean, or None for all. Received: where={where!r}"
        )
    return names


def unknown_name(model, name, known, left_out=()):
    """Return the error of a name that matches nothing, or what was left out."""
    for left in left_out:
        if left.name == name:
            return ValueError(
                f"`where` must name kernels of '{model.name}', or layers with kernels. "
                f"Received: {name!r}, a {left.kind}: {left.reason}."
            )
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"Did you mean {' or '.join(near)}?" if near else _known_names(known)
    return ValueError(
        f"`where` must name kernels of '{model.name}', or layers with kernels. "
        f"Received: {name!r}. {hint}"
    )


def _known_names(known):
    """Return a sentence with the first names of many."""
    known = list(known)
    more = len(known) - _NAMES
    rest = f" and {more} more" if more > 0 else ""
    return f"It has {', '.join(known[:_NAMES])}{rest}." if known else "It has none."


def leaf_layers(model):
    """Yield the layers of a model; nested models are entered, wrappers are not.

    Args:
        model: A `keras.Model`.

    Yields:
        `keras.layers.Layer` instances in the model's order.

    Example:
    >>> import keras
    >>> inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="a")])
    >>> outer = keras.Sequential([inner, keras.layers.Dense(1, name="b")])
    >>> [layer.name for layer in leaf_layers(outer)]
    ['a', 'b']
    """
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaf_layers(layer)
        else:
            yield layer


def _is_reparametrized(layer):
    return isinstance(layer, kl.Wrapper) and hasattr(layer, "effective_kernel")


def _is_factored(layer):
    # An SVD layer never forms its kernel; its plain layer has it.
    return hasattr(layer, "to_layer")


def _inner(layer):
    """Return the plain Keras layer whose kernels are computed with."""
    if _is_factored(layer) and layer.built:
        return layer.to_layer()
    return layer.layer if _is_reparametrized(layer) else layer


# Layers whose `kernel` adds the LoRA adapter.
_ADAPTED = (kl.Dense, kl.Conv1D, kl.Conv2D, kl.Conv3D)


def _is_adapted(layer):
    return getattr(layer, "lora_enabled", False) and isinstance(layer, _ADAPTED)


def _reason(layer):
    """Return why a layer's weights are none of `weights`, or `None`."""
    inner = _inner(layer)
    return None if _is_adapted(inner) else why_unfit(inner)


def _of_layer(model, layer):
    inner = _inner(layer)
    if not inner.built:
        raise ValueError(
            f"`model` must be built. Received: '{model.name}', whose layer "
            f"'{layer.name}' has no weights yet. Call it on a batch first."
        )
    if _is_adapted(inner):
        shape = tuple(inner.kernel.shape)
        last = len(shape) - 1
        view = MatrixView(shape, (last,), tuple(range(last - 1)))
        slots = [KernelSlot("kernel", inner, "kernel", view)]
    elif _is_reparametrized(layer):
        slots = layer.slots
    else:
        slots = kernel_slots(inner)
    # One kernel goes by the layer's name.
    names = ["" if len(slots) == 1 else f"/{slot.name}" for slot in slots]
    return [
        Weight(f"{layer.name}{name}", type(inner).__name__, layer, slot)
        for name, slot in zip(names, slots, strict=True)
    ]
