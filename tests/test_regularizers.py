import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_spectral import regularizers
from tests.layers.reference import finite_differences
from tests.linalg.reference import (
    gradient,
    relative_error,
    slope_by_differences,
    with_spectrum,
)
from tests.serialization import check_keras_makes_an_equal

CASES = {
    "spectral norm": regularizers.SpectralNorm(0.3),
    "frobenius": regularizers.Frobenius(0.3),
    "orthonormal": regularizers.Orthonormal(0.3),
    "brock": regularizers.Orthonormal(0.3, diagonal=False),
    "stable rank": regularizers.StableRank(0.3),
    "d-optimal": regularizers.DOptimal(0.3),
    "divergence": regularizers.Divergence(0.3, width=0.6),
}


def reference(name, kernel, axis=-1):
    """The definitions in NumPy, by the SVD."""
    kernel = np.moveaxis(kernel, axis, -1)
    matrix = kernel.reshape(-1, kernel.shape[-1])
    s = np.linalg.svd(matrix, compute_uv=False)
    if name == "spectral norm":
        return 0.3 * s[0] ** 2 / 2
    if name == "frobenius":
        return 0.3 * (s**2).sum()
    if name == "stable rank":
        return 0.3 * (s**2).sum() / s[0] ** 2
    if name == "d-optimal":
        return -0.3 * np.log(s / s[0]).sum()
    if name == "divergence":
        r = s / s[0]
        terms = ((1 - r[1:]) / 0.6) ** 2 - np.log(r[:-1] - r[1:])
        return 0.3 * terms.mean()
    if name == "orthonormal":
        return 0.3 * ((s**2 - 1) ** 2).sum()
    smaller = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    gram = smaller @ smaller.T
    return 0.3 * ((gram - np.diag(np.diag(gram))) ** 2).sum()


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (3, 2, 2, 4)])
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient(rng, name, shape):
    kernel = rng.standard_normal(shape)
    variable = tf.Variable(kernel)
    with tf.GradientTape() as tape:
        value = CASES[name](variable)
    assert float(value) == pytest.approx(reference(name, kernel), rel=1e-10)
    # Of values of some hundreds a smaller step leaves their rounding.
    expected = finite_differences(lambda x: reference(name, x), kernel, step=1e-5)
    np.testing.assert_allclose(tape.gradient(value, variable), expected, atol=1e-7)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", ["SpectralNorm", "StableRank"])
def test_second_derivatives_of_the_largest_value_count_its_vectors(rng, name, compiled):
    regularizer = getattr(regularizers, name)(1.0)
    kernel = with_spectrum(rng, (6, 4), [2.0, 1.5, 1.0, 0.5])

    def squared_slope(kernel):
        u, s, vt = np.linalg.svd(kernel, full_matrices=False)
        lead = s[0] * np.outer(u[:, 0], vt[0])
        if name == "SpectralNorm":
            return (lead**2).sum()
        ratio = (s**2).sum() / s[0] ** 2
        return ((2 * (kernel - ratio * lead) / s[0] ** 2) ** 2).sum()

    def squared(w):
        with tf.GradientTape() as tape:
            tape.watch(w)
            value = regularizer(w)
        return tf.reduce_sum(tape.gradient(value, w) ** 2)

    found = gradient(squared, kernel, compiled=compiled)
    expected = slope_by_differences(squared_slope, kernel)
    assert relative_error(found, expected) <= 1e-6


@pytest.mark.parametrize("name", CASES)
def test_repeated_singular_values_and_zero_have_finite_gradients(name):
    for kernel in (np.eye(4), np.zeros((4, 3)), np.ones((4, 3))):
        variable = tf.Variable(kernel.astype("float32"))
        with tf.GradientTape() as tape:
            value = CASES[name](variable)
        assert np.isfinite(value)
        assert np.isfinite(tape.gradient(value, variable)).all()


