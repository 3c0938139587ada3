"""Which matrices a Keras model in a file computes with, read without Keras.

What `weights` says of a model in memory, said of its `.keras` or `.weights.h5` file, by
the same rows of `kinds`. A file of weights alone tells a layer's class by the name of
its group, and no arguments.
"""

import collections
import re
from dataclasses import dataclass, field, replace

import numpy as np

from keras_spectral.models.kinds import CELLS, KINDS, kernels_of, kind_of
from keras_spectral.models.normalizers import NORMALIZERS, normalizer
from keras_spectral.models.stored import StoredWeight
from keras_spectral.models.views import MatrixView

# What holds layers in a list, in Keras' own models and cells.
_LISTS = ("layers", "cells")
# Numbers of a kernel that is in the file as two narrow factors.
_LARGEST_PRODUCT = 2**24
# Where a class keeps the config of a layer that it calls something else.
_CONFIGS = {"forward_layer": "layer"}


@dataclass(frozen=True)
class KerasFile:
    """What a file says of a model beside its tensors.

    Args:
        names: Dict from the path of a layer in the file to the layer's name.
        config: Dict, how Keras would make the model again, or `None`.
    """

    names: dict = field(default_factory=dict)
    config: dict | None = None


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
    walk.enter(_StoredPart(walk, "", file.config))
    return walk.found, walk.left_out


