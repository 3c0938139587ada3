"""The walk over a network that `lipschitz_bound` makes, call by call."""

import math

import keras
import numpy as np
from keras import layers as kl
from keras import ops

from keras_spectral.measures.linear_maps import LinearMap, matrix_norm
from keras_spectral.measures.lipschitz_activations import (
    Nonlinearity,
    Unbounded,
    activation_of,
)
from keras_spectral.measures.lipschitz_layers import behaviour, split_activation
from keras_spectral.measures.lipschitz_operations import operation_behaviour
from keras_spectral.measures.logarithms import log, log_norm, log_sum
from keras_spectral.models.graph import follow
from keras_spectral.models.keras_internals import functional_graph
from keras_spectral.models.reasons import Unfit

# How many numbers a tensor may have whose spread is followed.
LARGEST_SPREAD = 2048
_IDENTITY = object()
# A batch that no other size is likely to equal.
_BATCH = 7919


class Base:
    """A tensor that is no linear map of an earlier one.

    Args:
        logs: Array (inputs,), natural logarithms of the bounds by each input.
        inverse: Symmetric matrix P with d d' <= P for every difference d of inputs at
            distance one, over all numbers of the tensor; `_IDENTITY`; or `None`.
    """

    def __init__(self, logs, inverse=None):
        self.logs, self.inverse = logs, inverse
        # On a ball only: how far it moves, and how far rounding has moved its center.
        self.ball = self.error = None

    @property
    def is_input(self):
        """Whether it is the network's one input."""
        return self.inverse is _IDENTITY


class Value:
    """A tensor as a sum of linear maps of bases: a list of (base, `LinearMap`)."""

    def __init__(self, shape, terms):
        self.shape, self.terms = tuple(shape), terms
        self.where = None  # On a ball only.


