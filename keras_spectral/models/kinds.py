"""Which kernels a Keras layer has, where it reads them, and what maps they are.

One table, `KINDS`, knows every kind of layer; everything that treats kernels
(wrappers, measures, surgery) asks `kernel_slots`.
"""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import keras
import numpy as np
from keras import layers as kl

from keras_spectral.linalg import (
    convolution_operator,
    depthwise_convolution_operator,
    transposed_convolution_operator,
)
from keras_spectral.models.views import KernelSlot, MatrixView


def _last(kernel):
    return MatrixView(tuple(kernel.shape), (len(kernel.shape) - 1,))


def _plain(attribute, layer, name="kernel", setting="kernel"):
    view = _last(getattr(layer, attribute))
    return [KernelSlot(name, layer, attribute, view, setting=setting)]


def _einsum(layer):
    kernel = layer._kernel
    labels, outputs = _einsum_labels(layer)
    axes = tuple(axis for axis, label in enumerate(labels) if label in outputs)
    view = MatrixView(tuple(kernel.shape), axes)
    return [KernelSlot("kernel", layer, "_kernel", view)]


def _einsum_labels(layer):
    """Return the kernel's labels and the set of those that number outputs."""
    operands, result = layer.equation.replace(" ", "").split("->")
    inputs, kernel = (part.replace("...", "") for part in operands.split(","))
    result = result.replace("...", "")
    outputs = {label for label in kernel if label not in inputs}
    shared = [label for label in kernel if label in inputs and label in result]
    summed = [label for label in inputs + kernel if label not in result]
    if shared or not outputs <= set(result) or set(summed) - set(kernel):
        raise ValueError(
            "`layer` must contract its input with a kernel whose other axes are "
            "all outputs: only then one matrix holds its norm. Received: "
            f"'{layer.name}' with equation='{layer.equation}'. Split it into "
            "`Dense` layers."
        )
    return kernel, outputs


def _geometry(layer):
    return dict(
        strides=layer.strides,
        padding=layer.padding,
        dilation_rate=layer.dilation_rate,
    )


def _convolution(layer):
    operator = functools.partial(convolution_operator, **_geometry(layer))
    return [
        KernelSlot("kernel", layer, "_kernel", _last(layer._kernel), operator),
    ]


def _transposed(layer):
    operator = functools.partial(
        transposed_convolution_operator,
        output_padding=layer.output_padding,
        **_geometry(layer),
    )
    shape = tuple(layer.kernel.shape)
    view = MatrixView(shape, (len(shape) - 2,))
    return [KernelSlot("kernel", layer, "kernel", view, operator)]


def _depthwise(layer, name="kernel"):
    operator = functools.partial(depthwise_convolution_operator, **_geometry(layer))
    shape = tuple(getattr(layer, name).shape)
    view = MatrixView(shape, (len(shape) - 2, len(shape) - 1))
    return [KernelSlot(name, layer, name, view, operator, "depthwise", "depthwise")]


def _separable(layer):
    # The pointwise kernel acts on each pixel alone: its matrix is its operator.
    return [
        *_depthwise(layer, "depthwise_kernel"),
        *_plain("pointwise_kernel", layer, "pointwise_kernel", "pointwise"),
    ]


def _prefixed(prefix, slots):
    return [replace(slot, name=f"{prefix}_{slot.name}") for slot in slots]


def _attention(layer):
    slots = []
    for part in ("query", "key", "value", "output"):
        (slot,) = _einsum(getattr(layer, f"{part}_dense"))
        slots.append(replace(slot, name=part, setting="_kernel", configured=layer))
    return slots


def _cell(cell):
    return [
        *_plain("kernel", cell, "kernel"),
        *_plain("recurrent_kernel", cell, "recurrent_kernel", "recurrent"),
    ]


def _recurrent(layer):
    if not isinstance(layer.cell, kl.StackedRNNCells):
        return _cell(layer.cell)
    slots = []
    for index, cell in enumerate(layer.cell.cells):
        slots += _prefixed(f"cell_{index}", _cell(cell))
    return slots


def _bidirectional(layer):
    return [
        *_prefixed("forward", kernel_slots(layer.forward_layer)),
        *_prefixed("backward", kernel_slots(layer.backward_layer)),
    ]


_CELLS = (kl.SimpleRNNCell, kl.LSTMCell, kl.GRUCell)


