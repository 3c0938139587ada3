"""What plain operations (`x + y`, `keras.ops.relu(x)`) do to distances."""

import math

import numpy as np
from keras import ops

from keras_spectral.layers.lipschitz_constants import ACTIVATIONS, activation_slopes
from keras_spectral.measures.linear_maps import Step
from keras_spectral.measures.lipschitz_layers import Nonlinearity, Unbounded
from keras_spectral.measures.lipschitz_slopes import SLOPES_ON, leaky

# They put numbers elsewhere, each once.
_MOVES = {
    "ExpandDims",
    "Flip",
    "GetItem",
    "Identity",
    "Moveaxis",
    "Ravel",
    "Reshape",
    "Roll",
    "Squeeze",
    "Swapaxes",
    "Transpose",
}
_ACTIVATIONS = {name.replace("_", ""): name for name in ACTIVATIONS}
# They work along axes, which may be that of the samples.
_BY_AXIS = {
    "Flip",
    "LogSoftmax",
    "Max",
    "Mean",
    "Min",
    "Roll",
    "Softmax",
    "Sparsemax",
    "Sum",
}


def operation_behaviour(operation, arguments, keywords, value, output_shape):
    """Return what an operation with one tensor does to distances.

    Args:
        operation: A `keras.Operation` that is no layer.
        arguments: Tuple, what it is called with.
        keywords: Dict.
        value: What stands for the tensor among them, with a `shape`.
        output_shape: Tuple, without the batch.

    Returns:
        A `Step` or a `Nonlinearity`.

    Raises:
        Unbounded: If there is no bound, or none is known.
    """
    kind = type(operation).__name__
    shape = value.shape

    def run(x):
        return _linear(operation, arguments, keywords, value, x)

    axes = getattr(operation, "axis", 1)
    axes = axes if isinstance(axes, (list, tuple)) else (axes,)
    if kind in _BY_AXIS and any(axis in (None, 0, -1 - len(shape)) for axis in axes):
        raise Unbounded("it mixes samples")
    if kind in _MOVES:
        return Step(run, output_shape, 1.0, "exact", one_sign=True)
    if kind in ("Add", "Subtract", "Negative"):
        if tuple(output_shape) != tuple(shape):
            raise Unbounded("it repeats its input")
        # The constant cancels, which numbers of a computer need not.
        first = bool(arguments) and arguments[0] is value
        sign = -1.0 if kind == "Negative" or (kind == "Subtract" and not first) else 1.0
        return Step(lambda x: sign * x, output_shape, 1.0, "exact", one_sign=True)
    if kind in ("Multiply", "Divide", "TrueDivide"):
        return _scaled(kind, arguments, value, run, output_shape)
    if kind in ("Mean", "Sum"):
        count = math.prod(shape) / max(1, math.prod(output_shape))
        norm = math.sqrt(count) if kind == "Sum" else 1 / math.sqrt(count)
        return Step(run, output_shape, norm, "exact", one_sign=True)
    if kind in ("Max", "Min", "Amax", "Amin", "Absolute", "Abs"):
        return Nonlinearity(1.0)
    if kind in ("Maximum", "Minimum", "Clip"):
        if tuple(output_shape) != tuple(shape):
            raise Unbounded("it repeats its input")
        return Nonlinearity(1.0, (0.0, 1.0))
    if kind == "Softmax":
        return Nonlinearity(0.5)
    if kind == "Sparsemax":
        return Nonlinearity(1.0)
    if kind == "LogSoftmax":
        axis = operation.axis
        size = shape[axis - 1 if axis > 0 else axis]
        return Nonlinearity(math.sqrt(size))
    if kind == "Pad":
        norm = _padding_norm(operation, shape)
        return Step(run, output_shape, norm, "exact", one_sign=True)
    # `Relu`, `ReLU`, `LeakyRelu`: Keras writes them in several ways.
    name = _ACTIVATIONS.get(kind.lower())
    if name is not None:
        slope = getattr(operation, "negative_slope", getattr(operation, "alpha", None))
        constant, slopes = ACTIVATIONS[name], activation_slopes(name)
        on = SLOPES_ON.get(name)
        if name == "celu" and not float(slope) > 0:
            raise Unbounded("`alpha` must be above zero")
        if slope is not None and not 0 <= float(slope) <= 1:
            constant, slopes = max(1.0, abs(float(slope))), None
        if slope is not None or getattr(operation, "approximate", False):
            on = leaky(float(slope)) if name == "leaky_relu" else None
        return Nonlinearity(constant, slopes, slopes_on=on)
    raise Unbounded(f"the operation {kind} is not known here; put it into a layer")


def _padding_norm(operation, shape):
    """Return the norm of what repeats numbers at the edges, axis by axis."""
    widths = list(operation.pad_width)
    widths = widths * (1 + len(shape)) if len(widths) == 1 else widths
    if any(widths[0]):
        raise Unbounded("it adds samples")
    if operation.mode == "constant":
        return 1.0
    if operation.mode not in ("edge", "reflect", "symmetric", "wrap"):
        raise Unbounded(f"mode={operation.mode!r} is not known here")
    counts = 1
    for size, width in zip(shape, widths[1:], strict=True):
        places = np.pad(np.arange(size), width, mode=operation.mode)
        counts *= int(np.bincount(places).max())
    return math.sqrt(counts)


def _scaled(kind, arguments, value, run, output_shape):
    others = [argument for argument in arguments if argument is not value]
    first = bool(arguments) and arguments[0] is value
    if len(others) != 1 or (kind != "Multiply" and not first):
        raise Unbounded("only by a constant it has a bound")
    scale = np.abs(np.asarray(ops.convert_to_numpy(others[0]), "float64"))
    if tuple(output_shape) != tuple(value.shape):
        raise Unbounded("it repeats its input")
    with np.errstate(divide="ignore"):
        norm = float((scale if kind == "Multiply" else 1 / scale).max())
    if not math.isfinite(norm):
        raise Unbounded("it divides by zero")
    return Step(run, output_shape, norm, "exact", one_sign=True)


def _linear(operation, arguments, keywords, value, x):
    """Return what the linear part of an operation makes of an array."""

    def run(x):
        tensor = ops.convert_to_tensor(x)
        given = [tensor if a is value else a for a in arguments]
        named = {k: tensor if a is value else a for k, a in keywords.items()}
        return ops.convert_to_numpy(operation(*given, **named))

    return (run(x) - run(np.zeros_like(x))).astype("float64")
