"""The one wrapper that feeds a layer functions of its kernels."""

import inspect

import keras
from keras import ops, tree

from keras_spectral.layers.singular_vectors import SingularVectors
from keras_spectral.layers.substitution import call_substituted
from keras_spectral.layers.vector_state import are_held
from keras_spectral.models.keras_internals import flatten_layers
from keras_spectral.models.slots import (
    check_finite_kernel,
    check_kind,
    check_plain,
    kernel_slots,
)

# Layers of several inputs, which Keras builds with a shape for each.
_ATTENTION = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)


class Reparametrization(keras.layers.Wrapper):
    """Calls a layer with functions of its kernels in place of the kernels.

    The trainable kernel W stays the optimizer's and is never assigned; the
    layer computes with W_bar = f(W), and the gradient flows through f. W_bar is
    visible to one call only, so threads do not disturb each other. The
    wrapper takes the name of the layer it wraps, reads the kernel in its full
    precision whatever the precision policy, and changes state only in a call
    with `training=True` of a trainable layer. A layer with several kernels
    (separable convolutions, attention, recurrent layers) has each treated for
    itself.

    Subclasses implement `transform(matrix, index, advance)`, which gets each
    kernel flattened to a matrix (inputs, outputs). State that it needs is made
    in `build`, one layer a kernel of `self.slots`.

    Args:
        layer: A `keras.layers.Layer`: Dense, EinsumDense, Conv1D/2D/3D and
            their transposes, DepthwiseConv1D/2D, SeparableConv1D/2D, Embedding,
            ReversibleEmbedding, MultiHeadAttention, GroupQueryAttention, SimpleRNN,
            LSTM, GRU, ConvLSTM1D/2D/3D, or one of them inside Bidirectional or
            TimeDistributed.
        **kwargs: `name`, `trainable`, and `dtype`, whose compute dtype the outputs
            are cast to where it is not the kernel's; what is computed in belongs
            to the wrapped layer.

    Raises:
        ValueError: For a layer of another kind, with LoRA or quantized weights, and a
            `dtype` that would round its weights.

    Example:
    >>> import numpy as np
    >>> class Halved(Reparametrization):
    ...     def transform(self, matrix, index, advance):
    ...         return matrix / 2
    >>> layer = Halved(keras.layers.Dense(1, kernel_initializer="ones"))
    >>> float(layer(np.ones((1, 3), "float32"))[0, 0])
    1.5
    """

    # Whether f scales, so that the zeros of a `MaskedConv2D` stay zeros.
    keeps_zeros = False

    def __init__(self, layer, **kwargs):
        check_kind(layer)
        # The wrapper's own dtype is that of the kernel: under a mixed policy
        # Keras would otherwise hand it a kernel rounded to half precision.
        dtype = layer.dtype_policy.variable_dtype
        given = keras.dtype_policies.get(kwargs.pop("dtype", None) or dtype)
        if given.variable_dtype != dtype:
            raise ValueError(
                "`dtype` must keep weights in the dtype of the wrapped layer's kernel, "
                f"here {dtype}. Received: dtype={given.name}. Pass `dtype` to "
                f"{type(layer).__name__}."
            )
        kwargs.pop("autocast", None)
        kwargs.setdefault("name", layer.name)
        super().__init__(layer, dtype=dtype, autocast=False, **kwargs)
        self._given_policy = given
        if not self.trainable:
            # Keras' models ask the variables, not the layers around them.
            layer.trainable = False
        self.supports_masking = layer.supports_masking

    def __call__(self, *args, **kwargs):
        # Keras builds a wrapper with one shape; attention needs one an input.
        if not self.layer.built and isinstance(self.layer, _ATTENTION):
            self._build_attention(*args, **kwargs)
        return super().__call__(*args, **kwargs)

    def _build_attention(self, *args, **kwargs):
        given = inspect.signature(self.layer.call).bind_partial(*args, **kwargs)
        tensors = [given.arguments.get(name) for name in ("query", "value", "key")]
        if any(tensor is None for tensor in tensors[:2]):
            raise ValueError(
                f"`query` and `value` must be passed to '{self.name}'. "
                f"Received: {sorted(given.arguments)}"
            )
        self.layer.build(*[None if x is None else tuple(x.shape) for x in tensors])

    def build(self, input_shape=None):
        super().build(input_shape)
        self.input_spec = self.layer.input_spec
        self.slots = tuple(kernel_slots(self.layer))
        if not self.keeps_zeros and any(slot.masked for slot in self.slots):
            raise ValueError(
                f"`layer` must not have a mask: {type(self).__name__} fills the zeros "
                "of a masked kernel, and masking them again breaks what it promises. "
                f"Received: layer={self.layer}. SpectralNormalization scales the "
                "kernel, and takes it."
            )

    def transform(self, matrix, index, advance):
        """Return the effective kernel, as a matrix.

        Args:
            matrix: Float tensor (inputs, outputs), the kernel in full precision.
            index: Integer, which of `self.slots` it is.
            advance: Boolean, whether state moves.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `transform`.")

    @property
    def kernel_names(self):
        """Names of the layer's kernels, one for most layers."""
        return tuple(slot.name for slot in self.slots)

    @property
    def layers(self):
        """The wrapped layer; `summary(expand_nested=True)` of a model shows it."""
        return [self.layer]

    def _index(self, name):
        if name is None and len(self.slots) == 1:
            return 0
        if name not in self.kernel_names:
            raise ValueError(
                f"`name` must be one of the kernels of '{self.name}': "
                f"{', '.join(self.kernel_names)}. Received: name={name!r}"
            )
        return self.kernel_names.index(name)

    @property
    def kernel(self):
        """The trainable kernel W, a `keras.Variable`; not what is computed with."""
        return self.slots[self._index(None)].variable

    def effective_kernel(self, name=None):
        """Return a kernel that the layer computes with, W_bar.

        Args:
            name: String, one of `kernel_names`; needed where there are several.

        Returns:
            Float tensor of the kernel's shape in full precision; no state
            changes.
        """
        return self._effective(self._index(name), advance=False)

    def restart_power_iteration(self):
        """Find the singular vectors anew, as after the kernel was replaced."""
        for layer in flatten_layers(self, include_self=False):
            if isinstance(layer, SingularVectors):
                layer.restart()

    @property
    def state_dtype(self):
        """Dtype that kernels are transformed in: at least float32."""
        return "float64" if self.variable_dtype == "float64" else "float32"

    def matrix(self, index):
        """Return a kernel as a matrix (inputs, outputs) in full precision."""
        slot = self.slots[index]
        return slot.view.flatten(ops.cast(slot.value, self.state_dtype))

    def _effective(self, index, advance):
        slot = self.slots[index]
        check_plain(slot.owner)
        matrix = self.transform(self.matrix(index), index, advance)
        return slot.view.unflatten(matrix)

    def converged_kernel(self, name=None):
        """Return the kernel W_bar with its singular values found in float64.

        `effective_kernel` is what the layer computes with, whose norm is within the
        error of its estimate; this is what that converges to, for export.

        Args:
            name: String, one of `kernel_names`; needed where there are several.

        Returns:
            Array of the kernel's shape and dtype.

        Raises:
            ValueError: If the kernel holds NaN or infinity.
        """
        index = self._index(name)
        slot = self.slots[index]
        check_plain(slot.owner)
        matrix = ops.convert_to_numpy(slot.view.flatten(slot.value))
        check_finite_kernel(matrix, slot.name, self)
        converged = self.converged(matrix.astype("float64"), index)
        kernel = ops.convert_to_numpy(slot.view.unflatten(converged))
        return kernel.astype(matrix.dtype)

    def converged(self, matrix, index):
        """Return `transform` of a matrix with what it estimates found exactly.

        Args:
            matrix: Array (inputs, outputs), float64.
            index: Integer, which of `self.slots` it is.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `converged`.")

    def effective_values(self, advance):
        """Return what the layer computes with, as (variable, tensor) pairs.

        Args:
            advance: Boolean, whether state moves.
        """
        return [
            (slot.variable, self._effective(index, advance))
            for index, slot in enumerate(self.slots)
        ]

    def _advances(self, training):
        moves = bool(training) and self.trainable and self.layer.trainable
        return moves and not are_held()

    def call(self, inputs, *args, training=None, **kwargs):
        outputs = call_substituted(
            self.layer,
            self.effective_values(self._advances(training)),
            lambda: self.layer(inputs, *args, **kwargs),
            self.add_loss,
        )
        return self._cast_outputs(outputs)

    def _cast_outputs(self, outputs):
        dtype = self._given_policy.compute_dtype
        if dtype == self.compute_dtype:
            return outputs

        def cast(x):
            return ops.cast(x, dtype) if keras.backend.is_float_dtype(x.dtype) else x

        return tree.map_structure(cast, outputs)

    def compute_output_spec(self, inputs, *args, **kwargs):
        kwargs.pop("training", None)
        outputs = self.layer.compute_output_spec(inputs, *args, **kwargs)
        return self._cast_outputs(outputs)

    def compute_output_shape(self, *args, **kwargs):
        return self.layer.compute_output_shape(*args, **kwargs)

    def compute_mask(self, inputs, mask=None):
        return self.layer.compute_mask(inputs, mask)

    def get_config(self):
        policy = keras.dtype_policies.serialize(self._given_policy)
        return {**super().get_config(), "dtype": policy}

    def get_build_config(self):
        if not self.built:
            return None
        return {"layer": self.layer.get_build_config()}

    def build_from_config(self, config):
        # Keras builds the inner layer with it where it saved its shapes.
        if not self.layer.built:
            self.layer.build_from_config(config["layer"])
        self.build()


def restart_power_iteration(model):
    """Find the singular vectors of all spectral layers of a model anew.

    After kernels were set from outside: assigned, loaded in part, averaged.

    Args:
        model: A `keras.Model`, or a layer that holds spectral layers.

    Example:
    >>> import keras
    >>> from keras_spectral.layers import SpectralNormalization
    >>> layer = SpectralNormalization(keras.layers.Dense(3, name="head"))
    >>> model = keras.Sequential([keras.Input((4,)), layer])
    >>> _ = layer.kernel.assign(keras.ops.ones((4, 3)))
    >>> restart_power_iteration(model)
    >>> round(float(keras.ops.norm(layer.effective_kernel())), 5)
    1.0
    """
    for layer in flatten_layers(model):
        if isinstance(layer, Reparametrization) and layer.built:
            layer.restart_power_iteration()
