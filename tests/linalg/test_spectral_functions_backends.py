"""Exact gradients of spectral functions, on TensorFlow, JAX and torch alike."""

import functools

import numpy as np
import pytest
from keras import ops

from keras_spectral import linalg
from tests.linalg import reference
from tests.linalg.reference import BACKEND, relative_error

pytestmark = pytest.mark.usefixtures("jax_makes_float64")


SHAPES = [(6, 4), (4, 6), (4, 4)]
BOUND = 0.7
SPECTRA = {
    "distinct": [1.3, 0.9, 0.6, 0.2],
    "orthogonal above": [1.0] * 4,
    "orthogonal below": [0.5] * 4,
    "equal above": [1.0, 1.0, 1.0, 0.5],
    "equal below": [1.0, 0.5, 0.5, 0.5],
    "across": [0.7001, 0.6999, 0.5, 0.5],
    "rank two": [1.3, 0.5, 0.0, 0.0],
}


def clip(weight):
    return linalg.clip_singular_values(weight, BOUND)


def cap(weight, r, k):
    return linalg.project_stable_rank(weight, r, k)[0]


def set_norm(norm):
    return ops.where(norm > 1e-12, 0.5, norm)


def limit_norm(norm):
    return ops.where(norm > 0.5, 0.5, norm)


def normalize(weight, r, k, new_norm=set_norm):
    return linalg.normalize_stable_rank(weight, r, k, new_norm)


def normalized_reference(matrix, r, k):
    capped = reference.cap_stable_rank(matrix, r, k)
    return 0.5 * capped / np.linalg.norm(capped, 2)


def weighted(function, cotangent):
    cotangent = ops.convert_to_tensor(cotangent)
    return lambda weight: ops.sum(function(weight) * cotangent)


