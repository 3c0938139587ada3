"""The walk over a network that `lipschitz_bound` makes, call by call."""

import contextlib
import math

import keras
import numpy as np
from keras import layers as kl

from keras_spectral.linalg.threads import one_thread
from keras_spectral.measures.kernel_certificates import matrix_norm
from keras_spectral.measures.layer_calls import check_call
from keras_spectral.measures.linear_maps import LinearMap
from keras_spectral.measures.lipschitz_activations import (
    Nonlinearity,
    Refused,
    Unbounded,
    activation_of,
)
from keras_spectral.measures.lipschitz_layers import behaviour, split_activation
from keras_spectral.measures.lipschitz_operations import (
    check_apart,
    operation_behaviour,
)
from keras_spectral.measures.lipschitz_shapes import (
    input_shapes,
    output_shapes,
    symbolic,
)
from keras_spectral.measures.lipschitz_spread import Spread
from keras_spectral.measures.logarithms import exp, log, log_norm, log_sum
from keras_spectral.models.graph import follow
from keras_spectral.models.reasons import Unfit

# Weights of a network whose matrices are too small to be shared out.
_SMALL = 2**20


class Base:
    """A tensor that is no linear map of an earlier one.

    Args:
        logs: Array (inputs,), natural logarithms of the bounds by each input.
    """

    def __init__(self, logs):
        self.logs = logs
        # On a ball only: how far it moves, and how far rounding has moved its center.
        self.ball = self.error = None


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
        self.seen = None  # As `follow` has it.

    # What overflows is infinite, or not known, and what is known by logarithms holds.
    @np.errstate(over="ignore", invalid="ignore")
    def run(self, model, input_shape=None):
        """Return the natural logarithm of the bound.

        Raises:
            ValueError: If layers have no bound, or shapes are not known.
        """
        self.rows, self.alerts, self.refusals, self.spreads = [], [], [], []
        shapes = input_shapes(model, input_shape)
        values = []
        for at, shape in enumerate(shapes):
            logs = np.full(len(shapes), -math.inf)
            logs[at] = 0.0
            base = Base(logs)
            if self.merges and len(shapes) == 1:
                size = math.prod(shape)
                self.spreads = [Spread(base, size, joint) for joint in (False, True)]
            values.append(Value(shape, [(base, LinearMap.identity(shape))]))
            self.begin(values[-1], at)
        small = model.count_params() <= _SMALL
        with one_thread() if small else contextlib.nullcontext():
            self.outputs = outputs = follow(model, values, self._call, self.seen)
        if self.refusals:
            raise Refused(
                "`model` must consist of layers whose Lipschitz constant is known and "
                f"finite. Received: {'; '.join(dict.fromkeys(self.refusals))}."
            )
        # Of the outputs by the inputs: its norm bounds all of them together.
        table = np.stack([self._settled(value).terms[0][0].logs for value in outputs])
        top = table.max()
        if math.isnan(top):
            raise ValueError("`model` must have finite constants. Received: NaN")
        if math.isinf(top):
            return top
        return top + math.log(matrix_norm(np.exp(table - top)))

    @np.errstate(over="ignore", invalid="ignore")
    def entries(self, value):
        """Return bounds of the constants of each number of a `Value`, an array."""
        total = np.zeros(value.shape)
        for base, map in value.terms:
            rows = map.row_norms()
            rows = map.norm()[0] if rows is None else rows
            moved = np.maximum(rows * exp(log_norm(base.logs)), exp(-800.0))
            total += np.where(rows > 0, moved, 0.0)
        for spread, rows in self._known(value):
            total = np.fmin(total, spread.deviations(rows).reshape(value.shape))
        return total

    def begin(self, value, at):
        """Tell what is known of an input, which is nothing."""

    def _call(self, operation, arguments, keywords, _):
        given = keras.tree.flatten((arguments, keywords))
        values = [value for value in given if isinstance(value, Value)]
        tensors = keras.tree.map_structure(_symbolic, (arguments, keywords))
        shapes = output_shapes(operation, *tensors)
        try:
            check_call(operation, keywords)
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
            if kind == "Average" and len(keras.tree.flatten(arguments)) > len(values):
                raise Unbounded("it averages constants, too; add them behind it")
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
        check_apart(operation, value.shape)
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
            ((base, _),) = value.terms
            self._follow(base, math.prod(shape), ())
            return Value(shape, [(base, LinearMap.identity(shape))])
        self.kinds[operation.name] = kind
        if not all(map.holds(found) for _, map in value.terms):
            value = self._settled(value)
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
        added = self._side_by_side(operation, values, shape)
        self.parts = [self._settled(value) for value in values]
        logs = log_sum([2 * part.terms[0][0].logs for part in self.parts]) / 2
        kind = type(operation).__name__
        return self._new(
            operation.name, kind, math.nan, "certified", logs, shape, added
        )

    def _stacked(self, operation, values, shape):
        """Return linear maps of one base side by side as one; `None` for others."""
        bases = {id(base): base for value in values for base, _ in value.terms}
        join = _joiner(operation)
        if not self.merges or len(bases) > 1 or join is None:
            return None
        if not whole(values, shape):
            return None
        map = LinearMap.stacked(
            [value.terms[0][1] for value in values],
            join,
            shape,
            operation.name,
            type(operation).__name__ == "Concatenate"
            and operation.axis in (-1, len(shape)),
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

    def _new(self, name, kind, constant, how, logs, shape, added=None):
        self.rows.append((name, kind, constant, how, log_norm(logs) / math.log(10)))
        base = Base(logs)
        if added is not None:
            self._follow(base, math.prod(shape), added)
        return Value(shape, [(base, LinearMap.identity(shape))])

    def _bounds(self, value):
        """Return a value's bounds, the constant of its map, and how it is known."""
        parts, self.norms = [], []
        for base, map in value.terms:
            constant, how = map.norm()
            parts.append(log(constant) + base.logs)
            self.norms.append(constant)
        logs = log_sum(parts) if len(parts) > 1 else parts[0]
        for spread, rows in self._known(value):
            if spread.matrix is not None:
                found = np.array([0.5 * log(matrix_norm(spread.of(rows)))])
                if found[0] < logs[0]:
                    logs, how = found, "certified"
                    constant = math.exp(min(found[0] - base.logs[0], 700.0))
        if len(parts) > 1:
            return logs, math.nan, "certified"
        return logs, constant, how

    def _known(self, value):
        """Return pairs of a `Spread` and the value's rows in it, where it has them."""
        pairs = [(spread, spread.rows(value)) for spread in self.spreads]
        return [(spread, rows) for spread, rows in pairs if rows is not None]

    def _follow(self, base, size, added):
        """Name what was added to spreads; begin again where none was."""
        total = log_norm(base.logs)
        for spread in self.spreads:
            if spread in added:
                spread.named(base)
            elif not spread.joint and abs(total) < 138:
                spread.restart(base, size, math.exp(total))

    def _bent(self, value, least, largest):
        """Return the spreads that hold what slopes between two arrays make of it."""
        return [
            spread
            for spread, rows in self._known(value)
            if spread.bend(rows, least, largest) is not None
        ]

    def _side_by_side(self, operation, values, shape):
        """Return the spreads that hold values of several tensors side by side."""
        join = _joiner(operation)
        if join is None or not whole(values, shape):
            return []
        return [spread for spread in self.spreads if spread.stack(values, join)]

    def _nonlinear(self, name, kind, value, found):
        base, added = self._settled(value).terms[0][0], ()
        if found.slopes is not None:
            slopes = (np.full(math.prod(value.shape), end) for end in found.slopes)
            added = self._bent(value, *slopes)
        logs = base.logs + log(found.constant)
        return self._new(name, kind, found.constant, "table", logs, value.shape, added)


def _joiner(operation):
    """Return the function that puts arrays side by side; `None` for what does not."""
    kind = type(operation).__name__
    if kind not in ("Concatenate", "Stack"):
        return None
    join = np.stack if kind == "Stack" else np.concatenate
    return lambda arrays: join(arrays, axis=operation.axis)


def whole(values, shape):
    """Return whether nothing is between values, such as constants, in a tensor."""
    return math.prod(shape) == sum(math.prod(value.shape) for value in values)


def _symbolic(x):
    return symbolic(x.shape) if isinstance(x, Value) else x