class Kind(NamedTuple):
    """What is known of a class of layers.

    Args:
        classes: Tuple of classes; subclasses are of their kind, too.
        slots: Callable, built layer to a list of `KernelSlot`.
        induced: String, see `KernelSlot`, of layers that are a kernel, a bias and an
            activation; `None` for others.
    """

    classes: tuple
    slots: Callable
    induced: str | None = None


KINDS = (
    Kind((kl.Dense,), functools.partial(_plain, "_kernel"), "dense"),
    Kind((kl.EinsumDense,), _einsum),
    Kind((kl.Conv1D, kl.Conv2D, kl.Conv3D), _convolution, "convolution"),
    Kind(
        (kl.Conv1DTranspose, kl.Conv2DTranspose, kl.Conv3DTranspose),
        _transposed,
        "transposed",
    ),
    Kind((kl.DepthwiseConv1D, kl.DepthwiseConv2D), _depthwise, "depthwise"),
    Kind((kl.SeparableConv1D, kl.SeparableConv2D), _separable),
    Kind(
        (kl.Embedding,),
        functools.partial(
            _plain, "_embeddings", name="embeddings", setting="embeddings"
        ),
    ),
    Kind((kl.MultiHeadAttention,), _attention),
    Kind((kl.Bidirectional,), _bidirectional),
    Kind((kl.TimeDistributed,), lambda layer: kernel_slots(layer.layer)),
    Kind((kl.RNN,), _recurrent),
)

_SUPPORTED = (
    "Dense, EinsumDense, Conv1D/2D/3D and their transposes, DepthwiseConv1D/2D, "
    "SeparableConv1D/2D, Embedding, MultiHeadAttention, SimpleRNN, LSTM, GRU, "
    "Bidirectional and TimeDistributed"
)


def kernel_slots(layer):
    """Return where a built layer reads its kernels.

    Args:
        layer: A built `keras.layers.Layer` of a supported kind.

    Returns:
        List of `KernelSlot`, one a kernel.

    Raises:
        ValueError: If the layer is of another kind, see `check_kind`.

    Example:
    >>> import keras
    >>> layer = keras.layers.SeparableConv2D(4, 3)
    >>> layer.build((None, 8, 8, 2))
    >>> [(slot.name, slot.view.shape) for slot in kernel_slots(layer)]
    [('depthwise_kernel', (9, 2)), ('pointwise_kernel', (2, 4))]
    """
    check_kind(layer)
    kind = next(kind for kind in KINDS if isinstance(layer, kind.classes))
    slots = kind.slots(layer)
    return [replace(s, induced=kind.induced) for s in slots] if kind.induced else slots


def has_kernels(layer):
    """Return whether `kernel_slots` treats this layer."""
    try:
        check_kind(layer)
    except ValueError:
        return False
    return True


def check_kind(layer):
    """Raise a ValueError, naming the layer, unless `kernel_slots` treats it.

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
    if not any(isinstance(layer, kind.classes) for kind in KINDS):
        if isinstance(layer, _CELLS):
            advice = "Wrap the layer that runs the cell, such as `keras.layers.LSTM`."
        elif isinstance(layer, keras.Model):
            advice = "Wrap its layers: `keras_spectral.wrap(model, ...)`."
        else:
            advice = "Leave this layer as it is, or build it from those."
        raise ValueError(
            f"`layer` must be one of: {_SUPPORTED}. Received: {layer}. {advice}"
        )
    if isinstance(layer, kl.EinsumDense):
        _einsum_labels(layer)
    check_plain(layer)
    return None


def _check_cells(layer):
    cell = layer.cell
    cells = cell.cells if isinstance(cell, kl.StackedRNNCells) else [cell]
    for cell in cells:
        if not isinstance(cell, _CELLS):
            raise ValueError(
                "`layer` must run SimpleRNN, LSTM or GRU cells. Received: layer "
                f"'{layer.name}' with a {type(cell).__name__}."
            )


def check_plain(layer):
    """Raise a ValueError if the layer has LoRA enabled or is quantized."""
    if getattr(layer, "lora_enabled", False):
        raise ValueError(
            "`layer` must not have LoRA enabled: its kernel is then a sum of "
            f"frozen and trained parts. Received: layer='{layer.name}'. Wrap the "
            "layer without LoRA."
        )
    if getattr(layer, "quantization_mode", None) is not None:
        raise ValueError(
            "`layer` must not be quantized: an integer kernel has no spectrum to "
            f"train. Received: layer='{layer.name}' with "
            f"quantization_mode={layer.quantization_mode}. Wrap the layer before "
            "it is quantized."
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
