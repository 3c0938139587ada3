"""Radii by hand, brute force and attacks; what is refused."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl

from keras_spectral.layers import AlmostOrthogonal, GroupSort, SpectralNormalization
from keras_spectral.measures import certified_radii, certify, lipschitz_bound

LOGITS = [[3.0, 1.0, 0.5], [0.2, 0.1, 0.0], [1.0, 2.0, 0.0]]
DATA = np.random.default_rng(1).standard_normal((60, 6))


def classifier(*layers, shape=(6,)):
    return keras.Sequential([keras.Input(shape), *layers])


def random_classifier(classes=3):
    model = classifier(kl.Dense(8, "relu"), kl.Dense(8, "tanh"), kl.Dense(classes))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.standard_normal(weight.shape) / (3 - len(weight.shape)))
    return model


def predictions(model, x=DATA):
    logits = model.predict(x, verbose=0)
    return (
        logits.argmax(1) if logits.shape[1] > 1 else (logits[:, 0] > 0).astype("int64")
    )


def test_the_vector_of_the_facts():
    found = certified_radii(LOGITS, [0, 0, 0], 2.0)
    np.testing.assert_allclose(
        found, [0.70710678, 0.03535534, -0.35355339], rtol=0, atol=5e-9
    )
    assert (found > 36 / 255).mean() == pytest.approx(1 / 3)


def test_the_runner_up_need_not_decide():
    pairs = np.array([[0, 1, 10], [1, 0, 10], [10, 10, 0.0]])
    # Class 1 is next, but the margin to class 2 moves ten times as fast.
    assert certified_radii([[3.0, 1.0, 0.5]], [0], pairs) == [0.25]


@pytest.mark.parametrize(
    ("logits", "expected"), [([1.0, 0.0], np.inf), ([0.0, 1.0], -np.inf), ([1, 1], 0.0)]
)
def test_a_margin_that_nothing_moves(logits, expected):
    assert certified_radii([logits], [0], 0.0) == [expected]


def test_a_linear_classifier_has_its_distance_to_the_boundary():
    model = classifier(kl.Dense(4))
    kernel, bias = np.random.default_rng(0).standard_normal((2, 6, 4))
    model.set_weights([kernel, bias[0]])
    kernel, bias = (w.astype("float32").astype("float64") for w in (kernel, bias[0]))
    logits = DATA @ kernel + bias
    labels = logits.argmax(1)
    found = certify(model, DATA, labels)
    expected = [
        min(
            (row[y] - row[j]) / np.linalg.norm(kernel[:, y] - kernel[:, j])
            for j in range(4)
            if j != y
        )
        for row, y in zip(logits, labels, strict=True)
    ]
    np.testing.assert_allclose(found.sample_radii, expected, rtol=1e-10)
    # In other units the same pixels have other radii; half of the labels are wrong.
    halves = certify(model, DATA, labels, pixel_scale=2.0)
    np.testing.assert_allclose(halves.sample_radii, found.sample_radii / 2)
    wrong = certify(model, DATA, np.where(np.arange(60) < 30, labels, 3 - labels))
    assert wrong.accuracy == (np.arange(60) < 30).mean()
    assert (wrong.sample_radii[30:] < 0).all()


def test_rows_count_strictly_and_tell_their_unit():
    model = classifier(kl.Dense(2, kernel_initializer="identity"), shape=(2,))
    # Margin 1 over |w_0 - w_1| = sqrt(2), of one sample exactly at the radius.
    x = np.array([[1.0, 0.0], [0.5, 0.0], [0.0, 0.0]])
    exact = 1 / math.sqrt(2)
    found = certify(model, x, [0, 0, 0], [exact, exact / 2 - 1e-9], pixel_scale=1)
    assert [row.samples for row in found] == [0, 2]
    assert found.accuracy == pytest.approx(2 / 3)
    assert found[1].certified_accuracy == pytest.approx(2 / 3)
    printed = str(certify(model, x, [0, 0, 0], pixel_scale=2.0))
    assert "66.67%" in printed and "108" in printed and "by 2." in printed


@pytest.mark.parametrize("method", ["product", "merged"])
def test_what_the_radii_stand_on(method):
    model = random_classifier()
    labels = predictions(model)
    found = certify(model, DATA, labels, method=method)
    hidden = lipschitz_bound(keras.Model(model.inputs, model.layers[-1].input))
    whole = lipschitz_bound(model, method=method).bound
    if method == "product":
        assert found.lipschitz_constant == pytest.approx(hidden.bound)
    logits = model.predict(DATA, verbose=0)
    alone = certified_radii(logits, labels, whole)
    assert (found.sample_radii >= alone * (1 - 1e-5)).all()
    assert (found.sample_radii > alone * 1.01).any()


def attacked(model, x, labels, radii, steps=40):
    """Search each ball for a point of another class, by ascent of the margin's loss."""
    x = tf.constant(x, "float64")
    radii = tf.constant(radii, "float64")[:, None]
    best = tf.zeros(len(x), "bool")
    moved = x
    for step in range(steps):
        with tf.GradientTape() as tape:
            tape.watch(moved)
            logits = model(moved)
            loss = keras.losses.sparse_categorical_crossentropy(
                labels, 5 * logits, from_logits=True
            )
        best |= tf.argmax(logits, 1) != labels
        ascent = tape.gradient(loss, moved)
        ascent /= tf.norm(ascent, axis=1, keepdims=True) + 1e-30
        change = moved + ascent * radii / (1 + step / 4) - x
        moved = x + change * tf.minimum(1.0, radii / tf.norm(change, axis=1)[:, None])
    return best.numpy()


