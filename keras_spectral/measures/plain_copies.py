"""Copies of networks, of plain layers in one dtype, to be measured."""

import random

import keras
import numpy as np
from keras import layers as kl
from keras import ops

from keras_spectral.layers.reparametrization import Reparametrization
from keras_spectral.models.copying import bare_config, rebuilt
from keras_spectral.models.graph import check_graph, computes_as_its_graph
from keras_spectral.models.keras_internals import flatten_layers
from keras_spectral.models.slots import kernel_slots

_WRAPPERS = (Reparametrization, kl.SpectralNormalization)
TRANSPOSED = (kl.Conv1DTranspose, kl.Conv2DTranspose, kl.Conv3DTranspose)


def plain_copy(model, dtype="float64", also=None):
    """Return a copy in one dtype whose layers hold the kernels they compute with.

    Args:
        model: A built `keras.Sequential` or functional `keras.Model`.
        dtype: String.
        also: Callable that gets the other layers, each wrapper's inner one, and
            returns a tuple of new ones, of which the first takes the weights; or `None`
            for a layer that stays.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: If the model is of another kind, not built, or not finite.
    """
    check_graph(model)
    for part in flatten_layers(model):
        if isinstance(part, keras.Model) and not computes_as_its_graph(part):
            raise ValueError(
                "`model` must have no `call` of its own, inside neither: what it does "
                f"besides is not known. Received: '{part.name}', a "
                f"{type(part).__name__}. Take the models that it consists of."
            )
    check_finite(model)

    made = set()  # By `also`, which says what their activation is.

    def replace(layer):
        if isinstance(layer, kl.Lambda):
            # Refused later, with all others; Keras copies none of a Python lambda.
            shape, arguments = layer.compute_output_shape, layer.arguments
            return kl.Lambda(layer.function, shape, None, arguments, name=layer.name)
        plain = layer.layer if isinstance(layer, Reparametrization) else _plain(layer)
        instead = also(plain) if also else None
        if instead is not None:
            made.add(id(instead[0]))
        elif plain is not layer:
            instead = (remade(plain, dtype),)
        return instead

    state = random.getstate()  # Initializers of the copy draw seeds from it.
    try:
        done = rebuilt(model, replace, dtype, bare=True)
    except (TypeError, NotImplementedError) as error:
        raise ValueError(
            "`model` must be made of layers that Keras can make again from their "
            f"configuration. Received: {error}"
        ) from error
    finally:
        random.setstate(state)
    for old, new in [*done.kept, *((old, new) for old, (new, *_) in done.replaced)]:
        source = old.layer if isinstance(old, _WRAPPERS) else old
        own = getattr(source, "activation", None)
        if own is not None and new.activation is not own and id(new) not in made:
            # The user's own function: its name may be one that Keras has.
            getattr(new, "cell", new).activation = own
        keep_ceiling(old, new)
    for old, (new, *_) in done.replaced:
        if isinstance(old, kl.Lambda):
            continue
        if isinstance(old, Reparametrization):
            new.set_weights(old.layer.get_weights())
            for slot, name in zip(kernel_slots(new), old.kernel_names, strict=True):
                slot.variable.assign(ops.convert_to_numpy(old.effective_kernel(name)))
                if hasattr(old, "norm_ceiling") and len(old.slots) == 1:
                    new.norm_ceiling = old.norm_ceiling()  # Without its spectrum.
        else:
            new.set_weights(_plain(old).get_weights())
    return done.model


def effective_model(model):
    """Return a network that computes what a model does in inference, of plain layers.

    A wrapper finds its kernel anew in each call, and is differentiated through that.

    Args:
        model: A built `keras.Model`.

    Returns:
        A copy with effective kernels; the model itself where no layer is wrapped, its
        layers are of several dtypes or half precision, or one cannot be copied.

    Example:
    >>> model = keras.Sequential([keras.Input((3,)), kl.Dense(2)])
    >>> effective_model(model) is model
    True
    """
    layers = flatten_layers(model)
    # Inputs may be integers.
    layers = [layer for layer in layers if not isinstance(layer, kl.InputLayer)]
    dtypes = {layer.dtype_policy.name for layer in layers}
    wrapped = any(isinstance(layer, Reparametrization) for layer in layers)
    if not wrapped or len(dtypes) > 1 or not dtypes <= {"float32", "float64"}:
        return model
    try:
        return plain_copy(model, *dtypes)
    except ValueError:
        return model


def check_finite(model):
    """Raise a ValueError if a weight of a model is NaN or infinite; it is named."""
    for variable in model.variables:
        if not keras.backend.is_float_dtype(variable.dtype):
            continue
        if not np.isfinite(ops.convert_to_numpy(ops.cast(variable, "float32"))).all():
            raise ValueError(
                "`model` must have finite weights. Received: NaN or infinity in "
                f"'{variable.path}'. Use an earlier checkpoint."
            )


def keep_ceiling(old, new):
    """Let the copy of a plain layer know what is known of its norm, too."""
    if isinstance(getattr(old, "norm_ceiling", None), float):
        new.norm_ceiling = old.norm_ceiling


def _plain(layer):
    """Return a layer that computes the same with one kernel, the layer itself if so."""
    if type(layer) is kl.SpectralNormalization:
        return layer.layer  # In inference the kernel is taken as it stands.
    if hasattr(layer, "to_layer"):
        return layer.to_layer()
    if getattr(layer, "lora_enabled", False) and hasattr(layer, "kernel"):
        config = {**layer.get_config(), "lora_rank": None}
        merged = type(layer).from_config(config)
        merged.build_from_config(layer.get_build_config())
        bias = [] if layer.bias is None else [ops.convert_to_numpy(layer.bias)]
        merged.set_weights([ops.convert_to_numpy(layer.kernel), *bias])
        return merged
    return layer


def undilated(layer):
    """Return a transposed convolution without dilation, zeros between its taps.

    Args:
        layer: One of `TRANSPOSED`, built, with a dilation.

    Returns:
        A layer that computes the same.
    """
    spaced = [
        (size - 1) * rate + 1
        for size, rate in zip(layer.kernel_size, layer.dilation_rate, strict=True)
    ]
    twin = remade(layer, layer.dtype_policy, kernel_size=spaced, dilation_rate=1)
    twin.build_from_config(layer.get_build_config())
    kernel = np.zeros(twin.kernel.shape)
    kernel[tuple(slice(None, None, rate) for rate in layer.dilation_rate)] = (
        ops.convert_to_numpy(layer.kernel)
    )
    rest = [] if layer.bias is None else [ops.convert_to_numpy(layer.bias)]
    twin.set_weights([kernel, *rest])
    return twin


def remade(layer, dtype, **changes):
    """Return a new layer of the same kind in another dtype.

    Args:
        layer: A `keras.layers.Layer`.
        dtype: String.
        **changes: Other values of what its config holds.

    Example:
    >>> remade(kl.Dense(2, "relu"), "float64", units=3).units
    3
    """
    return type(layer).from_config({**bare_config(layer), "dtype": dtype, **changes})
