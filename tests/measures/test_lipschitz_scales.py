"""Bounds of networks whose numbers floats do not hold: closed forms by logarithms."""

import keras
import numpy as np
import pytest
from keras import layers as kl

from keras_spectral.measures import lipschitz_bound
from keras_spectral.measures.lipschitz_slopes import SLOPES_ON


def chain(diagonals, activation=None, residual=False):
    """Layers of diagonal kernels, of which every slope can be one."""
    x = y = keras.Input((2,), dtype="float64")
    for diagonal in diagonals:
        dense = kl.Dense(2, activation, use_bias=False, dtype="float64")
        made = dense(y)
        y = kl.Add(dtype="float64")([y, made]) if residual else made
        dense.set_weights([np.diag(np.broadcast_to(diagonal, 2))])
    return keras.Model(x, y)


def logarithms(model):
    center = np.ones((1, *model.input_shape[1:]))
    ball = dict(inputs=center, input_radius=0.1, method="local")
    ways = [dict(method="product"), dict(method="merged"), ball]
    return [lipschitz_bound(model, **way).log10_bound for way in ways]


SMALL, LARGE = [1e-36] * 9, [1e36] * 9


@pytest.mark.parametrize(
    ("scales", "activation", "residual"),
    [(scales, a, False) for scales in (SMALL, LARGE) for a in (None, "relu")]
    + [(LARGE + SMALL, None, False), (SMALL + LARGE, "relu", False)]
    + [(SMALL, "relu", True), (LARGE, None, True), (LARGE, "relu", True)]
    + [([1e-25] * 4, "relu", False), ([1e25] * 4, "leaky_relu", False)]
    # The second layer's numbers are zero to a float.
    + [([1e-200, 1e-200] + [1e36] * 8, "relu", False)],
)
def test_every_scale(scales, activation, residual):
    factors = np.array(scales) + (1.0 if residual else 0.0)
    expected = np.log10(factors).sum()
    found = logarithms(chain(scales, activation, residual))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


def test_a_direction_that_vanishes_and_comes_back():
    """(1, 1e-324) has become zero in its second number before it is (1e-324, 1)."""
    diagonals = [(1.0, 1e-36)] * 9 + [(1e-36, 1e36)] * 9
    for found in logarithms(chain(diagonals)):
        assert found >= -1e-6


def test_scales_that_kernels_do_not_hold():
    """On images too large for a matrix, normalizations go into the kernel."""
    norms = [kl.BatchNormalization(dtype="float64") for _ in range(4)]
    conv = kl.Conv2D(2, 1, use_bias=False, dtype="float64")
    x = keras.Input((64, 64, 2), dtype="float64")
    model = keras.Sequential([x, conv, *norms])
    conv.set_weights([1e-30 * np.eye(2)[None, None]])
    for norm, scale in zip(norms, (1e-175, 1e-175, 1e30, 1e30), strict=True):
        root = np.sqrt(1 + norm.epsilon)
        gamma, *others = norm.get_weights()
        norm.set_weights([np.full_like(gamma, scale * root), *others])
    for method in ("product", "merged"):
        found = lipschitz_bound(model, method=method)
        assert found.log10_bound == pytest.approx(-320, abs=0.01)


@pytest.mark.parametrize("name", SLOPES_ON)
def test_what_is_not_known_of_an_interval_can_be_anything(name):
    """Slopes between points of one, tried, are within what an unknown end has."""
    function, on = keras.activations.get(name), SLOPES_ON[name]
    x = np.linspace(-9, 9, 2001)
    y = np.asarray(function(x), "float64")
    slopes = np.diff(y) / np.diff(x)
    for low, high in [(np.nan, np.nan), (np.nan, 0.0), (0.0, np.nan), (-np.inf, 0.0)]:
        least, largest = on(np.array([low]), np.array([high]))
        inside = ~(x[:-1] < low) & ~(x[1:] > high)
        assert least[0] - 1e-6 <= slopes[inside].min()
        assert slopes[inside].max() <= largest[0] + 1e-6
