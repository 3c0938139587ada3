"""Every wrapper in the modes that Keras users train in."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_spectral.experiments.devices import devices_of
from keras_spectral.layers import SpectralNormalization, StableRankNormalization

WRAPPERS = [
    SpectralNormalization,
    functools.partial(SpectralNormalization, norm="operator", clip=True),
    # Larger than four times the block is what it follows.
    functools.partial(SpectralNormalization, block_size=1),
    functools.partial(StableRankNormalization, stable_rank_ratio=0.4),
    functools.partial(StableRankNormalization, stable_rank_ratio=0.4, norm="operator"),
]


def network(wrap, **inner):
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            wrap(keras.layers.Conv2D(6, 3, padding="same", name="conv", **inner)),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            wrap(keras.layers.Dense(5, name="head", **inner)),
        ]
    )


@pytest.fixture
def batch(rng):
    x = rng.standard_normal((16, 8, 8, 3)).astype("float32")
    return x, rng.integers(0, 5, 16)


def fit(model, batch, epochs=2, **arguments):
    model.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **arguments,
    )
    return model.fit(*batch, batch_size=8, epochs=epochs, verbose=0, shuffle=False)


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_round_trip_and_the_next_step(wrap, batch, tmp_path):
    model = network(wrap)
    fit(model, batch)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(batch[0]), model(batch[0]))
    configs = [m.layers[0].get_config() for m in (model, loaded)]
    # Keras turns tuples in the inner layer's config into lists.
    inner = [config.pop("layer")["class_name"] for config in configs]
    assert configs[0] == configs[1] and inner[0] == inner[1]
    next_loss = [m.fit(*batch, verbose=0).history["loss"] for m in (model, loaded)]
    assert next_loss[0] == next_loss[1]
    for ours, theirs in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_jit_compile_agrees(wrap, batch):
    losses = []
    for jit in (False, True):
        keras.utils.set_random_seed(1)
        losses.append(fit(network(wrap), batch, jit_compile=jit).history["loss"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


# Loss scaling, which float16 has in addition, knows nothing of wrappers: two of them.
@pytest.mark.parametrize(
    ("wrap", "policy"),
    [
        *((wrap, "mixed_bfloat16") for wrap in WRAPPERS),
        *((wrap, "mixed_float16") for wrap in (WRAPPERS[0], WRAPPERS[4])),
    ],
)
def test_mixed_precision_leaves_the_master_kernel_alone(wrap, policy, batch):
    keras.config.set_dtype_policy(policy)
    try:
        model = network(wrap)
        fit(model, batch)
    finally:
        keras.config.set_dtype_policy("float32")
    for layer in (model.layers[0], model.layers[-1]):
        kernel = layer.kernel.numpy()
        before = kernel.copy()
        model(batch[0], training=True)
        np.testing.assert_array_equal(layer.kernel, before)
        half = "bfloat16" if policy == "mixed_bfloat16" else "float16"
        rounded = tf.cast(tf.cast(kernel, half), "float32").numpy()
        assert np.mean(rounded == kernel) < 0.1
        assert layer.norm_states[0].u.dtype == layer.kernel.dtype == "float32"
        assert layer.layer(np.ones((1, *layer.input.shape[1:]))).dtype == half
        assert layer.effective_kernel().dtype == "float32"
    # Half precision rounds the computation, not the estimate of the norm.
    plain = network(wrap)
    plain.set_weights(model.get_weights())
    np.testing.assert_array_equal(
        plain.layers[0].effective_kernel(), model.layers[0].effective_kernel()
    )


def test_the_built_in_rounds_the_master_kernel(batch):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer = keras.layers.SpectralNormalization(keras.layers.Dense(5))
        layer(np.ones((2, 8), "float32"), training=True)
    finally:
        keras.config.set_dtype_policy("float32")
    kernel = layer.layer.kernel.numpy()
    rounded = tf.cast(tf.cast(kernel, "bfloat16"), "float32").numpy()
    np.testing.assert_array_equal(rounded, kernel)


# Each kind of state, of singular vectors of matrices, of operators, of a block.
@pytest.mark.parametrize("wrap", [WRAPPERS[0], WRAPPERS[2], WRAPPERS[4]])
def test_mirrored_strategy_on_two_devices(wrap, batch):
    with devices_of(2).scope():
        model = network(wrap)
        fit(model, batch)
    state = model.layers[0].norm_states[0]
    for variable in (state.u, state.v):
        copies = [v.numpy() for v in variable.value.values]
        assert len(copies) == 2
        np.testing.assert_array_equal(*copies)
        assert np.linalg.norm(copies[0]) == pytest.approx(1, rel=1e-5)
    assert int(state.updates.numpy()) == 4


@pytest.mark.parametrize("where", ["wrapper", "layer"])
def test_a_frozen_layer_keeps_its_state(where, batch):
    model = network(SpectralNormalization)
    wrapper = model.layers[0]
    (wrapper if where == "wrapper" else wrapper.layer).trainable = False
    fit(model, batch)
    assert int(wrapper.norm_states[0].updates) == 0
    assert int(model.layers[-1].norm_states[0].updates) == 4


def test_regularizers_constraints_and_biases_work_as_without(batch):
    inner = keras.layers.Dense(
        3,
        kernel_regularizer=keras.regularizers.L2(0.5),
        activity_regularizer=keras.regularizers.L2(0.25),
        kernel_constraint=keras.constraints.NonNeg(),
        activation="relu",
    )
    model = keras.Sequential([keras.Input((4,)), SpectralNormalization(inner)])
    outputs = model(np.ones((2, 4), "float32"))
    assert len(model.losses) == 2
    raw = inner.kernel.numpy()
    expected = [0.25 * np.sum(np.square(outputs)) / 2, 0.5 * np.sum(raw**2)]
    np.testing.assert_allclose(sorted(map(float, model.losses)), sorted(expected), 1e-5)
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 4)), np.zeros((4, 3)), verbose=0)
    assert (inner.kernel.numpy() >= 0).all()


def test_names_shapes_and_state_of_a_functional_model():
    model = network(functools.partial(SpectralNormalization, block_size=1))
    wrapper = model.layers[0]
    assert wrapper.name == wrapper.layer.name == "conv"
    assert wrapper.compute_output_shape((None, 8, 8, 3)) == (None, 8, 8, 6)
    assert [w.path.split("/", 1)[1] for w in wrapper.weights] == [
        "conv/conv/kernel",
        "conv/conv/bias",
        "conv/norm/u",
        "conv/norm/v",
        "conv/norm/right",
        "conv/norm/updates",
    ]
    assert len(wrapper.trainable_weights) == 2


def test_channels_first_reads_the_right_axes():
    layer = SpectralNormalization(
        keras.layers.Conv2D(4, 3, data_format="channels_first"), norm="operator"
    )
    layer.build((None, 2, 9, 7))
    assert tuple(layer.norm_states[0].v.shape) == (1, 9, 7, 2)
    assert tuple(layer.norm_states[0].u.shape) == (1, 7, 5, 4)


def test_gradient_accumulation_and_weight_averaging(batch):
    model = network(SpectralNormalization)
    optimizer = keras.optimizers.SGD(0.1, use_ema=True, gradient_accumulation_steps=2)
    model.compile(
        optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    model.fit(*batch, batch_size=4, verbose=0)
    optimizer.finalize_variable_values(model.trainable_variables)
    state = model.layers[0].norm_states[0]
    assert np.linalg.norm(state.u.numpy()) == pytest.approx(1, rel=1e-5)
    assert np.isfinite(model(batch[0])).all()
