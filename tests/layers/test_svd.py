import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from keras import layers as kl

import keras_spectral as ks
from keras_spectral import regularizers
from keras_spectral.layers import SVDConv2D, SVDConv2DTranspose, SVDDense
from tests.layers.kinds import images

CASES = {
    "dense": (SVDDense, kl.Dense, dict(units=6), images(9)),
    "dense in time": (SVDDense, kl.Dense, dict(units=6), images(3, 5)),
    "convolution": (
        SVDConv2D,
        kl.Conv2D,
        dict(filters=7, kernel_size=3, strides=2, padding="same"),
        images(7, 8, 2),
    ),
    "dilated": (
        SVDConv2D,
        kl.Conv2D,
        dict(filters=30, kernel_size=(3, 2), dilation_rate=2),
        images(8, 8, 3),
    ),
    "transposed": (
        SVDConv2DTranspose,
        kl.Conv2DTranspose,
        dict(filters=5, kernel_size=4, strides=2, padding="same"),
        images(5, 4, 3),
    ),
}


def trained(plain, arguments, x, dtype="float64"):
    layer = plain(**arguments, activation="tanh", dtype=dtype)
    layer(x)
    for weight in layer.weights:
        weight.assign(np.random.standard_normal(weight.shape))
    return layer


@pytest.mark.parametrize("case", CASES)
def test_full_rank_is_the_layer_and_comes_back(case):
    make, plain, arguments, x = CASES[case]
    layer = trained(plain, arguments, x)
    factored = make.from_layer(layer)
    assert (factored.name, factored.rank) == (layer.name, factored.e.shape[0])
    np.testing.assert_allclose(factored(x), layer(x), atol=1e-12)
    np.testing.assert_allclose(factored.effective_kernel(), layer.kernel, atol=1e-12)
    back = factored.to_layer()
    assert type(back) is plain
    config, expected = back.get_config(), layer.get_config()
    different = {key for key in config if config[key] != expected[key]}
    assert different <= {"kernel_size", "strides", "dilation_rate"}
    np.testing.assert_allclose(back(x), layer(x), atol=1e-12)
    assert factored.compute_output_shape(x.shape) == layer.compute_output_shape(x.shape)


@pytest.mark.parametrize("ratio", [0.3, 0.5])
@pytest.mark.parametrize("case", CASES)
def test_truncation_is_the_nearest_kernel_of_the_rank(case, ratio):
    make, plain, arguments, x = CASES[case]
    layer = trained(plain, arguments, x)
    factored = make.from_layer(layer, rank_ratio=ratio)
    kernel = layer.kernel.numpy()
    axis = -2 if case == "transposed" else -1
    matrix = np.moveaxis(kernel, axis, -1)
    shape = matrix.shape
    u, s, vt = np.linalg.svd(matrix.reshape(-1, shape[-1]), full_matrices=False)
    rank = max(1, int(ratio * len(s)))
    assert factored.rank == rank
    truncated = ((u[:, :rank] * s[:rank]) @ vt[:rank]).reshape(shape)
    truncated = np.moveaxis(truncated, -1, axis)
    np.testing.assert_allclose(factored.effective_kernel(), truncated, atol=1e-12)
    # Its outputs are those of the layer with that kernel.
    layer.kernel.assign(truncated)
    np.testing.assert_allclose(factored(x), layer(x), atol=1e-12)
    np.testing.assert_allclose(factored.singular_values(), s[:rank], atol=1e-12)


def mnist(rank_ratio):
    def convolution(filters, size, **arguments):
        if rank_ratio is None:
            return kl.Conv2D(filters, size, **arguments)
        return SVDConv2D(filters, size, rank_ratio=rank_ratio, **arguments)

    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            convolution(20, 5, activation="relu"),
            kl.MaxPooling2D(),
            convolution(50, 5, activation="relu"),
            kl.MaxPooling2D(),
            convolution(10, 4),
        ]
    )


