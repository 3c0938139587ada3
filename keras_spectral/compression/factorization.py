"""Whole networks with layers of low rank in place of full ones."""

import dataclasses
import difflib
import math

import keras
import numpy as np
from keras import layers as kl

from keras_spectral.compression.low_rank import truncate
from keras_spectral.compression.masks import as_numpy, is_float
from keras_spectral.layers.reparametrization import Reparametrization
from keras_spectral.linalg import rank_at_ratio
from keras_spectral.models.copying import deep_graphs, finalize
from keras_spectral.models.slots import has_kernels
from keras_spectral.results import Rows
from keras_spectral.validation import check_ratio


def _column(label=None, form=None, table=True):
    return dataclasses.field(metadata={"label": label, "format": form, "table": table})


@dataclasses.dataclass(frozen=True)
class FactorizationRow:
    """What became of one layer; the last row is the sum over the network.

    Parameters are those of the layer with its bias. Multiply-adds are of one call on
    one sample, `None` where the size of the images is not known. The relative error
    is |A - A_hat|_2 / |A|_2 of the flattened kernel. `left_as_it_was` says why a
    layer was not factorized, and is `None` for one that was.
    """

    name: str = _column("layer")
    kind: str = _column("kind")
    shape: tuple | None = _column(table=False)
    rank: int | None = _column("rank")
    relative_error: float | None = _column("error", ".3g")
    parameters_before: int = _column("parameters")
    parameters_after: int = _column("after")
    multiply_adds_before: int | None = _column("products")
    multiply_adds_after: int | None = _column("after")
    left_as_it_was: str | None = _column("left, because")


