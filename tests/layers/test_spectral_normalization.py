import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from keras import ops

from keras_spectral.layers import SpectralNormalization
from keras_spectral.linalg import convolution_operator
from tests.layers.reference import finite_differences, sn_gradient


def dense(units=4, inputs=6, dtype="float64", **kwargs):
    layer = SpectralNormalization(keras.layers.Dense(units, dtype=dtype), **kwargs)
    layer.build((None, inputs))
    return layer


def convolution(size=7, dtype="float64", norm="reshaped", channels=2, **kwargs):
    arguments = dict(filters=3, kernel_size=3, strides=2, padding="same")
    arguments.update(kwargs)
    layer = SpectralNormalization(
        keras.layers.Conv2D(dtype=dtype, **arguments), norm=norm
    )
    layer.build((None, size, size, channels))
    return layer


def converge(layer, steps=300):
    @tf.function
    def step():
        layer.transform(layer.matrix(0), 0, advance=True)

    for _ in range(steps):
        step()


def kernel_gradient(layer, cotangent):
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(layer.effective_kernel() * cotangent)
    return tape.gradient(value, layer.kernel.value).numpy()


@pytest.mark.parametrize("make", [dense, convolution])
def test_gradient_is_that_of_the_svd_formula(rng, make):
    layer = make()
    converge(layer)
    cotangent = rng.standard_normal(layer.kernel.shape)
    expected = sn_gradient(layer.kernel.numpy(), cotangent)
    np.testing.assert_allclose(kernel_gradient(layer, cotangent), expected, atol=1e-9)


def test_gradient_of_the_operator_norm_against_finite_differences(rng):
    layer = convolution(size=5, norm="operator", filters=2)
    converge(layer, 2000)
    cotangent = rng.standard_normal(layer.kernel.shape)

    def value(kernel):
        return (kernel / exact_operator_norm(layer, kernel) * cotangent).sum()

    expected = finite_differences(value, layer.kernel.numpy())
    # A block's vectors stand still to some 1e-6, where its norm does to 1e-12.
    np.testing.assert_allclose(kernel_gradient(layer, cotangent), expected, atol=1e-5)


def exact_operator_norm(layer, kernel, size=None):
    """SVD of the matrix of impulse responses of the layer's own convolution."""
    size = size or layer.norm_states[0].v.shape
    plain = keras.layers.Conv2D.from_config(
        {**layer.layer.get_config(), "use_bias": False, "dtype": "float64"}
    )
    plain.build(size)
    plain.kernel.assign(kernel)
    impulses = np.eye(int(np.prod(size))).reshape(-1, *size[1:])
    responses = ops.convert_to_numpy(plain(impulses))
    return np.linalg.norm(responses.reshape(len(impulses), -1), 2)


def test_the_built_in_layer_has_another_gradient(rng):
    """What this layer is for: Keras' own assigns W / sigma, outside the graph."""
    inputs = rng.standard_normal((5, 6)).astype("float32")
    target = rng.standard_normal((5, 4)).astype("float32")
    kernel = rng.standard_normal((6, 4)).astype("float32")
    # With output y = x W / sigma, the loss <target, y> has cotangent x' target.
    expected = sn_gradient(kernel.astype("float64"), inputs.T @ target)
    errors = {}
    for wrapper, arguments in [
        (keras.layers.SpectralNormalization, dict(power_iterations=200)),
        (SpectralNormalization, dict(power_iterations=200)),
    ]:
        inner = keras.layers.Dense(4, use_bias=False)
        layer = wrapper(inner, **arguments)
        layer.build((None, 6))
        inner.kernel.assign(kernel)
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(layer(inputs, training=True) * target)
        gradient = tape.gradient(value, inner.kernel.value).numpy()
        ours = wrapper is SpectralNormalization
        errors[ours] = np.linalg.norm(gradient - expected) / np.linalg.norm(expected)
        # The optimizer's kernel is overwritten there, and untouched here.
        assert np.array_equal(inner.kernel.numpy(), kernel) == ours
    assert errors[True] < 1e-4
    assert errors[False] > 0.1


def torch_layer(kind, legacy):
    layer = (
        torch.nn.Linear(6, 4)
        if kind == "dense"
        else torch.nn.Conv2d(2, 3, 3, stride=1, padding=1)
    ).double()
    if legacy:
        return torch.nn.utils.spectral_norm(layer)
    return torch.nn.utils.parametrizations.spectral_norm(layer)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", ["dense", "convolution"])
