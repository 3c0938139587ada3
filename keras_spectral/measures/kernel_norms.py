"""The norms of a model's kernels that measures of complexity are made of."""

import dataclasses
import math

import keras
import numpy as np
from keras import layers as kl
from keras import ops

from keras_spectral.layers import LipschitzBatchNormalization
from keras_spectral.linalg import operator_singular_values
from keras_spectral.linalg.arrays import largest_entry
from keras_spectral.measures.layer_calls import exact_backend
from keras_spectral.measures.lipschitz_layers import behaviour
from keras_spectral.models.keras_internals import flatten_layers, functional_graph
from keras_spectral.models.reasons import nothing_left
from keras_spectral.models.weights import weights
from keras_spectral.results import Rows
from keras_spectral.validation import Norm

_NORMALIZATIONS = (kl.BatchNormalization, LipschitzBatchNormalization)


@dataclasses.dataclass(frozen=True)
class KernelNorms:
    """The norms of one kernel.

    Args:
        name: String.
        kind: String, the class of the layer.
        norm: `"reshaped"` or `"operator"`, which matrix a convolution is.
        folded: String, the batch normalization that is in it, or `""`.
        spectral_norm: Float.
        frobenius_norm: Float.
        stable_rank: Float.
        norm_21: Float, the sum over output units of the norms of their weights.
    """

    name: str
    kind: str
    norm: Norm
    folded: str
    spectral_norm: float
    frobenius_norm: float
    stable_rank: float
    norm_21: float = dataclasses.field(metadata={"label": "2,1 norm"})


def kernel_norms(model, where=None, norm="reshaped", batch_normalization="fold"):
    """Return `Rows` of `KernelNorms`.

    Args:
        model: A built `keras.Model`.
        where: See `models.weights`.
        norm: `"reshaped"` or `"operator"`.
        batch_normalization: `"fold"` or `"ignore"`.

    Raises:
        ValueError: If a kernel is zero, or a batch normalization cannot be folded.
    """
    found = weights(model, where)
    if not found:
        reasons = {f"{left.name} ({left.kind})": left.reason for left in found.left_out}
        raise nothing_left("model", "a layer with a kernel", f"'{model.name}'", reasons)
    folded = _folded(model) if batch_normalization == "fold" else {}
    # The last kernel of a layer makes its outputs.
    last = {id(weight.layer): weight for weight in found}
    rows = []
    for weight in found:
        after = (
            folded.get(id(weight.layer)) if last[id(weight.layer)] is weight else None
        )
        rows.append(_row(weight, norm, after))
    others = [f"{left.name} ({left.kind})" for left in found.left_out]
    taken = {row.folded for row in rows}
    others = [name for name in others if name.split(" ")[0] not in taken]
    return Rows(
        rows,
        title=f"Kernels of {model.name}",
        caption=f"Left out: {', '.join(others)}." if others else None,
    )


def _row(weight, norm, after):
    matrix = weight.matrix().T
    if after is not None:
        matrix = matrix * _scale(after, matrix.shape[1], weight)
    largest = largest_entry(matrix)
    if largest is None:
        raise ValueError(
            "`model` must have kernels that are finite and not zero, whose product has "
            f"a logarithm. Received: '{weight.name}'. Leave it out by `where`."
        )
    matrix = matrix / largest
    operator = norm == "operator" and weight.slot.operator is not None
    squares, spectral = (_of_operator if operator else _of_matrix)(weight, matrix)
    frobenius = math.sqrt(squares.sum())
    return KernelNorms(
        name=weight.name,
        kind=weight.kind,
        norm=norm,
        folded="" if after is None else after.name,
        spectral_norm=spectral * largest,
        frobenius_norm=frobenius * largest,
        stable_rank=(frobenius / spectral) ** 2,
        norm_21=float(np.sqrt(squares).sum()) * largest,
    )


