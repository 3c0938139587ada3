"""The one walk over a model's weights."""

import keras
import numpy as np
import pytest
from keras import layers as kl

import keras_spectral as ks
from keras_spectral.layers import SpectralNormalization, SVDDense
from keras_spectral.models import weights
from tests.test_surgery import functional

NAMES = [
    "conv",
    "depth",
    "inner",
    "words",
    "attention/query",
    "attention/key",
    "attention/value",
    "attention/output",
    "recurrent/kernel",
    "recurrent/recurrent_kernel",
    "shared",
    "head",
]


def names(found):
    return [weight.name for weight in found]


def test_all_kernels_and_what_is_left_out():
    found = weights(functional())
    assert sorted(names(found)) == sorted(NAMES)
    (left,) = found.left_out
    assert (left.name, left.kind) == ("norm", "BatchNormalization")
    assert "not folded" in left.reason


def test_matrices_are_those_of_numpy():
    model = functional()
    matrices = {weight.name: weight.matrix() for weight in weights(model)}
    kernel = model.get_layer("conv").kernel.numpy()
    np.testing.assert_allclose(matrices["conv"], kernel.reshape(-1, 6).T)
    depth = model.get_layer("depth").kernel.numpy()
    np.testing.assert_allclose(matrices["depth"], depth.reshape(9, -1).T)
    query = model.get_layer("attention").query_dense.kernel.numpy()
    np.testing.assert_allclose(matrices["attention/query"], query.reshape(4, -1).T)
    output = model.get_layer("attention").output_dense.kernel.numpy()
    np.testing.assert_allclose(matrices["attention/output"], output.reshape(-1, 4).T)
    assert all(matrix.dtype == "float64" for matrix in matrices.values())


def test_operators_are_the_matrices_or_the_convolutions():
    model = functional()
    conv, head = weights(model, where=["conv", "head"])
    x = np.random.default_rng(0).standard_normal(head.matrix().shape[1])
    found = head.operator().matvec(x.astype("float32"))
    np.testing.assert_allclose(found, head.matrix() @ x, atol=1e-5)
    image = np.random.default_rng(0).standard_normal((1, 8, 8, 3)).astype("float32")
    layer = model.get_layer("conv")
    found = conv.operator("operator").matvec(image)
    plain = keras.ops.conv(image, layer.kernel, padding="same")
    np.testing.assert_allclose(found, plain, atol=1e-5)


@pytest.mark.parametrize(
    "where, expected",
    [
        (["conv"], ["conv"]),
        (["attention/key"], ["attention/key"]),
        (["recurrent"], ["recurrent/kernel", "recurrent/recurrent_kernel"]),
        (lambda weight: weight.kind == "Dense", ["shared", "head"]),
        (lambda weight: min(weight.matrix().shape) == 2, ["head"]),
    ],
)
def test_where(where, expected):
    found = weights(functional(), where)
    assert sorted(names(found)) == sorted(expected)
    others = {left.name for left in found.left_out}
    assert others == {*NAMES, "norm"} - set(expected)


@pytest.mark.parametrize(
    "where, match",
    [
        (["attention/querry"], "Did you mean attention/query"),
        (["norm"], "`where` must name kernels"),
        ("head", "a list of names"),
        ([], "a list of names"),
        ([3], "a list of names"),
        (lambda weight: False, "at least one kernel"),
    ],
)
def test_bad_where(where, match):
    with pytest.raises(ValueError, match=match):
        weights(functional(), where)


def test_wrapped_layers_give_what_they_compute_with():
    model = ks.wrap(functional(), SpectralNormalization, bound=2.0)
    for weight in weights(model):
        assert weight.is_wrapped
        norm = np.linalg.norm(weight.matrix(), 2)
        assert norm == pytest.approx(2.0, rel=1e-3)
        trained = np.linalg.norm(
            keras.ops.convert_to_numpy(weight.slot.view.flatten(weight.variable)), 2
        )
        assert abs(trained - 2.0) > 1e-2


def test_svd_layers_give_the_kernel_of_their_factors():
    layer = SVDDense(3, name="svd")
    model = keras.Sequential([keras.Input((5,)), layer])
    (weight,) = weights(model)
    x = np.random.default_rng(0).standard_normal((2, 5)).astype("float32")
    np.testing.assert_allclose(model(x), x @ weight.matrix().T, atol=1e-5)
    assert weight.variable is None and weight.is_wrapped


def test_a_layer_that_is_used_twice_is_listed_once():
    shared = kl.Dense(4, name="shared")
    inputs = keras.Input((4,))
    assert names(weights(keras.Model(inputs, shared(shared(inputs))))) == ["shared"]


def test_a_model_that_is_not_built():
    with pytest.raises(ValueError, match="must be built"):
        weights(keras.Sequential([kl.Dense(2)]))
