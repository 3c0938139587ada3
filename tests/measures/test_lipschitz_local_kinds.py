"""On balls: products of every form, numbers far from one, what float32 computes."""

import math

import keras
import numpy as np
import pytest
from keras import layers as kl
from keras import ops

from keras_spectral.measures import lipschitz_bound
from keras_spectral.measures.lipschitz_slopes import SLOPES_ON
from tests.measures.lipschitz_balls import inside, outputs, randomized, steepest


@pytest.fixture(autouse=True)
def in_float64():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(before)


def _weights(x):
    return ops.reshape(x, (-1, 3, 2))


HUNDRED = np.full((1, 4), 100.0)
PRODUCTS = {
    "a gate that sums pixels": (
        (4, 4, 2),
        lambda x: ops.einsum(
            "bhwc,bc->bc", x, kl.Dense(2, "sigmoid")(kl.GlobalAveragePooling2D()(x))
        ),
    ),
    "a matrix summed first": (
        (6,),
        lambda x: ops.einsum("bi,bjk->bk", x, _weights(x)),
    ),
    "a pixel by their sum": (
        (4, 4, 2),
        lambda x: ops.einsum("bhwc,bc->bc", x, x[:, 0, 0]),
    ),
    "both summed first": ((3, 2), lambda x: ops.einsum("bij,bkl->bi", x, x)),
    "a diagonal": ((3, 3), lambda x: ops.einsum("bii,bij->bj", x, x)),
    "an axis of one": ((1, 3), lambda x: ops.einsum("bij,bkj->bik", x, x)),
    "an outer product": ((3,), lambda x: ops.einsum("bi,bj->bij", x, x)),
    "a constant, too": ((4,), lambda x: kl.Multiply()([x, x, HUNDRED])),
    "a constant of einsum": (
        (4,),
        lambda x: ops.einsum("bi,bi,i->bi", x, x, HUNDRED[0]),
    ),
    "an average with a constant": (
        (4,),
        lambda x: kl.Subtract()([x, kl.Average()([x, x, HUNDRED])]),
    ),
    "constants beside": (
        (4,),
        lambda x: ops.relu(kl.Concatenate()([x * x, ops.tanh(x), HUNDRED])),
    ),
    "samples summed": ((3,), lambda x: ops.einsum("ac,bc->ac", x, x)),
    "samples mixed": ((3,), lambda x: x[:, None] * x),
}
REFUSED = {
    "a constant, too": "more than two",
    "a constant of einsum": "more than two",
    "an average with a constant": "constants",
    "samples summed": "samples",
    "samples mixed": "samples",
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_branches(name):
    shape, function = PRODUCTS[name]
    x = keras.Input(shape, dtype="float64")
    model = keras.Model(x, function(x))
    center = np.ones((1, *shape))
    if name in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[name]):
            lipschitz_bound(model, center, method="local", input_radius=1e-3)
        return
    points = inside(np.random.default_rng(0), list(center), 1e-3, 6)[0]
    found = lipschitz_bound(model, center, method="local", input_radius=1e-3).bound
    # One by one: constants are of one sample.
    attained = max(steepest(model, [point[None]])[0] for point in points)
    assert attained <= found <= 16 * attained


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e26, 1e30])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_numbers_far_from_one(scale, activation):
    """No product of what is zero with what is infinite makes a network constant."""
    x, beside = (keras.Input((3,), dtype="float64") for _ in range(2))
    y = x
    for _ in range(6):
        y = kl.Dense(3, activation, use_bias=False)(y)
    model = keras.Model([x, beside], y + 0.0 * beside)
    model.set_weights([scale * np.eye(3)] * 6)
    for center in (np.ones((1, 3)), np.zeros((1, 3))):
        given = [center, center]
        found = lipschitz_bound(model, given, method="local", input_radius=0.1)
        assert found.log10_bound == pytest.approx(6 * math.log10(scale), abs=1e-3)


@pytest.mark.parametrize("name", sorted(SLOPES_ON))
def test_of_intervals_that_overflowed_every_slope_is_told(name):
    wide = SLOPES_ON[name](*(np.array([end]) for end in (-1e6, 1e6)))
    for ends in [(np.nan, np.nan), (-np.inf, np.inf), (np.inf, np.inf), (0, np.nan)]:
        least, largest = SLOPES_ON[name](*(np.array([end]) for end in ends))
        if ends[0] != 0:
            assert least <= wide[0] + 1e-9 and largest >= wide[1] - 1e-9
        assert np.isfinite([least, largest]).all()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos3"])
def test_what_interpolates_in_float32(interpolation):
    """A ReLU whose sign float32 cannot tell, and the norm of the Jacobian."""
    x = keras.Input((2, 2, 1), dtype="float64")
    y = kl.UpSampling2D(2, interpolation=interpolation)(x)
    dense = kl.Dense(1, "relu", kernel_initializer="ones")
    model = keras.Model(x, dense(kl.GlobalAveragePooling2D()(y)))
    dense.bias.assign([-0.1])
    center = np.array([[1e8 + 1, -1e8], [0, 0]]).reshape(1, 2, 2, 1)
    found = lipschitz_bound(model, center, method="local", input_radius=1e-3)
    assert found.bound == pytest.approx(0.5, rel=1e-5)
    x = keras.Input((6, 6, 1), dtype="float64")
    y = kl.Conv2D(3, 3)(kl.Conv2D(4, 3, padding="same")(x))
    y = kl.Resizing(7, 9, interpolation=interpolation)(y)
    for seed in range(3):
        model = randomized(keras.Model(x, y), seed)
        units = np.concatenate([np.zeros((1, 36)), np.eye(36)]).reshape(-1, 6, 6, 1)
        made = outputs(model, [units])
        norm = np.linalg.norm(made[1:] - made[0], 2)
        found = lipschitz_bound(model, method="merged").bound
        assert norm <= found <= norm * (1 + 3e-6)