@pytest.mark.parametrize("name", CASES)
def test_gradient_is_torchs(rng, name):
    """Autodiff of the definitions through `torch.linalg.svdvals`, in float64."""
    kernel = rng.standard_normal((6, 4))
    weight = torch.tensor(kernel, requires_grad=True)
    s = torch.linalg.svdvals(weight)
    gram = weight.T @ weight
    {
        "spectral norm": lambda: s[0] ** 2 / 2,
        "frobenius": lambda: (s**2).sum(),
        "orthonormal": lambda: ((gram - torch.eye(4)) ** 2).sum(),
        "brock": lambda: ((gram * (1 - torch.eye(4))) ** 2).sum(),
        "stable rank": lambda: (s**2).sum() / s[0] ** 2,
        "d-optimal": lambda: 4 * s[0].log() - torch.logdet(gram) / 2,
        "divergence": lambda: (
            ((1 - s[1:] / s[0]) / 0.6) ** 2 - ((s[:-1] - s[1:]) / s[0]).log()
        ).mean(),
    }[name]().backward()
    variable = tf.Variable(kernel)
    with tf.GradientTape() as tape:
        value = CASES[name](variable)
    expected = 0.3 * weight.grad.numpy()
    np.testing.assert_allclose(tape.gradient(value, variable), expected, atol=1e-12)


def test_the_spectrum_that_a_divergence_draws_to():
    """Spacings of draws from its density cost less than those of other densities.

    Twenty thousand draws; the constant is that of the one-spacing estimate of
    entropy, log n + Euler's, and the density's normalization.
    """
    width, count = 0.3, 20_000
    draws = 1 - np.abs(np.random.default_rng(0).standard_normal(count)) * (
        width / np.sqrt(2)
    )
    draws = draws[draws > 0]
    value = float(regularizers.Divergence(1.0, width, 1e-12)(draws / draws.max()))
    # erf(1 / width) is 1 to six digits: nothing of the density is below zero.
    normalization = width * np.sqrt(np.pi) / 2
    divergence = value - np.log(len(draws)) - np.euler_gamma + np.log(normalization)
    assert divergence == pytest.approx(0, abs=0.03)
    for other in (0.2, 0.45):
        assert (
            float(
                regularizers.Divergence(1.0, width, 1e-12)(
                    1 - (1 - draws) * other / width
                )
            )
            > value + 0.1
        )


@given(st.floats(-30, 30), st.integers(0, 2**32 - 1), st.sampled_from(["qr", "scale"]))
@settings(max_examples=20, deadline=None)
def test_invariances(exponent, seed, kind):
    """Rotations leave all but Brock's alone, factors those of the ratios."""
    rng = np.random.default_rng(seed)
    kernel = rng.standard_normal((5, 4)).astype("float32")
    other = np.linalg.qr(rng.standard_normal((5, 5)))[0].astype("float32") @ kernel
    # A factor that is exact keeps the ratios of the singular values.
    scaled = kernel * np.float32(2.0 ** int(3 * exponent))
    for name, regularizer in CASES.items():
        changed = other if kind == "qr" else scaled
        if kind == "scale" and name not in ("stable rank", "d-optimal", "divergence"):
            continue
        if kind == "qr" and name == "brock":
            continue
        expected = reference(name, kernel.astype("float64"))
        value = float(regularizer(tf.constant(changed)))
        # Spacings may be small: their logarithms amplify rounding.
        tolerance = 1e-2 if name == "divergence" else 1e-3
        assert value == pytest.approx(expected, rel=tolerance, abs=tolerance)


def test_gradient_at_repeated_values_against_torch_log_determinant():
    kernel = np.diag([2.0, 2.0, 1.0])
    weight = torch.tensor(kernel, requires_grad=True)
    # -log det(W) + 3 log s_1, of which torch gives the first.
    (-torch.logdet(weight)).backward()
    variable = tf.Variable(kernel)
    with tf.GradientTape() as tape:
        value = regularizers.DOptimal(1.0)(variable)
    # d log s_1: any vector of the leading pair; its trace is 1 / s_1.
    difference = tape.gradient(value, variable).numpy() - weight.grad.numpy()
    assert np.trace(difference) == pytest.approx(3 / 2.0)


