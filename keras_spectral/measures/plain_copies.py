"""Copies of networks in float64, of plain layers, to be measured."""

import random

import keras
import numpy as np
from keras import layers as kl
from keras import ops

from keras_spectral.layers.reparametrization import Reparametrization
from keras_spectral.models.copying import rebuilt
from keras_spectral.models.graph import check_graph
from keras_spectral.models.keras_internals import flatten_layers
from keras_spectral.models.slots import kernel_slots


def plain_copy(model):
    """Return a copy in float64 whose layers hold the kernels they compute with.

    Raises:
        ValueError: If the model is of another kind, not built, or not finite.
    """
    check_graph(model)
    for part in flatten_layers(model):
        if isinstance(part, keras.Model) and not _is_plain(part):
            raise ValueError(
                "`model` must have no `call` of its own, inside neither: what it does "
                f"besides is not known. Received: '{part.name}', a "
                f"{type(part).__name__}. Take the models that it consists of."
            )
    for variable in model.variables:
        if not keras.backend.is_float_dtype(variable.dtype):
            continue
        if not np.isfinite(ops.convert_to_numpy(ops.cast(variable, "float32"))).all():
            raise ValueError(
                "`model` must have finite weights. Received: NaN or infinity in "
                f"'{variable.path}'. Use an earlier checkpoint."
            )

    def replace(layer):
        if isinstance(layer, kl.Lambda):
            # Refused later, with all others; Keras copies none of a Python lambda.
            shape, arguments = layer.compute_output_shape, layer.arguments
            return kl.Lambda(layer.function, shape, None, arguments, name=layer.name)
        if hasattr(layer, "to_layer"):
            layer = layer.to_layer()
        elif isinstance(layer, Reparametrization):
            layer = layer.layer
        else:
            return None
        config = layer.get_config()
        return type(layer).from_config({**config, "dtype": "float64"})

    state = random.getstate()  # Initializers of the copy draw seeds from it.
    try:
        done = rebuilt(model, replace, dtype="float64")
    except (TypeError, NotImplementedError) as error:
        raise ValueError(
            "`model` must be made of layers that Keras can make again from their "
            f"configuration. Received: {error}"
        ) from error
    finally:
        random.setstate(state)
    for old, new in [*done.kept, *((old, new) for old, (new,) in done.replaced)]:
        source = old.layer if isinstance(old, Reparametrization) else old
        if hasattr(source, "activation"):
            # The user's own function: its name may be one that Keras has.
            new.activation = source.activation
        keep_ceiling(old, new)
    for old, (new,) in done.replaced:
        if hasattr(old, "to_layer"):
            new.set_weights(old.to_layer().get_weights())
        if not isinstance(old, Reparametrization):
            continue
        new.set_weights(old.layer.get_weights())
        for slot, name in zip(kernel_slots(new), old.kernel_names, strict=True):
            slot.variable.assign(ops.convert_to_numpy(old.effective_kernel(name)))
            if hasattr(old, "norm_ceiling") and len(old.slots) == 1:
                new.norm_ceiling = old.norm_ceiling()  # Known without its spectrum.
    return done.model


def keep_ceiling(old, new):
    """Let the copy of a plain layer know what is known of its norm, too."""
    if isinstance(getattr(old, "norm_ceiling", None), float):
        new.norm_ceiling = old.norm_ceiling


def _is_plain(model):
    told = next(kind for kind in type(model).__mro__ if "call" in vars(kind))
    return told.__module__.startswith("keras.src.")
