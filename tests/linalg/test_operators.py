import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from keras_spectral.linalg import convolution_operator, dense_operator, reshaped_matrix

GEOMETRIES = [
    # kernel, size, strides, padding, dilation
    ((3, 3, 2, 4), (7, 9), 1, "same", 1),
    ((3, 3, 2, 4), (7, 9), 2, "same", 1),
    ((3, 3, 2, 4), (7, 9), 2, "valid", 1),
    ((3, 3, 2, 4), (8, 8), 2, "valid", 1),
    ((3, 3, 2, 4), (8, 8), 2, "same", 1),
    ((3, 3, 2, 4), (8, 8), 3, "same", 1),
    ((4, 2, 3, 1), (9, 6), (2, 1), "same", 1),
    ((1, 1, 3, 2), (7, 7), 2, "same", 1),
    ((3, 3, 2, 2), (9, 11), 1, "valid", 2),
    ((3, 3, 2, 2), (9, 11), 1, "same", (2, 3)),
    ((5, 5, 1, 2), (5, 5), 1, "valid", 1),
]


def check_adjoint(operator, rng, tolerance=1e-11):
    x = rng.standard_normal(operator.input_shape)
    y = rng.standard_normal(operator.output_shape)
    ax = ops.convert_to_numpy(operator.matvec(ops.convert_to_tensor(x)))
    aty = ops.convert_to_numpy(operator.adjoint(ops.convert_to_tensor(y)))
    assert ax.shape == operator.output_shape
    assert aty.shape == operator.input_shape
    assert np.vdot(ax, y) == pytest.approx(np.vdot(x, aty), rel=tolerance)


@pytest.mark.parametrize("kernel, size, strides, padding, dilation", GEOMETRIES)
def test_convolution_is_the_keras_layer_and_its_adjoint_is_exact(
    rng, kernel, size, strides, padding, dilation
):
    weight = rng.standard_normal(kernel)
    operator = convolution_operator(weight, size, strides, padding, dilation)
    layer = keras.layers.Conv2D(
        kernel[3],
        kernel[:2],
        strides=strides,
        padding=padding,
        dilation_rate=dilation,
        use_bias=False,
        dtype="float64",
    )
    x = rng.standard_normal(operator.input_shape)
    layer.build(x.shape)
    layer.kernel.assign(weight)
    expected = ops.convert_to_numpy(layer(x))
    actual = ops.convert_to_numpy(operator.matvec(ops.convert_to_tensor(x)))
    np.testing.assert_allclose(actual, expected, atol=1e-12)
    check_adjoint(operator, rng)


@given(
    taps=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    extra=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.sampled_from(["same", "valid"]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=25, deadline=None)
def test_adjoint_on_any_geometry(taps, extra, strides, padding, seed):
    rng = np.random.default_rng(seed)
    size = tuple(t + e for t, e in zip(taps, extra, strict=True))
    weight = rng.standard_normal((*taps, 2, 3))
    check_adjoint(convolution_operator(weight, size, strides, padding), rng, 1e-9)


def test_grouped_convolution_against_torch(rng):
    import torch

    weight = rng.standard_normal((3, 3, 2, 6))
    operator = convolution_operator(weight, (7, 8, 4), strides=2, padding="valid")
    x = rng.standard_normal(operator.input_shape)
    expected = torch.nn.functional.conv2d(
        torch.tensor(x.transpose(0, 3, 1, 2)),
        torch.tensor(weight.transpose(3, 2, 0, 1)),
        stride=2,
        groups=2,
    )
    actual = ops.convert_to_numpy(operator.matvec(ops.convert_to_tensor(x)))
    np.testing.assert_allclose(
        actual.transpose(0, 3, 1, 2), expected.numpy(), atol=1e-12
    )
    check_adjoint(operator, rng)


def test_dense_operator_is_the_reshaped_matrix(rng):
    kernel = rng.standard_normal((3, 2, 4, 5))
    matrix = ops.convert_to_numpy(reshaped_matrix(kernel))
    operator = dense_operator(kernel)
    x = rng.standard_normal(operator.input_shape)
    np.testing.assert_allclose(
        ops.convert_to_numpy(operator.matvec(x)), matrix @ x, atol=1e-12
    )
    check_adjoint(operator, rng)


@pytest.mark.parametrize(
    "arguments, match",
    [
        (dict(padding="causal"), "`padding`"),
        (dict(strides=0), "`strides`"),
        (dict(dilation_rate=(1, 2, 3)), "`dilation_rate`"),
        (dict(strides=2, dilation_rate=2), "both exceed 1"),
        (dict(input_size=(2, 9)), "at least the extent"),
        (dict(input_size=(9, 9, 3)), "multiple of the kernel's inputs"),
        (dict(kernel=np.zeros((3, 3))), "`kernel`"),
    ],
)
def test_bad_geometry_is_refused(arguments, match):
    defaults = dict(kernel=np.zeros((3, 3, 2, 4)), input_size=(9, 9))
    with pytest.raises(ValueError, match=match):
        convolution_operator(**{**defaults, **arguments})
