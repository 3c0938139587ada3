"""Which kernels of a model can be compressed where they stand."""

from collections import Counter

from keras_spectral.models import LeftOut, Weights, weights
from keras_spectral.models.weights import check_names, leaf_layers


def compressible(model, where=None):
    """Return the kernels that `where` chooses and that may be replaced.

    A kernel with a LoRA adapter, a mask or integers is an error if it was named and
    left out otherwise. One in a wrapper is an error always: most of a network may be
    wrapped, and what is asked for is then its plain copy.

    Args:
        model: A built `keras.Model`.
        where: See `models.weights`.

    Returns:
        `models.Weights` whose `variable` is what the layer computes with, each once.

    Raises:
        ValueError: As said, and if `where` has a name that is none of the model's or
            that of several layers, or nothing is left.

    Example:
    >>> import keras
    >>> layers = [keras.Input((6, 2)), keras.layers.LSTM(3, name="lstm")]
    >>> found = compressible(keras.Sequential(layers), where=["lstm/kernel"])
    >>> [tuple(weight.variable.shape) for weight in found]
    [(2, 12)]
    """
    named = where is not None and not callable(where)
    if named:
        _check_names(model, check_names(where))
    chosen = weights(model, where)
    plain, left_out = {}, list(chosen.left_out)
    for weight in chosen:
        reason, advice = _obstacle(weight) or (None, None)
        if reason is None:
            # A layer may be in a `TimeDistributed` and in the model itself.
            plain.setdefault(id(weight.variable), weight)
        elif named or weight.is_wrapped:
            raise ValueError(
                "`where` must choose kernels that can be compressed. Received: "
                f"'{weight.name}' ({weight.kind}): {reason}. {advice}"
            )
        else:
            left_out.append(LeftOut(weight.name, weight.kind, reason))
    if not plain:
        raise ValueError(
            f"`model` must hold a kernel that can be compressed. Received: "
            f"'{model.name}' with {summary(left_out) or 'no weights'}."
        )
    return Weights(plain.values(), left_out)


def summary(left_out):
    """Return a list of `LeftOut` as one sentence, those of one kind together.

    Example:
    >>> summary([LeftOut("a", "Dense", "int8 kernel")])
    'a (Dense): int8 kernel'
    """
    groups = {}
    for left in left_out:
        groups.setdefault((left.kind, left.reason), []).append(left)
    return "; ".join(
        str(group[0]) if len(group) == 1 else f"{len(group)} {kind}: {reason}"
        for (kind, reason), group in groups.items()
    )


def _check_names(model, names):
    """Raise a ValueError if a name is of several layers, or of one without kernels."""
    layers = Counter(layer.name for layer in dict.fromkeys(leaf_layers(model)))
    left_out = {left.name: left for left in weights(model).left_out}
    for name in names:
        count = layers[name.split("/")[0]]
        if count > 1:
            raise ValueError(
                f"`where` must name one layer each. Received: {name!r}, the name of "
                f"{count} layers in the nested models of '{model.name}'. Compress the "
                "nested model itself, or choose by `where=lambda weight: weight.layer "
                "is layer`."
            )
        if name in left_out:
            raise ValueError(
                "`where` must choose kernels that can be compressed. Received: "
                f"{left_out[name]}. Leave it out; a layer can be compressed before it "
                "is quantized or gets an adapter."
            )


def _obstacle(weight):
    """Return why a kernel cannot be replaced and what to do, or `None`."""
    owner = weight.slot.owner
    if weight.is_wrapped:
        return (
            "its layer computes with a function of what is trained",
            "Take the plain model, `keras_spectral.unwrap(model)`, or leave it out: "
            "`where=lambda weight: not weight.is_wrapped`.",
        )
    if getattr(owner, "lora_enabled", False):
        return (
            "its layer adds a LoRA adapter to it",
            "`model.save_weights` merges the two; load them into the plain model.",
        )
    if weight.slot.masked:
        return (
            "it is sparse already, and what lies under its mask is no weight of the "
            "network",
            "Leave it out.",
        )
    return None
