"""What `lipschitz_bound` refuses, and that it changes nothing of the user's."""

import random

import keras
import numpy as np
import pytest
from keras import layers as kl
from keras import ops

from keras_spectral.measures import layer_calls, lipschitz_bound


def test_what_has_no_bound_is_refused_all_at_once():
    x = keras.Input((4, 6))
    y = kl.MultiHeadAttention(2, 3, name="attention")(x, x)
    y = kl.Multiply(name="gate")([y, kl.Dense(6, "sigmoid")(x)])
    y = kl.UnitNormalization(name="unit")(kl.Lambda(lambda z: z**2, name="square")(y))
    model = keras.Model(x, kl.ReLU(threshold=0.1, name="jump")(y))
    with pytest.raises(ValueError) as caught:
        lipschitz_bound(model)
    for name in ("attention", "gate", "unit", "square", "jump"):
        assert f"'{name}'" in str(caught.value)


@pytest.mark.parametrize("method", ["product", "merged"])
def test_bad_input(method):
    dense = kl.Dense(3)
    with pytest.raises(ValueError, match="`model`"):
        lipschitz_bound(keras.Sequential([dense]), method=method)
    model = keras.Sequential([keras.Input((4,)), dense])
    dense.set_weights([np.full((4, 3), np.nan), np.zeros(3)])
    with pytest.raises(ValueError, match="`model` must have finite weights"):
        lipschitz_bound(model, method=method)
    images = keras.Sequential([keras.Input((None, None, 1)), kl.Conv2D(2, 3)])
    with pytest.raises(ValueError, match="`input_shape` must be given"):
        lipschitz_bound(images, method=method)
    with pytest.raises(ValueError, match="`input_shape` must fit"):
        lipschitz_bound(images, input_shape=(5, 5, 2), method=method)
    assert lipschitz_bound(images, input_shape=(5, 5, 1), method=method).bound > 0
    for shape in (4, "551", (5, 5, "1"), [5.5, 5, 1], (-1, 5, 1), [4, (5, 5, 1)]):
        with pytest.raises(ValueError, match="`input_shape` must fit"):
            lipschitz_bound(images, input_shape=shape, method=method)
    with pytest.raises(ValueError, match="`method`"):
        lipschitz_bound(images, method="sampled")


def relu(x):
    return 5 * x


class Add(kl.Layer):
    def call(self, inputs):
        return 5 * (inputs[0] + inputs[1])

    def compute_output_shape(self, shapes):
        return shapes[0]


class Scaled(keras.Sequential):
    def call(self, inputs, **kwargs):
        return 5 * super().call(inputs, **kwargs)


def test_what_only_has_a_name_of_keras_is_not_taken_for_it():
    x = keras.Input((4,))
    for make, match in [
        (lambda: kl.Dense(4, relu, kernel_initializer="identity")(x), "relu"),
        (lambda: kl.Activation(relu)(x), "relu"),
        (lambda: Add(name="fivefold")([x, x]), "fivefold"),
        (lambda: Scaled([keras.Input((4,)), kl.Dense(4)], name="five")(x), "five"),
        (lambda: kl.BatchNormalization(name="live")(x, training=True), "live"),
        (lambda: kl.LayerNormalization(rms_scaling=True, name="rms")(x), "rms"),
        (lambda: ops.maximum(x[:, :1], -np.ones((1, 4))), "repeats"),
        (lambda: ops.celu(x, alpha=-1.0), "alpha"),
        (lambda: ops.elu(x, alpha=float("nan")), "alpha"),
        (lambda: kl.Softmax(axis=0)(x), "samples"),
    ]:
        with pytest.raises(ValueError, match=match):
            lipschitz_bound(keras.Model(x, make()))


ARGUMENTS = {
    keras.activations.relu: [
        dict(threshold=1.0),
        dict(threshold=-1.0, negative_slope=0.5),
        dict(max_value=2.0, negative_slope=-3.0),
        dict(max_value=-1.0),
    ],
    ops.leaky_relu: [dict(negative_slope=s) for s in (-2.0, 0.5, 3.0)],
    ops.elu: [dict(alpha=a) for a in (-2.0, 0.5, 3.0)],
    ops.celu: [dict(alpha=a) for a in (-2.0, 0.0, 0.5, 3.0)],
    ops.gelu: [dict(approximate=a) for a in (False, True)],
    ops.soft_shrink: [dict(threshold=t) for t in (-1.0, 0.0, 2.0)],
    ops.hard_shrink: [dict(threshold=1.0)],
    ops.threshold: [dict(threshold=1.0, default_value=5.0)],
    ops.squareplus: [dict(b=b) for b in (-1, 0, 3.0)],
}


