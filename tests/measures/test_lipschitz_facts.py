"""Constants of the literature and of closed forms, a row each: found beside expected.

What stands here beside `test_lipschitz_bound.py` (norms of linear layers and networks,
ECLipsE-Fast's table), `test_lipschitz_refusals.py` and `test_certified_accuracy.py`.
"""

import contextlib
import math
import sys

import keras
import numpy as np
import pytest
from keras import layers as kl
from keras import ops
from threadpoolctl import threadpool_info, threadpool_limits

from keras_spectral.measures import lipschitz_bound

F64 = dict(dtype="float64")
IMAGE, VECTOR = (8, 8, 3), (10,)


def bound(make, shape=IMAGE, method="product"):
    x = keras.Input(shape, dtype="float64")
    return lipschitz_bound(keras.Model(x, make(x)), method=method).bound


def twice(x):
    double = kl.Rescaling(2.0, **F64)
    return double(double(x))


def pool(size, strides, padding="valid"):
    return kl.MaxPooling2D(size, strides, padding, **F64)


def average(size, strides, padding="valid"):
    return kl.AveragePooling2D(size, strides, padding, **F64)


def up(size, interpolation):
    return kl.UpSampling2D(size, interpolation=interpolation, **F64)


def resize(interpolation):
    return kl.Resizing(5, 5, interpolation=interpolation, **F64)


def padded(mode, by=1):
    return lambda x: ops.pad(x, ((0, 0), (by, by), (by, by), (0, 0)), mode)


