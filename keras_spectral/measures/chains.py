"""A network without branches as layers and the piecewise linear maps between.

Its Jacobian needs no automatic differentiation: at a point each map between two layers
is a `LinearOperator`.
"""

import functools
import inspect
import math
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers as kl
from keras import ops

from keras_spectral.layers import MaskedConv2D
from keras_spectral.layers.reparametrization import Reparametrization
from keras_spectral.linalg import (
    convolution_operator,
    dense_operator,
    operator_singular_values,
    repeated_operator,
)
from keras_spectral.linalg.arrays import stable_rank_of
from keras_spectral.measures.steps import (
    IDENTITIES,
    activation_step,
    channels_last,
    step_of,
)
from keras_spectral.models.graph import chain
from keras_spectral.models.slots import kernel_slots

_WEIGHTED = (kl.Dense, kl.Conv2D, MaskedConv2D)


class WeightedLayer:
    """A Dense or Conv2D layer with the normalization after it, as x -> A x + b.

    Args:
        name: String.
        kind: String, the Keras class.
        kernel: NumPy array, float64, folded.
        bias: NumPy array (outputs,), float64, folded, or `None`.
        geometry: Dict of `convolution_operator`'s arguments, `None` for Dense.
        input_shape: Tuple without the batch.
        dtype: String.

    Attributes:
        operator: The `LinearOperator` A, from (1, *input_shape).
        bias: Tensor (outputs,).
        has_bias: Boolean, whether any of it is not zero.
        frobenius_norm: Float, that of A.
    """

    def __init__(self, name, kind, kernel, bias, geometry, input_shape, dtype):
        self.name, self.kind = name, kind
        self.has_bias = bias is not None and bool(np.any(bias))
        self.bias = ops.convert_to_tensor(
            np.zeros(kernel.shape[-1]) if bias is None else bias, dtype
        )
        self._kernel, self._geometry = kernel, geometry
        tensor = ops.convert_to_tensor(kernel, dtype)
        if geometry is None:
            # The same matrix at every position of an input with several axes.
            positions = input_shape[:-1]
            self.operator = repeated_operator(dense_operator(tensor), positions)
            squares = math.prod(positions) * (kernel**2).sum()
        else:
            self.operator = convolution_operator(tensor, input_shape, **geometry)
            uses = _uses(kernel.shape[:2], input_shape[:2], geometry)
            squares = (uses * (kernel**2).sum((2, 3))).sum()
        self.frobenius_norm = math.sqrt(squares)

    def stable_rank(self):
        """Return |A|_F^2 / |A|_2^2 of the operator; NaN for a zero kernel."""
        if not self.frobenius_norm:
            return math.nan
        if self._geometry is None:
            norm = np.linalg.norm(self._kernel, 2)
        elif min(self.operator.shape) == 1:
            norm = self.frobenius_norm
        else:
            norm = operator_singular_values(self.operator, count=1)[0]
        return stable_rank_of([self.frobenius_norm], float(norm))


def _uses(taps, size, geometry):
    """Return at how many positions each tap of a kernel meets a pixel."""
    count = math.prod(taps)
    kernel = np.eye(count, dtype="float32").reshape(*taps, 1, count)
    operator = convolution_operator(kernel, size, **geometry)
    met = ops.convert_to_numpy(operator @ np.ones(operator.input_shape))
    return met.astype("float64").sum((0, 1, 2)).reshape(taps)


@dataclass(frozen=True)
class Chain:
    """What `chain_of` returns.

    Vectors are (1, batch, *shape), or stacks of k such tensors: (k, batch, *shape).

    Args:
        prefix: List of callables, what the model does to its input before the
            first weighted layer.
        layers: List of `WeightedLayer`.
        between: List of lists of `Step`, what follows each layer but the last.
        tail: List of callables, what follows the last layer.
        dtype: String, of all vectors.
    """

    prefix: list
    layers: list
    between: list
    tail: list
    dtype: str

    def read(self, x):
        """Return what the first layer reads, as vectors (1, batch, *shape)."""
        return ops.cast(_first(self.prefix, x, self.dtype), self.dtype)[None]

    def finish(self, x):
        """Return the model's output for what the last layer computes."""
        for function in self.tail:
            x = function(x)
        return x


def chain_of(model, x):
    """Return a model as a chain of weighted layers.

    Args:
        model: A built `keras.Sequential` or functional `keras.Model`.
        x: NumPy array, one batch of its inputs, to learn shapes from.

    Returns:
        A `Chain`.

    Raises:
        ValueError: If the model has branches, or a layer of another kind between
            weighted ones.
    """
    tokens = _tokens(model)
    places = [at for at, (kind, _) in enumerate(tokens) if kind == "weights"]
    if not places:
        raise ValueError(
            "`model` must have a Dense or Conv2D layer. Received: "
            f"'{model.name}' with {', '.join(op.name for op in chain(model))}."
        )
    first, last = places[0], places[-1]
    dtypes = {str(token["dtype"]) for kind, token in tokens if kind == "weights"}
    dtype = "float64" if dtypes == {"float64"} else "float32"
    prefix = [_function(token) for _, token in tokens[:first]]
    tail = [_function(token) for _, token in tokens[last + 1 :]]
    shape = tuple(_first(prefix, x[:1], dtype).shape[1:])
    layers, between = [], []
    for kind, token in tokens[first : last + 1]:
        if kind == "weights":
            layer = WeightedLayer(**token | {"dtype": dtype}, input_shape=shape)
            layers.append(layer)
            between.append([])
            shape = layer.operator.output_shape[1:]
        else:
            step = _step(token, shape, dtype)
            between[-1].append(step)
            shape = step.output_shape
    return Chain(prefix, layers, between[:-1], tail, dtype)


