"""Whole networks with layers of low rank in place of full ones."""

import dataclasses
import math

import keras
import numpy as np
from keras import layers as kl

from keras_spectral.compression.factors import (
    factors,
    is_separable,
    positions,
    slot_of,
    unfit,
)
from keras_spectral.compression.low_rank import truncate
from keras_spectral.compression.masks import as_numpy
from keras_spectral.linalg import rank_at_ratio
from keras_spectral.models import weights
from keras_spectral.models.copying import rebuilt
from keras_spectral.models.graph import check_graph
from keras_spectral.models.weights import leaf_layers
from keras_spectral.results import Rows, column
from keras_spectral.validation import check_ratio

# What has weights with several axes that multiply entry by entry.
_ENTRYWISE = (
    kl.PReLU,
    kl.Normalization,
    kl.BatchNormalization,
    kl.LayerNormalization,
    kl.GroupNormalization,
)


@dataclasses.dataclass(frozen=True)
class FactorizationRow:
    """What became of one layer; the last row is the sum over the network.

    Parameters are those of the layer with its bias. Multiply-adds are of one call on
    one sample, `None` where the size of the images is not known. The relative error
    is |A - A_hat|_2 / |A|_2 of the flattened kernel. `left_as_it_was` says why a
    layer was not factorized, and is `None` for one that was.

    Args:
        name: String, the layer's; `"total"` of the sum.
        kind: String, its class.
        shape: Tuple of integers, the kernel's.
        rank: Integer, of the two factors.
        relative_error: Float, in the spectral norm.
        parameters_before: Integer.
        parameters_after: Integer.
        multiply_adds_before: Integer, a sample.
        multiply_adds_after: Integer, a sample.
        left_as_it_was: String, why, or `None`.
    """

    name: str = column("layer")
    kind: str = column("kind")
    shape: tuple | None = column(table=False)
    rank: int | None = column("rank")
    relative_error: float | None = column("error", ".3g")
    parameters_before: int = column("parameters")
    parameters_after: int = column("after")
    multiply_adds_before: int | None = column("products")
    multiply_adds_after: int | None = column("after")
    left_as_it_was: str | None = column("left, because")


