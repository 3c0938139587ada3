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
# What an activation is told that leaves its largest slope as it is.
_NO_NUMBERS = ("name", "approximate", "max_value")
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
    "UnitNormalization",
}


def check_apart(operation, shape):
    """Return the axes along which an operation or a layer works.

    Args:
        operation: A `keras.Operation`.
        shape: Tuple, of one sample.

    Raises:
        Unbounded: If that of the samples is among them.
    """
    axes = getattr(operation, "axis", 1)
    axes = axes if isinstance(axes, (list, tuple)) else (axes,)
    kind = type(operation).__name__
    if kind in _BY_AXIS and any(axis in (None, 0, -1 - len(shape)) for axis in axes):
        raise Unbounded("it mixes samples")
    return axes


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

    axes = check_apart(operation, shape)
    if kind in _MOVES:
        return Step(run, output_shape, 1.0, "exact", one_sign=True)
    if kind in ("Add", "Subtract", "Negative"):
        if tuple(output_shape) != tuple(shape):
            raise Unbounded("it repeats its input")
        # The constant cancels, which numbers of a computer need not.
        first = keywords.get("x1", *arguments[:1]) is value
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
        size = math.prod(shape[axis - 1 if axis > 0 else axis] for axis in axes)
        return Nonlinearity(math.sqrt(size))
    if kind == "Pad":
        norm = _padding_norm(operation, shape)
        return Step(run, output_shape, norm, "exact", one_sign=True)
    # `Relu`, `ReLU`, `LeakyRelu`: Keras writes them in several ways.
    name = _ACTIVATIONS.get(kind.lower())
    if name is not None:
        return _activation(operation, name)
    raise Unbounded(f"the operation {kind} is not known here; put it into a layer")


def _activation(operation, name):
    """Return an activation with the arguments that it is called with."""
    names = {at for at in vars(operation) if at[0] != "_" and at not in _NO_NUMBERS}
    told = {at: _number(operation, at) for at in names}
    slope = told.pop("negative_slope", told.pop("alpha", None))
    threshold, b = told.pop("threshold", 0.0), told.pop("b", 0.0)
    if told:
        raise Unbounded(f"what `{min(told)}` does is not known here")
    if name == "relu" and threshold:
        raise Unbounded("it jumps at its threshold; use `threshold=0`")
    if threshold < 0:
        raise Unbounded("it jumps; `threshold` must not be below zero")
    if b < 0:
        raise Unbounded("its slope has no limit; `b` must not be below zero")
    if name == "celu" and not slope > 0:
        raise Unbounded("`alpha` must be above zero")
    constant, slopes = ACTIVATIONS[name], activation_slopes(name)
    on = SLOPES_ON.get(name)
    if slope is not None and not 0 <= slope <= 1:
        constant, slopes = max(1.0, abs(slope)), None
    if slope is not None or getattr(operation, "approximate", False):
        on = leaky(slope) if name == "leaky_relu" else None
    return Nonlinearity(constant, slopes, slopes_on=on)


def _number(operation, name):
    try:
        number = float(getattr(operation, name))
    except (TypeError, ValueError, RuntimeError):  # Of several numbers, or symbolic.
        number = math.nan
    if not math.isfinite(number):
        raise Unbounded(f"`{name}` must be a finite number")
    return number


def einsum_repeats(operation, shapes):
    """Return by how much a sum of products may exceed the product of the norms.

    An axis that is summed in one factor alone adds up as many numbers as it has, whose
    sum is at most the root of their count times their norm.

    Args:
        operation: A `keras.ops.einsum` of two tensors.
        shapes: List of tuples, of one sample of each.

    Returns:
        Float.

    Raises:
        Unbounded: If the equation does not name its axes, or mixes samples.
    """
    inputs, _, output = operation.subscripts.replace(" ", "").partition("->")
    terms, sample = inputs.split(","), output[:1]
    if "." in inputs or any(term[:1] != sample or sample in term[1:] for term in terms):
        raise Unbounded("its equation must name all axes, the samples' first")
    first, second = (
        dict(zip(term[1:], shape, strict=True))
        for term, shape in zip(terms, shapes, strict=True)
    )
    alone = [
        size
        for mine, other in ((first, second), (second, first))
        for label, size in mine.items()
        if label not in output and other.get(label, 1) == 1
    ]
    return math.sqrt(math.prod(alone))


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