@pytest.mark.parametrize("name", CASES)
def test_transposed_convolutions_name_their_axis(rng, name):
    regularizer = type(CASES[name]).from_config(
        {**CASES[name].get_config(), "output_axis": -2}
    )
    kernel = rng.standard_normal((3, 2, 4, 5))
    value = float(regularizer(tf.constant(kernel)))
    assert value == pytest.approx(reference(name, kernel, axis=-2), rel=1e-10)


def nothing(y_true, y_pred):
    return 0.0 * keras.ops.mean(y_pred)


@pytest.mark.parametrize("name", CASES)
def test_saved_with_a_model_and_lowered_by_training(name, tmp_path, rng):
    head = keras.layers.Dense(4, kernel_regularizer=CASES[name])
    model = keras.Sequential([keras.Input((8,)), head])
    model.compile(keras.optimizers.SGD(0.05), nothing)
    before = float(model.losses[0])
    model.fit(rng.standard_normal((8, 8)), np.zeros((8, 4)), epochs=20, verbose=0)
    assert float(model.losses[0]) < before
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    assert float(loaded.losses[0]) == pytest.approx(float(model.losses[0]), rel=1e-6)


def test_half_precision_is_computed_in_float32(rng):
    kernel = (300 * rng.standard_normal((4, 3))).astype("float16")
    for name, regularizer in CASES.items():
        value = regularizer(tf.constant(kernel))
        assert value.dtype == "float32"
        expected = reference(name, kernel.astype("float64"))
        assert float(value) == pytest.approx(expected, rel=1e-4)


def test_d_optimal_of_a_spectrum():
    spectrum = tf.Variable([-4.0, 2.0, 0.0], dtype="float64")
    with tf.GradientTape() as tape:
        value = regularizers.DOptimal(2.0, epsilon=1e-3)(spectrum)
    assert float(value) == pytest.approx(-2 * (np.log(0.5) + np.log(1e-3)))
    # -1/e_i, and for the largest the number of the others that count.
    gradient = tape.gradient(value, spectrum).numpy()
    np.testing.assert_allclose(gradient, [-2 * 1 / 4.0, -2 * 1 / 2.0, 0.0], atol=1e-12)


@pytest.mark.parametrize(
    "arguments, match",
    [
        (dict(factor=0), "`factor`"),
        (dict(factor=1, output_axis=0), "`output_axis`"),
        (dict(factor=1, diagonal=2), "`diagonal`"),
        (dict(factor=1, epsilon=0), "`epsilon`"),
        (dict(factor=1, width=-1), "`width`"),
    ],
)
def test_bad_arguments(arguments, match):
    make = regularizers.Orthonormal
    if arguments.keys() & {"epsilon", "width"}:
        make = regularizers.Divergence
    with pytest.raises(ValueError, match=match):
        make(**arguments)
    with pytest.raises(ValueError, match="at least two axes"):
        regularizers.Orthonormal(1.0)(tf.zeros((3,)))


@pytest.mark.parametrize(
    "regularizer",
    [
        regularizers.SpectralNorm(0.5, -2),
        regularizers.Frobenius(0.5),
        regularizers.Orthonormal(0.5, False, -2),
        regularizers.StableRank(0.5, -2),
        regularizers.DOptimal(0.5, 1e-5, -2),
        regularizers.Divergence(0.5, 0.2, 1e-5, -2),
    ],
)
def test_keras_makes_an_equal_regularizer(regularizer):
    """From the registered name; `StableRank` is a constraint's name too."""
    check_keras_makes_an_equal(regularizer, keras.regularizers)
