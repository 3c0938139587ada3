"""The singular vectors of PyTorch's spectral normalization, in our wrappers."""

import keras
import numpy as np

from keras_spectral.convert import spectral_state
from keras_spectral.layers import Reparametrization, SpectralNormalization


def takes_vectors(wrapper):
    """Whether a wrapper has PyTorch's state: u and v of the flattened kernel."""
    return (
        isinstance(wrapper, Reparametrization)
        and getattr(wrapper, "norm", None) == "reshaped"
        and getattr(wrapper, "method", None) in ("block", "power_iteration")
        and len(wrapper.slots) == 1
    )


def is_pytorchs(wrapper):
    """Whether a wrapper with PyTorch's u and v computes with W / (u' W v)."""
    return (
        type(wrapper) is SpectralNormalization
        and takes_vectors(wrapper)
        and wrapper.bound == 1
        and not wrapper.clip
    )


def remembered(model, targets):
    """Return a function that gives a model the weights and vectors of now back."""
    weights = model.get_weights()
    wrappers = {id(slot.wrapper): slot.wrapper for slot in targets.values()}
    wrappers = [wrapper for wrapper in wrappers.values() if takes_vectors(wrapper)]
    orders = [wrapper._imported_order for wrapper in wrappers]

    def restore():
        for wrapper, order in zip(wrappers, orders, strict=True):
            if wrapper._imported_order == order:
                continue
            wrapper.restart_power_iteration()
            if order is not None:
                wrapper._follow(order)
                wrapper.norm_states[0].follow(order)
        model.set_weights(weights)

    return restore


def assign_vectors(targets, weights, orders):
    """Give every wrapper the singular vectors that came with its kernel, or its own.

    Args:
        targets: Dict from key to `rules.Slot`, whose kernels are assigned already.
        weights: The source, with `vectors(path)` and `notes`.
        orders: Dict from path to the order of a layer's inputs; see `flattening`.
    """
    for key, slot in targets.items():
        path = key.rpartition(".")[0]
        if slot.holders[0].kernel is None:
            continue
        if not isinstance(slot.wrapper, Reparametrization):
            continue
        # Vectors that were trained with another kernel say nothing of this one.
        slot.wrapper.restart_power_iteration()
        found = weights.vectors(path)
        if found is None:
            continue
        vectors, flavour = found
        if not takes_vectors(slot.wrapper):
            sign = ", and has the sign of W: PyTorch's u' W v is negative"
            weights.notes.append(
                f"{path} estimates its singular vectors anew"
                f"{sign if vectors.sigma < 0 else ''}"
            )
            continue
        u, v = vectors.u, vectors.v
        if flavour.evaluation and not isinstance(slot.wrapper, SpectralNormalization):
            # Where v is part of the kernel, not of its norm alone.
            v = spectral_state.unit(v)
        order = flavour.update_order
        shape = tuple(slot.variable.shape)
        if isinstance(slot.layer, keras.layers.Embedding):
            # PyTorch's matrix is the transpose of ours.
            u, v = v, u
            order = {"u_first": "v_first", "v_first": "u_first"}[order]
        elif len(shape) > 2:
            v = spectral_state.flatten_right(v, shape)
        elif path in orders:
            v = v[orders[path]]
        slot.wrapper.load_vectors(u, v, order)


def numpy_values(value):
    """Return an array; bfloat16, which NumPy lacks, is widened."""
    value = keras.ops.convert_to_numpy(value)
    return value.astype("float32") if value.dtype.name == "bfloat16" else value


def spectral_entries(slot, leaf, prefix, flavour, order=None):
    """Return what a flavour keeps of one variable of a normalized layer.

    `order` is that of a dense layer's inputs; see `flattening`.
    """
    value = np.ascontiguousarray(slot.to_torch([numpy_values(slot.variable)]))
    if leaf == "bias":
        return {f"{prefix}{flavour.bias}": value}
    vectors = slot.wrapper.norm_states[0]
    u, v = numpy_values(vectors.u), numpy_values(vectors.v)
    shape = tuple(slot.variable.shape)
    transposed = "Transpose" in type(slot.layer).__name__
    if isinstance(slot.layer, keras.layers.Embedding):
        u, v = v, u
    elif len(shape) > 2:
        v = spectral_state.unflatten_right(v, shape)
    elif order is not None:
        v = v[np.argsort(order)]
    entries = {f"{prefix}{flavour.weight}": value, f"{prefix}{flavour.u}": u}
    if flavour.v is not None:
        entries[f"{prefix}{flavour.v}"] = v
    else:
        entries[f"{prefix}{flavour.u}"] = u[None]
        sigma = u @ spectral_state.matrix(value, transposed) @ v
        entries[f"{prefix}{flavour.sigma}"] = np.array([sigma], value.dtype)
    return entries
