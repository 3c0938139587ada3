"""The walk over a network that `lipschitz_bound` makes, call by call."""

import math

import keras
import numpy as np
from keras import layers as kl
from keras import ops

from keras_spectral.measures.linear_maps import LinearMap, matrix_norm
from keras_spectral.measures.lipschitz_layers import (
    Nonlinearity,
    Unbounded,
    behaviour,
    split_activation,
)
from keras_spectral.measures.lipschitz_operations import operation_behaviour
from keras_spectral.models.graph import follow
from keras_spectral.models.keras_internals import functional_graph
from keras_spectral.models.reasons import Unfit

# How many numbers a tensor may have whose spread is followed.
LARGEST_SPREAD = 2048
_IDENTITY = object()
# A batch that no other size is likely to equal.
_BATCH = 7919


class _Base:
    """A tensor that is no linear map of an earlier one.

    Args:
        logs: Array (inputs,), natural logarithms of the bounds by each input.
        inverse: Symmetric matrix P with d d' <= P for every difference d of inputs at
            distance one, over all numbers of the tensor; `_IDENTITY`; or `None`.
    """

    def __init__(self, logs, inverse=None):
        self.logs, self.inverse = logs, inverse

    @property
    def is_input(self):
        """Whether it is the network's one input."""
        return self.inverse is _IDENTITY


class _Value:
    """A tensor as a sum of linear maps of bases: a list of (base, `LinearMap`)."""

    def __init__(self, shape, terms):
        self.shape, self.terms = tuple(shape), terms