def test_no_attack_inside_of_a_radius_succeeds(float64):
    model = random_classifier()
    labels = predictions(model)
    found = certify(model, DATA, labels).sample_radii
    assert (found > 0).all()
    assert not attacked(model, DATA, labels, found * (1 - 1e-9)).any()
    # The attack is one: not far outside it wins.
    assert attacked(model, DATA, labels, found * 20).mean() > 0.5


def test_one_logit_is_its_distance_over_the_bound():
    model = random_classifier(1)
    labels = predictions(model)
    found = certify(model, DATA, labels).sample_radii
    z = model.predict(DATA, verbose=0)[:, 0].astype("float64")
    bound = lipschitz_bound(model, method="merged").bound
    np.testing.assert_allclose(found, abs(z) / bound, rtol=1e-4, atol=1e-6)
    other = certify(model, DATA, 1 - labels)
    np.testing.assert_array_equal(other.sample_radii, -found)


def test_wrappers_count_with_what_they_compute_with():
    layers = [
        AlmostOrthogonal(kl.Dense(8)),
        GroupSort(),
        SpectralNormalization(kl.Dense(3), bound=2.0),
    ]
    model = classifier(*layers)
    model.layers[0].kernel.assign(100 * np.eye(6, 8))
    found = certify(model, DATA, predictions(model))
    assert found.lipschitz_constant == pytest.approx(1.0, abs=1e-6)


def test_what_a_wrapper_knows_of_a_large_layer_is_kept():
    layers = [AlmostOrthogonal(kl.Conv2D(8, 4, strides=4)), kl.Flatten(), kl.Dense(2)]
    model = classifier(*layers, shape=(64, 64, 8))
    model.layers[0].kernel.assign(np.ones((4, 4, 8, 8)))
    # By its kernel alone a stride is not seen: 4 times as much.
    found = certify(model, np.zeros((1, 64, 64, 8)), [0])
    assert found.lipschitz_constant == pytest.approx(1, abs=1e-4)


def shared(head):
    inputs = keras.Input((6,))
    inner = keras.Sequential([keras.Input((6,)), kl.Dense(6, "relu"), head])
    return inputs, inner


def test_where_the_last_layer_is():
    head = kl.Dense(6, name="head")
    inputs, inner = shared(head)
    nested = keras.Model(inputs, kl.Dropout(0.5)(inner(inputs)))
    labels = predictions(nested)
    assert "before 'head'" in certify(nested, DATA, labels).caption
    # Used twice, the network before it is not one without it.
    twice = keras.Model(inputs, inner(inner(inputs)))
    assert "of the logits" in certify(twice, DATA, labels).caption
    squashed = classifier(kl.Dense(3), kl.Activation("tanh"))
    assert "of the logits" in certify(squashed, DATA, labels % 3).caption
    # A head on the input itself.
    linear = certify(classifier(kl.Dense(3)), DATA, labels % 3)
    assert linear.lipschitz_constant == pytest.approx(1.0)


