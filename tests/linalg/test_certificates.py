"""Certificates against exact norms, which they must not fall below."""

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_spectral.linalg import (
    circular_convolution_norm,
    convolution_norm_bound,
    convolution_operator,
    depthwise_convolution_operator,
    induced_norm,
    transposed_convolution_operator,
    unfolding_norm_bound,
)
from keras_spectral.linalg.certificates import excess_of, frequency_grid


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
    exact = np.linalg.norm(operator.to_matrix(), p)
    bound = float(induced_norm(kernel, p, kind))
    assert bound >= exact * (1 - 1e-12)
    if kind == "convolution":
        assert float(unfolding_norm_bound(kernel)) >= np.linalg.norm(
            operator.to_matrix(), 2
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
    exact = np.linalg.norm(make(kernel, (7, 7), 1, "same").to_matrix(), p)
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
    for scale in (1e-36, 1e-20, 1e20, 1e36, 1e37):
        scaled = float(convolution_norm_bound(kernel * np.float32(scale)))
        assert scaled == pytest.approx(norm * scale, rel=1e-4)
    assert float(convolution_norm_bound(np.zeros((3, 3, 2, 2)))) == 0
    # Beyond float32, and never a number that could pass for a bound.
    assert float(convolution_norm_bound(kernel * np.float32(1e38))) == math.inf
    for value in (np.nan, np.inf):
        broken = kernel.copy()
        broken[0, 1, 2, 3] = value
        assert math.isnan(float(convolution_norm_bound(broken)))
        for p in (1, math.inf):
            assert not np.isfinite(float(induced_norm(broken, p, "convolution")))


@given(
    seed=st.integers(0, 2**31),
    taps=st.sampled_from([(1,), (1, 1), (2, 1), (3, 3)]),
    channels=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    kind=st.sampled_from(["random", "rank one", "orthonormal"]),
    scale=st.sampled_from([1e-30, 1.0, 1e30]),
)
@settings(max_examples=60, deadline=None)
def test_float32_does_not_round_below(seed, taps, channels, kind, scale):
    """A 1x1 kernel leaves no room between the frequencies of the grid."""
    rng = np.random.default_rng(seed)
    kernel = rng.standard_normal((*taps, *channels))
    if kind == "rank one":
        kernel = kernel[..., :1] * rng.standard_normal(channels[1])
    elif kind == "orthonormal":
        u, _, vt = np.linalg.svd(kernel, full_matrices=False)
        kernel = u @ vt
    kernel = (scale * kernel).astype("float32")
    exact = circular_convolution_norm(kernel, (16,) * len(taps))
    assert float(convolution_norm_bound(kernel)) >= exact


def structured(rng, kind, shape):
    """A float32 kernel whose transform peaks, is flat, or is of few directions."""
    kernel = rng.standard_normal(shape)
    if kind == "positive":
        kernel = np.abs(kernel)
    elif kind in ("delta", "orthonormal delta"):
        middle = kernel[0, 0]
        if kind == "orthonormal delta":
            u, _, vt = np.linalg.svd(middle, full_matrices=False)
            middle = u @ vt
        kernel = np.zeros(shape)
        kernel[shape[0] // 2, shape[1] // 2] = middle
    elif kind == "low rank":
        kernel = kernel[..., :1] * rng.standard_normal(shape[-1])
    elif kind == "checkered":
        signs = (-1.0) ** np.indices(shape[:2]).sum(axis=0)
        kernel = np.abs(kernel) * signs[..., None, None]
    return kernel.astype("float32")


@given(
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(
        ["random", "positive", "delta", "orthonormal delta", "low rank", "checkered"]
    ),
    taps=st.sampled_from([(1, 1), (2, 3), (3, 3), (5, 2)]),
    channels=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    tolerance=st.sampled_from([None, 0.002, 0.04, 0.08, 0.3]),
)
@settings(max_examples=60, deadline=None)
def test_within_the_tolerance_and_never_below(seed, kind, taps, channels, tolerance):
    kernel = structured(np.random.default_rng(seed), kind, (*taps, *channels))
    transforms = np.fft.fft2(kernel.astype("float64"), (48, 48), axes=(0, 1))
    exact = np.linalg.svd(transforms, compute_uv=False).max()
    bound = float(induced_norm(kernel, 2, "convolution", tolerance))
    # How far the norm on an unbounded image can be above that on 48 x 48.
    most = math.prod(1 / math.cos(math.pi * (size - 1) / 96) for size in taps)
    assert exact <= bound <= exact * most * (1 + (tolerance or 0.01)) * (1 + 1e-4)


@pytest.mark.parametrize("squarings", [1, 2, 3, 6])
@pytest.mark.parametrize("n", [1, 2, 3, 32, 128])
def test_what_squarings_exceed_by_on_hard_spectra(rng, n, squarings):
    """Two values, the hardest for squarings, and others, of a dense kernel."""
    spectra = [
        np.r_[np.ones(1 + n // k), np.full(n, x)][:n]
        for k in (2, 4, n + 1)
        for x in (0.0, 0.45, 0.8, 0.97)
    ]
    spectra += [np.linspace(1, 0, n, endpoint=False), rng.uniform(size=n)]
    for spectrum in spectra:
        kernel = np.diag(spectrum)[None]
        bound = float(convolution_norm_bound(kernel, squarings))
        ratio = bound / spectrum.max()
        proved = ((1 + math.sqrt(n)) / 2) ** (1 / 2 ** (squarings + 1))
        assert 1 <= ratio <= proved * (1 + 1e-7)
        assert ratio <= 1 + excess_of(squarings, n) + 1e-7


@pytest.mark.parametrize(
    ("taps", "tolerance"), [((1,), 1.0), ((5, 1), 0.1), ((3, 3), 0.3), ((3,), 0.01)]
)
def test_spectra_of_two_values_keep_the_tolerance(rng, taps, tolerance):
    """One tap of the hardest spectra for squarings: its norm is the matrix'."""
    for n, largest in [(8, 1), (32, 9)]:
        for other in (0.45, 0.9):
            spectrum = np.r_[np.ones(largest), np.full(n - largest, other)]
            u, v = (np.linalg.qr(rng.standard_normal((n, n)))[0] for _ in range(2))
            kernel = np.zeros((*taps, n, n))
            kernel[(0,) * len(taps)] = u * spectrum @ v
            bound = float(induced_norm(kernel, 2, "convolution", tolerance))
            assert 1 - 1e-12 <= bound <= (1 + tolerance) * (1 + 1e-9)


@pytest.mark.parametrize("shape", [(3, 3, 4, 5), (3, 2, 2), (1, 1, 6, 3), (3, 3, 1, 2)])
def test_gradient_of_the_certificate(rng, shape):
    """It is that of the norm on the grid, as a share; and finite where it ends."""
    kernel, step = rng.standard_normal(shape), rng.standard_normal(shape)
    taps, axes = shape[:-2], tuple(range(len(shape) - 2))
    share = 0.008 if sum(size > 1 for size in taps) == 1 else 0.004
    points = [frequency_grid(size, share)[0] for size in taps]
    with tf.GradientTape() as tape:
        variable = tf.Variable(kernel)
        value = induced_norm(variable, 2, "convolution")
    gradient = tape.gradient(value, variable).numpy()
    above, here, below = (
        np.linalg.norm(np.fft.fftn(each, points, axes), 2, axis=(-2, -1)).max()
        for each in (kernel + 1e-6 * step, kernel, kernel - 1e-6 * step)
    )
    slope = (gradient * step).sum() * here / float(value)
    assert slope == pytest.approx((above - below) / 2e-6, rel=1e-4)
    for special in (np.zeros(shape), np.ones(shape)):
        with tf.GradientTape() as tape:
            variable = tf.Variable(special.astype("float32"))
            value = induced_norm(variable, 2, "convolution")
        assert np.isfinite(tape.gradient(value, variable).numpy()).all()


def test_many_equal_entries_do_not_round_below():
    for shape in [(1, 1, 2048, 1), (1, 4096, 3), (3, 3, 512, 2), (1, 1, 64, 256)]:
        kernel = np.full(shape, np.float32(0.1))
        size = (1,) * (len(shape) - 2)
        exact = circular_convolution_norm(kernel.astype("float64"), size)
        assert exact <= float(convolution_norm_bound(kernel)) <= 1.01 * exact


@given(
    seed=st.integers(0, 2**31),
    groups=st.integers(1, 3),
    strides=st.integers(1, 2),
    p=st.sampled_from([1, 2, math.inf]),
)
@settings(max_examples=20, deadline=None)
def test_grouped_kernels_are_bounded_too(seed, groups, strides, p):
    rng = np.random.default_rng(seed)
    kernel = rng.standard_normal((3, 2, 2, 2 * groups))
    operator = convolution_operator(kernel, (5, 4, 2 * groups), strides, "same")
    exact = np.linalg.norm(operator.to_matrix(), p)
    assert float(induced_norm(kernel, p, "convolution")) >= exact * (1 - 1e-12)
    if p == 2:
        assert float(convolution_norm_bound(kernel, groups=groups)) >= exact
        assert float(unfolding_norm_bound(kernel)) >= exact * (1 - 1e-12)


def test_three_dimensions_within_one_percent_where_asked(rng):
    kernel = rng.standard_normal((3, 3, 3, 2, 3))
    exact = circular_convolution_norm(kernel, (64, 64, 64))
    bound = float(convolution_norm_bound(kernel, tolerance=2.5e-3))
    assert exact <= bound <= 1.01 * exact


@pytest.mark.parametrize(
    "function, arguments, match",
    [
        (induced_norm, (np.zeros((3, 3)), 2, "convolution"), "`kernel`"),
        (induced_norm, (np.zeros((3, 3)), 3), "`p`"),
        (induced_norm, (np.zeros((3, 3)), 2, "separable"), "`kind`"),
        (induced_norm, (np.zeros((3, 3)), 2, "dense", -1.0), "`tolerance`"),
        (convolution_norm_bound, (np.zeros((3, 3)),), "`kernel`"),
        (convolution_norm_bound, (np.zeros((3, 2, 2)), 0), "`iterations`"),
        (convolution_norm_bound, (np.zeros((3, 2, 2)), 8, 3), "`groups`"),
        (
            convolution_norm_bound,
            (np.zeros((3, 2, 2)), 8, 0),
            "`groups` must be an integer",
        ),
        (convolution_norm_bound, (np.zeros((3, 2, 2)), 8, 1, 0.0), "`tolerance`"),
    ],
)
def test_bad_arguments(function, arguments, match):
    with pytest.raises(ValueError, match=match):
        function(*arguments)