def test_five_training_steps_against_torch(rng, kind, legacy):
    torch.manual_seed(0)
    theirs = torch_layer(kind, legacy)
    if legacy:
        weight, u, v = theirs.weight_orig, theirs.weight_u, theirs.weight_v
    else:
        parametrization = theirs.parametrizations.weight
        weight, u, v = parametrization.original, *parametrization[0].buffers()
    order = "v_first" if legacy else "u_first"
    arguments = dict(update_order=order, method="power_iteration")
    if kind == "dense":
        ours = dense(**arguments)
        inputs = rng.standard_normal((8, 6))
        to_keras = (1, 0)
        ours.norm_states[0].v.assign(v.numpy())
    else:
        inner = keras.layers.Conv2D(3, 3, padding="same", dtype="float64")
        ours = SpectralNormalization(inner, **arguments)
        ours.build((None, 5, 5, 2))
        inputs = rng.standard_normal((8, 5, 5, 2))
        to_keras = (2, 3, 1, 0)
        # PyTorch flattens (inputs, height, width), we (height, width, inputs).
        permuted = v.numpy().reshape(2, 3, 3).transpose(1, 2, 0).ravel()
        ours.norm_states[0].v.assign(permuted)
    ours.norm_states[0].u.assign(u.numpy())
    ours.norm_states[0].updates.assign(1)
    ours.kernel.assign(weight.detach().numpy().transpose(to_keras))
    ours.layer.bias.assign(theirs.bias.detach().numpy())
    # Exact in float32, in which Keras keeps it.
    ours_optimizer = keras.optimizers.SGD(0.125)
    their_optimizer = torch.optim.SGD(theirs.parameters(), lr=0.125)
    torch_inputs = torch.tensor(
        inputs if kind == "dense" else inputs.transpose(0, 3, 1, 2)
    )
    for _ in range(5):
        their_optimizer.zero_grad()
        their_loss = (theirs(torch_inputs) ** 2).sum() / 8
        their_loss.backward()
        their_optimizer.step()
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(ours(inputs, training=True) ** 2) / 8
        variables = ours.trainable_variables
        gradients = tape.gradient(loss, [x.value for x in variables])
        ours_optimizer.apply(gradients, variables)
        assert float(loss) == pytest.approx(float(their_loss.detach()), rel=1e-10)
    np.testing.assert_allclose(
        ours.kernel.numpy(), weight.detach().numpy().transpose(to_keras), rtol=1e-10
    )
    np.testing.assert_allclose(ours.norm_states[0].u.numpy(), u.numpy(), atol=1e-10)


@pytest.mark.parametrize("norm", ["reshaped", "operator"])
def test_inference_is_pure_and_normalized_before_training(norm):
    layer = convolution(size=9, dtype="float32", norm=norm)
    layer.kernel.assign(7 * layer.kernel)
    before = [w.numpy() for w in layer.weights]
    inputs = np.ones((1, 9, 9, 2), "float32")
    first, second = layer(inputs), layer(inputs, training=False)
    np.testing.assert_array_equal(first, second)
    for old, new in zip(before, layer.weights, strict=True):
        np.testing.assert_array_equal(old, new.numpy())
    effective = layer.effective_kernel().numpy()
    exact = (
        exact_operator_norm(layer, effective)
        if norm == "operator"
        else np.linalg.norm(effective.reshape(-1, 3), 2)
    )
    assert 1 - 1e-5 <= exact <= 1.05


@pytest.mark.parametrize(
    "size, arguments",
    [
        (8, dict(strides=1)),
        (9, dict(strides=2)),
        (8, dict(strides=2, padding="valid")),
        (9, dict(strides=1, dilation_rate=2)),
        (7, dict(strides=1, groups=2, filters=4, channels=4)),
    ],
)
def test_operator_norm_is_the_convolutions_own(rng, size, arguments):
    layer = convolution(size=size, norm="operator", **arguments)
    # A positive kernel is where the flattened kernel says least.
    layer.kernel.assign(rng.uniform(0, 1, layer.kernel.shape))
    converge(layer)
    effective = layer.effective_kernel().numpy()
    assert exact_operator_norm(layer, effective) == pytest.approx(1, rel=1e-6)


def test_the_reshaped_norm_bounds_no_convolution(rng):
    layer = convolution(size=8, strides=1)
    layer.kernel.assign(rng.uniform(0, 1, layer.kernel.shape))
    converge(layer)
    assert exact_operator_norm(layer, layer.effective_kernel(), (1, 8, 8, 2)) > 2


def test_clip_leaves_a_kernel_within_the_bound_alone(rng):
    layer = dense(clip=True, bound=2.0, dtype="float32")
    layer.kernel.assign(0.1 * rng.standard_normal((6, 4)))
    np.testing.assert_array_equal(layer.effective_kernel(), layer.kernel)
    layer.kernel.assign(100 * layer.kernel)
    converge(layer)
    norm = np.linalg.norm(layer.effective_kernel().numpy(), 2)
    assert norm == pytest.approx(2, rel=1e-5)


