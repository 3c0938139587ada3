"""Convolution operators of every rank against Keras' own layers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers as kl

from keras_spectral.linalg import (
    convolution_operator,
    depthwise_convolution_operator,
    transposed_convolution_operator,
)
from tests.linalg.test_operators import check_adjoint


def check_is_the_layer(operator, layer, kernel, rng):
    x = rng.standard_normal(operator.input_shape)
    layer.build(x.shape)
    layer.kernel.assign(kernel)
    np.testing.assert_allclose(operator.matvec(x), layer(x), atol=1e-11)
    check_adjoint(operator, rng, 1e-9)


@pytest.mark.parametrize(
    "layer, size, strides, padding, dilation",
    [
        (kl.Conv1D, (9,), 2, "causal", 1),
        (kl.Conv1D, (9,), 1, "causal", 3),
        (kl.Conv1D, (8,), 3, "same", 1),
        (kl.Conv1D, (8,), 1, "valid", 2),
        (kl.Conv3D, (4, 5, 6), 2, "same", 1),
        (kl.Conv3D, (4, 5, 6), (1, 2, 3), "valid", 1),
    ],
)
def test_one_and_three_dimensions(rng, layer, size, strides, padding, dilation):
    kernel = rng.standard_normal((*(3,) * len(size), 2, 4))
    operator = convolution_operator(kernel, size, strides, padding, dilation)
    layer = layer(
        4,
        3,
        strides=strides,
        padding=padding,
        dilation_rate=dilation,
        use_bias=False,
        dtype="float64",
    )
    check_is_the_layer(operator, layer, kernel, rng)


@pytest.mark.parametrize("layer, size", [(kl.DepthwiseConv1D, (9,)), (None, (8, 7))])
@pytest.mark.parametrize("strides, padding", [(1, "same"), (2, "same"), (2, "valid")])
@pytest.mark.parametrize("multiplier", [1, 3])
def test_depthwise(rng, layer, size, strides, padding, multiplier):
    kernel = rng.standard_normal((*(3,) * len(size), 4, multiplier))
    operator = depthwise_convolution_operator(kernel, size, strides, padding)
    layer = (layer or kl.DepthwiseConv2D)(
        3,
        strides=strides,
        padding=padding,
        depth_multiplier=multiplier,
        use_bias=False,
        dtype="float64",
    )
    check_is_the_layer(operator, layer, kernel, rng)


@given(
    taps=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    extra=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    geometry=st.sampled_from([(1, 1), (2, 1), (3, 1), (1, 2), (1, (1, 2))]),
    padding=st.sampled_from(["same", "valid"]),
    multiplier=st.integers(1, 3),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=40, deadline=None)
def test_depthwise_on_any_geometry(taps, extra, geometry, padding, multiplier, seed):
    rng = np.random.default_rng(seed)
    strides, dilation = geometry
    size = tuple(2 * t + e for t, e in zip(taps, extra, strict=True))
    kernel = rng.standard_normal((*taps, 3, multiplier))
    operator = depthwise_convolution_operator(kernel, size, strides, padding, dilation)
    layer = kl.DepthwiseConv2D(
        taps,
        strides=strides,
        padding=padding,
        depth_multiplier=multiplier,
        dilation_rate=dilation,
        use_bias=False,
        dtype="float64",
    )
    check_is_the_layer(operator, layer, kernel, rng)


@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_with_other_strides_an_axis_and_in_three_dimensions(rng, multiplier):
    """Where TensorFlow has no depthwise operation."""
    for size, strides in [((6, 7), (2, 1)), ((4, 5, 4), 2)]:
        kernel = rng.standard_normal((*(3,) * len(size), 2, multiplier))
        operator = depthwise_convolution_operator(kernel, size, strides, "same")
        x = rng.standard_normal(operator.input_shape)
        channels = [
            convolution_operator(kernel[..., [c], :], size, strides, "same").matvec(
                x[..., [c]]
            )
            for c in range(2)
        ]
        expected = np.concatenate(channels, axis=-1)
        np.testing.assert_allclose(operator.matvec(x), expected, atol=1e-12)
        check_adjoint(operator, rng)


@given(
    taps=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    strides=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    padding=st.sampled_from(["same", "valid"]),
    extra=st.none() | st.integers(0, 3),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_transposed_on_any_geometry(taps, size, strides, padding, extra, seed):
    rng = np.random.default_rng(seed)
    kernel = rng.standard_normal((*taps, 3, 2))
    geometry = kernel, size, strides, padding, extra
    even = padding == "same" and any(t % 2 == 0 for t in taps)
    if extra is not None and (extra >= min(strides) or (even and extra == 0)):
        with pytest.raises(ValueError, match="`output_padding`"):
            transposed_convolution_operator(*geometry)
        return
    operator = transposed_convolution_operator(*geometry)
    layer = kl.Conv2DTranspose(
        3,
        taps,
        strides=strides,
        padding=padding,
        output_padding=extra,
        use_bias=False,
        dtype="float64",
    )
    check_is_the_layer(operator, layer, kernel, rng)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(
    "layer, size, strides, dilation, output_padding",
    [
        (kl.Conv1DTranspose, (5,), 3, 1, None),
        (kl.Conv1DTranspose, (5,), 2, 1, 1),
        (kl.Conv2DTranspose, (4, 3), 2, 1, 1),
        (kl.Conv2DTranspose, (4, 3), 2, 1, 0),
        (kl.Conv3DTranspose, (3, 2, 3), 2, 1, None),
    ],
)
def test_transposed(rng, layer, size, strides, dilation, output_padding, padding):
    kernel = rng.standard_normal((*(3,) * len(size), 3, 2))
    operator = transposed_convolution_operator(
        kernel, size, strides, padding, output_padding, dilation
    )
    layer = layer(
        3,
        3,
        strides=strides,
        padding=padding,
        output_padding=output_padding,
        dilation_rate=dilation,
        use_bias=False,
        dtype="float64",
    )
    check_is_the_layer(operator, layer, kernel, rng)


def test_dilated_transposed_against_torch(rng):
    """TensorFlow has no such layer on a CPU."""
    kernel = rng.standard_normal((3, 4, 2))
    operator = transposed_convolution_operator(kernel, (6,), dilation_rate=2)
    x = rng.standard_normal(operator.input_shape)
    expected = torch.nn.functional.conv_transpose1d(
        torch.tensor(x.transpose(0, 2, 1)),
        torch.tensor(kernel.transpose(2, 1, 0)),
        dilation=2,
    )
    np.testing.assert_allclose(
        np.transpose(operator.matvec(x), (0, 2, 1)), expected, atol=1e-12
    )
    check_adjoint(operator, rng)


def test_bad_kernels_and_sizes():
    with pytest.raises(ValueError, match="`kernel`"):
        transposed_convolution_operator(np.zeros((3, 2)), (4,))
    with pytest.raises(ValueError, match="`input_size`"):
        depthwise_convolution_operator(np.zeros((3, 3, 2, 1)), (4,))
    with pytest.raises(ValueError, match="`padding`"):
        transposed_convolution_operator(np.zeros((3, 2, 2)), (4,), padding="causal")
    with pytest.raises(ValueError, match="`output_padding`"):
        transposed_convolution_operator(
            np.zeros((3, 3, 2, 2)), (4, 4), 2, output_padding=(1,)
        )
    for make in (depthwise_convolution_operator, transposed_convolution_operator):
        with pytest.raises(ValueError, match="both exceed 1"):
            make(np.zeros((3, 2, 2)), (8,), strides=2, dilation_rate=2)
