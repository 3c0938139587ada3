"""Which matrices a Keras model in a file computes with, read without Keras.

What `weights` says of a model in memory, said of its `.keras` or `.weights.h5` file, by
the same rows of `kinds`. A file of weights alone tells a layer's class by the name of
its group, and no arguments.
"""

import collections
from dataclasses import dataclass, field, replace

import numpy as np

from keras_spectral.models.keras_parts import (
    FACTORED,
    StoredPart,
    number_of,
    snake,
    without_number,
)
from keras_spectral.models.kinds import (
    kernels_of,
    kind_of,
)
from keras_spectral.models.normalizers import NORMALIZERS, normalizer
from keras_spectral.models.reasons import OF_NO_KIND, Unfit, quantized, reason_of
from keras_spectral.models.stored import StoredWeight
from keras_spectral.models.views import MatrixView

# Numbers of a kernel that is in the file as two narrow factors.
_LARGEST_PRODUCT = 2**24


@dataclass(frozen=True)
class KerasFile:
    """What a file says of a model beside its tensors.

    Args:
        names: Dict from the path of a layer in the file to the layer's name.
        config: Dict, how Keras would make the model again, or `None`.
        dtypes: Dict from a tensor's key to the name of its type.
    """

    names: dict = field(default_factory=dict)
    config: dict | None = None
    dtypes: dict = field(default_factory=dict)


def stored_weights(shapes, file):
    """Return the kernels of a model in a file.

    Args:
        shapes: Dict from a tensor's key, its path in the file, to its shape.
        file: `KerasFile`.

    Returns:
        Tuple of a list of `StoredWeight` and a dict from names of what was left out to
        reasons.

    Example:
    >>> shapes = {"layers/dense/vars/0": (4, 3), "layers/dense/vars/1": (3,)}
    >>> found, _ = stored_weights(shapes, KerasFile({"layers/dense": "head"}))
    >>> found[0].name, found[0].kind, found[0].view.shape
    ('head', 'Dense', (4, 3))
    """
    walk = _Walk(shapes, file)
    walk.enter(StoredPart(walk, "", file.config))
    return walk.found, walk.left_out


