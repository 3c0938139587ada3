"""Exact spectra against brute-force matrices."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from keras_spectral.linalg import (
    circular_convolution_norm,
    circular_convolution_singular_values,
    convolution_norm_bound,
    convolution_operator,
    dense_operator,
    depthwise_convolution_operator,
    operator_singular_values,
    transposed_convolution_operator,
)


def circular_matrix(kernel, size, strides):
    """Every product of a tap and a pixel, one by one."""
    *taps, inputs, filters = kernel.shape
    outputs = [n // s for n, s in zip(size, strides, strict=True)]
    matrix = np.zeros((*outputs, filters, *size, inputs))
    for out in np.ndindex(*outputs):
        for tap in np.ndindex(*taps):
            pixel = tuple(
                (o * s + t) % n
                for o, s, t, n in zip(out, strides, tap, size, strict=True)
            )
            matrix[(*out, slice(None), *pixel, slice(None))] += kernel[tap].T
    return matrix.reshape(math.prod(outputs) * filters, -1)


@pytest.mark.parametrize(
    "shape, size, strides",
    [
        ((3, 3, 2, 3), (6, 5), (1, 1)),
        ((3, 3, 3, 2), (4, 4), (1, 1)),
        ((3, 2, 2, 3), (6, 4), (2, 2)),
        ((3, 3, 2, 5), (6, 4), (3, 1)),
        ((5, 5, 1, 2), (3, 4), (1, 1)),
        ((4, 2, 3), (8,), (2,)),
        ((4, 2, 3), (7,), (1,)),
        ((2, 2, 2, 2, 2), (3, 4, 2), (1, 1, 1)),
        ((2, 2, 3, 2, 2), (4, 4, 3), (2, 2, 1)),
    ],
)
def test_circular_spectrum_is_that_of_the_matrix(rng, shape, size, strides):
    kernel = rng.standard_normal(shape)
    matrix = circular_matrix(kernel, size, strides)
    expected = np.linalg.svd(matrix, compute_uv=False)
    values = circular_convolution_singular_values(kernel, size, strides)
    np.testing.assert_allclose(values, expected, atol=1e-12)
    norm = circular_convolution_norm(kernel, size, strides)
    assert norm == pytest.approx(expected[0], rel=1e-9)


@given(
    seed=st.integers(0, 2**31),
    size=st.integers(1, 9),
    channels=st.tuples(st.integers(1, 11), st.integers(1, 11)),
    kind=st.sampled_from(["random", "smooth", "rank one", "sparse"]),
)
@settings(max_examples=40, deadline=None)
def test_circular_norm_is_the_first_of_the_spectrum(seed, size, channels, kind):
    rng = np.random.default_rng(seed)
    kernel = rng.standard_normal((3, 3, *channels))
    if kind == "smooth":
        kernel = np.ones((3, 3, *channels)) + 1e-3 * kernel
    elif kind == "rank one":
        kernel = np.ones((3, 3, 1, 1)) * kernel[0, 0]
    elif kind == "sparse":
        kernel *= rng.random(kernel.shape) < 0.1
    values = circular_convolution_singular_values(kernel, (size, size))
    norm = circular_convolution_norm(kernel, (size, size))
    assert norm == pytest.approx(values[0], rel=1e-8, abs=1e-12)


def test_circular_norm_finds_a_frequency_that_power_iteration_ranks_low(rng):
    channels, size, hidden = 12, 16, 5
    blocks = []
    for index in range(size // 2 + 1):
        # Where all values are equal power iteration is right at once; where one
        # is a little larger than the others it stays near those.
        values = np.full(channels, 0.999 if index == hidden else 0.9995)
        if index == hidden:
            values[0] = 1.0
        left, _ = np.linalg.qr(rng.standard_normal((channels, channels)))
        right, _ = np.linalg.qr(rng.standard_normal((channels, channels)))
        blocks.append((left * values) @ right)
    kernel = np.fft.irfft(np.array(blocks), n=size, axis=0)
    assert circular_convolution_norm(kernel, (size,)) == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("channels", [4, 10])
@pytest.mark.parametrize("scale", [0.0, 1e-150, 1e-38, 1e38, 1e150])
def test_scales(rng, scale, channels):
    kernel = rng.standard_normal((3, 3, channels, channels))
    norm = circular_convolution_norm(kernel, (6, 6))
    scaled = circular_convolution_norm(scale * kernel, (6, 6))
    assert scaled == pytest.approx(scale * norm, rel=1e-9)
    operator = convolution_operator(scale * kernel, (4, 4))
    expected = scale * np.linalg.norm(
        convolution_operator(kernel, (4, 4)).to_matrix(), 2
    )
    assert operator_singular_values(operator, 1)[0] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("channels", [2, 10])
def test_what_is_not_finite_gives_nan(rng, value, channels):
    kernel = rng.standard_normal((3, 3, channels, channels))
    kernel[0, 1, 1, 0] = value
    assert np.isnan(circular_convolution_norm(kernel, (4, 4)))
    assert np.isnan(circular_convolution_singular_values(kernel, (4, 4))).all()
    values = operator_singular_values(convolution_operator(kernel, (4, 4)), 3)
    assert values.shape == (3,) and np.isnan(values).all()


@pytest.mark.parametrize(
    "strides, padding, dilation, channels",
    [(1, "same", 1, 2), (2, "same", 1, 2), (1, "valid", 1, 2), (1, "same", 2, 2)]
    + [(1, "same", 1, 4)],
)
def test_lanczos_is_the_svd_of_the_matrix(rng, strides, padding, dilation, channels):
    kernel = rng.standard_normal((3, 3, 2, 4))
    operator = convolution_operator(
        kernel, (7, 8, channels), strides, padding, dilation
    )
    expected = np.linalg.svd(operator.to_matrix(), compute_uv=False)[:5]
    np.testing.assert_allclose(
        operator_singular_values(operator, 5), expected, rtol=1e-10
    )


def test_lanczos_on_every_kind(rng):
    kernel = rng.standard_normal((3, 3, 2, 4))
    for operator in (
        depthwise_convolution_operator(kernel, (5, 6), 2, "same"),
        transposed_convolution_operator(kernel, (3, 4), 2),
        dense_operator(kernel),
    ):
        matrix = operator.to_matrix()
        expected = np.linalg.svd(matrix, compute_uv=False)[:3]
        values = operator_singular_values(operator, 3)
        np.testing.assert_allclose(values, expected, rtol=1e-10)


def test_matrix_of_a_half_precision_operator(rng):
    kernel = ops.cast(rng.standard_normal((2, 2, 1, 2)), "bfloat16")
    matrix = convolution_operator(kernel, (3, 3)).to_matrix()
    wide = ops.convert_to_numpy(ops.cast(kernel, "float32"))
    expected = convolution_operator(wide, (3, 3)).to_matrix()
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, expected)


def test_zero_padding_lowers_the_norm_and_approaches_the_circular_one(rng):
    kernel = rng.standard_normal((3, 3, 3, 4))
    bound = float(convolution_norm_bound(kernel))
    ratios = []
    for size in (4, 8, 16):
        zero = operator_singular_values(
            convolution_operator(kernel, (size, size), padding="same"), 1
        )[0]
        circular = circular_convolution_norm(kernel, (size, size))
        assert circular <= bound <= 1.05 * circular
        ratios.append(bound / zero)
    assert ratios[0] > ratios[1] > ratios[2] > 1
    assert ratios[2] < 1.04


@pytest.mark.parametrize(
    "function, arguments, match",
    [
        (circular_convolution_norm, (np.zeros((3, 3, 1, 1)), (8,)), "`input_size`"),
        (circular_convolution_norm, (np.zeros((3, 3, 1, 1)), (8, 8), 3), "`strides`"),
        (operator_singular_values, (dense_operator(np.eye(3)), 3), "`count`"),
    ],
)
def test_bad_arguments(function, arguments, match):
    with pytest.raises(ValueError, match=match):
        function(*arguments)
