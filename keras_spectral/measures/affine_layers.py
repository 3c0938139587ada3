"""The layers of a network that have one kernel, as affine maps between its tensors."""

import math

import keras
import numpy as np
from keras import layers as kl
from keras import ops

from keras_spectral.layers import MaskedConv2D
from keras_spectral.layers.substitution import call_substituted
from keras_spectral.linalg import operator_singular_values
from keras_spectral.linalg.arrays import stable_rank_of
from keras_spectral.measures.jacobians import Linearization, wide_arithmetic
from keras_spectral.measures.layer_calls import exact_backend
from keras_spectral.measures.plain_copies import plain_copy, remade
from keras_spectral.models.slots import has_kernels, kernel_slots

# Each entry of their maps is zero or one entry of their kernels.
_KINDS = (
    kl.Conv1D,
    kl.Conv1DTranspose,
    kl.Conv2D,
    kl.Conv2DTranspose,
    kl.Conv3D,
    kl.Conv3DTranspose,
    kl.Dense,
    kl.DepthwiseConv1D,
    kl.DepthwiseConv2D,
    kl.EinsumDense,
    MaskedConv2D,
)
_NAMES = ", ".join(kind.__name__ for kind in _KINDS)


class AffineLayer:
    """One use of a layer in a network, with the normalization after it: x -> A x + b.

    Args:
        call: `programs.Call` of the layer.
        normalization: `programs.Call` of the BatchNormalization after it, or `None`.
        name: String.

    Attributes:
        call: As given.
        kind: String, the Keras class.
        read: `programs.Slot`, what it reads.
        made: `programs.Slot`, A x + b.
    """

    def __init__(self, call, normalization, name):
        self.call, self._layer, self.name = call, call.operation, name
        self._normalization = normalization and normalization.operation
        self.kind = type(self._layer).__name__
        (self.read,) = call.reads
        (self.made,) = (normalization or call).made

    def __call__(self, x):
        """Return A x + b for a batch."""
        with wide_arithmetic():
            outputs = self._layer(x)
            if self._normalization is not None:
                outputs = self._normalization(outputs, training=False)
        return outputs

    def meet(self, shape):
        """Learn the numbers of the map, from the shape of a sample that it reads.

        Attributes:
            offset: Tensor (1, ...), b.
            size: Integer, the numbers of a sample of A x + b.
            frobenius_norm: Float, that of A.
        """
        self._shape = shape
        zeros = ops.zeros((1, *shape), dtype=self._layer.compute_dtype)
        self.offset = self(zeros)
        self.size = math.prod(self.offset.shape[1:])
        # What the map of the squares makes of ones are the squared norms of A's rows.
        slot, largest = kernel_slots(self._layer)[0], np.abs(self._kernel).max()
        scaled = (self._kernel / (largest or 1.0)) ** 2
        values = [(slot.variable, ops.cast(scaled, slot.variable.dtype))]
        if self._layer.bias is not None:
            bias = self._layer.bias
            values.append((bias, ops.zeros(bias.shape, dtype=bias.dtype)))
        ones = ops.ones_like(zeros)
        with wide_arithmetic():
            rows = call_substituted(self._layer, values, lambda: self._layer(ones))
        rows = array(rows) * self._scales(len(rows.shape)) ** 2
        self.frobenius_norm = float(largest * math.sqrt(rows.sum()))
        return self

    @property
    def has_bias(self):
        """Whether b is not zero."""
        return bool(ops.any(self.offset != 0))

    @property
    def _kernel(self):
        return array(kernel_slots(self._layer)[0].value)

    def _scales(self, rank):
        """Return by what the normalization multiplies, for outputs of a rank."""
        layer = self._normalization
        if layer is None:
            return np.ones([1] * rank)
        scales = 1 / np.sqrt(array(layer.moving_variance) + layer.epsilon)
        if layer.gamma is not None:
            scales = scales * array(layer.gamma)
        shape = [1] * rank
        shape[layer.axis if rank > 2 else -1] = -1
        return scales.reshape(shape)

    def _operator(self):
        layer, slot = self._layer, kernel_slots(self._layer)[0]
        dtype = layer.compute_dtype
        if slot.operator is None or layer.padding == "causal":
            x = keras.Input(self._shape, dtype=dtype)
            outputs = self(x)
            at = Linearization(keras.Model(x, outputs), batch_size=1024)
            return at.operator(np.zeros((1, *self._shape)), x, outputs)
        # By hand: nothing is traced, and neither map computes the values as well.
        matrix = slot.view.flatten(self._kernel) * self._scales(1)
        kernel = ops.convert_to_tensor(slot.view.unflatten(matrix), dtype)
        first = layer.data_format == "channels_first"
        size = (*self._shape[1:], self._shape[0]) if first else self._shape
        return slot.operator(kernel, size)

    def stable_rank(self):
        """Return |A|_F^2 / |A|_2^2; NaN where A is zero."""
        if not self.frobenius_norm:
            return math.nan
        if type(self._layer) is kl.Dense:
            norm = np.linalg.norm(self._kernel * self._scales(2), 2)
        elif min(math.prod(self._shape), self.size) == 1:
            norm = self.frobenius_norm
        else:
            norm = operator_singular_values(self._operator(), count=1)[0]
        return stable_rank_of([self.frobenius_norm], float(norm))


