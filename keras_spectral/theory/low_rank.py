"""What a network's output may change by when its kernels are cut to low rank."""

import dataclasses
import math

import keras
import numpy as np
from keras import ops

from keras_spectral.measures.lipschitz_bound import lipschitz_bound
from keras_spectral.measures.plain_copies import plain_copy
from keras_spectral.measures.samples import check_model
from keras_spectral.models.graph import chain
from keras_spectral.models.weights import weights
from keras_spectral.results import Rows
from keras_spectral.validation import check_integer, check_positive


@dataclasses.dataclass(frozen=True)
class LowRankRow:
    """One layer's part of `low_rank_error_bound`.

    Args:
        name: String.
        rank: Integer, how many singular values are kept.
        largest_rank: Integer, how many there are.
        norm: Float, a bound of the layer's norm, B_W.
        excluded: Float, a bound of the norm of what is cut off; of a Dense kernel its
            largest excluded singular value.
        error: Float, the term of the sum.
    """

    name: str
    rank: int
    largest_rank: int = dataclasses.field(metadata={"label": "of"})
    norm: float
    excluded: float
    error: float


class LowRankBound(Rows):
    """Rows of `LowRankRow`, and their sum.

    Args:
        rows: List of `LowRankRow`.
        model: The `keras.Model` of low rank, in float64.
        **kwargs: `title` and `caption`, see `Rows`.

    Example:
    >>> LowRankBound([LowRankRow("fc", 1, 2, 1.0, 0.5, 0.5)], None).bound
    0.5
    """

    def __init__(self, rows, model, **kwargs):
        super().__init__(rows, **kwargs)
        self.model = model

    @property
    def bound(self) -> float:
        """The bound of |D(x) - D^k(x)|, for all |x| <= B_x."""
        return float(sum(row.error for row in self.rows))


def low_rank_error_bound(model: keras.Model, ranks, input_norm: float) -> LowRankBound:
    """Bound how far truncation of the kernels moves a network's outputs.

        |D(x) - D^k(x)| <= B_x sum_i e_i prod_(j != i) B_j  for all |x| <= B_x,

    with B_j the norm of layer j and e_i the largest singular value of layer i that is
    left out. (The paper prints prod_(j=1)^L B_i / B_i, with i for both indices.) Norms
    are Euclidean, which are at least the paper's largest entry.

    A convolution is cut as its flattened kernel (`norm="reshaped"`), which neither
    bounds its norm nor keeps it: there B_j after i is of the truncated layer, and e_i
    of the convolution with what was cut off, both bounded from above as operators.
    Other layers, such as pooling, count with their Lipschitz constants.

    Args:
        model: A built `keras.Sequential` or functional `keras.Model` without branches,
            and without biases: what every layer makes of zeros must be zero, as the
            theorem has it.
        ranks: Integer >= 1, singular values that each kernel keeps, all of a smaller
            one; or a dict from kernels' names to integers, where the others stay.
        input_norm: Float > 0, B_x.

    Returns:
        A `LowRankBound`: a row a kernel; `.bound`, and `.model`, the truncated one.

    Raises:
        ValueError: If the model has branches, layers without a bound, biases, or is not
            built; a name is none of its kernels', or arguments are out of range.

    Example:
    >>> layers = [keras.layers.Dense(4, "relu", use_bias=False) for _ in range(2)]
    >>> model = keras.Sequential([keras.Input((4,)), *layers])
    >>> x = np.random.default_rng(0).normal(size=(50, 4))
    >>> largest = np.linalg.norm(x, axis=1).max()
    >>> found = low_rank_error_bound(model, 2, input_norm=largest)
    >>> change = model.predict(x, verbose=0) - found.model.predict(x, verbose=0)
    >>> bool(np.linalg.norm(change, axis=1).max() <= found.bound)
    True

    Source: [garg2019], Theorem 1, corrected.
    """
    check_positive("input_norm", input_norm)
    given = ranks.values() if isinstance(ranks, dict) else [ranks]
    for rank in given:
        check_integer("ranks", rank, least=1)
    check_model(model)
    whole = plain_copy(model)
    _check_zero(whole)
    cut, rest = plain_copy(model), plain_copy(model)
    kept = _truncate(ranks, whole, cut, rest)
    steps = [
        lipschitz_bound(part, method="product", progress=False).rows
        for part in (whole, cut, rest)
    ]
    constants = [{row.node: row.constant for row in part} for part in steps]
    logs = [[_log(row.constant) for row in part] for part in steps]
    rows = []
    for at, step in enumerate(steps[0]):
        if step.node not in kept:
            continue
        before, after = sum(logs[0][:at]), sum(logs[1][at + 1 :])
        total = before + logs[2][at] + after + math.log(input_norm)
        error = math.exp(total) if total < 700 else math.inf
        rank, largest = kept[step.node]
        excluded = constants[2][step.node]
        row = LowRankRow(step.node, rank, largest, step.constant, excluded, error)
        rows.append(row)
    bound = LowRankBound(rows, cut)
    bound.title = f"Low rank of {model.name}: outputs move by at most {bound.bound:.4g}"
    bound.caption = f"For inputs of norm at most {input_norm:g}; Euclidean norms."
    return bound


def _truncate(ranks, whole, cut, rest):
    """Cut the kernels of two copies; return {name: (rank, largest rank)}."""
    found = weights(whole)
    names = [weight.name for weight in found]
    unknown = (
        [name for name in ranks if name not in names] if isinstance(ranks, dict) else []
    )
    if unknown:
        raise ValueError(
            f"`ranks` must name kernels of '{whole.name}'. Received: {unknown}. They "
            f"are: {', '.join(names)}."
        )
    kept = {}
    for weight, low, high in zip(found, weights(cut), weights(rest), strict=True):
        if weight.name != weight.layer.name or weight.slot.masked:
            raise ValueError(
                "`model` must have one kernel a layer, without a mask. Received: "
                f"'{weight.name}'."
            )
        u, values, v = np.linalg.svd(weight.matrix().T, full_matrices=False)
        rank = ranks.get(weight.name, len(values)) if isinstance(ranks, dict) else ranks
        rank = min(rank, len(values))
        kept[weight.name] = (rank, len(values))
        for other, part in ((low, slice(rank)), (high, slice(rank, None))):
            if other is low and rank == len(values):
                continue  # As it is, without the rounding of its factors.
            matrix = (u[:, part] * values[part]) @ v[part]
            view = other.slot.view
            other.variable.assign(ops.convert_to_numpy(view.unflatten(matrix)))
    return kept


def _check_zero(model):
    """Raise unless the model is a chain whose every layer keeps zero at zero."""
    layers = list(chain(model))
    shape = model.inputs[0].shape
    x = np.zeros((1, *(size or 1 for size in shape[1:])))
    if None in shape[1:]:
        raise ValueError(
            "`model` must be built for inputs of one size. Received: inputs of shape "
            f"{tuple(shape[1:])}."
        )
    for layer in layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        x = layer(x)
        found = ops.convert_to_numpy(x)
        if np.any(found != 0):
            raise ValueError(
                "`model` must make zeros of zeros in every layer, as Theorem 1 has it: "
                "no biases, no shifts, activations through zero. Received: "
                f"'{layer.name}', which does not."
            )


def _log(x):
    return math.log(x) if x else -math.inf
