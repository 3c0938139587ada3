"""Where a layer in memory reads its kernels, and what maps they are."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers as kl
from keras import ops

from keras_spectral import linalg
from keras_spectral.models.axes import einsum_labels
from keras_spectral.models.kinds import (
    CELLS,
    OTHER_CELLS,
    SUPPORTED,
    kernels_of,
    kind_of,
)
from keras_spectral.models.layouts import Counterpart
from keras_spectral.models.reasons import Unfit, quantized, reason_of
from keras_spectral.models.views import MatrixView


@dataclass(frozen=True)
class KernelSlot:
    """A place where a layer reads a kernel.

    Args:
        name: String, `"kernel"` or, where a layer has several, what Keras
            calls each.
        owner: The `keras.layers.Layer` that holds the variable.
        attribute: String, the attribute that the owner's `call` reads.
        view: A `MatrixView`.
        operator: Callable from a kernel tensor and an image size to a
            `LinearOperator`, or `None` where the matrix is the operator.
        induced: String, which norm of `linalg.induced_norm` bounds the layer; of a
            dense one that of the matrix.
        setting: String: the layer calls the kernel's constraint `<setting>_constraint`
            and its regularizer `<setting>_regularizer`.
        configured: The `keras.layers.Layer` whose config holds those, where it is not
            the owner.
        torch: `layouts.Counterpart`, or `None` where PyTorch has no such module.
    """

    name: str
    owner: keras.layers.Layer
    attribute: str
    view: MatrixView
    operator: Callable | None = None
    induced: str = "dense"
    setting: str = "kernel"
    configured: keras.layers.Layer | None = None
    torch: Counterpart | None = None

    @property
    def variable(self):
        """The trainable `keras.Variable`."""
        return getattr(self.owner, self.attribute)

    @property
    def masked(self):
        """Whether the owner puts zeros into the kernel, as `MaskedConv2D` does."""
        return getattr(self.owner, "mask", None) is not None

    @property
    def value(self):
        """The kernel as a tensor, with the zeros that a mask puts into it."""
        kernel = ops.convert_to_tensor(self.variable)
        if not self.masked:
            return kernel
        return kernel * ops.cast(self.owner.mask, kernel.dtype)

    def matrix_operator(self, norm="reshaped", input_size=None):
        """Return the function from the matrix to the operator with that norm.

        Args:
            norm: `"reshaped"` or `"operator"`.
            input_size: Tuple of integers, pixels on each spatial axis, where
                the layer was built without them.
        """
        if norm == "reshaped" or self.operator is None:
            return linalg.dense_operator
        size = _image_size(self.owner, input_size)
        return lambda matrix: self.operator(self.view.unflatten(matrix), size)


class _LayerPart:
    """A layer in memory as a `kinds.Part`."""

    told = True

    def __init__(self, layer):
        self.layer = layer
        self.name = getattr(layer, "name", None)
        # Keras' and ours, so that a stranger's class of the same name is no kind.
        self.classes = tuple(
            known.__name__
            for known in type(layer).__mro__
            if known.__module__.split(".")[0] in ("keras", "keras_spectral")
        )

    def read(self, attribute):
        return getattr(self.layer, attribute)

    def has(self, attribute):
        return getattr(self.layer, attribute, None) is not None

    def part(self, attribute):
        return _LayerPart(self.read(attribute))

    def parts(self, attribute):
        return [_LayerPart(layer) for layer in self.read(attribute)]


def kernel_slots(layer):
    """Return where a built layer reads its kernels.

    Args:
        layer: A built `keras.layers.Layer` of a supported kind.

    Returns:
        List of `KernelSlot`, one a kernel.

    Raises:
        Unfit: If the layer is of another kind, see `check_kind`.

    Example:
    >>> import keras
    >>> layer = keras.layers.SeparableConv2D(4, 3)
    >>> layer.build((None, 8, 8, 2))
    >>> [(slot.name, slot.view.shape) for slot in kernel_slots(layer)]
    [('depthwise_kernel', (9, 2)), ('pointwise_kernel', (2, 4))]
    """
    check_kind(layer)
    return [_slot(found) for found in kernels_of(_LayerPart(layer))]


def _slot(found):
    kernel, owner = found.kernel, found.owner.layer
    shape = tuple(getattr(owner, kernel.attribute).shape)
    operator = None
    if kernel.operator is not None:
        geometry = {name: getattr(owner, name) for name in kernel.geometry}
        operator = functools.partial(getattr(linalg, kernel.operator), **geometry)
        if kernel.on_states:
            operator = _on_states(owner, operator)
    return KernelSlot(
        name=found.name,
        owner=owner,
        attribute=kernel.attribute,
        view=kernel.view(found.owner, shape),
        operator=operator,
        induced=kernel.induced,
        setting=kernel.setting,
        configured=found.configured and found.configured.layer,
        torch=kernel.torch,
    )


def _on_states(cell, operator):
    """Return a convolution's operator for the images that a cell keeps as its state."""

    def on_states(kernel, size):
        *spatial, channels = size
        first = cell.data_format == "channels_first"
        inputs = (1, channels, *spatial) if first else (1, *size)
        shape = cell.compute_output_shape(inputs)[0]
        spatial = shape[2:] if first else shape[1:-1]
        return operator(kernel, (*spatial, cell.filters), padding="same")

    return on_states


def has_kernels(layer):
    """Return whether `kernel_slots` treats this layer."""
    return why_unfit(layer) is None


