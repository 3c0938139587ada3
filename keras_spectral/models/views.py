"""A kernel as a matrix and as a linear operator, and where a layer reads it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import keras
from keras import ops

from keras_spectral.linalg import dense_operator


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
    """

    name: str
    owner: keras.layers.Layer
    attribute: str
    view: MatrixView
    operator: Callable | None = None
    induced: str = "dense"
    setting: str = "kernel"
    configured: keras.layers.Layer | None = None

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