# Name: what is computed, its input, the constant and how near.
ROWS = {
    # 1: composition.
    "sum": (lambda x: kl.Add(**F64)([x, twice(x)]), VECTOR, 5.0, 1e-9),
    "difference": (lambda x: kl.Subtract(**F64)([x, twice(x)]), VECTOR, 5.0, 1e-9),
    "average": (lambda x: kl.Average(**F64)([x, twice(x), x]), VECTOR, 2.0, 1e-9),
    "concatenation": (
        lambda x: kl.Concatenate(**F64)([ops.relu(x), twice(x)]),
        VECTOR,
        17**0.5,
        1e-9,
    ),
    "maximum": (lambda x: kl.Maximum(**F64)([x, twice(x)]), VECTOR, 17**0.5, 1e-9),
    "minimum": (lambda x: kl.Minimum(**F64)([x, twice(x)]), VECTOR, 17**0.5, 1e-9),
    "a layer used twice": (twice, VECTOR, 4.0, 1e-9),
    "rescaling": (kl.Rescaling(-3.0, 7.0, **F64), IMAGE, 3.0, 1e-9),
    "normalization": (
        kl.Normalization(mean=[0.0, 1, 2], variance=[0.25, 1.0, 4.0], **F64),
        IMAGE,
        2.0,
        1e-9,
    ),
    # 2: padding, pooling, resizing.
    "padding with zeros": (padded("constant"), IMAGE, 1.0, 1e-9),
    "padding by reflection": (padded("reflect"), IMAGE, 2.0, 1e-9),
    "padding by symmetry": (padded("symmetric"), IMAGE, 2.0, 1e-9),
    "maxima 2x2 / 2": (pool(2, 2), IMAGE, 1.0, 1e-9),
    "maxima 3x3 / 2": (pool(3, 2), (9, 9, 1), 2.0, 1e-9),
    "maxima 3x3 / 1": (pool(3, 1), (9, 9, 1), 3.0, 1e-9),
    "maxima 2x2 / 1": (pool(2, 1), (9, 9, 1), 2.0, 1e-9),
    "maxima 5x5 / 2": (pool(5, 2), (15, 15, 1), 3.0, 1e-9),
    "maxima 5x5 / 3": (pool(5, 3), (15, 15, 1), 2.0, 1e-9),
    "global maxima": (kl.GlobalMaxPooling2D(**F64), IMAGE, 1.0, 1e-9),
    "averages 2x2 / 2": (average(2, 2), IMAGE, 0.5, 1e-9),
    "averages 2x3 / 3": (average((2, 3), 3), IMAGE, 6**-0.5, 1e-9),
    "averages 3x3 / 3, ragged": (average(3, 3, "same"), IMAGE, 0.5, 1e-9),
    "averages 3x3 / 1": (average(3, 1), IMAGE, 0.886, 1e-3),
    "averages 3x3 / 2": (average(3, 2), (9, 9, 1), 0.513, 1e-3),
    "averages 3x3 / 1, same": (average(3, 1, "same"), IMAGE, 1.01454, 1e-5),
    "averages 3x3 / 1, same, 16": (average(3, 1, "same"), (16, 16, 1), 1.00767, 1e-5),
    "averages 5x5 / 1, same": (average(5, 1, "same"), (12, 12, 1), 1.01467, 1e-5),
    "global average": (kl.GlobalAveragePooling2D(**F64), (8, 4, 3), 32**-0.5, 1e-9),
    "global sum": (lambda x: ops.sum(x, axis=(1, 2)), IMAGE, 8.0, 1e-9),
    "nearest by 2": (up(2, "nearest"), IMAGE, 2.0, 1e-9),
    "nearest by 3": (up(3, "nearest"), IMAGE, 3.0, 1e-9),
    "bilinear by 2": (up(2, "bilinear"), IMAGE, 2.0, 5e-6),
    "bilinear by 3": (up(3, "bilinear"), IMAGE, 3.0, 5e-6),
    "bicubic by 2": (up(2, "bicubic"), IMAGE, 2.0037, 1e-4),
    "bicubic by 3": (up(3, "bicubic"), IMAGE, 3.0062, 1e-4),
    "lanczos3 by 2": (up(2, "lanczos3"), IMAGE, 2.087, 1e-3),
    "lanczos3 by 3": (up(3, "lanczos3"), IMAGE, 3.141, 1e-3),
    "lanczos5 by 2": (up(2, "lanczos5"), IMAGE, 2.185, 1e-3),
    "lanczos5 by 3": (up(3, "lanczos5"), IMAGE, 3.291, 1e-3),
    "repeated": (kl.RepeatVector(3, **F64), VECTOR, 3**0.5, 1e-9),
    "bilinear to 5": (resize("bilinear"), (8, 8, 1), 0.824, 1e-3),
    "nearest to 5": (resize("nearest"), (8, 8, 1), 1.0, 1e-9),
    **{
        type(layer).__name__: (layer, shape, 1.0, 1e-9)
        for layer, shape in [
            (kl.Flatten(**F64), IMAGE),
            (kl.Reshape((3, 64), **F64), IMAGE),
            (kl.Permute((3, 1, 2), **F64), IMAGE),
            (kl.Identity(**F64), IMAGE),
            (kl.Dropout(0.5, **F64), IMAGE),
            (kl.SpatialDropout2D(0.5, **F64), IMAGE),
            (kl.GaussianNoise(0.5, **F64), IMAGE),
            (kl.ZeroPadding2D(**F64), IMAGE),
            (kl.Cropping2D(**F64), IMAGE),
        ]
    },
    # 3: what mixes numbers.
    "softmax of 2": (kl.Softmax(**F64), (2,), 0.5, 1e-9),
    "softmax of 10": (kl.Softmax(**F64), VECTOR, 0.5, 1e-9),
    "softmax, T = 4": (lambda x: ops.softmax(x / 4.0), VECTOR, 1 / 8, 1e-9),
    "log_softmax": (kl.Activation("log_softmax", **F64), VECTOR, 10**0.5, 1e-9),
    "log_softmax, axis": (lambda x: ops.log_softmax(x, axis=1), (4, 3), 2.0, 1e-9),
    "log_softmax, axes": (
        lambda x: ops.log_softmax(x, axis=(1, 2)),
        (4, 3),
        12**0.5,
        1e-9,
    ),
    "log_softmax, dense": (
        lambda x: kl.Dense(3, "log_softmax", kernel_initializer="identity", **F64)(x),
        (3,),
        3**0.5,
        1e-9,
    ),
    "sparsemax": (kl.Activation("sparsemax", **F64), VECTOR, 1.0, 1e-9),
    "sparsemax, plain": (ops.sparsemax, VECTOR, 1.0, 1e-9),
    "absolute values": (ops.abs, VECTOR, 1.0, 1e-9),
    "layer normalization": (kl.LayerNormalization(**F64), VECTOR, 1000**0.5, 1e-9),
    "group normalization": (kl.GroupNormalization(3, **F64), IMAGE, 1000**0.5, 1e-9),
    "RMS": (kl.RMSNormalization(epsilon=1e-3, **F64), VECTOR, 1000**0.5, 1e-9),
}