def why_unfit(layer, check=None):
    """Return why `kernel_slots` does not treat a layer, as a reason; `None` if it does.

    Args:
        layer: A `keras.layers.Layer`, built or not.
        check: `check_kind`, the default, or `check_plain`.

    Example:
    >>> import keras
    >>> why_unfit(keras.layers.BatchNormalization())
    'scales channels, not folded into the layer before'
    """
    try:
        (check or check_kind)(layer)
    except Unfit as error:
        return error.reason
    return None


def check_kind(layer):
    """Raise an `Unfit`, naming the layer, unless `kernel_slots` treats it.

    Args:
        layer: A `keras.layers.Layer`, built or not.

    Example:
    >>> import keras
    >>> check_kind(keras.layers.Dense(2))
    """
    if isinstance(layer, kl.TimeDistributed):
        return check_kind(layer.layer)
    if isinstance(layer, kl.Bidirectional):
        return check_kind(layer.forward_layer)
    if isinstance(layer, kl.RNN):
        return _check_cells(layer)
    part = _LayerPart(layer)
    if kind_of(part) is None:
        # Whatever was given: it need not be a layer.
        held = layer.weights if isinstance(layer, kl.Layer) else ()
        ranks = [len(weight.shape) for weight in held]
        if set(part.classes) & set(CELLS):
            advice = "Wrap the layer that runs the cell, such as `keras.layers.LSTM`."
        elif isinstance(layer, keras.Model):
            advice = "Wrap its layers: `keras_spectral.wrap(model, ...)`."
        else:
            advice = "Leave this layer as it is, or build it from those."
        raise Unfit(
            f"`layer` must be one of: {SUPPORTED}. Received: {layer}. {advice}",
            reason_of(part.classes, ranks),
        )
    if isinstance(layer, kl.EinsumDense):
        einsum_labels(part)
    check_plain(layer)
    return None


def _check_cells(layer):
    cell = layer.cell
    cells = cell.cells if isinstance(cell, kl.StackedRNNCells) else [cell]
    for cell in cells:
        if not set(_LayerPart(cell).classes) & set(CELLS):
            raise Unfit(
                "`layer` must run SimpleRNN, LSTM or GRU cells. Received: layer "
                f"'{layer.name}' with a {type(cell).__name__}.",
                OTHER_CELLS,
            )


def check_plain(layer):
    """Raise an `Unfit` if the layer has LoRA enabled or is quantized."""
    if getattr(layer, "lora_enabled", False):
        raise Unfit(
            "`layer` must not have LoRA enabled: its kernel is then a sum of "
            f"frozen and trained parts. Received: layer='{layer.name}'. Wrap the "
            "layer without LoRA.",
            "adds a LoRA adapter to its kernel",
        )
    if getattr(layer, "quantization_mode", None) is not None:
        kept = [str(weight.dtype) for weight in layer.weights if len(weight.shape) > 1]
        raise Unfit(
            "`layer` must not be quantized: an integer kernel has no spectrum to "
            f"train. Received: layer='{layer.name}' with "
            f"quantization_mode={layer.quantization_mode}. Wrap the layer before "
            "it is quantized.",
            quantized(next(iter(kept), "float"), layer.quantization_mode),
        )


def check_finite_kernel(kernel, name, layer):
    """Raise a ValueError, naming the layer, if a kernel holds NaN or infinity.

    Args:
        kernel: Float array.
        name: String, what Keras calls the kernel.
        layer: The `keras.layers.Layer` that computes with it.
    """
    broken = int(np.sum(~np.isfinite(kernel.astype("float64"))))
    if broken:
        raise ValueError(
            "`kernel` must be finite to have singular values. Received: "
            f"'{name}' of layer '{layer.name}', where {broken:,} of {kernel.size:,} "
            "numbers are NaN or infinite. Go back to an earlier checkpoint."
        )


def _image_size(layer, input_size):
    """Return (*spatial, channels) of the images that a convolution takes."""
    shape = tuple(layer.get_build_config()["input_shape"])
    first = layer.data_format == "channels_first"
    channels, spatial = (shape[1], shape[2:]) if first else (shape[-1], shape[1:-1])
    if input_size is not None and len(input_size) != len(spatial):
        raise ValueError(
            f"`input_size` must have {len(spatial)} numbers, the pixels on each "
            f"spatial axis. Received: input_size={input_size} for layer "
            f"'{layer.name}', a {type(layer).__name__}."
        )
    size = input_size or spatial
    if None in size:
        raise ValueError(
            '`norm="operator"` needs the height and width of the images. '
            f"Received: input_shape={shape} for layer '{layer.name}'. Pass "
            "`input_size=(height, width)` (one number an axis)."
        )
    return (*size, channels)


class InViews:
    """What a constraint and a regularizer have in common that are given matrices.

    Args:
        inner: A constraint or regularizer, which takes a matrix (inputs, outputs).
        views: List of pairs (shape, output axes), one for each shape of kernel.
    """

    def __init__(self, inner, views):
        self.inner = inner
        self.views = [MatrixView(tuple(shape), tuple(axes)) for shape, axes in views]

    def view_of(self, kernel):
        """Return the `MatrixView` of a kernel, or raise a ValueError."""
        shape = tuple(kernel.shape)
        for view in self.views:
            if view.kernel_shape == shape:
                return view
        raise ValueError(
            f"`views` must have one of a kernel of shape {shape}. Received: views of "
            f"{[view.kernel_shape for view in self.views]}. They belong to another "
            "layer."
        )

    def get_config(self):
        """Return the arguments."""
        views = [[list(v.kernel_shape), list(v.output_axes)] for v in self.views]
        inner = keras.saving.serialize_keras_object(self.inner)
        return {"inner": inner, "views": views}

    @classmethod
    def from_config(cls, config):
        """Return what has this config."""
        inner = keras.saving.deserialize_keras_object(config["inner"])
        return cls(inner, config["views"])