def factorize(
    model: keras.Model,
    delta=None,
    rank_ratio=None,
    layers=None,
    only_if_smaller: bool = True,
) -> tuple[keras.Model, Rows]:
    """Return a copy of a network in which a layer of low rank is two plain layers.

    A `Dense` becomes a `Dense` to r numbers, without bias, and one to the units; a
    `Conv2D` becomes one of the same kernel size, strides, padding and dilation to r
    channels, without bias, and a 1 x 1 `Conv2D`. The second has the bias, the
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
        layers: List of names of Dense and Conv2D layers; default all of them. In
            nested models it takes every layer of that name.
        only_if_smaller: Boolean: leave a layer that the factors do not make smaller,
            r (m + n) >= m n, as it is.

    Returns:
        Tuple (copy, rows): a model of the same kind with the same other layers,
        which is to be compiled anew, and `Rows` of `FactorizationRow`, one for each
        layer with a kernel, and the sum.

    Raises:
        ValueError: If not one of `delta` and `rank_ratio` is given, the model is of
            another kind or not built, a kernel is not finite, or `layers` names one
            that is not there or cannot be factorized: grouped, masked, wrapped,
            quantized or with LoRA. Without `layers` these are left as they are.

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

    Source: papers/compression-bounds-notes.md, Lemma 5 and Theorem 4's proof.
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
    _check_model(model)
    found = list(dict.fromkeys(_leaves(model)))
    _check_names(model, found, layers)
    plans = {}
    for layer in found:
        if layers is None or layer.name in layers:
            plan = _plan(layer, delta, rank_ratio, only_if_smaller)
            if layers is not None and plan.unfit:
                raise ValueError(
                    "`layers` must name plain Dense and Conv2D layers with one "
                    f"group. Received: '{layer.name}', {plan.reason}."
                )
        else:
            plan = _Plan(reason="not among `layers`")
        plans[layer] = plan
    with deep_graphs():
        copy = _Copier(model, plans).copy
    rows = [
        _row(layer, plan)
        for layer, plan in plans.items()
        if has_kernels(layer) or isinstance(layer, Reparametrization)
    ]
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


def _enterable(layer):
    # Keras has no public name for functional models.
    return isinstance(layer, keras.Sequential) or (
        isinstance(layer, keras.Model) and hasattr(layer, "_operations")
    )


def _check_model(model):
    if not _enterable(model):
        raise ValueError(
            "`model` must be a `keras.Sequential` or a functional `keras.Model`: the "
            "layers of another cannot be replaced from outside. Received: "
            f"{model!r}. Build it with two layers where it makes one."
        )
    if not model.built:
        raise ValueError(
            f"`model` must be built. Received: '{model.name}', which has no weights "
            "yet. Call it on a batch first."
        )


def _leaves(model):
    for layer in model.layers:
        if _enterable(layer):
            yield from _leaves(layer)
        else:
            yield layer


def _check_names(model, found, names):
    if names is None:
        return
    if isinstance(names, str) or not names:
        raise ValueError(
            f"`layers` must be a list of layer names. Received: layers={names!r}"
        )
    known = [layer.name for layer in found]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=3)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise ValueError(
                f"`layers` must name layers of '{model.name}'. "
                f"Received: {name!r}.{hint}"
            )


def _unfit(layer):
    """Return why a layer cannot be factorized, or `None`."""
    kind = type(layer)
    if isinstance(layer, Reparametrization):
        return f"wrapped by {kind.__name__}: `unwrap` the model first"
    if kind not in (kl.Dense, kl.Conv2D):
        return f"a {kind.__name__}"
    if getattr(layer, "groups", 1) != 1:
        return f"a convolution of {layer.groups} groups"
    if getattr(layer, "lora_enabled", False):
        return "with a LoRA adapter beside its kernel"
    if not layer.built:
        return "not built"
    if not is_float(as_numpy(layer.kernel)):
        return "quantized"
    return None


def _plan(layer, delta, rank_ratio, only_if_smaller):
    reason = _unfit(layer)
    if reason:
        return _Plan(reason=reason, unfit=True)
    kernel = as_numpy(layer.kernel).astype("float64")
    if not np.isfinite(kernel).all():
        raise ValueError(
            "`model` must have finite kernels. Received: NaN or infinity in "
            f"'{layer.name}'. Use an earlier checkpoint."
        )
    matrix = kernel.reshape(-1, kernel.shape[-1])
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


class _Copier:
    """Copies a model with the planned layers replaced; shared layers stay shared."""

    def __init__(self, model, plans):
        self.plans = plans
        self.names = {layer.name for layer in plans}
        self.copies = {}
        self.copy = self._model(model)
        for old, new in self.copies.items():
            if old in plans:
                _assign(old, new, plans[old].truncation)

    def _layers(self, layer):
        """Return the layers that stand for `layer`, in a row."""
        if layer not in self.copies:
            if _enterable(layer):
                self.copies[layer] = (self._model(layer),)
            elif getattr(self.plans.get(layer), "truncation", None):
                self.copies[layer] = self._factors(layer)
            else:
                self.copies[layer] = (type(layer).from_config(layer.get_config()),)
        return self.copies[layer]

    def _model(self, model):
        if isinstance(model, keras.Sequential):
            return self._sequential(model)
        seconds = {}

        def clone(layer):
            first, *rest = self._layers(layer)
            if rest:
                seconds[first] = rest[0]
            return first

        def call(layer, *args, **kwargs):
            outputs = layer(*args, **kwargs)
            return seconds[layer](outputs) if layer in seconds else outputs

        # Keras would compile the copy too, and fails where the loss is a lambda.
        compiled, model.compiled = model.compiled, False
        try:
            return keras.models.clone_model(
                model, clone_function=clone, call_function=call, recursive=False
            )
        finally:
            model.compiled = compiled

    def _sequential(self, model):
        (given,) = model.inputs
        inputs = keras.Input(
            batch_shape=given.shape, dtype=given.dtype, name=given.name
        )
        layers = [new for old in model.layers for new in self._layers(old)]
        return keras.Sequential([inputs, *layers], name=model.name)

    def _factors(self, layer):
        rank = self.plans[layer].truncation.rank
        name = f"{layer.name}-left"
        while name in self.names:
            name += "-left"
        self.names.add(name)
        outputs = "units" if isinstance(layer, kl.Dense) else "filters"
        both = dict(kernel_regularizer=None, kernel_constraint=None)
        config = {**layer.get_config(), **both}
        first = {
            **config,
            **dict.fromkeys(
                (
                    "activation",
                    "bias_regularizer",
                    "bias_constraint",
                    "activity_regularizer",
                )
            ),
            outputs: rank,
            "name": name,
            "use_bias": False,
        }
        # As objects, so that they need not be registered.
        second = {
            **config,
            "activation": layer.activation,
            "activity_regularizer": layer.activity_regularizer,
        }
        if outputs == "filters":
            second |= dict(kernel_size=1, strides=1, padding="valid", dilation_rate=1)
        return tuple(type(layer).from_config(config) for config in (first, second))


def _assign(old, new, truncation):
    if truncation is None:
        new[0].set_weights(old.get_weights())
        finalize(new[0])
        return
    first, second = new
    first.kernel.assign(truncation.left.reshape(first.kernel.shape))
    second.kernel.assign(truncation.right.reshape(second.kernel.shape))
    if old.use_bias:
        second.bias.assign(old.bias)


def _positions(layer):
    """Return how often one call on one sample applies the kernel's matrix."""
    shape = tuple(layer.get_build_config()["input_shape"])
    shape = tuple(layer.compute_output_shape(shape))[1:]
    first = getattr(layer, "data_format", None) == "channels_first"
    sizes = shape[1:] if first else shape[:-1]
    return None if None in sizes else math.prod(sizes)


def _row(layer, plan):
    before = after = layer.count_params()
    products = products_after = shape = None
    if not _unfit(layer):
        m, n = shape = (math.prod(layer.kernel.shape[:-1]), layer.kernel.shape[-1])
        positions = _positions(layer)
        saved = 0
        if plan.truncation:
            saved = m * n - plan.truncation.rank * (m + n)
            after = before - saved
        if positions is not None:
            products, products_after = positions * m * n, positions * (m * n - saved)
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
    def total(name):
        values = [getattr(row, name) for row in rows if row.shape is not None]
        return None if None in values else sum(values)

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
        left_as_it_was=None,
    )
