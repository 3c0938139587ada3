"""What activations do to distances."""

import math
from collections.abc import Callable
from typing import NamedTuple

import keras

from keras_spectral.layers.lipschitz_constants import (
    activation_constant,
    activation_slopes,
)
from keras_spectral.measures.lipschitz_slopes import SLOPES_ON

# Activations that mix the numbers of the last axis.
_MIXING = {keras.activations.softmax: 0.5, keras.activations.sparsemax: 1.0}


class Nonlinearity(NamedTuple):
    """A map with a Lipschitz constant.

    Args:
        constant: Float.
        slopes: Pair of floats, the least and the largest derivative of a function
            applied to each number, or `None`.
        alert: String, what a reader must know; or `None`.
        function: What computes it, or `None` where the layer itself does.
        slopes_on: Function from intervals (two arrays, their ends) to the least and
            largest slopes on them, or `None`.
        constant_near: Function of a center (an array), the radii of its numbers and
            that of a ball around it, to the constant there, or `None`.
    """

    constant: float
    slopes: tuple | None = None
    alert: str | None = None
    function: Callable | None = None
    slopes_on: Callable | None = None
    constant_near: Callable | None = None


class Unbounded(Exception):
    """A layer has no bound; the text says why and what would."""


class Refused(ValueError):
    """A model has layers without a bound; the text names all of them."""


def activation_of(activation, shape):
    """Return an activation function as a `Nonlinearity`, for a sample's shape."""
    if activation in _MIXING:
        return Nonlinearity(_MIXING[activation], function=activation)
    if activation is keras.activations.log_softmax:
        # Its Jacobian is I - 1 p', whose norm is convex in p: largest at a vertex.
        return Nonlinearity(math.sqrt(shape[-1]), function=activation)
    constant = activation_constant(activation)
    name = getattr(activation, "__name__", str(activation))
    if constant is None:
        raise Unbounded(f"the constant of the activation {name} is not known")
    slopes = activation_slopes(name)
    on = SLOPES_ON.get(name)
    return Nonlinearity(constant, slopes, function=activation, slopes_on=on)