@pytest.mark.parametrize(
    "ratio, count",
    [(None, 33_580), (1.0, 36_663), (0.75, 26_837), (0.5, 18_373), (0.25, 8_547)],
)
def test_parameter_counts_of_the_papers_mnist_network(ratio, count):
    assert mnist(ratio).count_params() == count


@pytest.mark.parametrize(
    "make, arguments, shape",
    [
        (SVDDense, dict(units=64), (1, 48)),
        (SVDConv2D, dict(filters=64, kernel_size=3, padding="same"), (1, 10, 10, 48)),
        (
            SVDConv2DTranspose,
            dict(filters=64, kernel_size=3, padding="same"),
            (1, 10, 10, 48),
        ),
    ],
)
def test_operations_fall_with_the_rank(make, arguments, shape):
    """TensorFlow's own count of multiply-adds in the traced function."""

    def operations(layer):
        layer.build(shape)
        traced = tf.function(layer).get_concrete_function(tf.TensorSpec(shape))
        options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
        options["output"] = "none"
        profile = tf.compat.v1.profiler.profile(traced.graph, options=options)
        return profile.total_float_ops

    plain = make.plain_layer(**arguments)
    full = operations(plain)
    quarter = operations(make(**arguments, rank_ratio=0.25))
    half = operations(make(**arguments, rank_ratio=0.5))
    pixels = int(np.prod(shape[1:-1]))
    taps = 9 if len(shape) == 4 else 1
    rank = int(0.25 * min(48 * taps, 64))
    expected = 2 * pixels * rank * (48 * taps + 64)
    assert quarter == pytest.approx(expected, rel=0.05)
    assert quarter < 0.5 * full and half < 2.1 * quarter


@pytest.mark.parametrize("case", CASES)
def test_initial_factors_are_orthonormal_and_penalties_closed_forms(case):
    make, _, arguments, x = CASES[case]
    layer = make(
        **arguments,
        rank_ratio=0.6,
        orthogonal_factor=0.5,
        spectrum_regularizer=regularizers.DOptimal(2.0),
        dtype="float64",
    )
    layer(x)
    np.testing.assert_allclose([float(v) for v in layer.losses], 0, atol=1e-12)
    norm = np.linalg.norm(
        np.moveaxis(
            layer.effective_kernel().numpy(), -2 if case == "transposed" else -1, -1
        ).reshape(-1, arguments.get("units", arguments.get("filters"))),
        2,
    )
    assert norm == pytest.approx(1)
    layer.e.assign(0.5 ** np.arange(layer.rank))
    for factor in (layer.first, layer.second):
        factor.kernel.assign(3 * factor.kernel)
    # Twice (9 - 1)^2 for each of the k columns; log 2 times 0 + 1 + ... + (k - 1).
    k = layer.rank
    expected = 0.5 * 2 * k * 64 + 2 * np.log(2) * k * (k - 1) / 2
    assert sum(map(float, layer.losses)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("case", "policy"),
    [
        *((case, "float32") for case in CASES),
        # Of each class, which differ in what they compute with.
        *((c, "mixed_bfloat16") for c in ("dense", "convolution", "transposed")),
        *((c, "mixed_float16") for c in ("dense in time", "dilated")),
    ],
)
def test_fit_save_load_and_unwrap(case, policy, tmp_path):
    """By XLA those without their like."""
    make, _, arguments, x = CASES[case]
    layer = make(
        **arguments,
        rank_ratio=0.5,
        orthogonal_factor=0.1,
        spectrum_regularizer=regularizers.DOptimal(0.1),
        dtype=policy,
    )
    model = keras.Sequential([keras.Input(x.shape[1:]), layer, kl.Flatten()])
    jit = policy == "float32" and case not in ("dense in time", "dilated")
    model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=jit)
    target = np.ones((4, model.output_shape[1]), "float32")
    before = model.get_weights()
    loss = model.fit(x, target, epochs=8, verbose=0).history["loss"]
    assert loss[-1] < loss[0]
    for old, new in zip(before, model.get_weights(), strict=True):
        # The first step finds every e at the maximum.
        assert not np.array_equal(old, new)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    tolerance = 1e-5 if policy == "float32" else 0.05
    plain = ks.unwrap(model)
    np.testing.assert_allclose(
        tf.cast(plain(x), "float32"), tf.cast(model(x), "float32"), atol=tolerance
    )
    assert plain(x).dtype == model(x).dtype