def error(rng, function, numpy_function, matrix, step=1e-6):
    """Relative distance of the gradient to float64 finite differences."""
    cotangent = rng.standard_normal(matrix.shape)
    expected = reference.slope_by_differences(
        lambda weight: (numpy_function(weight) * cotangent).sum(), matrix, step
    )
    found = reference.gradient(weighted(function, cotangent), matrix)
    assert found.dtype == "float64"
    return relative_error(found, expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", SPECTRA)
def test_gradient_of_clipping_is_exact(rng, name, shape):
    matrix = reference.with_spectrum(rng, shape, SPECTRA[name])
    value = ops.convert_to_numpy(clip(matrix))
    expected = reference.clip(matrix, BOUND)
    np.testing.assert_allclose(value, expected, atol=1e-14)
    exact = functools.partial(reference.clip, bound=BOUND)
    # Smaller than the gap, and large enough for rounding.
    step = 1e-7 if name == "across" else 1e-6
    assert error(rng, clip, exact, matrix, step) <= 1e-7


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("k", [0, 1, 2, 3])
@pytest.mark.parametrize("r", [1.0, 1.3, 1.9, 3.5])
@pytest.mark.parametrize("normalized", [False, True])
def test_gradient_of_the_cap_is_exact(rng, normalized, r, k, shape):
    matrix = reference.with_spectrum(rng, shape, [1.3, 1.1, 0.6, 0.2])
    if normalized:
        function, exact = normalize, normalized_reference
    else:
        function, exact = cap, reference.cap_stable_rank
    function, exact = (functools.partial(f, r=r, k=k) for f in (function, exact))
    value = ops.convert_to_numpy(function(matrix))
    np.testing.assert_allclose(value, exact(matrix), atol=1e-14)
    assert error(rng, function, exact, matrix) <= 1e-7


@pytest.mark.parametrize("k", [1, 2])
def test_gradient_of_the_cap_beside_a_tie(rng, k):
    """Exact for a gap of 0.11 % of the norm; finite below, down to none."""
    r, values = 1.5 if k == 1 else 2.2, [1.0, 0.99, 0.99, 0.5]
    values[k] = values[k - 1] - 1.1e-3
    values[2] = min(values[1], values[2])
    matrix = reference.with_spectrum(rng, (6, 4), values)
    function = functools.partial(cap, r=r, k=k)
    exact = functools.partial(reference.cap_stable_rank, r=r, k=k)
    assert error(rng, function, exact, matrix, step=1e-7) <= 1e-5
    for gap in (1e-5, 1e-10, 0.0):
        values[k] = values[k - 1] - gap
        values[2] = min(values[1], values[2])
        matrix = reference.with_spectrum(rng, (6, 4), values)
        cotangent = rng.standard_normal(matrix.shape)
        slope = reference.gradient(weighted(function, cotangent), matrix)
        assert np.abs(slope).max() < 1e4


FUNCTIONS = {
    "clip": (clip, functools.partial(reference.clip, bound=BOUND)),
    "cap": (
        functools.partial(cap, r=1.4, k=2),
        functools.partial(reference.cap_stable_rank, r=1.4, k=2),
    ),
    "normalize": (
        functools.partial(normalize, r=1.4, k=1),
        functools.partial(normalized_reference, r=1.4, k=1),
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_second_derivative(rng, name, shape):
    """By W twice; and by the inputs, then by W, as in a gradient penalty."""
    function, exact = FUNCTIONS[name]
    matrix = reference.with_spectrum(rng, shape, SPECTRA["distinct"])

    def cubed(weight):
        return ops.sum(function(weight) ** 3)

    found = reference.gradient_of_squared_gradient(cubed, matrix)
    expected = reference.squared_gradient_by_differences(cubed, matrix, 1e-5)
    assert relative_error(found, expected) <= 1e-6
    x, a = rng.standard_normal((3, shape[0])), rng.standard_normal(shape[1])

    def value(x, weight):
        # No tanh: that of Keras on JAX has a slope of float32's precision.
        return ops.sum((x @ function(weight)) ** 3 * ops.convert_to_tensor(a))

    def numpy_penalty(weight):
        kernel = exact(weight)
        return ((3 * (x @ kernel) ** 2 * a @ kernel.T) ** 2).sum()

    expected = reference.slope_by_differences(numpy_penalty, matrix)
    found = reference.gradient(reference.penalty(value, x), matrix)
    assert relative_error(found, expected) <= 1e-7


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["orthogonal above", "equal above", "identity"])
def test_second_derivative_where_values_repeat_is_nan_and_not_wrong(rng, name, shape):
    spectrum = SPECTRA.get(name, [1.0] * 4)
    matrix = reference.with_spectrum(rng, shape, spectrum)
    if name == "identity":
        matrix = np.eye(*shape)
    found = reference.gradient_of_squared_gradient(
        lambda weight: ops.sum(clip(weight) ** 3), matrix
    )
    assert not np.isfinite(found).any()


EXTREMES = {
    "gaussian": lambda rng: rng.standard_normal((6, 4)),
    "zero": lambda rng: np.zeros((6, 4)),
    "rank one": lambda rng: np.outer(rng.standard_normal(6), rng.standard_normal(4)),
    "one entry": lambda rng: np.eye(6, 1) * np.eye(1, 4),
    "orthogonal": lambda rng: reference.with_spectrum(rng, (6, 4), [1.0] * 4),
    "identity": lambda rng: np.eye(6, 4),
}
EXTREME_FUNCTIONS = {
    "clip": clip,
    **{
        f"{function.__name__} {r} {k}": functools.partial(function, r=r, k=k)
        for function in (cap, normalize)
        for r, k in [(1.0, 0), (1.0, 1), (1.0, 2), (1.5, 1), (1.5, 2)]
    },
}


@pytest.mark.parametrize("name", EXTREME_FUNCTIONS)
@pytest.mark.parametrize("kind", EXTREMES)
def test_finite_at_every_scale_of_float32(rng, kind, name):
    function = EXTREME_FUNCTIONS[name]
    cotangent = rng.standard_normal((6, 4)).astype("float32")
    for scale in (1e-38, 1e-19, 1.0, 1e19, 1e38):
        matrix = (EXTREMES[kind](rng) * scale).astype("float32")
        assert np.isfinite(ops.convert_to_numpy(function(matrix))).all()
        slope = reference.gradient(weighted(function, cotangent), matrix)
        assert slope.dtype == "float32" and np.isfinite(slope).all()
        if kind == "zero" and scale == 1:
            np.testing.assert_array_equal(slope, cotangent)


@pytest.mark.parametrize("r", [1.0, 1.4])
@pytest.mark.parametrize("k", [0, 1, 2])
def test_float32_gradient_at_every_scale(rng, k, r):
    """That of float64 at scale 1: the cap's is the same, SRN's the reciprocal."""
    matrix = reference.with_spectrum(rng, (6, 4), [1.3, 0.9, 0.6, 0.2])
    cotangent = rng.standard_normal((6, 4))

    def bound_to_half(norm):
        return ops.where(norm > 0, 0.5, norm)

    functions = {
        0: functools.partial(cap, r=r, k=k),
        -1: functools.partial(normalize, r=r, k=k, new_norm=bound_to_half),
    }
    for power, function in functions.items():
        expected = reference.gradient(weighted(function, cotangent), matrix)
        assert np.abs(expected).max() > 1e-2
        for scale in (1e-30, 1e-12, 1e12, 1e30):
            found = reference.gradient(
                weighted(function, cotangent.astype("float32")),
                (matrix * scale).astype("float32"),
            )
            found = found.astype("float64") / scale**power
            assert relative_error(found, expected) <= 1e-4


@pytest.mark.parametrize("shape", [(5, 1), (1, 5), (1, 1)])
def test_one_row_or_column(rng, shape):
    """A vector's only singular value is its length; its stable rank is 1."""
    matrix = rng.standard_normal(shape)
    matrix *= 2 / np.linalg.norm(matrix)
    cotangent = rng.standard_normal(shape)

    def exact(limit):
        return lambda weight: limit * weight / np.linalg.norm(weight)

    cases = {
        "clip": exact(BOUND),
        "normalize": exact(0.5),
        "cap": lambda weight: weight,
    }
    for name, numpy_function in cases.items():
        function = FUNCTIONS[name][0]
        expected = reference.slope_by_differences(
            lambda w, f=numpy_function: (f(w) * cotangent).sum(), matrix
        )
        found = reference.gradient(weighted(function, cotangent), matrix)
        np.testing.assert_allclose(found, expected, atol=1e-8)

        def cubed(weight, function=function):
            return ops.sum(function(weight) ** 3)

        expected = reference.squared_gradient_by_differences(cubed, matrix, 1e-6)
        found = reference.gradient_of_squared_gradient(cubed, matrix)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


def test_limited_norm(rng):
    """Within the limit the norm stays, above it is the limit; both exactly."""
    for spectrum in ([0.4, 0.3, 0.2, 0.1], [1.3, 0.9, 0.6, 0.2]):
        matrix = reference.with_spectrum(rng, (6, 4), spectrum)
        function = functools.partial(normalize, r=1.2, k=1, new_norm=limit_norm)

        def exact(weight):
            capped = reference.cap_stable_rank(weight, 1.2, 1)
            return capped / max(1, np.linalg.norm(capped, 2) / 0.5)

        assert error(rng, function, exact, matrix) <= 1e-7


@pytest.mark.parametrize("name", ["clip", "cap", "normalize"])
@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_what_is_not_finite_gives_nan(rng, name, broken):
    matrix = rng.standard_normal((6, 4)).astype("float32")
    matrix[1, 2] = broken
    value = ops.convert_to_numpy(FUNCTIONS[name][0](matrix))
    assert np.isnan(value).all()
    reference.gradient(weighted(FUNCTIONS[name][0], np.ones_like(matrix)), matrix)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("compiled", ["graph", "xla"])
@pytest.mark.skipif(BACKEND == "torch", reason="torch runs eagerly")
def test_compiled(rng, name, compiled):
    function, exact = FUNCTIONS[name]
    matrix = rng.standard_normal((9, 5))
    cotangent = rng.standard_normal((9, 5))
    expected = reference.gradient(weighted(function, cotangent), matrix)
    found = reference.gradient(
        weighted(function, cotangent.astype("float32")),
        matrix.astype("float32"),
        compiled,
    )
    assert relative_error(found, expected) <= 1e-4


def test_within_the_bound_everything_is_the_identity(rng):
    matrix = 0.1 * rng.standard_normal((6, 4)).astype("float32")
    cotangent = rng.standard_normal((6, 4)).astype("float32")
    for function in (clip, functools.partial(cap, r=4.0, k=1)):
        np.testing.assert_array_equal(ops.convert_to_numpy(function(matrix)), matrix)
        slope = reference.gradient(weighted(function, cotangent), matrix)
        np.testing.assert_array_equal(slope, cotangent)


def test_bfloat16(rng):
    matrix = ops.cast(rng.standard_normal((6, 4)), "bfloat16")
    for function, _ in FUNCTIONS.values():
        result = function(matrix)
        assert "bfloat16" in str(result.dtype)
        assert np.isfinite(ops.convert_to_numpy(ops.cast(result, "float32"))).all()


def factor_and_gradients(squares, sigma, r, full_rank, dtype):
    def value(x):
        return linalg.remainder_factor(x[0], x[1], r, full_rank)

    x = np.array([squares, sigma], dtype)
    return float(value(ops.convert_to_tensor(x))), reference.gradient(value, x)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("full_rank", [None, 1, 8])
@pytest.mark.parametrize("r", [1.0, 1 + 1e-12, 1.5, 4.0])
@pytest.mark.parametrize(
    "squares, sigma",
    [
        (0.0, 0.0),
        (1.0, 1.0),
        (1.0, 1.0000001),
        (1.0000001, 1.0),
        (1e-30, 1e-15),
        (3e-30, 1e-15),
        (3e37, 3e18),
        (1e-45, 1e-25),
        (1e-38, 1e-19),
        (np.inf, 1e25),
        (np.inf, np.inf),
        (5.0, 1.0),
        (5.0, 0.0),
    ],
)
def test_remainder_factor_is_finite(squares, sigma, r, full_rank, dtype):
    factor, slopes = factor_and_gradients(squares, sigma, r, full_rank, dtype)
    assert 0 <= factor <= 1
    assert np.isfinite(slopes).all()
    if r == 1 and full_rank != 1:
        assert factor == 0


@pytest.mark.parametrize("squares, sigma", [(np.inf, 1e25), (1e-44, 1e-22), (0, 0)])
@pytest.mark.parametrize("r", [1.0, 1.5, 4.0])
def test_remainder_factor_beyond_float32_caps_every_spectrum(squares, sigma, r):
    """p equal singular values are the worst case: 1 + f^2 (p - 1) <= r."""
    factor, _ = factor_and_gradients(squares, sigma, r, 8, "float32")
    assert 1 + factor**2 * 7 == pytest.approx(min(r, 8), rel=1e-6)
    factor, _ = factor_and_gradients(squares, sigma, 9.0, 8, "float32")
    assert factor == 1
    factor, _ = factor_and_gradients(squares, sigma, 1.5, None, "float32")
    assert factor == 1


def test_remainder_factor_gradient():
    for squares, sigma, r in [(12.0, 2.0, 1.5), (12.0, 2.0, 3.5), (3e-12, 1e-6, 1.2)]:

        def exact(x, r=r):
            return min(1, np.sqrt((r - 1) * x[1] ** 2 / (x[0] - x[1] ** 2)))

        x = np.array([squares, sigma])
        factor, slopes = factor_and_gradients(*x, r, None, "float64")
        assert factor == pytest.approx(exact(x), rel=1e-12)
        for i in (0, 1):
            step = np.eye(2)[i] * x[i] * 1e-6
            expected = (exact(x + step) - exact(x - step)) / (2 * step[i])
            assert slopes[i] == pytest.approx(expected, rel=1e-7)
