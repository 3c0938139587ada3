"""Products with Jacobians between any two tensors of a network, and with adjoints."""

import contextlib
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_spectral.linalg import LinearOperator
from keras_spectral.linalg.differentiation import compiled, gradients
from keras_spectral.measures.layer_calls import exact_backend
from keras_spectral.measures.plain_copies import effective_model, plain_copy
from keras_spectral.measures.programs import Program
from keras_spectral.measures.samples import check_model
from keras_spectral.models.graph import check_graph, computes_as_its_graph
from keras_spectral.models.keras_internals import float64_kept
from keras_spectral.validation import check_choice, check_integer


class Gradients(NamedTuple):
    """What `Linearization.gradients` returns.

    Args:
        results: Tensor (samples,), what the function makes of each sample.
        values: List of tensors (samples, ...), those at the sources.
        gradients: List of tensors (samples, ...), the gradient of each sample's result
            by its tensor at each source.
    """

    results: Any
    values: list
    gradients: list


class Linearization:
    """A network at some samples: its tensors, and products with their Jacobians.

    Between any two tensors of a functional graph, nested models entered, in inference.
    J is the derivative of a target by a source where what does not pass through the
    source stays as it is: a skip connection around the source counts as fixed. It is
    block diagonal, a block a sample. Each product is compiled once (`tf.function`,
    `jax.jit`) for its points, its number of probes and the shapes of the samples.

    A point is a `keras.KerasTensor` of the model, such as `layer.output`, or the name
    of a layer or nested model that is called once.

    Args:
        model: A built `keras.Sequential` or functional `keras.Model`, whose operations
            keep samples apart.
        points: List of points; default the model's inputs and outputs.
        dtype: `"float32"` or `"float64"`: a copy of the model is differentiated, in
            which this package's wrappers are plain layers with the kernels that they
            compute with (JAX computes in float32 unless `jax_enable_x64` is set).
            `None`: the model itself, as its weights are when a product is asked for.
            `"own"`: such a copy in the model's own dtype where that computes the same
            at less cost, as where layers are wrapped; else the model itself.
        batch_size: Integer >= 1, samples times probes that are carried through the
            network at once. More probes run one part after the other.

    Raises:
        ValueError: If the model is of another kind, not built or not finite, calls a
            layer as in training, or a point is none of its tensors.

    Example: the Jacobian of a linear layer.
    >>> dense = keras.layers.Dense(2, use_bias=False)
    >>> model = keras.Sequential([keras.Input((3,)), dense])
    >>> at = Linearization(model, dtype="float32")
    >>> rows = at.vjp(np.ones((1, 3)), np.eye(2)[:, None])[0]
    >>> np.allclose(rows[:, 0], keras.ops.transpose(dense.kernel))
    True
    """

    def __init__(self, model, points=None, dtype=None, batch_size=128):
        check_choice("dtype", dtype, (None, "own", "float32", "float64"))
        check_integer("batch_size", batch_size, least=1)
        check_graph(model)
        check_model(model)
        if not computes_as_its_graph(model):
            raise ValueError(
                "`model` must have no `call` of its own: what it does besides its "
                f"graph is not known. Received: '{model.name}', of a class of your own."
            )
        self.batch_size = batch_size
        # Names and tensors are the given model's, whatever is computed with.
        self.program = program = Program(model)
        self.model = model
        if dtype is not None:
            own = dtype == "own"
            self.model = effective_model(model) if own else plain_copy(model, dtype)
        if self.model is not model:
            program = Program(self.model)
        self._program = program
        pairs = zip(self.program.slots, program.slots, strict=True)
        self._places = dict(pairs)
        if points is None:
            slots = [*self.program.inputs, *self.program.outputs]
            self.points = [slot.tensor for slot in slots]
            self._points = [self._places[slot] for slot in slots]
        else:
            self.points = list(points)
            self._points = [self._slot(point) for point in self.points]
        self._compiled, self._sizes = {}, {}

    def values(self, x, points=None):
        """Return the tensors at points.

        Args:
            x: Array (samples, ...), or a list or dict of them as the model takes.
            points: List of points; default all of the constructor's.

        Returns:
            List of tensors (samples, ...).
        """
        wanted = self._targets(points)

        def run(inputs):
            return self._program.run(inputs, wanted)

        return self._function(run, "values", *wanted)(self._inputs(x))

    def moved(self, x, shifts, source, targets=None):
        """Return the tensors at targets where that at a source is shifted.

        Args:
            x: As `values` takes it.
            shifts: Array (probes, samples, ...), what is added at the source; axes of
                size one are repeated.
            source: A point.
            targets: List of points; default all of the constructor's.

        Returns:
            List of tensors (probes, samples, ...).
        """
        return self._forward("moved", x, shifts, source, targets)

    def jvp(self, x, tangents, source, targets=None):
        """Return J v for the Jacobians of targets by a source, in one forward pass.

        Args:
            x: As `values` takes it.
            tangents: Array (probes, samples, ...), v; axes of size one are repeated.
            source: A point.
            targets: List of points; default all of the constructor's.

        Returns:
            List of tensors (probes, samples, ...), zero where nothing depends on the
            source.
        """
        return self._forward("jvp", x, tangents, source, targets)

    def vjp(self, x, cotangents, sources=None, target=None):
        """Return J' c for the Jacobians of a target by sources, in one backward pass.

        Args:
            x: As `values` takes it.
            cotangents: Array (probes, samples, ...), c, of the target's shape; axes of
                size one are repeated.
            sources: List of points; default all of the constructor's but the last.
            target: A point; default the last of the constructor's.

        Returns:
            List of tensors (probes, samples, ...), zero where the target does not
            depend on a source.
        """
        sources, inputs = self._sources(sources), self._inputs(x)
        target = self._points[-1] if target is None else self._slot(target)

        def run(probes):
            count = len(probes)

            def products(inputs, zeros, rows):
                def number(zeros):
                    shifts = dict(zip(sources, zeros, strict=True))
                    (value,) = self._program.run(inputs, [target], shifts, count)
                    return ops.sum(value * rows), ()

                return [_stacked(x, count) for x in gradients(number, zeros)[0]]

            key = ("vjp", *sources, target, count)
            zeros = self._zeros(inputs, sources, count)
            return self._function(products, *key)(inputs, zeros, _flat(probes))

        shape = self._shape(inputs, target)
        return self._in_parts(run, cotangents, shape, target, "cotangents")

    def gradients(self, x, function, sources=None, targets=None, arguments=()):
        """Return the gradients of a number a sample, such as a margin, by sources.

        Args:
            x: As `values` takes it.
            function: Callable that gets the tensors at the targets, then `arguments`,
                and returns a tensor (samples,), each from its sample alone. It is
                compiled: pass the same function again, with other arguments.
            sources: List of points; default all of the constructor's but the last.
            targets: List of points; default the last of the constructor's.
            arguments: Sequence of arrays (samples, ...), such as labels.

        Returns:
            `Gradients`.
        """
        sources, inputs = self._sources(sources), self._inputs(x)
        targets = self._points[-1:] if targets is None else self._targets(targets)

        def products(inputs, zeros, arguments):
            def number(zeros):
                shifts = dict(zip(sources, zeros, strict=True))
                found = self._program.run(inputs, [*targets, *sources], shifts)
                results = function(*found[: len(targets)], *arguments)
                return ops.sum(results), (results, found[len(targets) :])

            slopes, (results, values) = gradients(number, zeros)
            return results, values, slopes

        arguments = [ops.convert_to_tensor(argument) for argument in arguments]
        key = ("gradients", *sources, *targets, function)
        zeros = self._zeros(inputs, sources, 1)
        found = self._function(products, *key)(inputs, zeros, arguments)
        return Gradients(*found)

    def operator(self, x, source, target):
        """Return the Jacobian of a target by a source as a `LinearOperator`.

        Args:
            x: As `values` takes it.
            source: A point.
            target: A point.

        Returns:
            `linalg.LinearOperator` from (1, samples, ...) to (1, samples, ...), with
            its adjoint: `linalg.operator_singular_values` gives its largest ones.
        """
        inputs = self._inputs(x)
        shapes = [self._shape(inputs, self._slot(point)) for point in (source, target)]
        return LinearOperator(
            lambda tangents: self.jvp(x, tangents, source, [target])[0],
            lambda cotangents: self.vjp(x, cotangents, [source], target)[0],
            *((1, *shape) for shape in shapes),
            dtype=self._slot(target).tensor.dtype,
        )

    def _slot(self, point):
        return self._places[self.program.slot(point)]

    def _targets(self, points):
        return self._points if points is None else list(map(self._slot, points))

    def _sources(self, points):
        slots = self._points[:-1] if points is None else self._targets(points)
        for slot in slots:
            if not keras.backend.is_float_dtype(slot.tensor.dtype):
                raise ValueError(
                    "`sources` must be tensors of floats, which have derivatives. "
                    f"Received: '{slot.tensor.name}' of {slot.tensor.dtype}. Take what "
                    "the layer after it makes, such as an embedding."
                )
        return slots

    def _inputs(self, x):
        """Return a list of tensors, one an input of the model."""
        expected = [slot.tensor for slot in self._program.inputs]
        given = [x]
        if len(expected) > 1 or isinstance(x, dict):
            given = keras.tree.flatten(x)
        tensors = []
        for tensor, array in zip(expected, given, strict=False):
            shape = np.shape(array)
            fits = len(shape) == len(tensor.shape) and all(
                size in (None, found)
                for size, found in zip(tensor.shape[1:], shape[1:], strict=True)
            )
            if fits:
                tensors.append(ops.convert_to_tensor(array, tensor.dtype))
        if len(tensors) != len(expected) or len(given) != len(expected):
            raise ValueError(
                "`x` must hold samples of shape "
                f"{', '.join(str(x.shape[1:]) for x in expected)}. Received: "
                f"{', '.join(str(np.shape(array)) for array in given)}, the first axis "
                "the samples'."
            )
        return tensors

    def _shape(self, inputs, slot):
        """Return the shape of a tensor at a slot, samples first."""
        shape = (len(inputs[0]), *slot.tensor.shape[1:])
        if None not in shape:
            return shape
        key = (slot, *(tuple(x.shape) for x in inputs))
        if key not in self._sizes:
            # Known once it is computed.
            run = self._function(lambda x: self._program.run(x, [slot]), "values", slot)
            self._sizes[key] = tuple(run(inputs)[0].shape)
        return self._sizes[key]

    def _zeros(self, inputs, sources, count):
        shapes = [self._shape(inputs, slot) for slot in sources]
        return [
            ops.zeros((count * shape[0], *shape[1:]), dtype=slot.tensor.dtype)
            for slot, shape in zip(sources, shapes, strict=True)
        ]

    def _function(self, function, *key):
        if key not in self._compiled:
            run = compiled(function, self.model.variables)

            def wide(*arguments):
                with wide_arithmetic():
                    return run(*arguments)

            self._compiled[key] = wide
        return self._compiled[key]

    def _forward(self, kind, x, probes, source, targets):
        (source,), inputs = self._sources([source]), self._inputs(x)
        wanted = self._targets(targets)

        def run(probes):
            count = len(probes)

            def products(inputs, rows):
                if kind == "moved":
                    found = self._program.run(inputs, wanted, {source: rows}, count)
                else:
                    found = self._program.along(inputs, wanted, source, rows, count)
                return [_stacked(x, count) for x in found]

            key = (kind, source, *wanted, count)
            return self._function(products, *key)(inputs, _flat(probes))

        shape = self._shape(inputs, source)
        name = "shifts" if kind == "moved" else "tangents"
        return self._in_parts(run, probes, shape, source, name)

    def _in_parts(self, run, probes, shape, slot, name):
        """Return the results of `run` for all probes, some at a time."""
        probes = ops.convert_to_tensor(probes, slot.tensor.dtype)
        given, rank = tuple(probes.shape), len(shape)
        fits = (
            len(given) == rank + 1
            and given[0]
            and all(
                size in (1, found) for size, found in zip(given[1:], shape, strict=True)
            )
        )
        if not fits:
            raise ValueError(
                f"`{name}` must have shape {('probes', *shape)}. Received: "
                f"shape {given}"
            )
        parts = -(-given[0] // max(1, self.batch_size // shape[0]))
        # Parts of one size share what is compiled.
        size = -(-given[0] // parts)
        results = []
        for start in range(0, given[0], size):
            part = probes[start : start + size]
            results.append(run(ops.broadcast_to(part, (len(part), *shape))))
        if len(results) == 1:
            return results[0]
        return [ops.concatenate(found, axis=0) for found in zip(*results, strict=True)]


def wide_arithmetic():
    """Let layers in float64 compute in it, where the backend has it."""
    return float64_kept() if exact_backend() else contextlib.nullcontext()


def _flat(probes):
    return ops.reshape(probes, (-1, *probes.shape[2:]))


def _stacked(rows, count):
    return ops.reshape(rows, (count, -1, *ops.shape(rows)[1:]))