class _Walk:
    """One pass over the groups of a file."""

    def __init__(self, shapes, file):
        self.shapes, self.file = shapes, file
        self.found, self.left_out = [], {}
        self._children, self._own = {"": {}}, {}
        for key in shapes:
            path = ""
            for group in key.split("/"):
                self._children.setdefault(path, {})[group] = None
                if group == "vars":
                    self._own.setdefault(path, []).append(key)
                path = f"{path}/{group}" if path else group

    def children(self, path):
        """Return the names of what is in a group, groups and tensors."""
        return list(self._children.get(path, ()))

    def has(self, path, name):
        """Whether a group has something of that name."""
        return name in self._children.get(path, ())

    def own(self, path):
        """Return the keys of the tensors of a layer's own."""
        prefix = f"{path}/vars/" if path else "vars/"
        return [key for key in self._own.get(path, ()) if key.startswith(prefix)]

    def listed(self, path, configs):
        """Return the layers of a list, in its order where that is known."""
        groups = sorted(self.children(path), key=number_of)
        # A file may have as many configs as groups, and thousands of each.
        alike, named, taken = {}, {}, set()
        for group in groups:
            name = self.file.names.get(f"{path}/{group}")
            named.setdefault(name, collections.deque()).append(group)
            kind = name, without_number(group)
            alike.setdefault(kind, collections.deque()).append(group)
        found = []
        for config in configs if isinstance(configs, list) else ():
            arguments = config.get("config") if isinstance(config, dict) else None
            name = arguments.get("name") if isinstance(arguments, dict) else ()
            if not isinstance(name, (str, type(None))):
                continue
            # That of its class and name, or of its name.
            kind = name, snake(str(config.get("class_name"))[:100])
            for queue in (alike.get(kind), named.get(name)):
                while queue and queue[0] in taken:
                    queue.popleft()
                if queue:
                    group = queue.popleft()
                    taken.add(group)
                    found.append(StoredPart(self, f"{path}/{group}", config))
                    break
        left = [group for group in groups if group not in taken]
        return found + [StoredPart(self, f"{path}/{group}", None) for group in left]

    def enter(self, part, name=None):
        """Find the kernels of a layer, or of the layers inside."""
        name = name or part.name
        if part.path.startswith("optimizer"):
            self.left_out["optimizer"] = "state of an optimizer"
        elif kind_of(part) is not None:
            self._kernels(part, name)
        elif part.kind in FACTORED and part.classes:
            self._factors(part, name)
        elif part.kind in NORMALIZERS and part.classes:
            self._wrapped(part, name)
        elif part.kind in OF_NO_KIND or (self._is_layer(part) and part.told):
            # As of a model in memory: what it does with layers inside is its own.
            ranks = [len(self.shapes[key]) for key in self._weights(part)]
            if ranks:
                self.left_out[f"{name} ({part.kind})"] = reason_of(part.classes, ranks)
        else:
            self._unknown(part, name)
            start = len(self.found)
            for inner in part.inside():
                self.enter(inner)
            if self._is_layer(part):
                note = f"inside of a {part.kind}, which may compute with something else"
                self._note(start, note)

    def _is_layer(self, part):
        """Whether it is a layer, and neither a model nor a list of layers."""
        named = part.path and part.path in self.file.names
        return named and not part.has("layers")

    def _note(self, start, note):
        for place, weight in enumerate(self.found[start:], start):
            notes = "; ".join(filter(None, (weight.note, note)))
            self.found[place] = replace(weight, note=notes or None)

    def _wrapped(self, part, name):
        """A layer in a wrapper of ours: what it computes with."""
        inner = part.part("layer")
        ours = str(part.config.get("registered_name")).startswith("keras_spectral>")
        if not part.config:
            ours = part.kind != "SpectralNormalization" or part.has("norm_states")
        if not ours:
            # Keras has a layer of this name, which keeps its state in other places.
            self.left_out[f"{name} ({part.kind})"] = "no rule for its kernel"
            return
        start = len(self.found)
        self.enter(inner, name)
        for place, weight in enumerate(self.found[start:], start):
            on_images = "Conv" in weight.kind and len(weight.view.kernel_shape) > 2
            transform, note = normalizer(part.kind, part.arguments, on_images)
            notes = "; ".join(filter(None, (weight.note, note)))
            self.found[place] = replace(weight, transform=transform, note=notes or None)

    def _kernels(self, part, name):
        try:
            every = [
                found
                for found in kernels_of(part)
                if found.owner.key(found.kernel.place) in self.shapes
            ]
        except ValueError as error:
            if part.config:
                self._leave(part, name, error)
                return
            # The class of a layer inside is not told.
            for inner in part.inside():
                self.enter(inner, name)
            return
        for found in every:
            own = name if len(every) == 1 else f"{name}/{found.name}"
            try:
                self.found.append(self._kernel(part, found, own))
            except ValueError as error:
                self._leave(part, own, error)
        if not every:
            self.left_out[f"{name} ({part.kind})"] = "its kernels are not in the file"

    def _leave(self, part, name, error):
        reason = getattr(error, "reason", f"{error}")
        self.left_out[f"{name} ({part.kind})"] = reason

    def _kernel(self, part, found, name):
        key = found.owner.key(found.kernel.place)
        shape, dtype = tuple(self.shapes[key]), self._dtype(key)
        mode = found.owner.quantization
        if mode or "float" not in dtype:
            reason = quantized(dtype, mode)
            raise Unfit(f"`{key}` must hold floats. Received: {reason}.", reason)
        if len(shape) < 2:
            raise ValueError(f"its arguments are of another kernel than {shape}")
        view, note = found.kernel.view(found.owner, shape), found.note
        if view is not None and not set(view.output_axes) <= set(range(len(shape))):
            raise ValueError(f"its arguments are of another kernel than {shape}")
        if view is None:
            view = MatrixView(shape, (len(shape) - 1,))
            note = f"{part.kind}'s arguments are not in the file: outputs last"
        elif not part.config and "/cell/cells/" in key.removeprefix(part.path):
            note = "the order of its cells is not in the file"
        weight = StoredWeight(
            name,
            part.kind,
            (key,),
            view,
            note,
        )
        mask = found.owner.key("mask")
        if tuple(self.shapes.get(mask, ())) == shape:
            weight = replace(
                weight, keys=(key, mask), combine=lambda kernel, mask: kernel * mask
            )
        return weight

    def _factors(self, part, name):
        """An SVD layer: two kernels, and the singular values between them."""
        kind = FACTORED[part.kind]
        inner = part.part("first")
        inner.config = {"class_name": kind}
        keys = (inner.key(0), part.key(0), part.key(1), part.part("second").key(0))
        if not set(keys) <= set(self.shapes):
            self.left_out[f"{name} ({part.kind})"] = "its factors are not in the file"
            return
        (found,) = kernels_of(inner)
        shape, values, scale, right = (tuple(self.shapes[key]) for key in keys)
        fits = len(shape) > 1 and len(right) > 1 and scale in ((), (1,))
        if not fits or 0 in (*shape, *right):
            self.left_out[f"{name} ({part.kind})"] = "its factors do not fit"
            return
        first = found.kernel.view(inner, shape)
        if values != first.shape[1:] or np.prod(right[:-1]) != values[0]:
            self.left_out[f"{name} ({part.kind})"] = "its factors do not fit"
            return
        if first.shape[0] * right[-1] > _LARGEST_PRODUCT:
            self.left_out[f"{name} ({part.kind})"] = "its kernel is too large"
            return
        view = first.resized(self.shapes[keys[-1]][-1])

        def combine(left, values, scale, right):
            values = values * (scale / (np.abs(values).max(initial=0) or 1))
            left = first.flatten(left) * values
            return view.unflatten(left @ right.reshape(len(values), -1))

        self.found.append(StoredWeight(name, kind, keys, view, combine=combine))

    def _unknown(self, part, name):
        """Whatever has tensors of its own and is of no kind."""
        if not part.path and "vars" not in self.children(""):
            return
        own = self.own(part.path)
        if not own:
            return
        if part.config:
            reason = "no rule for its kernel"
        else:
            matrices = [key for key in own if len(self.shapes[key]) > 1]
            kept = {self._dtype(key) for key in matrices}
            if integers := {dtype for dtype in kept if "float" not in dtype}:
                self.left_out[f"{name} ({part.kind})"] = quantized(min(integers))
                return
            for key in matrices:
                shape = tuple(self.shapes[key])
                place = key.rsplit("/", 1)[-1]
                self.found.append(
                    StoredWeight(
                        name if len(matrices) == 1 else f"{name}/{place}",
                        "matrix" if len(shape) == 2 else "convolution",
                        (key,),
                        MatrixView(
                            shape, (len(shape) - 1,), tuple(range(len(shape) - 2))
                        ),
                        "its layer's class is not in the file: outputs last",
                    )
                )
            if matrices:
                return
            reason = "no matrix"
        self.left_out[f"{name} ({part.kind})"] = reason

    def _dtype(self, key):
        return self.file.dtypes.get(key, "float32")

    def _weights(self, part):
        return [
            key
            for key in self.shapes
            if key.startswith(f"{part.path}/") and "/seed_generator/" not in key
        ]