@pytest.mark.parametrize("name", ROWS)
def test_constants(name):
    make, shape, expected, near = ROWS[name]
    assert bound(make, shape) == pytest.approx(expected, abs=near)
    merged = bound(make, shape, "merged")
    assert merged <= expected + near


def attained(function, x, y):
    made = [ops.convert_to_numpy(function(z[None])).ravel() for z in (x, y)]
    return np.linalg.norm(made[0] - made[1]) / np.linalg.norm(x - y)


def test_constants_that_surprise_are_attained():
    for size, strides in [(2, 2), (3, 2), (3, 1), (2, 1), (5, 2), (5, 3)]:
        ratios = []
        for at in range(4, 11):  # Some pixel is in as many windows as can hold one.
            x = np.zeros((15, 15, 1))
            x[at, at] = 1.0
            ratios.append(attained(pool(size, strides), x, np.zeros_like(x)))
        assert max(ratios) == pytest.approx(math.ceil(size / strides))
    near = np.zeros(10)
    near[:2] = 1e4 + 1e-6, 1e4 - 1e-6
    assert attained(ops.softmax, near, near[[1, 0, *range(2, 10)]]) > 0.49
    x = np.array([1e3, *np.zeros(9)])
    moved = x + 1e-3 * np.array([9.0, *-np.ones(9)])
    assert attained(ops.log_softmax, x, moved) > 3.16
    x = np.full(10, 0.5)
    moved = x + 1e-5 * np.array([1.0, -1.0, *np.zeros(8)])
    assert attained(kl.LayerNormalization(**F64), x, moved) > 31.6


# The largest slopes, by mpmath.
STEEPEST = {
    "sigmoid": 1 / 4,
    "hard_sigmoid": 1 / 6,
    "sparse_sigmoid": 1 / 2,
    "gelu": 1.128993068658771766,  # By tanh, above the other's.
    "silu": 1.099839320128866917,
    "mish": 1.088498161251727861,
    "selu": 1.758099340847376860,
    "hard_silu": 3 / 2,
}


@pytest.mark.parametrize("name", STEEPEST)
def test_constants_of_activations_are_rounded_up(name):
    found = bound(kl.Activation(name, **F64), VECTOR)
    assert STEEPEST[name] <= found <= STEEPEST[name] * (1 + 3e-4)
    if name == "gelu":
        exact = bound(lambda x: ops.gelu(x, approximate=False), VECTOR)
        assert 1.128904145185154786 <= exact <= found


@pytest.mark.parametrize(
    "name", ["exponential", "hard_shrink", "threshold", "glu", "Embedding"]
)
def test_what_jumps_or_grows_is_refused(name):
    layer = kl.Embedding(5, 2) if name == "Embedding" else kl.Activation(name)
    with pytest.raises(ValueError, match=name):
        bound(layer, VECTOR)


def convolution(kernel, **arguments):
    layer = kl.Conv2D(kernel.shape[-1], kernel.shape[:2], use_bias=False, **arguments)
    layer.build((None, 8, 8, kernel.shape[2]))
    layer.set_weights([kernel])
    return layer


