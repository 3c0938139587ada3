"""The walk that bounds a network on a ball around one input."""

import math

import keras
import numpy as np
from keras import layers as kl
from keras import ops

from keras_spectral.measures.enclosures import Enclosure, factor, least_of, length
from keras_spectral.measures.layer_calls import INTERPOLATED, called, exact_backend
from keras_spectral.measures.linear_maps import LARGEST_MATRIX, Step
from keras_spectral.measures.lipschitz_activations import Nonlinearity, Unbounded
from keras_spectral.measures.lipschitz_graph import Value, Walk, whole
from keras_spectral.measures.lipschitz_layers import split_activation
from keras_spectral.measures.lipschitz_maxima import GLOBAL, POOLINGS, Maxima, windows
from keras_spectral.measures.lipschitz_operations import check_apart, einsum_repeats
from keras_spectral.measures.lipschitz_slopes import normalized_near
from keras_spectral.measures.logarithms import exp, log, log_norm

_PRODUCTS = ("Multiply", "Dot", "Matmul", "Einsum")


class LocalWalk(Walk):
    """Follows the calls of a model on a ball.

    Every tensor has an interval for each of its numbers, and each base a ball; on them
    activations have smaller ranges of slopes, products have bounds, and a ReLU whose
    sign cannot change is a linear map: identity or zero.

    Args:
        input_radius: Float, of the ball around the input, over all its numbers.
    """

    def __init__(self, input_radius):
        super().__init__("local")
        self.radius = float(input_radius)
        numbers = np.finfo("float64" if exact_backend() else "float32")
        self.epsilon, self.tiny = float(numbers.eps), float(numbers.tiny)
        self.center = None

    def begin(self, value, at):
        """Tell where an input lies."""
        center = self.centers[at]
        value.where = Enclosure(center, np.full(center.shape, self.radius))
        value.terms[0][0].ball, value.terms[0][0].error = self.radius, 0.0

    def _one(self, operation, arguments, keywords, values, shape):
        if isinstance(operation, kl.Layer) and id(operation) not in self.activations:
            self.activations[id(operation)] = split_activation(operation)
        self.center = self._run(operation, arguments, keywords)
        kind = type(operation).__name__
        ours = type(operation).__module__.startswith("keras.src.")
        if ours and kind in _PRODUCTS and len(values) > 1:
            given = keras.tree.flatten((arguments, keywords))
            return self._times(operation, given, values, shape)
        if type(operation) is kl.UnitNormalization:
            check_apart(operation, values[0].shape)
            near = self._unit_near(operation.axis)
            found = Nonlinearity(math.inf, constant_near=near)
            return self._nonlinear(operation.name, kind, values[0], found)
        return super()._one(operation, arguments, keywords, values, shape)

    def _unit_near(self, axis):
        def near(center, radii, ball):
            along = axis if isinstance(axis, (list, tuple)) else [axis]
            count = math.prod(
                center.shape[at - 1 if at > 0 else at + center.ndim] for at in along
            )
            # Of a sum, not of a mean.
            return normalized_near(axis, 0.0, count**-0.5, False)(center, radii, ball)

        return near

    def _run(self, operation, arguments, keywords):
        """Return what an operation makes of the centers."""

        def center(x):
            if not isinstance(x, Value):
                return x
            dtype = "float64" if exact_backend() else "float32"
            return ops.convert_to_tensor(x.where.center[None], dtype)

        arguments, keywords = keras.tree.map_structure(center, (arguments, keywords))
        if len(arguments) == 1 and isinstance(operation, kl.Layer):
            made = called(operation, *arguments, **keywords)
        else:
            made = operation(*arguments, **keywords)
        return _array(keras.tree.flatten(made)[0])

    def _maxima(self, operation, value, found, shape):
        """Return what maximum pooling makes: a choice, where each window's is fixed."""
        name, where = operation.name, value.where
        maxima = Maxima(windows(operation, value.shape, shape), where)
        if not np.array_equal(maxima.center[0], self.center.reshape(-1)):
            raise Unbounded("its windows are not where they were taken to be")
        size = where.center.size
        counts = maxima.counts(size)
        constant = min(found.constant, math.sqrt(counts.max()))
        radii = maxima.radii.reshape(shape)
        if maxima.fixed:
            first = maxima.places[0]

            def chosen(x):
                return x.reshape(len(x), -1)[:, first].reshape(-1, *shape)

            step = Step(chosen, tuple(shape), constant, "exact", one_sign=True)
            terms = [(base, map.then(step, name)) for base, map in value.terms]
            value = Value(shape, terms)
            self._place(value, self.center, found.constant * where.error, radii)
            return value
        kept = (counts > 0).reshape(value.shape)
        base = self._settled(self._kept(name, value, kept)).terms[0][0]
        added = [
            spread
            for spread, rows in self._known(value)
            if maxima.add(spread, rows, self.radius)
        ]
        logs = base.logs + log(constant)
        kind = type(operation).__name__
        new = self._new(name, kind, constant, "table", logs, shape, added)
        ball = constant * base.ball * (1 + 1e-12)
        error = found.constant * base.error
        return self._base(new, self.center, radii, ball, error)

    def _applied(self, operation, value, found, shape):
        if type(operation) in (*POOLINGS, *GLOBAL):
            return self._maxima(operation, value, found, shape)
        before = value.where
        value = super()._applied(operation, value, found, shape)
        if not isinstance(found, Step):
            # What moves numbers or leaves some out has made a base.
            return value
        if getattr(operation, "interpolation", "nearest") != "nearest":
            if exact_backend():
                self.center = found.apply(before.center[None])[0] / INTERPOLATED
        center = self.center
        gain = found.gain()
        # A sum of k products is within k eps / 2 of theirs; of the magnitudes' sums
        # the norm is at most the root of their number times that of the matrix. What
        # is below the range of floats may be taken for zero.
        error = gain * before.error + self.epsilon * (
            before.center.size**1.5 * gain * length(before.center) + 8 * length(center)
        )
        error += self.tiny * before.center.size * center.size
        radii = None
        if found.one_sign:
            radii = np.abs(found.apply(before.radii[None])[0])
        self._place(value, center, error, radii)
        return value

    def _place(self, value, center, error, radii=None):
        """Tell where a sum of maps of bases lies.

        Args:
            value: A `Value`.
            center: Array.
            error: Float, see `Enclosure`.
            radii: Array, how far its numbers move at most, rounding aside; or `None`.
        """
        found = [] if radii is None else [radii]
        if not np.isfinite(center).all() or math.isnan(error):
            error = math.inf
        rows = [map.row_norms() for _, map in value.terms]
        if radii is None:
            pairs = zip(rows, value.terms, strict=True)
            rows = [map.norm()[0] if row is None else row for row, (_, map) in pairs]
        if all(row is not None for row in rows):
            pairs = list(zip(rows, (base for base, _ in value.terms), strict=True))
            with np.errstate(over="ignore", invalid="ignore"):
                found.append(sum(row * base.ball for row, base in pairs))
                moved = sum(row * base.error for row, base in pairs)
            for spread, rows in self._known(value):
                reach = spread.deviations(rows).reshape(center.shape)
                found.append(np.nan_to_num(reach, nan=np.inf) * self.radius + moved)
        found = [array * (1 + 1e-9) + error for array in found]
        radii = least_of(np.full(center.shape, math.inf), *found)
        value.where = Enclosure.of(center, radii, error)

    def _sum(self, operation, values, shape):
        value = super()._sum(operation, values, shape)
        error = sum(v.where.error for v in values)
        error += self.epsilon * 8 * sum(length(v.where.center) for v in values)
        radii = sum(v.where.radii for v in values)
        if type(operation).__name__ == "Average":
            radii = radii / len(values)
        self._place(value, self.center, error, radii)
        return value

    def _refused(self, values, shape):
        value = super()._refused(values, shape)
        value.where = Enclosure(np.zeros(shape), np.zeros(shape))
        value.terms[0][0].ball = value.terms[0][0].error = 0.0
        return value

    def _joined(self, operation, values, shape):
        radii = [v.where.radii for v in values]
        if type(operation).__name__ in ("Maximum", "Minimum"):
            radii = np.max(radii, axis=0)
        elif not whole(values, shape):
            radii = np.full(shape, math.inf)
        else:
            tensors = [ops.convert_to_tensor(array[None]) for array in radii]
            radii = _array(operation(tensors))
        value = self._stacked(operation, values, shape)
        if value is not None:
            error = length([v.where.error for v in values])
            self._place(value, self.center, error, radii)
            return value
        value = super()._joined(operation, values, shape)
        balls = [v.terms[0][0].ball for v in self.parts]
        errors = [v.terms[0][0].error for v in self.parts]
        return self._base(value, self.center, radii, length(balls), length(errors))

    def _settled(self, value, kind="merged"):
        made = super()._settled(value, kind)
        if made is value:
            return value
        where = value.where
        ball, error = where.error, where.error
        for (base, _), norm in zip(value.terms, self.norms, strict=True):
            ball, error = ball + norm * base.ball, error + norm * base.error
        return self._base(made, where.center, where.radii, ball, error)

    def _base(self, value, center, radii, ball, error):
        """Tell where a new base lies, of which a ball and a box are known."""
        base = value.terms[0][0]
        reach = exp(log_norm(base.logs)) * self.radius * (1 + 1e-9) + error
        base.ball = float(least_of(ball, reach, length(radii))) * (1 + 1e-12)
        base.error = math.inf if math.isnan(error) else error
        where = Enclosure.of(center, least_of(radii, base.ball))
        if math.isinf(where.error):
            base.ball = base.error = math.inf
        value.where = where._replace(error=0.0)
        return value

    def _nonlinear(self, name, kind, value, found):
        where = value.where
        center = self.center
        if found.function is not None:
            center = ops.convert_to_tensor(where.center[None])
            center = _array(found.function(center))
        rounding = 64 * self.epsilon * (1 + float(np.abs(center).max(initial=0.0)))
        least = largest = None
        if found.slopes_on is not None:
            reach = where.radii * (1 + 1e-12)
            least, largest = found.slopes_on(where.center - reach, where.center + reach)
        elif found.slopes is not None:
            least, largest = (np.full(where.center.shape, s) for s in found.slopes)
        if least is None:
            made = self._settled(value)
            base = made.terms[0][0]
            constant = found.constant
            if found.constant_near is not None:
                near = found.constant_near(where.center, where.radii, base.ball)
                constant = min(constant, near * (1 + 1e-9))
            if not math.isfinite(constant):
                raise Unbounded("the ball holds points where it is not Lipschitz")
            logs = base.logs + log(constant)
            new = self._new(name, kind, constant, "table", logs, center.shape, ())
            ball = constant * base.ball + rounding * math.sqrt(center.size)
            radii = np.full(center.shape, ball)
            error = constant * base.error + rounding * math.sqrt(center.size)
            return self._base(new, center, radii, ball, error)
        if np.array_equal(least, largest):
            return self._linear(name, value, least, center, rounding)
        sizes = np.maximum(np.abs(least), np.abs(largest))
        kept = sizes > 0
        made = self._settled(self._kept(name, value, kept))
        added = self._bent(value, least.reshape(-1), largest.reshape(-1))
        base = made.terms[0][0]
        constant = float(sizes.max())
        logs = base.logs + log(constant)
        new = self._new(name, kind, constant, "table", logs, center.shape, added)
        error = constant * base.error + rounding * math.sqrt(center.size)
        ball = constant * base.ball + rounding * math.sqrt(center.size)
        radii = sizes * where.radii * (1 + 1e-9) + rounding
        new = self._base(new, center, radii, ball, error)
        return self._kept(name, new, kept)

    def _linear(self, name, value, slopes, center, rounding):
        """Return the value times slopes that are the same on all of the ball."""
        where = value.where
        step = _scaling(slopes)
        terms = [(base, map.then(step, name)) for base, map in value.terms]
        made = Value(value.shape, terms)
        error = where.error * step.bound + rounding * math.sqrt(center.size)
        radii = np.abs(slopes) * where.radii * (1 + 1e-9) + rounding
        made.where = Enclosure.of(center, radii, error)
        return made

    def _kept(self, name, value, kept):
        """Return the value with what the ball never lets through taken out."""
        if kept.all():
            return value
        step = _scaling(kept.astype("float64"))
        formed = all(
            math.prod(map.shape) * kept.size <= LARGEST_MATRIX for _, map in value.terms
        )
        if not formed:
            channels = kept.reshape(-1, kept.shape[-1]).any(axis=0).astype("float64")
            if channels.all():
                return value
            step = step._replace(scale=channels, apply=lambda x: x * channels)
        made = Value(
            value.shape,
            [(base, map.then(step, name)) for base, map in value.terms],
        )
        made.where = value.where
        return made

    def _times(self, operation, given, values, shape):
        """Return the bounds of a product: of each factor times the others' size."""
        kind = type(operation).__name__
        if getattr(operation, "normalize", False):
            raise Unbounded("with `normalize=True` it is not known here")
        # Constants are factors, too.
        if sum(not (x is None or isinstance(x, bool)) for x in given) != 2:
            raise Unbounded("it multiplies more than two tensors; multiply in turn")
        if self.center.shape != tuple(shape):
            raise Unbounded("it mixes samples")
        repeats = 1.0
        if kind == "Einsum":
            repeats = einsum_repeats(operation, [value.shape for value in values])
        values = [self._settled(value) for value in values]
        first, second = (value.where for value in values)
        if kind == "Multiply":
            sizes = [
                factor(second, first.center.shape, shape),
                factor(first, second.center.shape, shape),
            ]
            radii = first.radii * second.largest
            radii = radii + np.abs(first.center) * second.radii
        else:
            # A sum of products is at most the product of the norms, where nothing is
            # summed before.
            sizes = [
                repeats * length(second.largest),
                repeats * length(first.largest),
            ]
            radii = None
        bases = [value.terms[0][0] for value in values]
        parts = [
            log(size * (1 + 1e-9)) + base.logs
            for size, base in zip(sizes, bases, strict=True)
        ]
        logs = np.logaddexp(*parts)
        made = self._new(operation.name, kind, math.nan, "certified", logs, shape, ())
        rounding = 64 * self.epsilon * length(first.largest) * length(second.largest)
        if radii is None:
            rounding *= repeats * max(1, first.center.size, second.center.size)
        pairs = list(zip(sizes, bases, strict=True))
        ball = sum(size * base.ball for size, base in pairs) * (1 + 1e-9) + rounding
        error = sum(size * base.error for size, base in pairs) * (1 + 1e-9) + rounding
        if radii is None:
            radii = np.full(shape, ball)
        radii = radii * (1 + 1e-9) + rounding
        return self._base(made, self.center, radii, ball, error)


def _scaling(slopes):
    """Return the step that multiplies each number by its own."""
    bound = float(np.abs(slopes).max(initial=0.0))
    return Step(lambda x: x * slopes, slopes.shape, bound, "exact", one_sign=True)


def _array(tensor):
    return np.asarray(ops.convert_to_numpy(tensor)[0], "float64")