class Walk:
    """Follows the calls of a model.

    Args:
        method: A `Method` of `lipschitz_bound`.

    Attributes:
        rows: List of (node, kind, constant, how, log10 of the bound so far).
        alerts: List of strings.
        outputs: List of `Value`, after a run.
    """

    def __init__(self, method):
        self.merges = method != "product"
        self.rows, self.alerts, self.refusals = [], [], []
        self.activations, self.kinds = {}, {}
        self.centers = []  # On a ball only: the inputs.

    def run(self, model, input_shape=None):
        """Return the natural logarithm of the bound.

        Raises:
            ValueError: If layers have no bound, or shapes are not known.
        """
        self.rows, self.alerts, self.refusals = [], [], []
        shapes = _input_shapes(model, input_shape)
        values = []
        for at, shape in enumerate(shapes):
            logs = np.full(len(shapes), -math.inf)
            logs[at] = 0.0
            alone = self.merges and len(shapes) == 1
            base = Base(logs, _IDENTITY if alone else None)
            values.append(Value(shape, [(base, LinearMap.identity(shape))]))
            self.begin(values[-1], at)
        self.outputs = outputs = follow(model, values, self._call)
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

    def entries(self, value):
        """Return bounds of the constants of each number of a `Value`, an array."""
        total = np.zeros(value.shape)
        for base, map in value.terms:
            rows = map.row_norms()
            rows = map.norm()[0] if rows is None else rows
            total += rows * math.exp(min(log_norm(base.logs), 700.0))
        spread = self._spread(value)
        if spread is None or not np.isfinite(spread).all():
            return total
        rows = np.sqrt(np.maximum(np.diag(spread), 0.0)).reshape(value.shape)
        return np.minimum(total, rows)

    def begin(self, value, at):
        """Tell what is known of an input, which is nothing."""

    def _call(self, operation, arguments, keywords, _):
        given = keras.tree.flatten((arguments, keywords))
        values = [value for value in given if isinstance(value, Value)]
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
            return [self._refused(values, shape) for shape in shapes]

    def _refused(self, values, shape):
        """Return a tensor with which the walk can go on, to find what else it is."""
        logs = [term[0].logs for value in values for term in value.terms]
        return Value(shape, [(Base(np.max(logs, axis=0)), LinearMap.identity(shape))])

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
            found = activation_of(activation, shape)
            value = self._nonlinear(name, "Activation", value, found)
        return value

    def _applied(self, operation, value, found, shape):
        kind = type(operation).__name__
        if isinstance(found, Nonlinearity):
            if found.alert:
                self.alerts.append(found.alert)
            value = self._nonlinear(operation.name, kind, value, found)
            if value.shape == tuple(shape):
                return value
            return Value(shape, [(value.terms[0][0], LinearMap.identity(shape))])
        self.kinds[operation.name] = kind
        terms = [(base, map.then(found, operation.name)) for base, map in value.terms]
        value = Value(shape, terms)
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
        total = Value(shape, list(terms.values()))
        if kind == "Average":
            terms = [(b, m.times(1 / len(values))) for b, m in total.terms]
            total = Value(shape, terms)
        return total if self.merges else self._settled(total, kind)

    def _joined(self, operation, values, shape):
        """Return a tensor of which each difference has a norm of at most all parts'."""
        stacked = self._stacked(operation, values, shape)
        if stacked is not None:
            return stacked
        parts = [self._settled(value).terms[0][0].logs for value in values]
        logs = log_sum([2 * part for part in parts]) / 2
        kind = type(operation).__name__
        return self._new(operation.name, kind, math.nan, "certified", logs, shape)

    def _stacked(self, operation, values, shape):
        """Return linear maps of one base side by side as one; `None` for others."""
        kind = type(operation).__name__
        bases = {id(base): base for value in values for base, _ in value.terms}
        # Constants between them would have places, too.
        whole = math.prod(shape) == sum(math.prod(value.shape) for value in values)
        if not self.merges or len(bases) > 1 or not whole:
            return None
        if kind not in ("Concatenate", "Stack"):
            return None
        axis = operation.axis
        join = np.stack if kind == "Stack" else np.concatenate
        map = LinearMap.stacked(
            [value.terms[0][1] for value in values],
            lambda arrays: join(arrays, axis=axis),
            shape,
            operation.name,
            kind == "Concatenate" and axis in (-1, len(shape)),
        )
        return Value(shape, [(*bases.values(), map)])

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
        self.rows.append((name, kind, constant, how, log_norm(logs) / math.log(10)))
        base = Base(logs, inverse)
        return Value(shape, [(base, LinearMap.identity(shape))])

    def _bounds(self, value):
        """Return a value's bounds, the constant of its map, and how it is known."""
        parts, self.norms = [], []
        for base, map in value.terms:
            constant, how = map.norm()
            parts.append(log(constant) + base.logs)
            self.norms.append(constant)
        if len(parts) > 1:
            return log_sum(parts), math.nan, "certified"
        spread = None if value.terms[0][0].is_input else self._spread(value)
        if spread is not None:
            logs = np.array([0.5 * log(matrix_norm(spread))])
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
        inverse = None
        if self.merges and found.slopes is not None:
            slopes = (np.full(math.prod(value.shape), end) for end in found.slopes)
            inverse = self._beyond(value, *slopes)
        value = self._settled(value)
        base = value.terms[0][0]
        logs = base.logs + log(found.constant)
        return self._new(
            name, kind, found.constant, "table", logs, value.shape, inverse
        )

    def _beyond(self, value, least, largest):
        """Return the `inverse` of what slopes between two arrays make of a value.

        What comes out is A v + B z, A and B the least slopes and the ranges, and z some
        part of v, of the entries u whose slope is not fixed: c z'(v - z) >= 0. With
        v v' <= S, by the S-procedure (v, z) lies within the matrix
        [[S + c^2 S_u X S_u', c S_u X], [c X S_u', X]], where
        X = (2 c I - c^2 S_uu)^-1, for any c below 2 / |S_uu|. ECLipsE-Fast has A = 0,
        B = I and c = 1 / |S_uu|; where the ranges B are small, a smaller c is better.
        """
        spread = self._spread(value)
        if spread is None or not np.isfinite(spread).all():
            return None
        spread = (spread + spread.T) / 2
        free = np.flatnonzero(largest > least)
        among = spread[np.ix_(free, free)]
        norm = matrix_norm(among)
        result = least[:, None] * spread * least
        if norm:
            values, vectors = np.linalg.eigh(among)
            values = np.clip(values, 0, norm)
            fixed = least[:, None] * (spread[:, free] @ vectors)
            ranges = np.zeros_like(fixed)
            ranges[free] = (largest - least)[free, None] * vectors
            parts = [
                (c * fixed + ranges) / np.sqrt(2 * c - c**2 * values)
                for c in np.logspace(-9, 0, 19) / norm
            ]
            part = min(parts, key=np.linalg.norm)
            result = result + part @ part.T
        result[np.diag_indices_from(result)] += 1e-12 * np.trace(result)
        return result


def _input_shapes(model, input_shape):
    inputs = functional_graph(model)[0]
    shapes = [tuple(x.shape[1:]) for x in inputs]
    if input_shape is not None:
        several = isinstance(input_shape, list) and not all(
            size is None or isinstance(size, int) for size in input_shape
        )
        given = input_shape if several else [input_shape]
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
        if isinstance(value, Value):
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