def test_a_zero_spectrum_and_a_zero_kernel_give_zeros():
    layer = SVDDense(3, dtype="float64")
    layer.build((None, 4))
    layer.e.assign(np.zeros(3))
    np.testing.assert_array_equal(layer.effective_kernel(), np.zeros((4, 3)))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(np.ones((2, 4))) ** 2)
    for gradient in tape.gradient(total, layer.trainable_variables):
        assert np.isfinite(gradient).all()
    dense = kl.Dense(3, kernel_initializer="zeros")
    dense.build((None, 4))
    factored = SVDDense.from_layer(dense)
    np.testing.assert_array_equal(factored.effective_kernel(), np.zeros((4, 3)))


@pytest.mark.parametrize("largest", [1e-30, 1e30, np.nan])
def test_the_scale_of_e_does_not_matter_and_nan_is_not_hidden(largest):
    layer = SVDDense(3)
    layer.build((None, 3))
    layer.e.assign(np.array([1.0, -0.5, 0.25]) * largest)
    expected = np.array([1.0, -0.5, 0.25]) if largest > 0 else [np.nan] * 3
    np.testing.assert_allclose(layer.singular_values(), expected, rtol=1e-6)
    assert np.isnan(layer(np.ones((1, 3)))).all() == np.isnan(largest)


@pytest.mark.parametrize("case", ["convolution", "dilated", "transposed"])
def test_outputs_are_torchs_with_the_kernel_rebuilt(case):
    make, _, arguments, x = CASES[case]
    arguments = {**arguments, "padding": "valid"}
    layer = make(**arguments, rank_ratio=0.4, dtype="float64")
    layer.build(x.shape)
    for weight in layer.weights:
        weight.assign(np.random.standard_normal(weight.shape))
    v, u = layer.first.kernel.numpy(), layer.second.kernel.numpy()
    u = u.reshape(layer.rank, -1)
    e = layer.e.numpy()
    u = float(layer.scale) * (e / np.abs(e).max())[:, None] * u
    if case == "transposed":
        kernel = np.einsum("hwkc,ko->cohw", v, u)
        convolve, geometry = torch.nn.functional.conv_transpose2d, {}
    else:
        kernel = np.einsum("hwck,ko->ochw", v, u)
        convolve = torch.nn.functional.conv2d
        geometry = dict(dilation=arguments.get("dilation_rate", 1))
    expected = convolve(
        torch.tensor(x.astype("float64")).permute(0, 3, 1, 2),
        torch.tensor(kernel),
        torch.tensor(layer.second.bias.numpy()),
        stride=arguments.get("strides", 1),
        **geometry,
    )
    np.testing.assert_allclose(layer(x), expected.permute(0, 2, 3, 1), atol=1e-12)
    # Keras has (height, width, inputs, filters), and the last two swapped.
    kernel = kernel.transpose(2, 3, 1, 0)
    np.testing.assert_allclose(layer.effective_kernel(), kernel, atol=1e-12)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("case", CASES)
def test_half_precision_weights(case, dtype):
    make, plain, arguments, x = CASES[case]
    layer = make(**arguments, rank_ratio=0.6, orthogonal_factor=1.0, dtype=dtype)
    assert layer(x).dtype == dtype
    assert layer.effective_kernel().dtype == "float32"
    # Orthonormal but for the rounding of its entries.
    assert sum(map(float, layer.losses)) < 1e-3
    layer = plain(**arguments, dtype=dtype)
    expected = tf.cast(layer(x), "float32")
    outputs = tf.cast(make.from_layer(layer)(x), "float32")
    np.testing.assert_allclose(outputs, expected, atol=0.1)


