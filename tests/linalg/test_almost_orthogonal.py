import itertools

import numpy as np
import pytest
from keras import ops

from keras_spectral.linalg import almost_orthogonal

# Pixels, channels, groups and filters.
SHAPES = [((), 5, 1, 7), ((), 7, 1, 5), ((3,), 3, 1, 4), ((3, 2), 2, 1, 3)]
SHAPES += [((3, 3), 2, 3, 2), ((2, 2, 2), 2, 1, 3), ((3, 3), 1, 4, 2)]


def random_kernel(taps, channels, groups, filters, rng):
    return rng.standard_normal((*taps, channels, groups * filters))


def as_defined(kernel, groups):
    """The paper's sums, one product of two taps after another."""
    *taps, channels, outputs = kernel.shape
    filters = outputs // groups
    scaled = kernel.copy()
    places = list(itertools.product(*map(range, taps)))
    for group in range(groups):
        part = kernel[..., group * filters : (group + 1) * filters]
        total = np.zeros(channels)
        shifts = {}
        for first, second in itertools.product(places, places):
            apart = tuple(np.subtract(first, second))
            product = part[first] @ part[second].T
            shifts[apart] = shifts.get(apart, 0) + product
        for gram in shifts.values():
            total += np.abs(gram).sum(1)
        scaled[..., group * filters : (group + 1) * filters] /= np.sqrt(total)[:, None]
    return scaled


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_as_defined(shape, rng):
    taps, _, groups, _ = shape
    kernel = random_kernel(*shape, rng)
    matrix = kernel.reshape(-1, kernel.shape[-1])
    expected = as_defined(kernel, groups).reshape(matrix.shape)
    np.testing.assert_allclose(
        almost_orthogonal(matrix, taps, groups), expected, rtol=1e-12
    )
    tensor = ops.convert_to_tensor(matrix.astype("float32"))
    found = ops.convert_to_numpy(almost_orthogonal(tensor, taps, groups))
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["gaussian", "positive", "rank one"])
def test_no_frequency_has_a_norm_above_one(shape, kind, rng):
    taps, channels, groups, filters = shape
    kernel = random_kernel(*shape, rng)
    if kind == "positive":
        kernel = abs(kernel)
    elif kind == "rank one":
        kernel = np.ones_like(kernel)
    matrix = kernel.reshape(-1, kernel.shape[-1])
    scaled = almost_orthogonal(matrix, taps, groups).reshape(kernel.shape)
    norms = []
    for group in range(groups):
        part = scaled[..., group * filters : (group + 1) * filters]
        symbol = np.fft.fftn(part, [16] * len(taps), axes=range(len(taps)))
        norms.append(np.linalg.norm(symbol, 2, axis=(-2, -1)).max())
    assert max(norms) <= 1 + 1e-12
    if kind == "positive":
        # The frequency zero of a kernel that has no signs attains it.
        np.testing.assert_allclose(norms, 1, rtol=0.02)


def test_a_stride_of_the_size_of_the_kernel_makes_it_a_matrix(rng):
    matrix = rng.standard_normal((2 * 3 * 4, 5))
    expected = almost_orthogonal(matrix)
    found = almost_orthogonal(matrix, (2, 3), strides=(2, 3))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert np.linalg.norm(found, 2) <= 1 + 1e-12
    # Transposed, each input makes a patch of its own: (inputs, pixels * outputs).
    wide = matrix.reshape(6, 4, 5).transpose(1, 0, 2).reshape(4, 30)
    found = almost_orthogonal(matrix, (2, 3), strides=(2, 3), transposed=True)
    found = found.reshape(6, 4, 5).transpose(1, 0, 2).reshape(4, 30)
    np.testing.assert_allclose(found, almost_orthogonal(wide), rtol=1e-12)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("size", "stride"), [(3, 2), (4, 2), (5, 3), (2, 3)])
def test_a_strided_convolution_as_a_matrix(rng, size, stride, transposed):
    channels, filters, places = 2, 3, 30
    kernel = abs(rng.standard_normal((size, channels, filters)))
    matrix = kernel.reshape(-1, filters)
    scaled = almost_orthogonal(matrix, (size,), 1, stride, transposed)
    scaled = scaled.reshape(kernel.shape)
    # Position by position, on a line that is long enough to have an inside.
    dense = np.zeros((places * stride + size, channels, places, filters))
    if transposed:
        dense = np.zeros((places, channels, places * stride + size, filters))
    for place in range(places):
        for tap in range(size):
            far = stride * place + tap
            at = (place, slice(None), far) if transposed else (far, slice(None), place)
            dense[at] += scaled[tap]
    rows = dense.shape[0] * channels
    norm = np.linalg.norm(dense.reshape(rows, -1), 2)
    # Without signs it is attained, but for the ends of the line.
    assert 0.98 < norm <= 1 + 1e-12


def test_orthogonal_columns_are_only_scaled_to_one():
    rng = np.random.default_rng(0)
    orthogonal, _ = np.linalg.qr(rng.standard_normal((8, 5)))
    found = almost_orthogonal((orthogonal * 7 * np.arange(1, 6)).T)
    np.testing.assert_allclose(found, orthogonal.T, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e25])
def test_every_scale_is_one(scale, rng):
    matrix = rng.standard_normal((6, 4)).astype("float32")
    expected = almost_orthogonal(matrix.astype("float64"))
    found = almost_orthogonal(ops.convert_to_tensor(matrix * np.float32(scale)))
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, atol=1e-6)


def test_zeros_stay_zeros(rng):
    matrix = rng.standard_normal((6, 4)).astype("float32")
    matrix[2] = 0
    for given in (matrix, np.zeros((6, 4), "float32")):
        for array in (given, ops.convert_to_tensor(given)):
            found = ops.convert_to_numpy(almost_orthogonal(array))
            assert np.isfinite(found).all()
            np.testing.assert_array_equal(found == 0, given == 0)