def _of_matrix(weight, matrix):
    """Return the squared norms of the output units' weights, and the spectral norm."""
    return (matrix**2).sum(0), float(np.linalg.norm(matrix, 2))


def _of_operator(weight, matrix):
    try:
        made = weight.slot.matrix_operator("operator")
        dtype = "float64" if exact_backend() else "float32"
        operator = made(ops.convert_to_tensor(matrix, dtype))
    except ValueError as error:
        raise ValueError(
            '`norm="operator"` needs a model that was built for images of one size. '
            f"Received: '{weight.name}', which was not. Build it with a fixed "
            "`keras.Input`."
        ) from error
    # Each pixel meets a pixel by at most one tap, so the squared entries of the matrix
    # are that of the squared kernel: applied to ones it sums its rows.
    rows = made(ops.convert_to_tensor(matrix**2, dtype)) @ ops.ones(
        operator.input_shape, dtype
    )
    squares = np.maximum(ops.convert_to_numpy(rows).astype("float64").ravel(), 0)
    if min(operator.shape) == 1:
        return squares, math.sqrt(squares.sum())
    return squares, float(operator_singular_values(operator, count=1)[0])


def _scale(layer, count, weight):
    """Return what a batch normalization multiplies each channel by, in inference."""
    inner = layer.layer if isinstance(layer, LipschitzBatchNormalization) else layer
    channels = inner.moving_variance.shape[0]
    axis = inner.axis[0] if isinstance(inner.axis, (list, tuple)) else inner.axis
    first = getattr(weight.slot.owner, "data_format", None) == "channels_first"
    rank = len(weight.layer.output.shape)
    if axis % rank != (1 if first else rank - 1) or channels != count:
        raise _refused([f"'{layer.name}', on another axis than '{weight.name}' makes"])
    shape = [1] * (rank - 1)
    shape[axis % rank - 1] = channels
    return (
        behaviour(layer, tuple(shape), tuple(shape)).apply(np.ones((1, *shape))).ravel()
    )


def _folded(model):
    """Return the batch normalization after each layer, by the `id` of the layer.

    Raises:
        ValueError: If there are others.
    """
    folded, refused = {}, []
    if functional_graph(model) is None:
        found = [x for x in flatten_layers(model) if isinstance(x, _NORMALIZATIONS)]
        refused = [
            f"'{layer.name}', whose place a model of its own hides" for layer in found
        ]
    else:
        _find(model, folded, refused)
    if refused:
        raise _refused(refused)
    return folded


def _find(model, folded, refused):
    _, calls, outputs = functional_graph(model)
    uses, counts = {}, {}
    for call in calls:
        counts[id(call.operation)] = counts.get(id(call.operation), 0) + 1
        for tensor in call.input_tensors:
            uses[id(tensor)] = uses.get(id(tensor), 0) + 1
    for tensor in outputs:
        uses[id(tensor)] = uses.get(id(tensor), 0) + 1
    made = {id(tensor): call.operation for call in calls for tensor in call.outputs}
    for call in calls:
        layer = call.operation
        if isinstance(layer, keras.Model) and functional_graph(layer):
            _find(layer, folded, refused)
        if not isinstance(layer, _NORMALIZATIONS):
            continue
        (tensor,) = call.input_tensors
        before = made.get(id(tensor))
        inner = getattr(before, "layer", before)
        linear = getattr(inner, "activation", None) is keras.activations.linear
        once = uses[id(tensor)] == counts[id(layer)] == counts.get(id(before), 0) == 1
        if isinstance(inner, _NORMALIZATIONS) or not linear or not once:
            what = "the input" if before is None else f"'{before.name}'"
            refused.append(f"'{layer.name}' after {what}")
        else:
            folded[id(before)] = layer


def _refused(names):
    return ValueError(
        "`model` must have its batch normalization directly after layers with kernels "
        "and without activation, to be folded into them. Received: "
        f"{'; '.join(names)}. The bare kernels count with "
        '`batch_normalization="ignore"`.'
    )