class Walk:
    """Follows the calls of a model.

    Args:
        method: `"product"` or `"merged"`.

    Attributes:
        rows: List of (node, kind, constant, how, log10 of the bound so far).
        alerts: List of strings.
    """

    def __init__(self, method):
        self.merges = method == "merged"
        self.rows, self.alerts, self.refusals = [], [], []
        self.activations, self.kinds = {}, {}

    def run(self, model, input_shape=None):
        """Return the natural logarithm of the bound.

        Raises:
            ValueError: If layers have no bound, or shapes are not known.
        """
        shapes = _input_shapes(model, input_shape)
        values = []
        for at, shape in enumerate(shapes):
            logs = np.full(len(shapes), -math.inf)
            logs[at] = 0.0
            alone = self.merges and len(shapes) == 1
            base = _Base(logs, _IDENTITY if alone else None)
            values.append(_Value(shape, [(base, LinearMap.identity(shape))]))
        outputs = follow(model, values, self._call)
        if self.refusals:
            raise ValueError(
                "`model` must consist of layers whose Lipschitz constant is known and "
                f"finite. Received: {'; '.join(dict.fromkeys(self.refusals))}."
            )
        # Of the outputs by the inputs: its norm bounds all of them together.
        table = np.stack([self._settled(value).terms[0][0].logs for value in outputs])
        top = table.max()
        if top == -math.inf:
            return -math.inf
        return top + math.log(matrix_norm(np.exp(table - top)))

    def _call(self, operation, arguments, keywords, _):
        given = keras.tree.flatten((arguments, keywords))
        values = [value for value in given if isinstance(value, _Value)]
        shapes = _output_shapes(operation, arguments, keywords)
        try:
            _check_call(operation, keywords)
            return [
                self._one(operation, arguments, keywords, values, shape)
                for shape in shapes
            ]
        except (Unbounded, Unfit) as error:
            kind = type(operation).__name__
            self.refusals.append(f"'{operation.name}' ({kind}): {error}")
            logs = [term[0].logs for value in values for term in value.terms]
            base = _Base(np.max(logs, axis=0))
            return [
                _Value(shape, [(base, LinearMap.identity(shape))]) for shape in shapes
            ]

    def _one(self, operation, arguments, keywords, values, shape):
        kind = type(operation).__name__
        if not type(operation).__module__.startswith(("keras.src.", "keras_spectral.")):
            if not isinstance(operation, kl.Layer):
                raise Unbounded("it is not one of Keras' operations")
            kind = ""  # Of the user's own, whatever it is called.
        if kind in ("Add", "Subtract", "Average") and len(values) > 1:
            return self._sum(operation, values, shape)
        if kind in ("Concatenate", "Stack") and len(values) > 1:
            return self._joined(operation, values, shape)
        if kind in ("Maximum", "Minimum") and len(values) > 1:
            if any(value.shape != tuple(shape) for value in values):
                raise Unbounded("it compares tensors of several shapes")
            return self._joined(operation, values, shape)
        if len(values) > 1 and kind == "ConditionalBatchNormalization":
            values = values[:1]
        if len(values) != 1:
            raise Unbounded("it has no bound for several tensors that depend on inputs")
        (value,) = values
        if not isinstance(operation, kl.Layer):
            found = operation_behaviour(operation, arguments, keywords, value, shape)
            return self._applied(operation, value, found, shape)
        if id(operation) not in self.activations:
            self.activations[id(operation)] = split_activation(operation)
        value = self._applied(
            operation, value, behaviour(operation, value.shape, shape), shape
        )
        activation = self.activations[id(operation)]
        if activation is not None:
            name = f"{operation.name}/activation"
            value = self._nonlinear(name, "Activation", value, activation)
        return value

    def _applied(self, operation, value, found, shape):
        kind = type(operation).__name__
        if isinstance(found, Nonlinearity):
            if found.alert:
                self.alerts.append(found.alert)
            value = self._nonlinear(operation.name, kind, value, found)
            return _Value(shape, [(value.terms[0][0], LinearMap.identity(shape))])
        self.kinds[operation.name] = kind
        terms = [(base, map.then(found, operation.name)) for base, map in value.terms]
        value = _Value(shape, terms)
        return value if self.merges else self._settled(value, kind)

    def _sum(self, operation, values, shape):
        if any(value.shape != tuple(shape) for value in values):
            raise Unbounded("it adds tensors of several shapes")
        kind = type(operation).__name__
        terms = {}
        for at, value in enumerate(values):
            sign = -1.0 if kind == "Subtract" and at else 1.0
            for base, map in value.terms:
                if id(base) in terms:
                    map = terms[id(base)][1].plus(map, operation.name, sign)
                elif sign < 0:
                    map = map.times(-1.0)
                terms[id(base)] = (base, map)
        total = _Value(shape, list(terms.values()))
        if kind == "Average":
            terms = [(b, m.times(1 / len(values))) for b, m in total.terms]
            total = _Value(shape, terms)
        return total if self.merges else self._settled(total, kind)

    def _joined(self, operation, values, shape):
        """Return a tensor of which each difference has a norm of at most all parts'."""
        parts = [self._settled(value).terms[0][0].logs for value in values]
        logs = _log_sum([2 * part for part in parts]) / 2
        kind = type(operation).__name__
        return self._new(operation.name, kind, math.nan, "certified", logs, shape)

    def _settled(self, value, kind="merged"):
        """Return the value as a base of its own, with a row if it was none."""
        (base, map), *others = value.terms
        if not others and map.is_identity:
            return value
        logs, constant, how = self._bounds(value)
        names = dict.fromkeys(name for _, map in value.terms for name in map.names)
        if len(names) == 1:
            kind = self.kinds.get(*names, kind)
        return self._new(" + ".join(names), kind, constant, how, logs, value.shape)

    def _new(self, name, kind, constant, how, logs, shape, inverse=None):
        self.rows.append((name, kind, constant, how, _log_norm(logs) / math.log(10)))
        base = _Base(logs, inverse)
        return _Value(shape, [(base, LinearMap.identity(shape))])

    def _bounds(self, value):
        """Return a value's bounds, the constant of its map, and how it is known."""
        parts = []
        for base, map in value.terms:
            constant, how = map.norm()
            parts.append(_log(constant) + base.logs)
        if len(parts) > 1:
            return _log_sum(parts), math.nan, "certified"
        spread = None if value.terms[0][0].is_input else self._spread(value)
        if spread is not None:
            logs = np.array([0.5 * _log(matrix_norm(spread))])
            if logs[0] < parts[0][0]:
                return logs, math.exp(logs[0] - base.logs[0]), "certified"
        return parts[0], constant, how

    def _spread(self, value):
        """Return A P A' for a value A b, where P is known of its base b."""
        if len(value.terms) > 1:
            return None
        base, map = value.terms[0]
        matrix = map.factored
        if base.inverse is None or matrix is None or len(matrix) > LARGEST_SPREAD:
            return None
        return matrix @ (matrix.T if base.is_input else base.inverse @ matrix.T)

    def _nonlinear(self, name, kind, value, found):
        inverse = self._beyond(value, found)
        value = self._settled(value)
        base = value.terms[0][0]
        logs = base.logs + _log(found.constant)
        return self._new(
            name, kind, found.constant, "table", logs, value.shape, inverse
        )

    def _beyond(self, value, found):
        """Return the `inverse` of what an activation with slopes in [0, 1] makes."""
        slopes = found.slopes
        if not self.merges or slopes is None or slopes[0] < 0 or slopes[1] > 1:
            return None
        spread = self._spread(value)
        norm = 0.0 if spread is None else matrix_norm(spread)
        if not norm or not math.isfinite(norm):
            return None
        values, vectors = np.linalg.eigh((spread + spread.T) / 2)
        # X = 2 / s I - S / s^2, whose eigenvalues lie between 1 / s and 2 / s.
        weights = 1 / (2 / norm - np.clip(values, 0, norm) / norm**2)
        return (vectors * weights) @ vectors.T * (1 + 1e-12)


