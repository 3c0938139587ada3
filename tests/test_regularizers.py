import keras
import numpy as np
import pytest
import tensorflow as tf
import torch

from keras_spectral import regularizers
from tests.layers.reference import finite_differences

CASES = {
    "spectral norm": regularizers.SpectralNorm(0.3),
    "frobenius": regularizers.Frobenius(0.3),
    "orthonormal": regularizers.Orthonormal(0.3),
    "brock": regularizers.Orthonormal(0.3, diagonal=False),
    "stable rank": regularizers.StableRank(0.3),
    "d-optimal": regularizers.DOptimal(0.3),
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
    expected = finite_differences(lambda x: reference(name, x), kernel)
    np.testing.assert_allclose(tape.gradient(value, variable), expected, atol=1e-7)


@pytest.mark.parametrize("name", CASES)
def test_repeated_singular_values_and_zero_have_finite_gradients(name):
    for kernel in (np.eye(4), np.zeros((4, 3)), np.ones((4, 3))):
        variable = tf.Variable(kernel.astype("float32"))
        with tf.GradientTape() as tape:
            value = CASES[name](variable)
        assert np.isfinite(value)
        assert np.isfinite(tape.gradient(value, variable)).all()


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
    ],
)
def test_bad_arguments(arguments, match):
    with pytest.raises(ValueError, match=match):
        regularizers.Orthonormal(**arguments)
    with pytest.raises(ValueError, match="at least two axes"):
        regularizers.Orthonormal(1.0)(tf.zeros((3,)))