@pytest.mark.parametrize("function", ARGUMENTS, ids=lambda f: f.__name__)
def test_no_argument_makes_a_slope_larger_than_what_is_told(function):
    points = np.linspace(-5, 5, 4001)
    x = keras.Input((2,), dtype="float64")
    for arguments in ARGUMENTS[function]:
        rises = np.diff(ops.convert_to_numpy(function(points, **arguments)))
        largest = np.abs(rises).max() / (points[1] - points[0])
        try:
            found = lipschitz_bound(keras.Model(x, function(x, **arguments))).bound
        except ValueError as error:
            assert "known and finite" in str(error) and not largest < 10
        else:
            assert largest <= found * (1 + 1e-9), arguments


def test_a_large_offset_swallows_nothing():
    x = keras.Input((3,), dtype="float64")
    assert lipschitz_bound(keras.Model(x, 3.0 * x + 1e17)).bound == pytest.approx(3)


def test_samples_stay_apart():
    x = keras.Input((4,))
    for make in (lambda: ops.flip(x, axis=0), lambda: ops.reshape(x, (-1, 2))):
        with pytest.raises(ValueError, match="samples"):
            lipschitz_bound(keras.Model(x, make()))


def test_nothing_of_the_users_changes():
    model = keras.Sequential([keras.Input((4,)), kl.Dense(3, "relu")])
    random.seed(0)
    expected = random.random()
    random.seed(0)
    lipschitz_bound(model)
    assert random.random() == expected
    assert model.layers[0].activation is keras.activations.relu


def test_the_wrapper_of_keras_has_the_kernel_that_stands():
    dense = kl.Dense(3, "sigmoid", use_bias=False)
    model = keras.Sequential([keras.Input((4,)), kl.SpectralNormalization(dense)])
    kernel = np.random.default_rng(0).standard_normal((4, 3)).astype("float32")
    dense.kernel.assign(kernel)
    expected = np.linalg.norm(kernel.astype("float64"), 2) / 4
    assert lipschitz_bound(model).bound == pytest.approx(expected, rel=1e-12)


class Halves(keras.initializers.Initializer):
    def __call__(self, shape, dtype=None):
        return ops.full(shape, 0.5, dtype)


class Kept(keras.constraints.Constraint):
    def __call__(self, w):
        return w


def fivefold(x):
    return 5 * x


def test_what_only_trains_need_not_be_registered():
    """Objects of the user's own, which Keras cannot make again from their config."""
    arguments = dict(kernel_initializer=Halves(), kernel_constraint=Kept())
    dense = kl.Dense(3, kernel_regularizer=ops.sum, **arguments)
    model = keras.Sequential([keras.Input((4,)), dense, kl.PReLU(Halves())])
    assert lipschitz_bound(model).bound == pytest.approx(12**0.5 / 2)
    for layer in (kl.Dense(4, fivefold), kl.Activation(fivefold)):
        with pytest.raises(ValueError, match="fivefold is not known"):
            lipschitz_bound(keras.Sequential([keras.Input((4,)), layer]))


def test_a_variance_of_zero_is_named():
    dead = kl.BatchNormalization(epsilon=0.0, name="dead")
    model = keras.Sequential([keras.Input((3,)), dead])
    dead.moving_variance.assign(np.array([1.0, 0.0, 1.0]))
    with pytest.raises(ValueError, match="'dead'.*variance of zero"):
        lipschitz_bound(model)


def test_shapes_and_names_as_users_write_them():
    images = keras.Sequential([keras.Input((None, None, 1)), kl.Conv2D(2, 3)])
    for shape in ([5, 5, 1], (5, 5, 1), [(5, 5, 1)]):
        assert lipschitz_bound(images, input_shape=shape).bound > 0
    x = keras.Input((4,))
    for y, expected in [(ops.relu(x), 1.0), (ops.leaky_relu(x, 3.0), 3.0)]:
        assert lipschitz_bound(keras.Model(x, y)).bound == pytest.approx(expected)


def test_large_images_are_looked_at_in_parts(monkeypatch):
    """Not one image a pixel of an axis at once."""
    seen = []
    run = layer_calls.stepwise

    def counted(layer, x):
        seen.append(x.size)
        return run(layer, x)

    monkeypatch.setattr(layer_calls, "stepwise", counted)
    layer = kl.AveragePooling2D(2)
    model = keras.Sequential([keras.Input((400, 300, 1)), layer])
    assert lipschitz_bound(model).bound == pytest.approx(0.5)
    assert 1 < len(seen) and max(seen) <= 2**22
