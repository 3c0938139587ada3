"""Bounds on balls: no pair and no attack exceeds them; exact where nothing bends."""

import keras
import numpy as np
import pytest
from keras import layers as kl
from keras import ops

from keras_spectral.layers.lipschitz_constants import ACTIVATIONS
from keras_spectral.measures import (
    linear_maps,
    lipschitz_bound,
    lipschitz_local,
    lipschitz_maxima,
)
from keras_spectral.measures.lipschitz_slopes import SLOPES_ON
from tests.measures.lipschitz_balls import inside, outputs, randomized, steepest

IMAGE = (6, 6, 3)


@pytest.fixture(autouse=True)
def in_float64():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(before)


def perceptron(activation):
    def make():
        x = keras.Input((7,), dtype="float64")
        y = kl.Dense(12, activation)(x)
        return keras.Model(x, kl.Dense(3)(kl.Dense(9, activation)(y)))

    return make


def residual():
    x = keras.Input(IMAGE, dtype="float64")
    y = kl.Conv2D(4, 3, padding="same")(x)
    z = kl.ReLU()(kl.BatchNormalization()(kl.Conv2D(4, 3, padding="same")(y)))
    y = kl.ReLU(max_value=6.0)(kl.Add()([y, kl.Conv2D(4, 3, padding="same")(z)]))
    y = kl.AveragePooling2D(2)(y) - 0.5 * kl.MaxPooling2D(2)(y)
    return keras.Model(x, kl.Dense(4)(kl.LeakyReLU()(kl.Flatten()(y))))


def large():
    """No matrix of it is formed (see below)."""
    x = keras.Input((8, 8, 6), dtype="float64")
    y = kl.ReLU()(kl.BatchNormalization()(kl.Conv2D(5, 3, strides=2)(x)))
    y = kl.Conv2DTranspose(5, 3, activation="relu")(y)
    y = kl.DepthwiseConv2D(3, padding="same")(kl.UpSampling2D()(y))
    y = kl.SeparableConv2D(6, 3)(kl.LayerNormalization()(y))
    return keras.Model(x, kl.Dense(3, "tanh")(kl.GlobalAveragePooling2D()(y)))


def squeeze_and_excitation():
    x = keras.Input(IMAGE, dtype="float64")
    y = kl.Conv2D(4, 3, padding="same", activation="relu")(x)
    gate = kl.GlobalAveragePooling2D(keepdims=True)(y)
    gate = kl.Dense(4, "sigmoid")(kl.Dense(2, "relu")(gate))
    return keras.Model(x, kl.Dense(3)(kl.Flatten()(kl.Multiply()([y, gate]))))


def pooled():
    x = keras.Input(IMAGE, dtype="float64")
    y = kl.MaxPooling2D(3, 2, "same")(kl.Conv2D(4, 3, activation="gelu")(x))
    y = kl.Concatenate()([y, kl.PReLU()(kl.Conv2D(4, 3, padding="same")(y))])
    y = kl.GroupNormalization(2)(y)
    return keras.Model(x, kl.Dense(3)(kl.GlobalMaxPooling2D()(y)))


def gates():
    x = keras.Input((8,), dtype="float64")
    y = kl.Dense(6)(x) * ops.sigmoid(kl.Dense(6)(x))
    y = kl.UnitNormalization()(kl.RMSNormalization()(kl.LayerNormalization()(y)))
    y = kl.Concatenate()([y, kl.Dot(axes=1)([y, kl.Dense(6, "silu")(x)])])
    return keras.Model(x, kl.Maximum()([kl.Dense(4)(y), kl.Dense(4, "gelu")(y)]))


def two_inputs():
    x, y = (keras.Input((size,), dtype="float64") for size in (4, 3))
    z = kl.Dense(5, "relu")(x) * kl.Dense(5, "softplus")(y)
    return keras.Model([x, y], [kl.Softmax()(z), kl.Dense(2)(kl.Concatenate()([x, y]))])


