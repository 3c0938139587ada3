"""A layer of a Keras model in a file, as the rows of `kinds` read it."""

import re

from keras_spectral.models.kinds import CELLS, EXPORTED_AS, KINDS
from keras_spectral.models.normalizers import NORMALIZERS
from keras_spectral.models.reasons import OF_NO_KIND

# What holds layers in a list, in Keras' own models and cells.
_LISTS = ("layers", "cells")
# Where a class keeps the config of a layer that it calls something else.
_CONFIGS = {"forward_layer": "layer"}


def snake(name):
    """Return what Keras calls the group of a class."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def without_number(group):
    """Return a group's name without the number that tells it from its like."""
    return re.sub(r"_\d+$", "", group)


def number_of(group):
    """Sort groups of one class by their number."""
    number = re.search(r"_(\d+)$", group)
    return without_number(group), int(number.group(1)) if number else 0


# Layers of two kernels, the first of which is of a plain kind.
FACTORED = {
    "SVDDense": "Dense",
    "SVDConv2D": "Conv2D",
    "SVDConv2DTranspose": "Conv2DTranspose",
}
_CLASSES = {
    snake(name): name
    for name in (
        *(name for kind in KINDS for name in kind.classes),
        *CELLS,
        *NORMALIZERS,
        *FACTORED,
        *OF_NO_KIND,
        "StackedRNNCells",
    )
}


class StoredPart:
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
            return EXPORTED_AS.get(told, told)
        for inside, kind in (("cells", "StackedRNNCells"), ("cell", "RNN")):
            if self.has(inside) and self.path:
                return _CLASSES.get(self._group, kind)
        return _CLASSES.get(self._group, self._group)

    @property
    def _group(self):
        return without_number(self.path.rsplit("/", 1)[-1])

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
        return self.walk.has(self.path, attribute)

    def part(self, attribute):
        config = self.arguments.get(_CONFIGS.get(attribute, attribute))
        return StoredPart(self.walk, self._under(attribute), config)

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
