"""The one wrapper that feeds a layer a function of its kernel."""

import contextlib
import functools
import math

import keras
from keras import ops

from keras_spectral.layers.singular_vectors import SingularVectors
from keras_spectral.linalg import conv2d_operator, dense_operator
from keras_spectral.linalg.power_iteration import UPDATE_ORDERS
from keras_spectral.validation import check_choice, check_integer, check_positive

NORMS = ("reshaped", "operator")


class Reparametrization(keras.layers.Wrapper):
    """Calls a layer with a function of its kernel in place of the kernel.

    The trainable kernel W stays the optimizer's and is never assigned; the
    layer computes with W_bar = f(W), and the gradient flows through f. The
    wrapper takes the name of the layer it wraps, reads the kernel in its full
    precision whatever the precision policy, and changes state only in a call
    with `training=True` of a trainable layer.

    Subclasses implement `transform(kernel, training)`.

    Args:
        layer: A `keras.layers.Dense` or `keras.layers.Conv2D` instance.
        bound: Float > 0, the norm that the effective kernel gets.
        power_iterations: Integer >= 1, power iterations a training step.
        epsilon: Float > 0. A kernel whose norm is not above it is used as it
            is (a zero kernel has no direction to normalize).
        norm: `"reshaped"`, the norm of the kernel flattened to a matrix, as the
            GAN papers have it and no bound on a convolution; or `"operator"`,
            the norm of the layer's linear map with its stride, padding,
            dilation and input size. They are one for `Dense`.
        input_size: Pair (height, width) in pixels, for `norm="operator"` of a
            convolution whose input size is not known when it is built.
        clip: Boolean. If `True`, a kernel whose norm is within the bound is
            used as it is; if `False` every kernel is scaled to the bound.
        update_order: `"v_first"` (the papers) or `"u_first"` (PyTorch's
            parametrization), which of the singular vectors moves first.
        **kwargs: `name`, `trainable`. A dtype belongs to the wrapped layer.
    """

    def __init__(
        self,
        layer,
        bound=1.0,
        power_iterations=1,
        epsilon=1e-12,
        norm="reshaped",
        input_size=None,
        clip=False,
        update_order="v_first",
        **kwargs,
    ):
        _check_layer(layer, type(self).__name__)
        check_positive("bound", bound)
        check_positive("epsilon", epsilon)
        check_integer("power_iterations", power_iterations, least=1)
        check_choice("norm", norm, NORMS)
        check_choice("update_order", update_order, UPDATE_ORDERS)
        if not isinstance(clip, bool):
            raise ValueError(f"`clip` must be True or False. Received: clip={clip}")
        # The wrapper's own dtype is that of the kernel: under a mixed policy
        # Keras would otherwise hand it a kernel rounded to half precision.
        dtype = layer.dtype_policy.variable_dtype
        given = keras.dtype_policies.get(kwargs.pop("dtype", None) or dtype)
        if given.compute_dtype != dtype:
            raise ValueError(
                "`dtype` belongs to the wrapped layer: the wrapper computes in "
                f"the dtype of its kernel, here {dtype}. Received: "
                f"dtype={given.name}. Pass `dtype` to {type(layer).__name__}."
            )
        kwargs.pop("autocast", None)
        kwargs.setdefault("name", layer.name)
        super().__init__(layer, dtype=dtype, autocast=False, **kwargs)
        self.bound = float(bound)
        self.power_iterations = power_iterations
        self.epsilon = float(epsilon)
        self.norm = norm
        self.input_size = None if input_size is None else tuple(input_size)
        self.clip = clip
        self.update_order = update_order
        self.supports_masking = layer.supports_masking

    @property
    def kernel(self):
        """The trainable kernel W, a `keras.Variable`; not what is computed with."""
        return self.layer.kernel

    @property
    def matrix_shape(self):
        """Shape (outputs, inputs) of the reshaped kernel."""
        shape = self.kernel.shape
        return shape[-1], math.prod(shape[:-1])

    def build(self, input_shape):
        super().build(input_shape)
        self.input_spec = self.layer.input_spec
        make_operator = dense_operator
        if self.norm == "operator" and isinstance(self.layer, keras.layers.Conv2D):
            make_operator = self._convolution(input_shape)
        self.norm_state = self.singular_vectors(make_operator, "norm")

    def singular_vectors(self, make_operator, name):
        """Return new, built power iteration state for this layer's kernel."""
        state = SingularVectors(
            make_operator,
            power_iterations=self.power_iterations,
            update_order=self.update_order,
            dtype=self._state_dtype,
            name=name,
        )
        state.build(tuple(self.kernel.shape))
        state.built = True
        return state

    @property
    def _state_dtype(self):
        return "float64" if self.variable_dtype == "float64" else "float32"

    def restart_power_iteration(self):
        """Forget the singular vectors, as after the kernel was replaced."""
        for layer in self._flatten_layers(include_self=False):
            if isinstance(layer, SingularVectors):
                layer.updates.assign(0)

    def _convolution(self, input_shape):
        layer = self.layer
        first = layer.data_format == "channels_first"
        size = self.input_size or (input_shape[2:4] if first else input_shape[1:3])
        channels = input_shape[1] if first else input_shape[3]
        if None in size:
            raise ValueError(
                '`norm="operator"` needs the height and width of the images. '
                f"Received: input_shape={tuple(input_shape)} for layer "
                f"'{self.name}'. Pass `input_size=(height, width)`."
            )
        return functools.partial(
            conv2d_operator,
            input_size=(*size, channels),
            strides=layer.strides,
            padding=layer.padding,
            dilation_rate=layer.dilation_rate,
        )

    def transform(self, kernel, training):
        """Return the effective kernel for `kernel`, in the same dtype."""
        raise NotImplementedError(f"{type(self).__name__} must implement `transform`.")

    def effective_kernel(self):
        """Return the kernel that the layer computes with, W_bar.

        Returns:
            Float tensor of the kernel's shape in full precision; no state
            changes.
        """
        return self._effective_kernel(training=False)

    def _effective_kernel(self, training):
        _check_plain(self.layer)
        kernel = ops.cast(ops.convert_to_tensor(self.kernel), self._state_dtype)
        return self.transform(kernel, training)

    def call(self, inputs, training=None, **kwargs):
        advance = bool(training) and self.trainable and self.layer.trainable
        kernel = self._effective_kernel(advance)
        with _kernel_replaced(self.layer, ops.cast(kernel, self.layer.compute_dtype)):
            return self.layer(inputs, **kwargs)

    def compute_output_shape(self, input_shape):
        return self.layer.compute_output_shape(input_shape)

    def compute_mask(self, inputs, mask=None):
        return self.layer.compute_mask(inputs, mask)

    def get_config(self):
        config = super().get_config()
        return {
            **config,
            "bound": self.bound,
            "power_iterations": self.power_iterations,
            "epsilon": self.epsilon,
            "norm": self.norm,
            "input_size": self.input_size,
            "clip": self.clip,
            "update_order": self.update_order,
        }


@contextlib.contextmanager
def _kernel_replaced(layer, kernel):
    """Let `layer` read `kernel` where it reads its kernel variable.

    A plain `setattr` would hand the tensor to Keras' tracking; going through
    `__call__` of the layer, and not its `stateless_call`, keeps its activity
    regularizer, masks and input casting.
    """
    variable = layer._kernel
    object.__setattr__(layer, "_kernel", kernel)
    try:
        yield
    finally:
        object.__setattr__(layer, "_kernel", variable)


def _check_layer(layer, wrapper):
    if not isinstance(layer, (keras.layers.Dense, keras.layers.Conv2D)):
        raise ValueError(
            f"`layer` must be a `keras.layers.Dense` or a `keras.layers.Conv2D`: "
            f"{wrapper} normalizes no other kind yet. Received: layer={layer}. "
            "Leave this layer as it is, or build it from those."
        )
    _check_plain(layer)


def _check_plain(layer):
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