NETWORKS = {
    **{name: perceptron(name) for name in sorted(ACTIVATIONS)},
    "residual": residual,
    "large": large,
    "pooled": pooled,
    "squeeze and excitation": squeeze_and_excitation,
    "gates": gates,
    "two inputs": two_inputs,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_neither_pairs_nor_slopes_of_a_ball_exceed_it(name, monkeypatch):
    if name == "large":
        for module in (linear_maps, lipschitz_local):
            monkeypatch.setattr(module, "LARGEST_MATRIX", 1)
    model = randomized(NETWORKS[name]())
    rng = np.random.default_rng(1)
    centers = [rng.standard_normal((2, *x.shape[1:])) for x in model.inputs]
    given = centers if len(centers) > 1 else centers[0]
    count = 200 if name in ACTIVATIONS else 60
    for radius in (1e-3, 0.1, 1.0) if name not in ACTIVATIONS else (0.1, 1.0):
        try:
            found = lipschitz_bound(
                model, given, method="local", input_radius=radius
            ).bounds
        except ValueError as error:
            # A ball in which a vector to be normalized may vanish.
            assert name == "gates" and radius >= 0.1 and "unit" in str(error)
            continue
        for at, bound in enumerate(found):
            center = [array[at] for array in centers]
            x, y = (inside(rng, center, radius, count) for _ in range(2))
            moved = np.linalg.norm(outputs(model, x) - outputs(model, y), axis=1)
            apart = [(a - b).reshape(count, -1) for a, b in zip(x, y, strict=True)]
            apart = np.linalg.norm(np.concatenate(apart, axis=1), axis=1)
            assert (moved / apart).max() <= bound
            assert steepest(model, x).max() <= bound * (1 + 1e-9)


@pytest.mark.parametrize("make", [perceptron("relu"), residual, perceptron("relu6")])
def test_where_no_relu_changes_it_is_the_norm_of_the_jacobian(make):
    model = randomized(make())
    x = np.random.default_rng(0).standard_normal((3, *model.input_shape[1:]))
    found = lipschitz_bound(model, x, method="local", input_radius=1e-9).bounds
    # Slopes of LeakyReLU are known to 1e-7.
    near = 1e-6 if make is residual else 1e-8
    assert found == pytest.approx(steepest(model, [x]), rel=near)


def test_it_ends_where_the_bound_for_all_inputs_is():
    model = randomized(perceptron("relu")())
    x = np.random.default_rng(0).standard_normal((1, 7))
    radii = (1e-6, 0.03, 0.3, 3.0, 1e6)
    found = [
        lipschitz_bound(model, x, method="local", input_radius=radius).bound
        for radius in radii
    ]
    assert found == sorted(found)
    merged = lipschitz_bound(model, method="merged").bound
    assert found[-1] == pytest.approx(merged, rel=1e-9) and found[0] < 0.6 * merged


def test_branches_that_meet_again_are_known_together():
    """By the sum of their norms alone, and with pooling, 31 times what is attained."""
    model = randomized(residual())
    x = np.random.default_rng(1).standard_normal((1, *IMAGE))
    points = inside(np.random.default_rng(2), [x[0]], 0.05, 300)
    found = lipschitz_bound(model, x, method="local", input_radius=0.05).bound
    assert found <= 4 * max(steepest(model, points))


@pytest.mark.parametrize("first", [False, True])
def test_windows_of_maxima(first):
    """Their places, and counts of how often one may win, beside the layer itself."""
    rng = np.random.default_rng(0)
    shape = (2, 7, 6) if first else (7, 6, 2)
    for layer in [
        kl.MaxPooling2D(3, 2, "same", "channels_first" if first else None),
        kl.MaxPooling2D((2, 3), 1, "valid", "channels_first" if first else None),
        kl.GlobalMaxPooling2D("channels_first" if first else None),
    ]:
        x = rng.standard_normal(shape)
        images = np.moveaxis(x, 0, -1) if first else x
        last = type(layer).from_config(
            {**layer.get_config(), "data_format": "channels_last"}
        )
        made = ops.convert_to_numpy(last(images[None]))[0]
        made = np.moveaxis(made, -1, 0) if first else made
        places = lipschitz_maxima.windows(layer, shape, made.shape)
        values = np.append(x, -np.inf)[places]
        np.testing.assert_array_equal(values.max(0), made.reshape(-1))


def test_layer_normalization_by_the_variance_that_is_there():
    x = keras.Input((50,), dtype="float64")
    model = keras.Model(x, kl.LayerNormalization()(x))
    data = np.random.default_rng(0).standard_normal((1, 50))
    deviation = data.std()
    for radius in (1e-6, 0.5):
        found = lipschitz_bound(model, data, method="local", input_radius=radius)
        least = deviation - radius / 50**0.5
        assert found.bound == pytest.approx((least**2 + 1e-3) ** -0.5, rel=1e-6)
    assert lipschitz_bound(model).bound == pytest.approx(1e3**0.5)


@pytest.mark.parametrize("name", sorted(SLOPES_ON))
def test_slopes_on_intervals(name):
    """No two points of an interval have a slope outside of what is told."""
    function = keras.activations.get(name)
    rng = np.random.default_rng(0)
    low = rng.uniform(-8, 8, 3000)
    high = low + rng.choice([1e-3, 0.3, 2.0, 20.0], 3000)
    least, largest = SLOPES_ON[name](low, high)
    for _ in range(20):
        a, b = np.sort(rng.uniform(low, high, (2, 3000)), axis=0)
        a = np.where(rng.uniform(size=3000) < 0.3, low, a)
        rise = (ops.convert_to_numpy(function(x)) for x in (a, b))
        rise = -np.subtract(*rise)
        rounding = 1e-14 * (1 + np.abs(a) + np.abs(b))
        assert (rise >= least * (b - a) - rounding).all()
        assert (rise <= largest * (b - a) + rounding).all()
    # And they are not idle: some intervals have less than the whole range.
    assert largest.min() < largest.max() or name == "linear"


def test_what_it_needs():
    model = randomized(perceptron("relu")())
    x = np.zeros((2, 7))
    for arguments, match in [
        (dict(method="local"), "`inputs` and `input_radius`"),
        (dict(inputs=x, method="local"), "`inputs` and `input_radius`"),
        (dict(inputs=x), "`inputs` and `input_radius` are for"),
        (dict(inputs=x, method="local", input_radius=-1.0), "`input_radius`"),
        (dict(inputs=x[:, :4], method="local", input_radius=1.0), "`inputs` must be"),
        (dict(inputs=x[:0], method="local", input_radius=1.0), "`inputs` must be"),
        (dict(inputs=x * np.nan, method="local", input_radius=1.0), "finite"),
    ]:
        with pytest.raises(ValueError, match=match):
            lipschitz_bound(model, **arguments)
    x = keras.Input((4, 6))
    y = kl.MultiHeadAttention(2, 3, name="attention")(x, x)
    y = kl.ReLU(threshold=0.1, name="jump")(kl.Lambda(ops.square, name="square")(y))
    with pytest.raises(ValueError) as caught:
        lipschitz_bound(
            keras.Model(x, y), np.ones((1, 4, 6)), method="local", input_radius=0.1
        )
    for name in ("attention", "square", "jump"):
        assert f"'{name}'" in str(caught.value)


def test_biases_and_activations_of_a_shared_layer_stay():
    """The centers are computed by layers whose linear parts are looked at besides."""
    shared = kl.Dense(5, "relu")
    x = keras.Input((5,), dtype="float64")
    model = randomized(keras.Model(x, shared(shared(x))))
    data = np.random.default_rng(0).standard_normal((2, 5))
    found = lipschitz_bound(model, data, method="local", input_radius=1e-9).bounds
    assert found == pytest.approx(steepest(model, [data]), rel=1e-8)
    assert found == pytest.approx(
        lipschitz_bound(model, data, method="local", input_radius=1e-9).bounds
    )