def test_batches_are_as_good_as_arrays():
    model = random_classifier()
    labels = predictions(model)
    whole = certify(model, DATA, labels)
    dataset = tf.data.Dataset.from_tensor_slices((DATA, labels)).batch(7)
    for found in (
        certify(model, dataset),
        certify(model, DATA, labels[:, None], batch_size=11),
        certify(model, tf.constant(DATA), list(labels)),
    ):
        np.testing.assert_allclose(found.sample_radii, whole.sample_radii)


def ending(activation):
    return lambda: classifier(kl.Dense(3, activation))


REFUSED = {
    "softmax": (ending("softmax"), {}, "must end in logits.*softmax"),
    "a softmax layer": (
        lambda: classifier(kl.Dense(3), kl.Softmax()),
        {},
        "must end in logits.*from_logits=True",
    ),
    "an activation layer": (
        lambda: classifier(kl.Dense(1), kl.Activation("sigmoid")),
        {},
        "must end in logits.*sigmoid",
    ),
    "an operation": (
        lambda: keras.Model(x := keras.Input((6,)), keras.ops.softmax(kl.Dense(3)(x))),
        {},
        "must end in logits",
    ),
    "softmax, passed on": (
        lambda: classifier(kl.Dense(3, "softmax"), kl.Identity()),
        {},
        "must end in logits",
    ),
    "images": (
        lambda: classifier(kl.Conv2D(3, 1), shape=(2, 2, 1)),
        {},
        r"\(samples, classes\)",
    ),
    "no bound": (
        lambda: classifier(kl.UnitNormalization(), kl.Dense(3)),
        {},
        "Lipschitz constant is known",
    ),
    "training mode": (
        lambda: keras.Model(
            x := keras.Input((6,)),
            kl.Dense(3)(kl.BatchNormalization(name="live")(x, training=True)),
        ),
        {},
        "'live' with `training=True`",
    ),
    "not built": (lambda: keras.Sequential([kl.Dense(3)]), {}, "must be built"),
    "other shapes": (None, {"x": DATA[:, :5]}, r"must hold samples of shape \(6,\)"),
    "NaN": (None, {"x": DATA * np.nan}, "`x` must hold finite"),
    "no data": (None, {"x": DATA[:0], "y": []}, "at least one sample"),
    "no labels": (None, {"y": None}, "`y` must be the labels"),
    "too few labels": (None, {"y": [0, 1]}, "one label for each of 60"),
    "labels out of range": (None, {"y": np.full(60, 3)}, "classes from 0 to 2"),
    "labels below": (None, {"y": np.full(60, -1)}, "classes from 0 to 2"),
    "labels as numbers": (None, {"y": np.full(60, 0.5)}, "must be integers"),
    "no radii": (None, {"radii": []}, "`radii` must have"),
    "a radius of zero": (None, {"radii": [0.1, 0]}, "`radii` must be a positive"),
    "no scale": (None, {"pixel_scale": 0}, "`pixel_scale` must be"),
    "another method": (None, {"method": "sampled"}, "`method` must be one of"),
    "batches of inputs alone": (
        None,
        {"x": iter([DATA]), "y": None},
        r"yield pairs \(x, y\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    make, arguments, message = REFUSED[case]
    model = (make or random_classifier)()
    arguments = {"x": DATA, "y": np.zeros(60, int), **arguments}
    with pytest.raises(ValueError, match=message):
        certify(model, **arguments)


@pytest.mark.parametrize("constants", [-1.0, np.ones((2, 2)), np.nan])
def test_constants_that_are_none(constants):
    with pytest.raises(ValueError, match="`constants` must be"):
        certified_radii(LOGITS, [0, 0, 0], constants)


def test_weights_that_are_not_finite():
    model = random_classifier()
    model.layers[0].kernel.assign(np.full((6, 8), np.nan))
    with pytest.raises(ValueError, match="finite weights"):
        certify(model, DATA, np.zeros(60, int))
