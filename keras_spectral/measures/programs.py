"""A network as a list of calls, which run with some of its tensors shifted."""

import inspect
from typing import NamedTuple

import keras
from keras import layers as kl
from keras import ops

from keras_spectral.linalg.differentiation import NoDerivative, directional
from keras_spectral.models.graph import follow
from keras_spectral.models.keras_internals import mask_of, with_mask


class Slot:
    """A place for a tensor of a network, nested models entered.

    Args:
        tensor: `keras.KerasTensor`, which may stand for several of them, one at each
            use of the model that it belongs to.
    """

    def __init__(self, tensor):
        self.tensor = tensor


class Call(NamedTuple):
    """An operation with its arguments, in which slots stand for tensors."""

    operation: keras.Operation
    arguments: tuple
    keywords: dict
    made: list

    @property
    def reads(self):
        """List of `Slot`."""
        given = keras.tree.flatten((self.arguments, self.keywords))
        return [value for value in given if isinstance(value, Slot)]


class Program:
    """The calls of a model, in an order in which they can run.

    Attributes:
        calls: List of `Call`.
        slots: List of `Slot`, in an order that copies of the model share.
        named: Dict from an operation's name to a list of the slots of each call.
        found: Dict from the `id` of a `keras.KerasTensor` to its slots.
    """

    def __init__(self, model):
        self.calls, self.named, self.found = [], {}, {}
        self.inputs = [Slot(tensor) for tensor in model.inputs]
        self.slots = list(self.inputs)
        for slot in self.inputs:
            self.found[id(slot.tensor)] = {slot}
        self.outputs = follow(model, self.inputs, self._call, self._seen)
        self._batch = model.inputs[0].shape[0]

    def _call(self, operation, arguments, keywords, tensors):
        made = [Slot(tensor) for tensor in tensors]
        self.calls.append(Call(operation, arguments, keywords, made))
        self.slots += made
        return made

    def _seen(self, operation, tensors, made):
        self.named.setdefault(operation.name, []).append(made)
        for tensor, slot in zip(tensors, made, strict=True):
            self.found.setdefault(id(tensor), set()).add(slot)

    def slot(self, point):
        """Return the slot of a `keras.KerasTensor`, or of the layer of that name."""
        if isinstance(point, Slot):
            return point
        if isinstance(point, str):
            calls = self.named.get(point, [])
            slots = [slot for made in calls for slot in made]
        else:
            slots = list(self.found.get(id(point), ()))
        if len(slots) == 1:
            return slots[0]
        name = point if isinstance(point, str) else getattr(point, "name", point)
        how = f"which is {len(slots)} of its tensors" if slots else "which it has not"
        raise ValueError(
            "`points` must be tensors of the model, or names of layers that make one "
            f"tensor each. Received: {name!r}, {how}. The layers are: "
            f"{', '.join(self.named)}."
        )

    def needed(self, wanted):
        """Return the calls that make some slots, and those that these read."""
        wanted, calls = set(wanted), []
        for call in reversed(self.calls):
            if not wanted.isdisjoint(call.made):
                wanted.update(call.reads)
                calls.append(call)
        return calls[::-1]

    def reached(self, source, without=()):
        """Return the set of slots that depend on one, itself among them.

        Args:
            source: `Slot`.
            without: List of `Call`, through which nothing is reached.
        """
        found, without = {source}, {id(call) for call in without}
        for call in self.calls:
            if id(call) not in without and not found.isdisjoint(call.reads):
                found.update(call.made)
        return found

    def cuts(self, source, target):
        """Return the slots that all paths from one slot to another go through.

        Args:
            source: `Slot`.
            target: `Slot`.

        Returns:
            List of `Slot` in their order, the two among them; empty without a path.
        """
        reached, last = self.reached(source), {}
        calls = [c for c in self.needed([target]) if not reached.isdisjoint(c.reads)]
        for at, call in enumerate(calls):
            last.update((slot, at) for slot in call.reads if slot in reached)
        last[target] = len(calls)
        if target not in reached:
            return []
        found, ahead = [source], {source}
        for at, call in enumerate(calls):
            # What is still read after this call; all paths go through it if it is one.
            ahead = {slot for slot in ahead if last[slot] > at}
            ahead |= {slot for slot in call.made if slot in last}
            if len(ahead) == 1:
                found += ahead
        return found

    def maker(self, slot):
        """Return the name of the operation that makes a slot."""
        return next(call.operation.name for call in self.calls if slot in call.made)

    def run(self, inputs, wanted, shifts=None, count=1):
        """Return the tensors at slots, `count` times all samples.

        What depends on no shifted tensor is computed once for all copies.

        Args:
            inputs: List of tensors (samples, ...).
            wanted: List of `Slot`.
            shifts: Dict from `Slot` to a tensor (count * samples, ...).
            count: Integer.
        """
        shifts = shifts or {}
        values, copies, moving = {}, {}, set()

        def copied(slot):
            if slot in moving or count == 1 or not self._has_samples(slot):
                return values[slot]
            if slot not in copies:
                copies[slot] = _repeated(values[slot], count)
            return copies[slot]

        def put(slot, value, moves=False):
            values[slot] = value
            if moves:
                moving.add(slot)
            if slot in shifts:
                value = copied(slot)
                moved = value + ops.cast(shifts[slot], value.dtype)
                values[slot] = with_mask(moved, mask_of(value))
                moving.add(slot)

        for slot, value in zip(self.inputs, inputs, strict=True):
            put(slot, value)
        for call in self.needed(wanted):
            moves = not moving.isdisjoint(call.reads)
            read = copied if moves else values.get
            arguments, keywords = keras.tree.map_structure(
                lambda x, read=read: read(x) if isinstance(x, Slot) else x,
                (call.arguments, call.keywords),
            )
            if _trains(call.operation):
                keywords = {**keywords, "training": False}
            made = keras.tree.flatten(call.operation(*arguments, **keywords))
            for slot, value in zip(call.made, made, strict=True):
                if moves and not self._has_samples(slot):
                    raise ValueError(
                        "`model` must keep its samples apart. Received: "
                        f"'{call.operation.name}', which mixes or counts them. Work on "
                        "the other axes."
                    )
                put(slot, value, moves)
        return [copied(slot) for slot in wanted]

    def along(self, inputs, wanted, source, rows, count):
        """Return the derivatives of tensors along directions at a source.

        Args:
            inputs: List of tensors (samples, ...).
            wanted: List of `Slot`.
            source: `Slot`.
            rows: Tensor (count * samples, ...), the directions.
            count: Integer.
        """
        reached = self.reached(source)
        # Every tensor between, so that what has no derivative is found.
        between = [
            slot
            for call in self.needed(wanted)
            for slot in call.made
            if slot in reached and keras.backend.is_float_dtype(slot.tensor.dtype)
        ]
        between = [source, *between]

        def moved(shift):
            return self.run(inputs, between, {source: shift}, count)

        try:
            found = directional(moved, ops.zeros_like(rows), rows)
        except NoDerivative as error:
            name = self.maker(between[error.args[0]])
            raise ValueError(
                "`targets` must have a derivative along a direction at `source`. "
                f"Received: '{name}' between them, for which TensorFlow has none. "
                "Use `vjp`, or another backend."
            ) from error
        known = dict(zip(between, found, strict=True))
        missing = [slot for slot in wanted if slot not in known]
        if missing:
            values = self.run(inputs, missing, {}, count)
            zeros = map(ops.zeros_like, values)
            known.update(zip(missing, zeros, strict=True))
        return [known[slot] for slot in wanted]

    def _has_samples(self, slot):
        shape = slot.tensor.shape
        return len(shape) > 0 and shape[0] in (None, self._batch)


def _repeated(tensor, count):
    """Return a tensor `count` times along its first axis, with its mask."""
    repeated = ops.tile(tensor, (count, *(1 for _ in tensor.shape[1:])))
    mask = mask_of(tensor)
    return repeated if mask is None else with_mask(repeated, _repeated(mask, count))


def _trains(operation):
    if not isinstance(operation, kl.Layer):
        return False
    return "training" in inspect.signature(operation.call).parameters