def _snake(name):
    """Return what Keras calls the group of a class."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _without_number(group):
    return re.sub(r"_\d+$", "", group)


def _number(group):
    """Sort groups of one class by their number."""
    number = re.search(r"_(\d+)$", group)
    return _without_number(group), int(number.group(1)) if number else 0


# Layers of two kernels, the first of which is of a plain kind.
_FACTORED = {
    "SVDDense": "Dense",
    "SVDConv2D": "Conv2D",
    "SVDConv2DTranspose": "Conv2DTranspose",
}
_CLASSES = {
    _snake(name): name
    for name in (
        *(name for kind in KINDS for name in kind.classes),
        *CELLS,
        *NORMALIZERS,
        *_FACTORED,
        "BatchNormalization",
        "StackedRNNCells",
    )
}


class _StoredPart:
    """A layer in a file, as a `kinds.Part`."""

    def __init__(self, walk, path, config):
        self.walk, self.path = walk, path
        self.config = config if isinstance(config, dict) else {}
        self.arguments = self.config.get("config")
        if not isinstance(self.arguments, dict):
            self.arguments = {}

    @property
    def told(self):
        return bool(self.config)

    @property
    def name(self):
        return self.walk.file.names.get(self.path, self.path)

    @property
    def kind(self):
        """The name of the layer's class, or of its group."""
        told = self.config.get("class_name")
        if isinstance(told, str) and len(told) <= 100 and told.isprintable():
            return told
        for inside, kind in (("cells", "StackedRNNCells"), ("cell", "RNN")):
            if self.has(inside) and self.path:
                return _CLASSES.get(self._group, kind)
        return _CLASSES.get(self._group, self._group)

    @property
    def _group(self):
        return _without_number(self.path.rsplit("/", 1)[-1])

    @property
    def classes(self):
        known = str(self.config.get("registered_name") or "keras").startswith("keras")
        ours = str(self.config.get("module") or "keras").split(".")[0]
        if known and ours in ("keras", "keras_spectral"):
            return (self.kind,)
        return ()

    def read(self, attribute):
        return self.arguments.get(attribute)

    def has(self, attribute):
        return self.walk.has(self.path, attribute)

    def part(self, attribute):
        config = self.arguments.get(_CONFIGS.get(attribute, attribute))
        return _StoredPart(self.walk, self._under(attribute), config)

    def parts(self, attribute):
        return self.walk.listed(self._under(attribute), self.arguments.get(attribute))

    def inside(self):
        """Return the layers inside, whatever they are called."""
        found = []
        for group in self.walk.children(self.path):
            if group in _LISTS:
                found += self.parts(group)
            elif group != "vars":
                found.append(self.part(group))
        return found

    def _under(self, group):
        return f"{self.path}/{group}" if self.path else group

    def key(self, place):
        return f"{self._under('vars')}/{place}"


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
        groups = sorted(self.children(path), key=_number)
        # A file may have as many configs as groups, and thousands of each.
        alike, named, taken = {}, {}, set()
        for group in groups:
            name = self.file.names.get(f"{path}/{group}")
            named.setdefault(name, collections.deque()).append(group)
            kind = name, _without_number(group)
            alike.setdefault(kind, collections.deque()).append(group)
        found = []
        for config in configs if isinstance(configs, list) else ():
            arguments = config.get("config") if isinstance(config, dict) else None
            name = arguments.get("name") if isinstance(arguments, dict) else ()
            if not isinstance(name, (str, type(None))):
                continue
            # That of its class and name, or of its name.
            kind = name, _snake(str(config.get("class_name"))[:100])
            for queue in (alike.get(kind), named.get(name)):
                while queue and queue[0] in taken:
                    queue.popleft()
                if queue:
                    group = queue.popleft()
                    taken.add(group)
                    found.append(_StoredPart(self, f"{path}/{group}", config))
                    break
        left = [group for group in groups if group not in taken]
        return found + [_StoredPart(self, f"{path}/{group}", None) for group in left]

    def enter(self, part, name=None):
        """Find the kernels of a layer, or of the layers inside."""
        name = name or part.name
        if part.path.startswith("optimizer"):
            self.left_out["optimizer"] = "state of an optimizer"
        elif kind_of(part) is not None:
            self._kernels(part, name)
        elif part.kind in _FACTORED and part.classes:
            self._factors(part, name)
        elif part.kind in NORMALIZERS and part.classes:
            self._wrapped(part, name)
        else:
            self._unknown(part, name)
            if self._is_layer(part) and part.told:
                # As of a model in memory: what it does with layers inside is its own.
                reason = self.left_out.get(f"{name} ({part.kind})")
                reason = reason or "no rule for its kernel"
                self.left_out[f"{name} ({part.kind})"] = reason
                return
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
            every = kernels_of(part)
            kernels = [
                weight
                for found in every
                for weight in self._kernel(part, found, name, len(every))
            ]
        except ValueError as error:
            if not part.config:
                # The class of a layer inside is not told.
                for inner in part.inside():
                    self.enter(inner, name)
                return
            self.left_out[f"{name} ({part.kind})"] = f"{error}"
            return
        self.found += kernels
        if not kernels:
            self.left_out[f"{name} ({part.kind})"] = "its kernels are not in the file"

    def _kernel(self, part, found, name, count):
        key = found.owner.key(found.kernel.place)
        if key not in self.shapes:
            return
        shape = tuple(self.shapes[key])
        if len(shape) < 2:
            return
        axes, note = found.kernel.outputs(found.owner, len(shape)), found.note
        if axes is not None and not set(axes) <= set(range(len(shape))):
            raise ValueError(f"its arguments are of another kernel than {shape}")
        if axes is None:
            axes = (len(shape) - 1,)
            note = f"{part.kind}'s arguments are not in the file: outputs last"
        elif not part.config and "/cell/cells/" in key.removeprefix(part.path):
            note = "the order of its cells is not in the file"
        weight = StoredWeight(
            name if count == 1 else f"{name}/{found.name}",
            part.kind,
            (key,),
            MatrixView(shape, axes),
            note,
        )
        mask = found.owner.key("mask")
        if tuple(self.shapes.get(mask, ())) == shape:
            weight = replace(
                weight, keys=(key, mask), combine=lambda kernel, mask: kernel * mask
            )
        yield weight

    def _factors(self, part, name):
        """An SVD layer: two kernels, and the singular values between them."""
        kind = _FACTORED[part.kind]
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
        first = MatrixView(shape, found.kernel.outputs(inner, len(shape)))
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
        if part.kind == "BatchNormalization":
            reason = "scales channels, not folded into the layer before"
        elif part.config:
            reason = "no rule for its kernel"
        else:
            matrices = [key for key in own if len(self.shapes[key]) > 1]
            for key in matrices:
                shape = tuple(self.shapes[key])
                place = key.rsplit("/", 1)[-1]
                self.found.append(
                    StoredWeight(
                        name if len(matrices) == 1 else f"{name}/{place}",
                        "matrix" if len(shape) == 2 else "convolution",
                        (key,),
                        MatrixView(shape, (len(shape) - 1,)),
                        "its layer's class is not in the file: outputs last",
                    )
                )
            if matrices:
                return
            reason = "no matrix"
        self.left_out[f"{name} ({part.kind})"] = reason
