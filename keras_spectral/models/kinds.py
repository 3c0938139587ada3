"""Which kernels a Keras layer has, where it reads them, and what maps they are.

One table, `_KINDS`, knows every kind of layer; everything that treats kernels
(wrappers, measures, surgery) asks `kernel_slots`.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers as kl
from keras import ops

from keras_spectral.linalg import (
    convolution_operator,
    dense_operator,
    depthwise_convolution_operator,
    transposed_convolution_operator,
)


@dataclass(frozen=True)
class MatrixView:
    """How a kernel is flattened to a matrix (inputs, outputs), and back.

    Args:
        kernel_shape: Tuple of integers.
        output_axes: Tuple of axes of the kernel that number outputs; the
            others number inputs. Both keep their order.
    """

    kernel_shape: tuple
    output_axes: tuple

    @property
    def _permutation(self):
        inputs = [
            axis
            for axis in range(len(self.kernel_shape))
            if axis not in self.output_axes
        ]
        return (*inputs, *self.output_axes)

    @property
    def shape(self):
        """Shape (inputs, outputs) of the matrix."""
        outputs = math.prod(self.kernel_shape[axis] for axis in self.output_axes)
        return math.prod(self.kernel_shape) // outputs, outputs

    def resized(self, outputs):
        """Return the view of a kernel with another number on its output axis."""
        shape = list(self.kernel_shape)
        shape[self.output_axes[0]] = outputs
        return MatrixView(tuple(shape), self.output_axes)

    def flatten(self, kernel):
        """Return `kernel` as a matrix (inputs, outputs), W' of y = W x."""
        if self._permutation != tuple(range(len(self.kernel_shape))):
            kernel = ops.transpose(kernel, self._permutation)
        return ops.reshape(kernel, self.shape)

    def unflatten(self, matrix):
        """Return the kernel whose matrix is `matrix`."""
        permutation = self._permutation
        shape = [self.kernel_shape[axis] for axis in permutation]
        kernel = ops.reshape(matrix, shape)
        if permutation != tuple(range(len(shape))):
            inverse = [permutation.index(axis) for axis in range(len(shape))]
            kernel = ops.transpose(kernel, inverse)
        return kernel


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
    """

    name: str
    owner: keras.layers.Layer
    attribute: str
    view: MatrixView
    operator: Callable | None = None

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
            return dense_operator
        size = _image_size(self.owner, input_size)
        return lambda matrix: self.operator(self.view.unflatten(matrix), size)


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


def _last(kernel):
    return MatrixView(tuple(kernel.shape), (len(kernel.shape) - 1,))


def _plain(attribute, layer, name="kernel"):
    return [KernelSlot(name, layer, attribute, _last(getattr(layer, attribute)))]


def _einsum(layer):
    kernel = layer._kernel
    labels, outputs = _einsum_labels(layer)
    axes = tuple(axis for axis, label in enumerate(labels) if label in outputs)
    return [KernelSlot("kernel", layer, "_kernel", MatrixView(kernel.shape, axes))]


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
    return [KernelSlot(name, layer, name, view, operator)]


def _separable(layer):
    # The pointwise kernel acts on each pixel alone: its matrix is its operator.
    return [
        *_depthwise(layer, "depthwise_kernel"),
        *_plain("pointwise_kernel", layer, "pointwise_kernel"),
    ]


def _prefixed(prefix, slots):
    return [
        KernelSlot(f"{prefix}_{s.name}", s.owner, s.attribute, s.view, s.operator)
        for s in slots
    ]


def _attention(layer):
    slots = []
    for part in ("query", "key", "value", "output"):
        slots += _prefixed(part, _einsum(getattr(layer, f"{part}_dense")))
    return slots


def _cell(cell):
    return [
        *_plain("kernel", cell, "kernel"),
        *_plain("recurrent_kernel", cell, "recurrent_kernel"),
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

_KINDS = (
    (kl.Dense, functools.partial(_plain, "_kernel")),
    (kl.EinsumDense, _einsum),
    ((kl.Conv1D, kl.Conv2D, kl.Conv3D), _convolution),
    ((kl.Conv1DTranspose, kl.Conv2DTranspose, kl.Conv3DTranspose), _transposed),
    ((kl.DepthwiseConv1D, kl.DepthwiseConv2D), _depthwise),
    ((kl.SeparableConv1D, kl.SeparableConv2D), _separable),
    (kl.Embedding, functools.partial(_plain, "_embeddings", name="embeddings")),
    (kl.MultiHeadAttention, _attention),
    (kl.Bidirectional, _bidirectional),
    (kl.TimeDistributed, lambda layer: kernel_slots(layer.layer)),
    (kl.RNN, _recurrent),
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
    return next(slots for kind, slots in _KINDS if isinstance(layer, kind))(layer)


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
    if not any(isinstance(layer, kind) for kind, _ in _KINDS):
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