def _first(prefix, x, dtype):
    """Return what the functions before the first weighted layer make of `x`."""
    # Integers stay, for layers that look them up; torch would narrow float64.
    floating = np.issubdtype(x.dtype, np.floating)
    x = ops.convert_to_tensor(x, dtype if floating else None)
    for function in prefix:
        x = function(x)
    return x


def _step(token, shape, dtype):
    if isinstance(token, tuple):
        layer, activation = token
        return activation_step(layer.name, activation, shape, dtype)
    if isinstance(token, kl.BatchNormalization):
        raise ValueError(
            "`model` must have its BatchNormalization layers directly after Dense "
            f"or Conv2D layers, to be folded into them. Received: '{token.name}' "
            "elsewhere. Measure a model with the activation after it."
        )
    return step_of(token, shape, dtype)


def _function(token):
    """Return the function of a layer outside of the chain, or of an activation."""
    if isinstance(token, tuple):
        return token[1]
    if isinstance(token, kl.Layer):
        return functools.partial(token, training=False) if _trains(token) else token
    raise _unsupported(token)


def _trains(layer):
    return "training" in inspect.signature(layer.call).parameters


def _unsupported(operation):
    return ValueError(
        "`model` must be made of layers. Received: the operation "
        f"'{operation.name}', a {type(operation).__name__}. Use the layer that does "
        "the same."
    )


def _tokens(model):
    """Return a model's parts: ("weights", arguments) and ("other", layer)."""
    tokens = []
    for operation in chain(model):
        if not isinstance(operation, kl.Layer):
            raise _unsupported(operation)
        if isinstance(operation, (*IDENTITIES, kl.InputLayer)):
            continue
        inner = _plain(operation)
        if type(inner) in _WEIGHTED:
            tokens.append(("weights", _weights(operation, inner)))
            if inner.activation is not keras.activations.linear:
                tokens.append(("other", (inner, inner.activation)))
        elif (
            type(operation) is kl.BatchNormalization
            and tokens
            and tokens[-1][0] == "weights"
        ):
            tokens[-1] = ("weights", _folded(tokens[-1][1], operation))
        else:
            tokens.append(("other", operation))
    return tokens


def _plain(layer):
    """Return the Keras layer whose geometry, bias and activation are in use."""
    if hasattr(layer, "to_layer") and layer.built:
        return layer.to_layer()
    return layer.layer if isinstance(layer, Reparametrization) else layer


def _weights(layer, inner):
    if not inner.built:
        raise ValueError(
            f"`model` must be built. Received: layer '{layer.name}', which has no "
            "weights yet. Call the model on a batch first."
        )
    if getattr(inner, "quantization_mode", None):
        raise ValueError(
            f"`model` must have float kernels. Received: '{layer.name}', quantized "
            f"to {inner.quantization_mode}. Measure the model before that."
        )
    geometry = None
    if isinstance(inner, kl.Conv2D):
        channels_last(inner)
        geometry = dict(
            strides=inner.strides,
            padding=inner.padding,
            dilation_rate=inner.dilation_rate,
        )
    if isinstance(layer, Reparametrization):
        kernel = layer.effective_kernel()
    elif getattr(inner, "lora_enabled", False):
        kernel = inner.kernel
    else:
        kernel = kernel_slots(inner)[0].value
    bias = inner.bias
    return dict(
        name=layer.name,
        kind=type(inner).__name__,
        kernel=_finite(kernel, layer),
        bias=None if bias is None else _finite(bias, layer),
        geometry=geometry,
        dtype=keras.backend.standardize_dtype(kernel.dtype),
    )


def _finite(weight, layer):
    weight = ops.convert_to_numpy(weight).astype("float64")
    if not np.isfinite(weight).all():
        raise ValueError(
            "`model` must have finite weights. Received: NaN or infinity in "
            f"'{layer.name}'. Use an earlier checkpoint."
        )
    return weight


def _folded(token, layer):
    """Return the weights of a layer with the normalization after it."""
    axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    if list(axes) not in ([-1], [3 if token["geometry"] else 1]):
        raise ValueError(
            "`model` must normalize the last axis. Received: "
            f"'{layer.name}' with axis={layer.axis}."
        )
    mean = _finite(layer.moving_mean, layer)
    scale = 1 / np.sqrt(_finite(layer.moving_variance, layer) + layer.epsilon)
    if layer.gamma is not None:
        scale = scale * _finite(layer.gamma, layer)
    bias = -mean if token["bias"] is None else token["bias"] - mean
    bias = scale * bias
    if layer.beta is not None:
        bias = bias + _finite(layer.beta, layer)
    return {**token, "kernel": token["kernel"] * scale, "bias": bias}