def factorize(
    model: keras.Model,
    delta=None,
    rank_ratio=None,
    where=None,
    only_if_smaller: bool = True,
) -> tuple[keras.Model, Rows]:
    """Return a copy of a network in which a layer of low rank is two plain layers.

    A `Dense` becomes a `Dense` to r numbers, without bias, and one to the units, an
    `EinsumDense` with one matrix likewise; a convolution in one to three dimensions,
    transposed or not, becomes one of the same kernel size, strides, padding and
    dilation to r channels, without bias, and one of kernel size 1. Of a separable
    convolution it is the pointwise kernel that is factorized. Recurrent layers,
    attention, embeddings and depthwise convolutions stay. The second has the bias, the
    activation and the name of the original, so that outputs keep their names; the
    first is `<name>-left`. Kernels start as the truncated SVD, the singular values
    shared evenly. A regularizer or constraint of the kernel is dropped: there is no
    such kernel any more.

    All layers are Keras' own: the model needs nothing of this package, and trains on
    freely. A large layer is faster too, once it has about half of the products
    (benchmarks/RESULTS.md). Use `layers.SVDDense` and `layers.SVDConv2D` instead to
    train from scratch at a rank, or to keep the singular values as weights with a
    penalty of their own.

    Args:
        model: A built `keras.Sequential` or functional `keras.Model`, which stays
            as it is; nested ones are entered.
        delta: Float in [0, 1]: singular values below delta times the largest go.
        rank_ratio: Float in (0, 1] in place of `delta`: r is that times the smaller
            side of the flattened kernel.
        where: Which layers, see `models.weights`: a list of names, or a callable that
            gets a `Weight` and returns a boolean; by default all. In nested models a
            name takes every layer of that name.
        only_if_smaller: Boolean: leave a layer that the factors do not make smaller,
            r (m + n) >= m n, as it is.

    Returns:
        Tuple (copy, rows): a model of the same kind with the same other layers,
        which is to be compiled anew, and `Rows` of `FactorizationRow`, one for each
        layer with a kernel, and the sum, which says what it does not count.

    Raises:
        ValueError: If not one of `delta` and `rank_ratio` is given, the model is of
            another kind or not built, a kernel is not finite, or `where` has a name
            that is not there, or of a layer that cannot be factorized: of another
            kind, grouped, masked, wrapped, quantized or with LoRA. What is not named
            and cannot be is left as it is.

    Example:
    >>> import keras
    >>> model = keras.Sequential(
    ...     [keras.Input((64,)), keras.layers.Dense(32, name="hidden")]
    ... )
    >>> copy, rows = factorize(model, rank_ratio=0.25)
    >>> [layer.name for layer in copy.layers], rows[0].rank
    (['hidden-left', 'hidden'], 8)
    >>> model.count_params(), copy.count_params()
    (2080, 800)

    Source: [orton2018], Lemma 5 and Theorem 4's proof.
    """
    if (delta is None) == (rank_ratio is None):
        raise ValueError(
            "One of `delta` and `rank_ratio` must be given. "
            f"Received: delta={delta}, rank_ratio={rank_ratio}"
        )
    if rank_ratio is not None:
        check_ratio("rank_ratio", rank_ratio)
    elif not 0 <= delta <= 1:
        raise ValueError(f"`delta` must be in [0, 1]. Received: delta={delta}")
    check_graph(model)
    kernels, chosen = {weight.layer for weight in weights(model)}, {}
    for weight in weights(model, where):
        chosen.setdefault(weight.layer, []).append(weight.slot.name)
    named = where is not None and not callable(where)
    plans, told = {}, set()
    for layer in dict.fromkeys(leaf_layers(model)):
        plan = _Plan(reason="not chosen by `where`")
        if layer in chosen or where is None:
            plan = _plan(layer, delta, rank_ratio, only_if_smaller)
            own = None if plan.unfit else slot_of(layer).name
            if own is not None and own not in chosen[layer]:
                plan = _Plan(reason=f"of which only the {own} can be", unfit=True)
            if named and plan.unfit:
                raise ValueError(
                    "`where` must name kernels that two layers can have in place of "
                    "one: of Dense, EinsumDense, and convolutions with one group. "
                    f"Received: '{layer.name}', {plan.reason}."
                )
        plans[layer] = plan
        several = any(len(weight.shape) > 1 for weight in layer.weights)
        if layer in kernels or (several and not isinstance(layer, _ENTRYWISE)):
            told.add(layer)
    copy = _factorized(model, plans)
    rows = [_row(layer, plan) for layer, plan in plans.items() if layer in told]
    return copy, Rows(
        [*rows, _total(model, copy, rows)],
        title=f"Factorization of '{model.name}'",
        caption="products: multiply-adds of one call on one sample, biases left out",
    )


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What is to become of a layer: its factors, or the reason to leave it."""

    truncation: object = None
    reason: str | None = None
    # Whether the layer could not be factorized at all.
    unfit: bool = False


def _plan(layer, delta, rank_ratio, only_if_smaller):
    reason = unfit(layer)
    if reason:
        return _Plan(reason=reason, unfit=True)
    slot = slot_of(layer)
    kernel = as_numpy(slot.variable).astype("float64")
    if not np.isfinite(kernel).all():
        raise ValueError(
            "`model` must have finite kernels. Received: NaN or infinity in "
            f"'{layer.name}'. Use an earlier checkpoint."
        )
    matrix = slot.view.flatten(kernel)
    m, n = matrix.shape
    rank = None if rank_ratio is None else rank_at_ratio(rank_ratio, min(m, n))
    if rank is not None and only_if_smaller and rank * (m + n) >= m * n:
        return _Plan(reason=f"rank {rank} is not smaller")
    found = truncate(matrix, delta, rank)
    if not found.rank:
        # A layer cannot have no channels.
        zeros = dict(left=np.zeros((m, 1)), right=np.zeros((1, n)), rank=1)
        found = found._replace(**zeros)
    if only_if_smaller and found.rank * (m + n) >= m * n:
        return _Plan(reason=f"rank {found.rank} is not smaller")
    return _Plan(truncation=found)


def _factorized(model, plans):
    names = {layer.name for layer in plans}

    def replace(layer):
        found = plans[layer].truncation
        return factors(layer, found.rank, names) if found else None

    copy, _, replaced = rebuilt(model, replace)
    for layer, (first, second) in replaced:
        found = plans[layer].truncation
        for factor, matrix in ((first, found.left), (second, found.right)):
            slot = slot_of(factor)
            slot.variable.assign(slot.view.unflatten(matrix))
        if is_separable(layer):
            first.depthwise_kernel.assign(layer.depthwise_kernel)
        if layer.bias is not None:
            second.bias.assign(layer.bias)
    return copy


def _row(layer, plan):
    before = after = layer.count_params()
    products = products_after = shape = None
    if not unfit(layer):
        m, n = shape = slot_of(layer).view.shape
        uses = positions(layer)
        beside = 0
        if uses is not None:
            if is_separable(layer):
                beside = uses[0] * math.prod(layer.depthwise_kernel.shape)
            products = products_after = beside + uses[0] * m * n
        if plan.truncation:
            rank = plan.truncation.rank
            after = before - m * n + rank * (m + n)
            if uses is not None:
                one, two = uses[0] * m, uses[1] * n
                products_after = beside + rank * (one + two)
    found = plan.truncation
    return FactorizationRow(
        name=layer.name,
        kind=type(layer).__name__,
        shape=shape,
        rank=found.rank if found else None,
        relative_error=found.relative_error if found else None,
        parameters_before=before,
        parameters_after=after,
        multiply_adds_before=products,
        multiply_adds_after=products_after,
        left_as_it_was=plan.reason,
    )


def _total(model, copy, rows):
    counted = [row for row in rows if row.shape is not None]
    others = {}
    for row in rows:
        if row.shape is None:
            others.setdefault(row.left_as_it_was, []).append(row.name)

    def total(name):
        values = [getattr(row, name) for row in counted]
        return None if None in values or not values else sum(values)

    told = None
    if others:
        left = []
        for reason, names in others.items():
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            left.append(f"{', '.join(names[:3])}{more} ({reason})")
        told = f"products without {', '.join(left)}"
    return FactorizationRow(
        name="total",
        kind="",
        shape=None,
        rank=None,
        relative_error=None,
        parameters_before=model.count_params(),
        parameters_after=copy.count_params(),
        multiply_adds_before=total("multiply_adds_before"),
        multiply_adds_after=total("multiply_adds_after"),
        left_as_it_was=told,
    )
