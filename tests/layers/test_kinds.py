"""Every kind of layer, wrapped: the kernels, the outputs, and Keras' features."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl

from keras_spectral.layers import (
    OptimalSpectralNormalization,
    SpectralNormalization,
    StableRankNormalization,
)
from keras_spectral.layers.reparametrization import restart_power_iteration
from keras_spectral.models.slots import kernel_slots
from tests.layers.kinds import KINDS, attention, images, numpy, tokens

METHODS = {
    "sn": functools.partial(SpectralNormalization, method="exact"),
    "srn": functools.partial(
        StableRankNormalization, stable_rank_ratio=0.5, method="exact"
    ),
    "optimal": functools.partial(OptimalSpectralNormalization, bound=0.5),
    "sn by power iteration": functools.partial(
        SpectralNormalization, power_iterations=200
    ),
}


def expected_matrix(method, matrix):
    u, s, vt = np.linalg.svd(matrix.astype("float64"), full_matrices=False)
    if method == "optimal":
        return (u * np.minimum(s, 0.5)) @ vt
    s = s / s[0]
    if method == "srn" and len(s) > 1:
        remainder = np.sqrt((s[1:] ** 2).sum())
        target = np.sqrt(max(1.0, 0.5 * len(s)) - 1)
        s[1:] *= min(1.0, target / remainder)
    return (u * s) @ vt


def as_matrix(kind, name, kernel):
    """The flattening, written out anew for each kind, to (inputs, outputs)."""
    if kind == "einsum":
        return kernel.reshape(6, 8)
    if kind == "einsum with ellipsis":
        return kernel.T
    if "transpose" in kind:
        return np.moveaxis(kernel, -2, -1).reshape(-1, kernel.shape[-2])
    if name == "depthwise_kernel" or kind.startswith("depthwise"):
        return kernel.reshape(-1, kernel.shape[-2] * kernel.shape[-1])
    return kernel.reshape(-1, kernel.shape[-1])


@pytest.mark.filterwarnings("ignore:The target stable rank")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_are_those_of_the_layer_with_the_projected_kernels(kind, method):
    make, x = KINDS[kind]
    wrapped = METHODS[method](make())
    wrapped(x)
    for slot in wrapped.slots:
        if "recurrent" in slot.name:
            # Orthogonal at first: no singular vector is the leading one.
            slot.variable.assign(np.random.standard_normal(slot.variable.shape))
    outputs = wrapped(x, training=True)
    plain = make()
    plain(x)
    plain.set_weights(wrapped.layer.get_weights())
    for slot, name in zip(kernel_slots(plain), wrapped.kernel_names, strict=True):
        raw = slot.variable.numpy()
        effective = wrapped.effective_kernel(name).numpy()
        assert effective.shape == raw.shape
        np.testing.assert_allclose(
            as_matrix(kind, name, effective),
            expected_matrix(method, as_matrix(kind, name, raw)),
            atol=2e-5,
        )
        slot.variable.assign(effective)
    np.testing.assert_allclose(outputs, plain(x), atol=2e-5)
    assert wrapped.compute_output_shape(x.shape) == plain.compute_output_shape(x.shape)


@pytest.mark.parametrize("kind", KINDS)
def test_fit_save_and_load(kind, tmp_path):
    make, x = KINDS[kind]
    inputs = keras.Input(x.shape[1:], dtype=x.dtype)
    outputs = SpectralNormalization(make())(inputs)
    model = keras.Model(inputs, kl.Dense(1)(kl.Flatten()(outputs)))
    model.compile("adam", "mse")
    raw = [w.numpy() for w in model.trainable_weights]
    model.fit(x, np.ones((4, 1)), epochs=2, verbose=0)
    # The gradient reaches every kernel.
    for before, after in zip(raw, model.trainable_weights, strict=True):
        assert np.abs(before - after.numpy()).max() > 1e-5
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(x), model(x), atol=1e-6)
    for ours, theirs in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for slot in model.layers[1].slots:
        assert not np.allclose(slot.variable.numpy(), 0)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("kind", KINDS)
def test_mixed_precision(kind, policy):
    make, x = KINDS[kind]
    if (kind, policy) == ("einsum with ellipsis", "mixed_float16"):
        pytest.skip("tf.einsum with an ellipsis is wrong in float16 on a CPU")
    layer = SpectralNormalization(make(dtype=policy))
    half = "bfloat16" if policy == "mixed_bfloat16" else "float16"
    symbolic = layer(keras.Input(x.shape[1:], dtype=x.dtype))
    raw = [slot.variable.numpy() for slot in layer.slots]
    outputs = layer(x, training=True)
    assert outputs.dtype == symbolic.dtype == half
    for before, slot, name in zip(raw, layer.slots, layer.kernel_names, strict=True):
        np.testing.assert_array_equal(before, slot.variable)
        assert layer.effective_kernel(name).dtype == "float32"
    full = SpectralNormalization(make())
    full(x)
    full.set_weights(layer.get_weights())
    np.testing.assert_allclose(
        tf.cast(layer(x), "float32"), full(x), atol=0.05 if half == "bfloat16" else 0.01
    )


@pytest.mark.parametrize(
    "kind", ["conv3d", "separable conv2d", "lstm", "embedding", "einsum"]
)
def test_jit_compile(kind):
    make, x = KINDS[kind]
    weights = []
    for jit in (False, True):
        keras.utils.set_random_seed(0)
        inputs = keras.Input(x.shape[1:], dtype=x.dtype)
        outputs = SpectralNormalization(make())(inputs)
        model = keras.Model(inputs, kl.Flatten()(outputs))
        # An orthogonal kernel, as recurrent layers start with, has any singular
        # vectors: each compiler finds its own, along which the gradient of the norm is.
        draws = np.random.default_rng(0)
        for weight in model.trainable_weights:
            weight.assign(draws.normal(0, 0.3, weight.shape))
        restart_power_iteration(model)
        model.compile("sgd", "mse", jit_compile=jit)
        model.fit(x, np.ones((4, *model.output_shape[1:])), epochs=2, verbose=0)
        weights.append([weight.numpy() for weight in model.trainable_weights])
    for plain, compiled in zip(*weights, strict=True):
        np.testing.assert_allclose(plain, compiled, atol=1e-5)


class TestAttention:
    def test_outputs_are_those_of_the_layer_with_the_effective_kernels(self):
        query, value = images(5, 6), images(3, 7)
        wrapped = SpectralNormalization(attention(), method="exact")
        outputs, scores = wrapped(query, value, return_attention_scores=True)
        plain = attention()
        plain(query, value)
        plain.set_weights(wrapped.layer.get_weights())
        assert wrapped.kernel_names == (
            "query",
            "key",
            "value",
            "output",
        )
        for slot, name in zip(kernel_slots(plain), wrapped.kernel_names, strict=True):
            effective = wrapped.effective_kernel(name).numpy()
            # (inputs, heads, size), and (heads, size, outputs) at the end.
            split = 2 if name == "output" else 1
            rows = int(np.prod(effective.shape[:split]))
            assert np.linalg.norm(effective.reshape(rows, -1), 2) == pytest.approx(
                1, rel=1e-5
            )
            slot.variable.assign(effective)
        expected, expected_scores = plain(query, value, return_attention_scores=True)
        np.testing.assert_allclose(outputs, expected, atol=1e-5)
        np.testing.assert_allclose(scores, expected_scores, atol=1e-5)

    def test_one_tensor_as_query_and_value_with_masks(self):
        embed = kl.Embedding(6, 8, mask_zero=True)

        def attend(layer):
            # Attention takes the mask off its inputs.
            embedded = embed(tokens())
            return layer(embedded, embedded)

        wrapped = SpectralNormalization(attention(), method="exact")
        outputs = attend(wrapped)
        plain = attention()
        attend(plain)
        plain.set_weights(wrapped.layer.get_weights())
        for slot, name in zip(kernel_slots(plain), wrapped.kernel_names, strict=True):
            slot.variable.assign(wrapped.effective_kernel(name))
        expected = attend(plain)
        np.testing.assert_allclose(outputs, expected, atol=1e-5)
        np.testing.assert_array_equal(outputs._keras_mask, expected._keras_mask)

    def test_functional_model_saves_and_trains(self, tmp_path):
        query, value = keras.Input((None, 6)), keras.Input((None, 7))
        outputs = SpectralNormalization(attention())(query, value, use_causal_mask=True)
        model = keras.Model([query, value], kl.Dense(1)(outputs))
        model.compile("adam", "mse")
        x = [images(5, 6), images(3, 7)]
        before = [w.numpy() for w in model.trainable_weights]
        model.fit(x, np.ones((4, 5, 1)), verbose=0)
        changed = [
            np.abs(b - w.numpy()).max() > 0
            for b, w in zip(before, model.trainable_weights, strict=True)
        ]
        # The bias of the keys cancels in the softmax.
        assert sum(changed) >= len(changed) - 1
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        np.testing.assert_allclose(loaded(x), model(x), atol=1e-6)
        longer = [images(9, 6), images(2, 7)]
        np.testing.assert_allclose(loaded(longer), model(longer), atol=1e-6)

    def test_missing_value(self):
        with pytest.raises(ValueError, match="`query` and `value`"):
            SpectralNormalization(attention())(images(5, 6))


def test_masks_reach_the_layer_and_what_follows():
    def network(wrap):
        return keras.Sequential(
            [
                wrap(kl.Embedding(6, 4, mask_zero=True)),
                wrap(kl.Dense(3)),
                wrap(kl.LSTM(4, return_sequences=True)),
                wrap(kl.GRU(2)),
            ]
        )

    wrapped, plain = network(functools.partial(METHODS["sn"])), network(lambda x: x)
    x = tokens()
    wrapped(x), plain(x)
    plain.set_weights(wrapped.get_weights())
    for layer, wrapper in zip(plain.layers, wrapped.layers, strict=True):
        for slot, name in zip(kernel_slots(layer), wrapper.kernel_names, strict=True):
            slot.variable.assign(wrapper.effective_kernel(name))
    np.testing.assert_allclose(wrapped(x), plain(x), atol=1e-5)
    # Where the mask ends a sequence, what follows does not matter.
    longer = np.concatenate([x, np.zeros((4, 3), x.dtype)], axis=1)
    np.testing.assert_allclose(wrapped(longer), wrapped(x), atol=1e-5)


def test_integer_embeddings_where_the_built_in_layer_returns_zeros():
    ours = SpectralNormalization(kl.Embedding(6, 3))(tokens())
    theirs = keras.layers.SpectralNormalization(kl.Embedding(6, 3))(tokens())
    assert ours.dtype == "float32" and np.abs(ours).max() > 0.1
    assert theirs.dtype != "float32" or not np.any(theirs)


def test_lengths_and_widths_may_vary_where_the_built_in_layer_refuses():
    ours = SpectralNormalization(kl.Conv2D(3, 3, data_format="channels_last"))
    ours(images(8, 8, 2)), ours(images(9, 5, 2))
    embedding = SpectralNormalization(kl.Embedding(6, 3))
    embedding(tokens()), embedding(tokens()[:, :2])
    theirs = keras.layers.SpectralNormalization(kl.Embedding(6, 3))
    theirs(tokens().astype("float32"))
    with pytest.raises(ValueError, match="incompatible"):
        theirs(tokens()[:, :2].astype("float32"))


@pytest.mark.parametrize(
    "layer", [kl.LSTM(2), kl.SeparableConv2D(2, 3), kl.Bidirectional(kl.GRU(2))]
)
def test_kinds_that_the_built_in_layer_refuses(layer):
    x = images(5, 3) if "separable" not in layer.name else images(6, 6, 2)
    with pytest.raises((ValueError, TypeError)):
        keras.layers.SpectralNormalization(layer)(x)
    assert np.isfinite(SpectralNormalization(layer)(x)).all()


def test_recurrent_options():
    layer = SpectralNormalization(kl.LSTM(3, return_state=True, dropout=0.5, seed=1))
    x = images(5, 2)
    outputs, hidden, cell = layer(x)
    np.testing.assert_array_equal(outputs, hidden)
    again, *_ = layer(x, initial_state=[hidden, cell])
    assert not np.allclose(again, outputs)
    keras.utils.set_random_seed(3)
    dropped = layer(x, training=True)[0]
    assert not np.allclose(dropped, layer(x)[0])
    with pytest.raises(ValueError, match="kernel, recurrent_kernel"):
        layer.effective_kernel()


def test_one_sublayer_inside_time_distributed_is_trained_by_fit():
    inner = SpectralNormalization(kl.Dense(3))
    model = keras.Sequential([keras.Input((4, 5)), kl.TimeDistributed(inner)])
    model.compile("sgd", "mse")
    model.fit(images(4, 5), np.ones((4, 4, 3)), verbose=0)
    norm = np.linalg.norm(numpy(inner.effective_kernel()), 2)
    assert norm == pytest.approx(1, rel=0.2)


def test_a_summary_shows_the_wrapped_layer_and_trains_it_alone():
    wrapper = SpectralNormalization(kl.Dense(3, name="fc"), method="power_iteration")
    model = keras.Sequential([keras.Input((4,)), wrapper])
    lines = []
    model.summary(expand_nested=True, line_length=99, print_fn=lines.append)
    text = "".join(lines)
    assert "fc (SpectralNormalization)" in text and "fc (Dense)" in text
    # 4 * 3 weights and 3 offsets; u and v are state.
    assert "Trainable params: 15 " in text
