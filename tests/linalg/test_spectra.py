"""Exact spectra against brute-force matrices; certificates against them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_spectral.linalg import (
    circular_convolution_norm,
    circular_convolution_singular_values,
    convolution_norm_bound,
    convolution_operator,
    convolution_singular_values,
    depthwise_convolution_operator,
    induced_norm,
    operator_matrix,
    transposed_convolution_operator,
    unfolding_norm_bound,
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
    channels=st.tuples(st.integers(1, 5), st.integers(1, 5)),
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


@pytest.mark.parametrize("scale", [0.0, 1e-150, 1e150])
def test_scales(rng, scale):
    kernel = rng.standard_normal((3, 3, 4, 4))
    norm = circular_convolution_norm(kernel, (6, 6))
    scaled = circular_convolution_norm(scale * kernel, (6, 6))
    assert scaled == pytest.approx(scale * norm, rel=1e-9)


@pytest.mark.parametrize(
    "strides, padding, dilation, channels",
    [(1, "same", 1, 2), (2, "same", 1, 2), (1, "valid", 1, 2), (1, "same", 2, 2)]
    + [(1, "same", 1, 4)],
)
def test_lanczos_is_the_svd_of_the_matrix(rng, strides, padding, dilation, channels):
    kernel = rng.standard_normal((3, 3, 2, 4))
    geometry = (strides, padding, dilation)
    operator = convolution_operator(kernel, (7, 8, channels), *geometry)
    expected = np.linalg.svd(operator_matrix(operator), compute_uv=False)[:5]
    values = convolution_singular_values(kernel, (7, 8, channels), 5, *geometry)
    np.testing.assert_allclose(values, expected, rtol=1e-10)


def test_zero_padding_lowers_the_norm_and_approaches_the_circular_one(rng):
    kernel = rng.standard_normal((3, 3, 3, 4))
    bound = float(convolution_norm_bound(kernel))
    ratios = []
    for size in (4, 8, 16):
        zero = convolution_singular_values(kernel, (size, size), 1)[0]
        circular = circular_convolution_norm(kernel, (size, size))
        assert circular <= bound <= 1.05 * circular
        ratios.append(bound / zero)
    assert ratios[0] > ratios[1] > ratios[2] > 1
    assert ratios[2] < 1.04


@pytest.mark.parametrize(
    "rank, size, most", [(1, 128, 1.01), (2, 64, 1.01), (3, 16, 1.05)]
)
@pytest.mark.parametrize("channels", [(1, 1), (3, 5), (6, 2)])
def test_certificate_is_close_to_the_circular_norm(rng, rank, size, most, channels):
    kernel = rng.standard_normal((3,) * rank + channels)
    exact = circular_convolution_norm(kernel, (size,) * rank)
    bound = float(convolution_norm_bound(kernel))
    assert exact <= bound <= most * exact
    assert bound <= float(unfolding_norm_bound(kernel)) * 1.02


@given(
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(["convolution", "depthwise", "transposed"]),
    taps=st.lists(st.integers(1, 3), min_size=1, max_size=2),
    size=st.integers(3, 5),
    strides=st.integers(1, 3),
    padding=st.sampled_from(["same", "valid"]),
    p=st.sampled_from([1, 2, math.inf]),
)
@settings(max_examples=60, deadline=None)
def test_certificates_are_never_below(seed, kind, taps, size, strides, padding, p):
    rng = np.random.default_rng(seed)
    kernel = rng.standard_normal((*taps, 2, 3))
    make = {
        "convolution": convolution_operator,
        "depthwise": depthwise_convolution_operator,
        "transposed": transposed_convolution_operator,
    }[kind]
    operator = make(kernel, (size,) * len(taps), strides, padding)
    exact = np.linalg.norm(operator_matrix(operator), p)
    bound = float(induced_norm(kernel, p, kind))
    assert bound >= exact * (1 - 1e-12)
    if kind == "convolution":
        assert float(unfolding_norm_bound(kernel)) >= np.linalg.norm(
            operator_matrix(operator), 2
        ) * (1 - 1e-12)


@pytest.mark.parametrize("p", [1, math.inf])
@pytest.mark.parametrize("kind", ["convolution", "depthwise", "transposed"])
def test_sums_are_exact_away_from_the_border(rng, kind, p):
    kernel = rng.standard_normal((3, 3, 3, 2))
    make = {
        "convolution": convolution_operator,
        "depthwise": depthwise_convolution_operator,
        "transposed": transposed_convolution_operator,
    }[kind]
    exact = np.linalg.norm(operator_matrix(make(kernel, (7, 7), 1, "same")), p)
    assert float(induced_norm(kernel, p, kind)) == pytest.approx(exact, rel=1e-12)


def test_groups_and_depthwise_take_the_largest_block(rng):
    kernel = rng.standard_normal((3, 3, 2, 6))
    blocks = [
        float(convolution_norm_bound(kernel[..., 2 * g : 2 * g + 2])) for g in range(3)
    ]
    grouped = float(convolution_norm_bound(kernel, groups=3))
    assert grouped == pytest.approx(max(blocks), rel=1e-12)
    depthwise = rng.standard_normal((3, 3, 3, 2))
    blocks = [float(convolution_norm_bound(depthwise[:, :, [c]])) for c in range(3)]
    value = float(induced_norm(depthwise, 2, "depthwise"))
    assert value == pytest.approx(max(blocks), rel=1e-12)


def test_certificates_of_extreme_kernels(rng):
    kernel = rng.standard_normal((3, 3, 4, 4)).astype("float32")
    norm = float(convolution_norm_bound(kernel))
    for scale in (1e-36, 1e-20, 1e20, 1e36):
        scaled = float(convolution_norm_bound(kernel * np.float32(scale)))
        assert scaled == pytest.approx(norm * scale, rel=1e-4)
    assert float(convolution_norm_bound(np.zeros((3, 3, 2, 2)))) == 0
    assert not np.isfinite(float(convolution_norm_bound(np.full((3, 3, 2, 2), np.nan))))


@pytest.mark.parametrize(
    "function, arguments, match",
    [
        (induced_norm, (np.zeros((3, 3)), 2, "convolution"), "`kernel`"),
        (induced_norm, (np.zeros((3, 3)), 3), "`p`"),
        (induced_norm, (np.zeros((3, 3)), 2, "separable"), "`kind`"),
        (circular_convolution_norm, (np.zeros((3, 3, 1, 1)), (8,)), "`input_size`"),
        (circular_convolution_norm, (np.zeros((3, 3, 1, 1)), (8, 8), 3), "`strides`"),
        (convolution_singular_values, (np.zeros((3, 3, 1, 1)), (2, 2), 4), "`count`"),
    ],
)
def test_bad_arguments(function, arguments, match):
    with pytest.raises(ValueError, match=match):
        function(*arguments)