def norms(layer, size, channels):
    """The norm on images of a size, by unit vectors, and that of a torus."""
    eye = np.eye(size * size * channels).reshape(-1, size, size, channels)
    matrix = ops.convert_to_numpy(layer(eye)).reshape(len(eye), -1)
    (kernel,) = layer.get_weights()
    symbol = np.fft.fft2(kernel.astype("float64"), (size, size), axes=(0, 1))
    return np.linalg.norm(matrix, 2), np.linalg.norm(symbol, 2, axis=(2, 3)).max()


@pytest.mark.parametrize("positive", [False, True])
def test_zero_padding_lowers_and_a_torus_of_one_size_is_no_bound(positive):
    kernel = np.random.default_rng(0).standard_normal((3, 3, 2, 2)) / 4
    kernel = np.abs(kernel) if positive else kernel
    layer = convolution(kernel, padding="same", **F64)
    found = bound(layer, (64, 64, 2))
    padded, torus = np.transpose([norms(layer, size, 2) for size in (4, 8, 12)])
    assert (np.diff(padded) > 0).all()
    assert padded[-1] <= found and torus.max() <= found * (1 + 1e-9)
    if not positive:
        assert torus[1] < found / (1 + 2e-3)  # Beyond what a certificate may exceed.
    reshaped = np.linalg.norm(kernel.reshape(-1, 2), 2)
    assert found <= 3 * reshaped * 1.002
    if positive:
        assert found > reshaped * 1.5
    # Every second pixel of it is at most as much; so is a dilated one.
    strided = convolution(kernel, padding="same", strides=2, **F64)
    assert norms(strided, 12, 2)[0] <= bound(strided, (64, 64, 2)) <= found
    spread = convolution(kernel, padding="same", dilation_rate=2, **F64)
    assert bound(spread, (64, 64, 2)) == pytest.approx(found, rel=2e-3)


def test_linear_branches_side_by_side_are_one_kernel():
    """3.040 by the root of the squares, 2.638 in truth, on a pair of the facts."""
    rng = np.random.default_rng(0)
    pair = [kl.Dense(4, use_bias=False, **F64) for _ in range(2)]
    x = keras.Input((4,), dtype="float64")
    model = keras.Model(x, kl.Concatenate(**F64)([layer(x) for layer in pair]))
    model.set_weights(list(rng.standard_normal((2, 4, 4))))
    kernels = [layer.get_weights()[0] for layer in pair]
    norm = np.linalg.norm(np.concatenate(kernels, axis=1), 2)
    apart = math.hypot(*(np.linalg.norm(kernel, 2) for kernel in kernels))
    assert lipschitz_bound(model).bound == pytest.approx(apart, rel=1e-12)
    merged = lipschitz_bound(model, method="merged").bound
    assert merged == pytest.approx(norm, rel=1e-12) and norm < 0.99 * apart
    # Too large to be formed: the kernels are stacked, and the identity with them.
    kernels = [rng.standard_normal((3, 3, 2, 3)) / 5 for _ in range(2)]
    one = np.zeros((3, 3, 2, 2))
    one[1, 1] = np.eye(2)
    layers = [convolution(kernel, padding="same", **F64) for kernel in kernels]
    joined = np.concatenate([*kernels, one], axis=-1)
    expected = bound(convolution(joined, padding="same", **F64), (64, 64, 2))

    def side(x):
        return kl.Concatenate(**F64)([*(layer(x) for layer in layers), x])

    assert bound(side, (64, 64, 2), "merged") == pytest.approx(expected, rel=1e-9)
    assert expected < bound(side, (64, 64, 2)) * 0.99


def test_batch_normalization_folds_into_either_neighbour():
    rng = np.random.default_rng(0)
    for order in (1, -1):
        layers = [kl.Dense(6, **F64), kl.BatchNormalization(**F64)][::order]
        model = keras.Sequential([keras.Input((6,), dtype="float64"), *layers])
        normalization = layers[1 if order == 1 else 0]
        normalization.set_weights([*rng.uniform(0.2, 3.0, (4, 6))])
        gamma, _, _, variance = normalization.get_weights()
        scale = np.diag(gamma / np.sqrt(variance + 1e-3))
        kernel = layers[0 if order == 1 else 1].get_weights()[0]
        folded = np.linalg.norm(kernel @ scale if order == 1 else scale @ kernel, 2)
        product = np.linalg.norm(kernel, 2) * scale.max()
        merged = lipschitz_bound(model, method="merged").bound
        assert merged == pytest.approx(folded, rel=1e-12) and folded < product
        assert lipschitz_bound(model).bound == pytest.approx(product, rel=1e-12)