def test_two_discriminator_calls_in_one_tape(rng):
    layer = dense(dtype="float32")
    real, fake = rng.standard_normal((2, 5, 6)).astype("float32")
    with tf.GradientTape() as tape:
        value = tf.reduce_mean(layer(real, training=True))
        value -= tf.reduce_mean(layer(fake, training=True))
    assert np.isfinite(tape.gradient(value, layer.kernel.value)).all()
    assert int(layer.norm_states[0].updates) == 2


@pytest.mark.parametrize("fill", [0.0, 1e-20, 1e-30, 1e30])
def test_kernels_of_any_scale_stay_finite(rng, fill):
    layer = dense(dtype="float32")
    layer.kernel.assign(fill * np.ones((6, 4), "float32"))
    outputs = layer(np.ones((2, 6), "float32"), training=True)
    assert np.isfinite(outputs).all()
    effective = layer.effective_kernel().numpy()
    if fill > 1e-12:
        assert np.linalg.norm(effective, 2) == pytest.approx(1, rel=1e-4)
    else:
        np.testing.assert_array_equal(effective, layer.kernel.numpy())


def test_recovers_after_a_broken_kernel(rng):
    layer = dense(dtype="float32")
    good = layer.kernel.numpy()
    layer.kernel.assign(np.full((6, 4), np.nan))
    assert np.isnan(layer(np.ones((2, 6), "float32"), training=True)).all()
    layer.kernel.assign(good)
    converge(layer, 50)
    norm = np.linalg.norm(layer.effective_kernel().numpy(), 2)
    assert norm == pytest.approx(1, rel=1e-4)


def test_input_size_stands_in_for_an_unknown_one():
    with pytest.raises(ValueError, match="input_size=\\(height, width\\)"):
        SpectralNormalization(keras.layers.Conv2D(2, 3), norm="operator").build(
            (None, None, None, 3)
        )
    layer = SpectralNormalization(
        keras.layers.Conv2D(2, 3), norm="operator", input_size=(8, 8)
    )
    layer.build((None, None, None, 3))
    assert layer.norm_states[0].v.shape == (1, 8, 8, 3)
    assert layer(np.ones((1, 11, 12, 3))).shape == (1, 9, 10, 2)


def test_convolution_state_matches_the_linalg_operator():
    layer = convolution(size=9, norm="operator")
    operator = convolution_operator(layer.kernel, (9, 9), strides=2, padding="same")
    assert layer.norm_states[0].u.shape == operator.output_shape


@pytest.mark.parametrize(
    "arguments, match",
    [
        (dict(bound=0), "`bound`"),
        (dict(bound=float("nan")), "`bound`"),
        (dict(power_iterations=0), "`power_iterations`"),
        (dict(power_iterations=True), "`power_iterations`"),
        (dict(epsilon=-1), "`epsilon`"),
        (dict(norm="frobenius"), "`norm`"),
        (dict(update_order="both"), "`update_order`"),
        (dict(clip=1), "`clip`"),
        (dict(method="svd"), "`method`"),
        (dict(method="exact", norm="operator"), '`method="exact"`'),
        (dict(dtype="float64"), "`dtype`"),
    ],
)
def test_bad_arguments(arguments, match):
    with pytest.raises(ValueError, match=match):
        SpectralNormalization(keras.layers.Dense(2), **arguments)


class CustomCell(keras.layers.Layer):
    state_size = 2


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.BatchNormalization(),
        keras.layers.LSTMCell(2),
        keras.layers.RNN(keras.layers.StackedRNNCells([CustomCell()])),
        keras.layers.EinsumDense("abc,bcd->abd", (3, 4)),
        keras.layers.EinsumDense("abc,cd->ad", (4,)),
        keras.layers.TimeDistributed(keras.layers.ReLU(), name="relu_in_time"),
        keras.Sequential([keras.layers.Dense(2)]),
    ],
)
def test_other_layers_are_refused_by_name(layer):
    name = getattr(layer, "layer", layer).name
    with pytest.raises(ValueError, match=name):
        SpectralNormalization(layer)


def test_lora_and_quantized_layers_are_refused():
    lora = keras.layers.Dense(4)
    lora.build((None, 8))
    wrapped = SpectralNormalization(lora)
    lora.enable_lora(2)
    with pytest.raises(ValueError, match="LoRA"):
        SpectralNormalization(lora)
    with pytest.raises(ValueError, match="LoRA"):
        wrapped(np.ones((1, 8)))
    quantized = keras.layers.Dense(4)
    quantized.build((None, 8))
    quantized.quantize("int8")
    with pytest.raises(ValueError, match="quantized"):
        SpectralNormalization(quantized)