def test_the_spectrum_regularizer_sees_e_over_its_largest():
    layer = SVDDense(3, spectrum_regularizer=keras.regularizers.L2(2.0))
    layer.build((None, 3))
    layer.e.assign([-4.0, 2.0, 0.0])
    assert [float(loss) for loss in layer.losses] == [2 * (1 + 0.25)]


def test_a_seed_repeats_the_layer_and_its_factors_differ():
    def factors(seed):
        initializer = keras.initializers.Orthogonal(seed=seed)
        layer = SVDDense(4, factor_initializer=initializer)
        layer.build((None, 4))
        return layer.first.kernel.numpy(), layer.second.kernel.numpy()

    v, u = factors(1)
    np.testing.assert_array_equal(factors(1), (v, u))
    assert not np.allclose(u, v) and not np.allclose(factors(2)[0], v)


def test_masks_pass_and_names_of_other_layers_do_not_move():
    keras.utils.clear_session()
    model = keras.Sequential(
        [keras.Input((3,)), kl.Embedding(6, 4, mask_zero=True), SVDDense(5)]
    )
    outputs = model(np.array([[1, 0, 2]]))
    np.testing.assert_array_equal(outputs._keras_mask, [[True, False, True]])
    assert kl.Dense(2).name == "dense"


def test_a_frozen_layer_stays_frozen():
    layer = kl.Dense(3, trainable=False, bias_regularizer="l2")
    layer.build((None, 4))
    factored = SVDDense.from_layer(layer, orthogonal_factor=1.0)
    back = factored.to_layer()
    assert not factored.trainable and not back.trainable
    assert factored.trainable_weights == [] == factored.losses
    assert isinstance(back.bias_regularizer, keras.regularizers.L2)


def test_channels_first_shapes():
    layer = SVDConv2D(6, 3, rank_ratio=0.5, data_format="channels_first")
    layer.build((None, 2, 8, 9))
    assert layer.rank == 3
    assert layer.compute_output_shape((None, 2, 8, 9)) == (None, 6, 6, 7)
    assert layer(keras.KerasTensor((None, 2, 8, 9))).shape == (None, 6, 6, 7)


def lora():
    layer = kl.Dense(3)
    layer.build((None, 4))
    layer.enable_lora(2)
    return layer


def broken():
    layer = kl.Dense(3, kernel_initializer=keras.initializers.Constant(np.nan))
    layer.build((None, 4))
    return layer


@pytest.mark.parametrize(
    "make, match",
    [
        (lambda: SVDDense(3, rank_ratio=0), "`rank_ratio`"),
        (lambda: SVDDense(3, rank_ratio=1.5), "`rank_ratio`"),
        (lambda: SVDDense(3, orthogonal_factor=-1), "`orthogonal_factor`"),
        (lambda: SVDDense.from_layer(kl.Conv2D(2, 3)), "`keras.layers.Dense`"),
        (lambda: SVDDense.from_layer(kl.Dense(2)), "must be built"),
        (lambda: SVDConv2D(3, 3, strides=2, dilation_rate=2), "strides"),
        (lambda: SVDConv2D(0, 3), "filters"),
        (lambda: SVDConv2D(4, 3, groups=2), "`groups` is not an argument"),
        (lambda: SVDDense(3, kernel_regularizer="l2"), "`orthogonal_factor` and"),
        (lambda: SVDConv2D(3, 3).build((None, 8, 8, None)), "number of channels"),
        (lambda: SVDDense(3).effective_kernel(), "must be built"),
        (lambda: SVDDense(3).to_layer(), "must be built"),
        (lambda: SVDDense(3).singular_values(), "must be built"),
        (lambda: SVDDense.from_layer(lora()), "LoRA"),
        (lambda: SVDDense.from_layer(broken()), "finite kernel"),
    ],
)
def test_bad_arguments(make, match):
    with pytest.raises(ValueError, match=match):
        make()
