"""Which matrices a Keras model in a file computes with, read without Keras.

What `weights` says of a model in memory, said of its `.keras` or `.weights.h5` file, by
the same rows of `kinds`. A file of weights alone tells a layer's class by the name of
its group, and no arguments.
"""

import re
from dataclasses import dataclass, field, replace

import numpy as np

from keras_spectral.models.kinds import (
    CELLS,
    EXPORTED_AS,
    KINDS,
    kernels_of,
    kind_of,
)
from keras_spectral.models.normalizers import NORMALIZERS, normalizer
from keras_spectral.models.reasons import OF_NO_KIND, Unfit, quantized, reason_of
from keras_spectral.models.stored import StoredWeight
from keras_spectral.models.views import MatrixView

# What holds layers in a list, in Keras' own models and cells.
_LISTS = ("layers", "cells")
# Where a class keeps the config of a layer that it calls something else.
_CONFIGS = {"forward_layer": "layer"}


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
        *OF_NO_KIND,
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
        name = self.config.get("class_name")
        if isinstance(name, str):
            return EXPORTED_AS.get(name, name)
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

    @property
    def quantization(self):
        """The mode in which it is quantized, or `None`."""
        policy = self.arguments.get("dtype")
        settings = policy.get("config") if isinstance(policy, dict) else None
        mode = settings.get("mode") if isinstance(settings, dict) else None
        return mode if isinstance(mode, str) and mode.isidentifier() else None

    def read(self, attribute):
        return self.arguments.get(attribute)

    def has(self, attribute):
        return attribute in self.walk.children(self.path)

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
        self._children = {"": {}}
        for key in shapes:
            path = ""
            for group in key.split("/"):
                self._children.setdefault(path, {})[group] = None
                path = f"{path}/{group}" if path else group

    def children(self, path):
        """Return the names of what is in a group, groups and tensors."""
        return list(self._children.get(path, ()))

    def listed(self, path, configs):
        """Return the layers of a list, in its order where that is known."""
        left = sorted(self.children(path), key=_number)
        found = []
        for config in configs if isinstance(configs, list) else ():
            group = self._group_of(config, path, left)
            if group is not None:
                left.remove(group)
                found.append(_StoredPart(self, f"{path}/{group}", config))
        return found + [_StoredPart(self, f"{path}/{group}", None) for group in left]

    def _group_of(self, config, path, groups):
        """Return the group of a layer: that of its class and name, or of its name."""
        arguments = config.get("config") if isinstance(config, dict) else None
        if not isinstance(arguments, dict):
            return None
        named = [
            group
            for group in groups
            if self.file.names.get(f"{path}/{group}") == arguments.get("name")
        ]
        kind = _snake(str(config.get("class_name")))
        alike = [group for group in named if _without_number(group) == kind]
        return next(iter(alike or named), None)

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
        view, note = found.kernel.view(found.owner, shape), found.note
        if view is None:
            view = MatrixView(shape, (len(shape) - 1,))
            note = f"{part.kind}'s arguments are not in the file: outputs last"
        elif not part.config and "/cells/" in key:
            note = "the order of its cells is not in the file"
        weight = StoredWeight(
            name,
            part.kind,
            (key,),
            view,
            note,
        )
        mask = found.owner.key("mask")
        if mask in self.shapes:
            weight = replace(
                weight, keys=(key, mask), combine=lambda kernel, mask: kernel * mask
            )
        return weight

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
        shape = tuple(self.shapes[keys[0]])
        first = found.kernel.view(inner, shape)
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
        own = self._own(part)
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

    def _own(self, part):
        prefix = f"{part.path}/vars/" if part.path else "vars/"
        return [key for key in self.shapes if key.startswith(prefix)]
