"""What is known of the Lipschitz constants of Keras' layers and activations."""

import keras
from keras import layers as kl

from keras_spectral.models.kinds import KINDS
from keras_spectral.models.slots import check_plain

# Layers that are a kernel, a bias and an activation, with the name that
# `linalg.induced_norm` gives to their kernel.
KERNEL_KINDS = {
    getattr(kl, name): kind.induced
    for kind in KINDS
    if kind.induced
    for name in kind.classes
    if hasattr(kl, name)
}

# The largest magnitudes of the derivatives, rounded up.
ACTIVATIONS = {
    "linear": 1.0,
    "relu": 1.0,
    "relu6": 1.0,
    "leaky_relu": 1.0,
    "elu": 1.0,
    "softplus": 1.0,
    "softsign": 1.0,
    "squareplus": 1.0,
    "tanh": 1.0,
    "hard_tanh": 1.0,
    "soft_shrink": 1.0,
    "tanh_shrink": 1.0,
    "log_sigmoid": 1.0,
    "sigmoid": 0.25,
    "hard_sigmoid": 0.1667,
    "selu": 1.7581,
    "gelu": 1.1290,
    "silu": 1.0999,
    "hard_silu": 1.5,
    "mish": 1.0885,
    "celu": 1.0,
    "sparse_plus": 1.0,
    "sparse_sigmoid": 0.5,
}
# Those whose derivative may be negative or above 1.
_OTHER_SLOPES = {
    "selu": (0.0, 1.7581),
    "gelu": (-0.1290, 1.1290),
    "silu": (-0.0999, 1.0999),
    "hard_silu": (-0.5, 1.5),
    "mish": (-0.1130, 1.0885),
}


def activation_slopes(name):
    """Return the least and largest derivative of an activation, rounded outwards.

    Args:
        name: A key of `ACTIVATIONS`.

    Returns:
        Pair of floats.

    Example:
    >>> activation_slopes("sigmoid")
    (0.0, 0.25)
    """
    return _OTHER_SLOPES.get(name, (0.0, ACTIVATIONS[name]))


def activation_constant(activation):
    """Return the Lipschitz constant of an activation function.

    Args:
        activation: Callable.

    Returns:
        Float, or `None` if it is not known.

    Example:
    >>> activation_constant(keras.activations.sigmoid)
    0.25
    """
    name = getattr(activation, "__name__", str(activation))
    # A user's function may have a name that Keras uses.
    if name not in ACTIVATIONS or keras.activations.get(name) is not activation:
        return None
    return ACTIVATIONS[name]


def _slope(attribute):
    """Return the constant of a layer with slope 1 above zero and another below."""
    return lambda layer: max(1.0, abs(float(getattr(layer, attribute))))


def _relu(layer):
    if layer.threshold:
        raise _unbounded(layer, "that jumps at its threshold", "Use `threshold=0`.")
    return _slope("negative_slope")(layer)


def _moves_numbers(layer):
    return 1.0


_OTHERS = {
    kl.Activation: lambda layer: _activation(layer),
    kl.ELU: _slope("alpha"),
    kl.Flatten: _moves_numbers,
    kl.Identity: _moves_numbers,
    kl.InputLayer: _moves_numbers,
    kl.LeakyReLU: _slope("negative_slope"),
    kl.Permute: _moves_numbers,
    kl.ReLU: _relu,
    kl.Reshape: _moves_numbers,
}


def lipschitz_constant(layer):
    """Return the Lipschitz constant of a layer, the norm of its kernel taken for 1.

    Args:
        layer: A `keras.layers.Layer`.

    Returns:
        Float, for the Euclidean norm.

    Raises:
        ValueError: If the constant is not known: a layer or activation outside of
            the tables, a subclass of a layer in them (it may compute anything), a
            stride, LoRA or quantized weights.

    Example:
    >>> lipschitz_constant(kl.Dense(3, activation="sigmoid"))
    0.25
    """
    # Exact types: a subclass may compute anything.
    kind = type(layer)
    if kind in KERNEL_KINDS:
        check_plain(layer)
        if max(getattr(layer, "strides", (1,))) > 1:
            raise _unbounded(layer, "with a stride", "Use stride 1.")
        return _activation(layer)
    if kind not in _OTHERS:
        names = sorted(known.__name__ for known in (*KERNEL_KINDS, *_OTHERS))
        raise _unbounded(
            layer, "that cannot be bounded", f"Use these: {', '.join(names)}."
        )
    return _OTHERS[kind](layer)


def _activation(layer):
    activation = layer.activation
    constant = activation_constant(activation)
    if constant is None:
        name = getattr(activation, "__name__", str(activation))
        raise _unbounded(
            layer,
            f"with the activation {name}, of an unknown Lipschitz constant",
            f"Use one of {', '.join(sorted(ACTIVATIONS))}.",
        )
    return constant


def _unbounded(layer, what, advice):
    return ValueError(
        "`function` must hold layers whose Lipschitz constant is known. Received: "
        f"'{layer.name}', a {type(layer).__name__} {what}. {advice}"
    )
