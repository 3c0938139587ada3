"""The bound is never below what a network does, and exact where that is linear."""

import itertools
import math

import keras
import numpy as np
import pytest
from keras import layers as kl
from keras import ops

from keras_spectral.layers import (
    InvertibleResidual,
    SpectralNormalization,
    StableRankNormalization,
    SVDDense,
)
from keras_spectral.measures import lipschitz_bound


def randomized(model, seed=0):
    """Give each weight numbers of its own; variances stay positive."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        value = rng.standard_normal(weight.shape) / max(1, weight.shape[-1]) ** 0.5
        if "variance" in weight.path:
            value = rng.uniform(0.5, 2.0, weight.shape)
        if weight.dtype.startswith("float"):
            weight.assign(value)
    return model


def jacobian(model, shape):
    """The matrix of an affine model, by its values at the unit vectors, in float64."""
    eye = np.eye(math.prod(shape)).reshape(-1, *shape)
    (layer, *_) = [*model.layers, None]
    first = getattr(layer, "data_format", "") == "channels_first"
    if first and len(model.layers) == 1:
        # Which TensorFlow does not compute on a CPU.
        config = {**layer.get_config(), "data_format": "channels_last"}
        last = type(layer).from_config(config)
        eye = np.moveaxis(eye, 1, -1)
        last.build(eye.shape)
        last.set_weights(layer.get_weights())
        model = last
    values = [ops.convert_to_numpy(model(x)) for x in (eye, np.zeros_like(eye[:1]))]
    return (values[0] - values[1]).reshape(len(eye), -1).T.astype("float64")


def one(layer, shape):
    return randomized(keras.Sequential([keras.Input(shape, dtype="float64"), layer]))


IMAGE, LINE = (8, 8, 3), (9, 2)
F64 = dict(dtype="float64")
LINEAR = {
    "dense": (kl.Dense(5, **F64), (7,)),
    "dense on pixels": (kl.Dense(5, **F64), (2, 3, 4)),
    "einsum": (kl.EinsumDense("abc,cd->abd", (None, 4), **F64), (3, 5)),
    "convolution": (kl.Conv2D(4, 3, padding="same", **F64), IMAGE),
    "channels first": (kl.Conv2D(4, 3, 2, "same", "channels_first", **F64), (3, 7, 6)),
    "dilated, first": (
        kl.Conv2D(4, 3, 1, "same", "channels_first", (2, 1), **F64),
        (3, 7, 6),
    ),
    "strides": (kl.Conv2D(4, 3, strides=(2, 1), padding="same", **F64), IMAGE),
    "dilation": (kl.Conv2D(4, 3, dilation_rate=2, **F64), IMAGE),
    "groups": (kl.Conv2D(6, 3, groups=3, **F64), IMAGE),
    "causal": (kl.Conv1D(4, 3, padding="causal", **F64), LINE),
    "three axes": (kl.Conv3D(2, 2, **F64), (3, 4, 5, 2)),
    "transposed": (kl.Conv2DTranspose(4, 3, strides=2, padding="same", **F64), IMAGE),
    "depthwise": (kl.DepthwiseConv2D(3, depth_multiplier=2, **F64), IMAGE),
    "separable": (kl.SeparableConv2D(4, 3, **F64), IMAGE),
    "batch normalization": (kl.BatchNormalization(**F64), IMAGE),
    "first axis": (kl.BatchNormalization(axis=1, **F64), IMAGE),
    "average pooling": (kl.AveragePooling2D(2, **F64), IMAGE),
    "ragged": (kl.AveragePooling2D(3, padding="same", **F64), IMAGE),
    "overlapping": (kl.AveragePooling2D(3, 1, padding="same", **F64), IMAGE),
    "pooling of lines": (kl.AveragePooling1D(5, 2, **F64), LINE),
    "global average": (kl.GlobalAveragePooling2D(**F64), IMAGE),
    "nearest": (kl.UpSampling2D(2, **F64), IMAGE),
    "bilinear": (kl.UpSampling2D(2, interpolation="bilinear", **F64), IMAGE),
    "padding": (kl.ZeroPadding2D(2, **F64), IMAGE),
    "cropping": (kl.Cropping2D(2, **F64), IMAGE),
    "permute": (kl.Permute((3, 1, 2), **F64), IMAGE),
    "repeat": (kl.RepeatVector(4, **F64), (5,)),
    "rescaling": (kl.Rescaling(-2.5, 0.5, **F64), IMAGE),
    "dropout": (kl.Dropout(0.5, **F64), IMAGE),
}


@pytest.mark.parametrize("name", LINEAR)
def test_a_linear_layer_has_its_norm(name):
    layer, shape = LINEAR[name]
    model = one(layer, shape)
    norm = np.linalg.norm(jacobian(model, shape), 2)
    merged = lipschitz_bound(model, method="merged").bound
    product = lipschitz_bound(model).bound
    # What interpolates computes in float32.
    tight = 1e-6 if name == "bilinear" else 1e-10
    assert norm * (1 - 1e-9) <= merged <= norm * (1 + tight)
    assert norm * (1 - 1e-9) <= product


@pytest.mark.parametrize(
    "layer, expected",
    [
        (kl.LeakyReLU(negative_slope=3.0), 3.0),
        (kl.ELU(alpha=2.0), 2.0),
        (kl.PReLU("ones"), 1.0),
    ],
    ids=str,
)
def test_slopes_of_layers(layer, expected):
    model = keras.Sequential([keras.Input((8, 8, 2)), layer])
    assert lipschitz_bound(model).bound == pytest.approx(expected)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("first", [False, True])
def test_a_dilated_transposed_convolution_is_the_adjoint_of_one(padding, first):
    """Which TensorFlow cannot run on a CPU."""
    arguments = dict(padding=padding, dilation_rate=(2, 1), use_bias=False, **F64)
    forward = one(kl.Conv2D(2, 3, **arguments), (7, 6, 3))
    norm = np.linalg.norm(jacobian(forward, (7, 6, 3)), 2)
    shape = forward.output_shape[1:]
    if first:
        arguments["data_format"] = "channels_first"
        shape = (shape[-1], *shape[:-1])
    layer = kl.Conv2DTranspose(3, 3, **arguments)
    model = keras.Sequential([keras.Input(shape, dtype="float64"), layer])
    layer.set_weights(forward.get_weights())
    for method in ("product", "merged"):
        found = lipschitz_bound(model, method=method).bound
        assert norm * (1 - 1e-9) <= found
    assert found == pytest.approx(norm, rel=1e-10)
    near = lipschitz_bound(model, np.ones((1, *shape)), None, "local", 0.1).bound
    assert near == pytest.approx(norm, rel=1e-9)


def test_averages_of_large_images_are_taken_axis_by_axis():
    layer = kl.AveragePooling2D(3, 1, padding="same")
    model = keras.Sequential([keras.Input((8, 8, 40)), layer])
    assert lipschitz_bound(model).bound == pytest.approx(1.01454, abs=1e-5)


def linear_networks():
    def first(x):
        x = kl.Conv2D(4, 3, padding="same", **F64)(x)
        x = kl.BatchNormalization(**F64)(x)
        x = kl.AveragePooling2D(2, **F64)(x)
        return kl.Dense(3, **F64)(kl.Flatten(**F64)(x))

    def residual(x):
        y = kl.Conv2D(3, 3, padding="same", **F64)(kl.BatchNormalization(**F64)(x))
        y = kl.Subtract(**F64)([x, kl.Conv2D(3, 3, padding="same", **F64)(y)])
        return kl.Average(**F64)([y, x])

    def operations(x):
        return ops.reshape(ops.mean(x * 2.0 - 1.0, axis=1), (-1, 24)) / 4.0

    return [first, residual, operations]


@pytest.mark.parametrize("make", linear_networks())
def test_a_linear_network_has_its_norm(make):
    x = keras.Input(IMAGE, dtype="float64")
    model = randomized(keras.Model(x, make(x)))
    norm = np.linalg.norm(jacobian(model, IMAGE), 2)
    found = lipschitz_bound(model, method="merged").bound
    assert norm * (1 - 1e-10) <= found <= norm * (1 + 1e-10)
    assert lipschitz_bound(model).bound >= norm * (1 - 1e-10)


def test_a_residual_of_a_linear_branch_is_one_kernel():
    """Too large to form: |I + K| by its certificate, not 1 + |K|."""
    x = keras.Input((64, 64, 2))
    convolution = kl.Conv2D(2, 3, padding="same", use_bias=False)
    model = keras.Model(x, kl.Add()([x, convolution(x)]))
    kernel = np.zeros((3, 3, 2, 2))
    kernel[1, 1] = -0.9 * np.eye(2)
    convolution.set_weights([kernel])
    assert lipschitz_bound(model).bound >= 1.9
    assert lipschitz_bound(model, method="merged").bound == pytest.approx(0.1, rel=0.01)


def test_a_branch_less_its_input_is_one_kernel():
    x = keras.Input((64, 64, 2))
    convolution = kl.Conv2D(2, 3, padding="same", use_bias=False)
    less = kl.Subtract()([convolution(x), x]), kl.Subtract()([x, convolution(x)])
    kernel = np.zeros((3, 3, 2, 2))
    kernel[1, 1] = 0.9 * np.eye(2)
    convolution.set_weights([kernel])
    for y in less:
        found = lipschitz_bound(keras.Model(x, y), method="merged").bound
        assert found == pytest.approx(0.1, rel=0.01)


def test_eclipse_fast_of_the_literature_and_all_masks():
    first = np.array([[1.0, 2], [3, -1], [0.5, 0.5]])
    second = np.array([[1.0, -1, 2], [0, 1, 1]])
    layers = [kl.Dense(3, "relu"), kl.Dense(2)]
    model = keras.Sequential([keras.Input((2,)), *layers])
    model.set_weights([first.T, np.zeros(3), second.T, np.zeros(2)])
    assert lipschitz_bound(model).bound == pytest.approx(8.037795, abs=1e-6)
    merged = lipschitz_bound(model, method="merged").bound
    assert merged == pytest.approx(6.117763, abs=1e-6)
    masks = itertools.product((0.0, 1.0), repeat=3)
    largest = max(np.linalg.norm(second @ np.diag(m) @ first, 2) for m in masks)
    assert largest == pytest.approx(4.548894, abs=1e-6) and largest <= merged


@pytest.mark.parametrize("seed", range(5))
def test_no_mask_of_twelve_neurons_exceeds_it(seed):
    layers = [kl.Dense(6, "relu"), kl.Dense(6, "tanh"), kl.Dense(3)]
    model = randomized(keras.Sequential([keras.Input((5,)), *layers]), seed)
    a, b, c = (layer.get_weights()[0].T.astype("float64") for layer in model.layers)
    masks = [np.diag(m) for m in itertools.product((0.0, 1.0), repeat=6)]
    largest = max(
        np.linalg.norm(c @ two @ b @ one @ a, 2)
        for one, two in itertools.product(masks, repeat=2)
    )
    merged = lipschitz_bound(model, method="merged").bound
    assert largest <= merged <= lipschitz_bound(model).bound * (1 + 1e-9)


def dense_network():
    x = keras.Input(IMAGE)
    y = kl.Concatenate()([x, kl.Conv2D(4, 3, padding="same", activation="gelu")(x)])
    y = kl.Concatenate()([y, kl.Conv2D(4, 3, padding="same", activation="silu")(y)])
    y = kl.Maximum()([kl.Conv2D(4, 1)(y), kl.Conv2D(4, 1)(y)])
    return keras.Model(x, kl.Softmax()(kl.Dense(4)(kl.Flatten()(y))))


def shared_network():
    inner = keras.Sequential([keras.Input((6,)), kl.Dense(6, "tanh"), kl.Dense(6)])
    x = keras.Input((6,))
    y = inner(inner(x))
    return keras.Model(x, ops.relu(y) + 0.5 * inner(y) - x)


def plain_network():
    units = [kl.Dense(32, "relu"), kl.PReLU(), kl.Dense(32, "softplus"), kl.Dense(3)]
    return keras.Sequential([keras.Input((10,)), kl.LayerNormalization(), *units])


@pytest.mark.parametrize("make", [dense_network, shared_network, plain_network])
def test_neither_pairs_nor_an_attack_exceed_it(make):
    model = randomized(make())
    merged = lipschitz_bound(model, method="merged").bound
    assert merged <= lipschitz_bound(model).bound * 1.01
    rng = np.random.default_rng(0)
    shape = (500, *model.input_shape[1:])
    x = rng.standard_normal(shape).astype("float32")
    for radius in (1e-2, 1.0, 10.0):
        y = x + radius * rng.standard_normal(shape).astype("float32")
        assert _ratios(model, x, y).max() <= merged * (1 + 1e-4)
    # Along the direction that the model moves most in, by power iteration on J'J.
    assert _attack(model, x[:20]) <= merged * (1 + 1e-4)


def _ratios(model, x, y):
    moved = (model.predict(x, verbose=0) - model.predict(y, verbose=0)).reshape(
        len(x), -1
    )
    return np.linalg.norm(moved, axis=1) / np.linalg.norm(
        (x - y).reshape(len(x), -1), axis=1
    )


def _attack(model, x):
    import tensorflow as tf

    x = tf.constant(x)
    direction = tf.random.stateless_normal(x.shape, (0, 1))
    axes = tuple(range(1, len(x.shape)))
    for _ in range(20):
        scale = tf.sqrt(tf.reduce_sum(direction**2, axes, keepdims=True))
        direction = direction / (scale + 1e-30)
        with tf.autodiff.ForwardAccumulator(x, direction) as forward:
            y = model(x)
        image = forward.jvp(y)
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(model(x) * tf.stop_gradient(image))
        direction = tape.gradient(total, x)
    norms = tf.sqrt(tf.reduce_sum(image**2, tuple(range(1, len(image.shape)))))
    return float(tf.reduce_max(norms))


def test_several_inputs_and_outputs():
    x, y = keras.Input((3,), dtype="float64"), keras.Input((2,), dtype="float64")
    a, b = kl.Dense(4, **F64), kl.Dense(4, **F64)
    model = randomized(keras.Model([x, y], [kl.Add(**F64)([a(x), b(y)]), 2.0 * y]))
    kernels = [layer.get_weights()[0].T for layer in (a, b)]
    matrix = np.block([kernels, [np.zeros((2, 3)), 2 * np.eye(2)]])
    bound = lipschitz_bound(model).bound
    norms = [[np.linalg.norm(k, 2) for k in kernels], [0.0, 2.0]]
    assert np.linalg.norm(matrix, 2) <= bound
    assert bound == pytest.approx(np.linalg.norm(norms, 2), rel=1e-10)


def test_wrappers_count_with_the_kernel_that_they_compute_with():
    dense = SpectralNormalization(kl.Dense(6, use_bias=False), bound=2.0)
    model = keras.Sequential([keras.Input((8,)), dense])
    assert lipschitz_bound(model).bound == pytest.approx(2.0, rel=1e-5)
    # The vectors belong to another kernel now: the target is not what is computed.
    dense.kernel.assign(np.random.default_rng(0).standard_normal((8, 6)))
    dense.norm_states[0].u.assign(np.eye(6)[0].reshape(dense.norm_states[0].u.shape))
    effective = ops.convert_to_numpy(dense.effective_kernel()).astype("float64")
    norm = np.linalg.norm(effective, 2)
    assert lipschitz_bound(model).bound == pytest.approx(norm, rel=1e-6)


def test_our_layers():
    layers = [
        StableRankNormalization(kl.Dense(6, "relu"), stable_rank_ratio=0.5),
        InvertibleResidual([kl.Dense(6, "elu"), kl.Dense(6)], bound=0.5),
        SVDDense(5),
    ]
    model = keras.Sequential([keras.Input((8,)), *layers])
    found = lipschitz_bound(model)
    constants = {row.node: row.constant for row in found}
    assert constants[layers[1].name] <= 1.5 * (1 + 1e-5)
    x = np.random.default_rng(0).standard_normal((200, 8)).astype("float32")
    assert _ratios(model, x, x[::-1]).max() <= found.bound


def test_a_layer_of_the_users_tells_its_constant():
    class Halved(kl.Layer):
        def call(self, x):
            return ops.sin(x) / 2

        def compute_output_shape(self, shape):
            return shape

        def lipschitz_constant(self):
            return 0.5

    model = keras.Sequential([keras.Input((4,)), Halved()])
    assert lipschitz_bound(model).bound == pytest.approx(0.5, rel=1e-12)


def test_a_network_of_hundreds_of_layers_has_a_logarithm():
    layers = [kl.Rescaling(100.0) for _ in range(400)]
    found = lipschitz_bound(keras.Sequential([keras.Input((2,)), *layers]))
    assert found.log10_bound == pytest.approx(800) and found.bound == math.inf
    dense = kl.Dense(3, kernel_initializer="zeros")
    assert lipschitz_bound(keras.Sequential([keras.Input((2,)), dense])).bound == 0.0


def test_dilation_is_another_kernel():
    """Kernels of one shape add up only where their taps lie alike."""
    x = keras.Input((40, 40, 3))
    near = kl.Conv2D(3, 3, padding="same", use_bias=False)
    far = kl.Conv2D(3, 3, padding="same", dilation_rate=2, use_bias=False)
    model = keras.Model(x, kl.Add()([near(x), far(x)]))
    (kernel,) = near.get_weights()
    far.set_weights([-kernel])
    x = np.zeros((2, 40, 40, 3), "float32")
    x[1, 20, 20, 0] = 1
    bound = lipschitz_bound(model, method="merged").bound
    assert 0 < _ratios(model, x[:1], x[1:]).max() <= bound