@pytest.mark.parametrize(
    "sizes", [(64, 128, 128, 10), (64, 256, 256, 256, 256, 10), (784, 512, 512, 10)]
)
def test_eclipse_fast_halves_the_product(sizes):
    """5.5297 to 3.1987, 25.942 to 9.096 and 4.0807 to 2.4601 for draws of the facts."""
    rng = np.random.default_rng(0)
    layers = [kl.Dense(size, "relu", **F64) for size in sizes[1:-1]]
    layers.append(kl.Dense(sizes[-1], **F64))
    model = keras.Sequential([keras.Input((sizes[0],), dtype="float64"), *layers])
    for layer in layers:
        shape = layer.kernel.shape
        layer.kernel.assign(rng.standard_normal(shape) / shape[0] ** 0.5)
    product = lipschitz_bound(model).bound
    merged = lipschitz_bound(model, method="merged").bound
    kernels = [layer.get_weights()[0].T for layer in layers]
    assert merged == pytest.approx(eclipse_fast(kernels), rel=1e-6)
    ratio = {4: (1.6, 1.8), 6: (2.7, 3.0)}[len(sizes)]
    assert ratio[0] < product / merged < ratio[1]


def eclipse_fast(kernels):
    """Of the facts, by plain NumPy."""
    inverse = np.eye(kernels[0].shape[1])
    for kernel in kernels[:-1]:
        spread = kernel @ inverse @ kernel.T
        norm = np.linalg.norm(spread, 2)
        weights = 2 / norm * np.eye(len(spread)) - spread / norm**2
        assert np.linalg.eigvalsh(weights)[0] > 0
        inverse = np.linalg.inv(weights)
    return np.sqrt(np.linalg.norm(kernels[-1] @ inverse @ kernels[-1].T, 2))


def test_identity_layers_have_exactly_one():
    layers = [
        kl.Dense(5, activation, kernel_initializer="identity", **F64)
        for activation in ("relu", "tanh", "linear")
    ]
    model = keras.Sequential([keras.Input((5,), dtype="float64"), *layers])
    for method in ("product", "merged"):
        assert lipschitz_bound(model, method=method).bound == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize("method", ["product", "merged", "local"])
def test_a_bar_moves_by_a_layer_and_ends_where_it_says(method, monkeypatch):
    moved, totals = [], []

    @contextlib.contextmanager
    def bar(description, total, shown):
        totals.append(total if shown else None)
        yield lambda: moved.append(1)

    module = sys.modules[lipschitz_bound.__module__]  # Of the function's own name.
    monkeypatch.setattr(module, "progress_bar", bar)
    inner = keras.Sequential([keras.Input((2,)), kl.Dense(2), kl.ReLU()])
    model = keras.Sequential([keras.Input((2,)), inner, inner, kl.Dense(1)])
    balls = method == "local" and {"inputs": np.ones((3, 2)), "input_radius": 0.1}
    lipschitz_bound(model, method=method, **(balls or {}))
    assert totals == [len(moved)] and len(moved) >= 5


def test_small_networks_are_walked_by_one_thread():
    """Threads that wait for a core took 30 times the CPU time."""

    class Watching(kl.Layer):
        def call(self, x):
            return x

        def lipschitz_constant(self):
            info = threadpool_info()
            seen.extend(x["num_threads"] for x in info if x["user_api"] == "blas")
            return 1.0

    seen = []
    model = keras.Sequential([keras.Input((4,)), Watching(), kl.Dense(2)])
    with threadpool_limits(2, "blas"):
        assert lipschitz_bound(model).bound > 0
    assert seen and set(seen) == {1}