def array(x):
    """Return a tensor as a float64 array of NumPy."""
    return ops.convert_to_numpy(x).astype("float64")


def affine_copy(model):
    """Return a copy of a network in which such layers have no activation of their own.

    Args:
        model: A built `keras.Sequential` or functional `keras.Model`.

    Returns:
        A `keras.Model`, in float64 where all weights are and the backend has it.
    """
    floats = [v.dtype for v in model.variables if keras.backend.is_float_dtype(v.dtype)]
    wide = set(map(keras.backend.standardize_dtype, floats)) == {"float64"}
    dtype = "float64" if wide and exact_backend() else "float32"

    def split(layer):
        if type(layer) not in _KINDS or layer.activation is keras.activations.linear:
            return None
        # No name that a layer of a network is likely to have.
        after = kl.Activation(
            layer.activation, name=f"{layer.name}--activation", dtype=dtype
        )
        return remade(layer, dtype, activation="linear"), after

    return plain_copy(model, dtype, split)


def affine_layers(program):
    """Return the layers of a network that are affine maps, in an order of running.

    Args:
        program: `programs.Program` of what `affine_copy` returns.

    Returns:
        List of `AffineLayer`, one a use.

    Raises:
        ValueError: If there is none, or a layer with kernels between them is of another
            kind.
    """
    readers = {}
    for call in program.calls:
        for slot in call.reads:
            readers.setdefault(slot, []).append(call)
    found, uses = [], {}
    for call in program.calls:
        if type(call.operation) not in _KINDS:
            continue
        name, mode = call.operation.name, call.operation.quantization_mode
        if mode:
            raise ValueError(
                "`model` must have float kernels. Received: "
                f"'{name}', quantized to {mode}. Measure the model before that."
            )
        uses[name] = uses.get(name, 0) + 1
        label = name if uses[name] == 1 else f"{name} (use {uses[name]})"
        found.append(AffineLayer(call, _normalization(call, readers, program), label))
    if not found:
        raise ValueError(
            f"`model` must have a layer of these kinds: {_NAMES}. Received: layers "
            f"{', '.join(program.named)}."
        )
    _check_between(program, found)
    return found


def _normalization(call, readers, program):
    """Return the call of a BatchNormalization that alone reads a layer, or `None`."""
    (made,) = call.made
    after = readers.get(made, [])
    if len(after) != 1 or made in program.outputs:
        return None
    layer = after[0].operation
    first = getattr(call.operation, "data_format", None) == "channels_first"
    rank = len(made.tensor.shape)
    is_folded = (
        type(layer) is kl.BatchNormalization
        and isinstance(layer.axis, int)
        and layer.axis % rank == (1 if first else rank - 1)
    )
    return after[0] if is_folded else None


def _check_between(program, found):
    needed = program.needed([layer.read for layer in found])
    reached = set().union(*(program.reached(layer.made) for layer in found))
    for call in needed:
        layer = call.operation
        if not isinstance(layer, kl.Layer) or reached.isdisjoint(call.reads):
            continue
        if has_kernels(layer) and type(layer) not in _KINDS:
            raise ValueError(
                "`model` must have between its first and last affine layer only such "
                f"layers ({_NAMES}) and layers without a kernel. Received: "
                f"'{layer.name}', a {type(layer).__name__}. Measure the part of the "
                "model before or after it."
            )