def _input_shapes(model, input_shape):
    inputs = functional_graph(model)[0]
    shapes = [tuple(x.shape[1:]) for x in inputs]
    if input_shape is not None:
        given = input_shape if isinstance(input_shape, list) else [input_shape]
        given = [tuple(shape) for shape in given]
        fits = len(given) == len(shapes) and all(
            len(new) == len(old)
            and all(o is None or n == o for n, o in zip(new, old, strict=True))
            for new, old in zip(given, shapes, strict=True)
        )
        if not fits:
            raise ValueError(
                "`input_shape` must fit the model's inputs, without the batch: "
                f"{shapes}. Received: input_shape={input_shape}"
            )
        shapes = given
    if any(size is None for shape in shapes for size in shape):
        raise ValueError(
            "`input_shape` must be given: the model takes inputs of several sizes, "
            f"{shapes}. Received: input_shape={input_shape}"
        )
    return shapes


def _output_shapes(operation, arguments, keywords):
    def symbolic(value):
        if isinstance(value, _Value):
            return keras.KerasTensor((_BATCH, *value.shape), dtype="float64")
        return value

    arguments, keywords = keras.tree.map_structure(symbolic, (arguments, keywords))
    try:
        made = operation.compute_output_spec(*arguments, **keywords)
    except ValueError as error:
        raise ValueError(
            "`model` must run on any number of samples. Received: "
            f"'{operation.name}', which says: {error}"
        ) from error
    if any(
        not x.shape or x.shape[0] not in (None, _BATCH)
        for x in keras.tree.flatten(made)
    ):
        raise ValueError(
            "`model` must keep its samples apart. Received: "
            f"'{operation.name}', which mixes or counts them. Work on the other axes."
        )
    shapes = [tuple(x.shape[1:]) for x in keras.tree.flatten(made)]
    if any(size is None for shape in shapes for size in shape):
        # Some layers infer less than they compute.
        made = operation(*_zeros(arguments), **_zeros(keywords))
        shapes = [tuple(x.shape[1:]) for x in keras.tree.flatten(made)]
    return shapes


def _zeros(structure):
    def made(x):
        is_tensor = isinstance(x, keras.KerasTensor)
        return ops.zeros((1, *x.shape[1:]), dtype="float64") if is_tensor else x

    return keras.tree.map_structure(made, structure)


def _check_call(operation, keywords):
    """Refuse what a call asks for that inference of one sample does not."""
    # Resizing is told that it trains by default, and does the same.
    if not isinstance(operation, kl.Layer) or type(operation) is kl.Resizing:
        return
    if keywords.get("training") is True:
        raise Unbounded("it is called with `training=True`")
    if keywords.get("mask") is not None:
        raise Unbounded("it is called with a mask")


def _log(x):
    if not x >= 0:
        raise ValueError(f"`model` must have finite constants. Received: {x}")
    return math.log(x) if x else -math.inf


def _log_sum(parts):
    """Return log of the sums of exp, entry by entry."""
    table = np.stack(parts)
    top = table.max(axis=0)
    usable = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return usable + np.log(np.exp(table - usable).sum(axis=0))


def _log_norm(logs):
    return float(_log_sum([np.array([2 * value]) for value in logs])[0] / 2)
