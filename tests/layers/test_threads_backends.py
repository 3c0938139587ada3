"""What a call may leave behind, in other threads, other traces and Keras itself."""

import threading

import keras
import numpy as np
import pytest
from keras import layers as kl

from keras_spectral.layers import (
    LipschitzBatchNormalization,
    SpectralNormalization,
    StableRankNormalization,
)
from tests.layers.kinds import images, numpy, tokens

BACKEND = keras.backend.backend()


def only_on(backend):
    reason = f"tests what {backend} alone has"
    return pytest.mark.skipif(BACKEND != backend, reason=reason)


def network():
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            SpectralNormalization(kl.Conv2D(4, 3, activation="relu")),
            kl.Flatten(),
            StableRankNormalization(kl.Dense(36), stable_rank_ratio=0.3),
            SpectralNormalization(kl.Dense(3)),
        ]
    )


@pytest.fixture(params=[lambda: kl.Conv2D(4, 3), lambda: kl.Dense(3)])
def normalized(request):
    """A wrapped layer, images, and what it makes of them."""
    layer = SpectralNormalization(request.param())
    x = images(6, 6, 2)
    return layer, x, numpy(layer(x))


def wrappers(model):
    return [layer for layer in model.layers if hasattr(layer, "norm_states")]


def in_threads(functions):
    """Run functions at once and raise what one of them raised."""
    errors = []

    def run(function):
        try:
            function()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(f,)) for f in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors:
        raise error


def test_eight_threads_call_while_one_trains(tmp_path):
    model = network()
    x, y = images(6, 6, 2), np.ones((4, 3), "float32")
    model.compile(keras.optimizers.SGD(0.01), "mse")
    # Compiled before, so that the threads share what is compiled.
    model.train_on_batch(x, y)
    model.predict_on_batch(x)

    def infer():
        for _ in range(10):
            assert np.isfinite(numpy(model(x, training=False))).all()
            if BACKEND != "jax":
                assert np.isfinite(model.predict_on_batch(x)).all()

    def train():
        for _ in range(10):
            model.train_on_batch(x, y)

    if BACKEND == "jax":
        # Keras donates the buffers of weights to its compiled steps there, so a plain
        # model cannot be called meanwhile either.
        train()
        in_threads([infer] * 8)
    else:
        in_threads([*[infer] * 8, train])
    for layer in wrappers(model):
        assert isinstance(layer.layer.kernel, keras.Variable)
        assert layer.layer.kernel is layer.kernel
        assert int(layer.norm_states[0].updates) == 11
    before = [numpy(w) for w in model.trainable_weights]
    model.train_on_batch(x, y)
    for old, new in zip(before, model.trainable_weights, strict=True):
        assert not np.array_equal(old, numpy(new))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(numpy(again(x)), numpy(model(x)), atol=1e-6)


def test_threads_that_infer_agree_with_one():
    layer = SpectralNormalization(kl.Conv2D(4, 3))
    x = images(6, 6, 2)
    expected = numpy(layer(x))

    def infer():
        for _ in range(20):
            np.testing.assert_allclose(numpy(layer(x)), expected, atol=1e-6)

    in_threads([infer] * 4)


@only_on("tensorflow")
def test_inside_the_map_of_a_dataset(normalized):
    import tensorflow as tf

    layer, x, expected = normalized
    data = tf.data.Dataset.from_tensor_slices(np.concatenate([x] * 4)).batch(4)
    mapped = list(data.map(layer, num_parallel_calls=4))
    for outputs in mapped:
        np.testing.assert_allclose(outputs, expected, atol=1e-6)
    assert len(mapped) == 4 and isinstance(layer.layer.kernel, keras.Variable)
    np.testing.assert_allclose(numpy(layer(x)), expected, atol=1e-6)


@only_on("tensorflow")
def test_nested_functions():
    import tensorflow as tf

    layer = SpectralNormalization(kl.Conv2D(4, 3))
    x = images(6, 6, 2)
    expected = numpy(layer(x))
    inner = tf.function(lambda x, training: layer(x, training=training))
    outer = tf.function(lambda x, training: inner(x, training) + inner(x, training))
    np.testing.assert_allclose(outer(x, False), 2 * expected, atol=1e-5)
    outer(x, True)
    assert int(layer.norm_states[0].updates) == 2
    # What was traced is not left in the layer.
    np.testing.assert_allclose(numpy(layer(x)), expected, atol=1e-4)


@only_on("jax")
def test_vmap_and_grad_of_a_stateless_call(normalized):
    import jax

    layer, x, expected = normalized
    trainable = [v.value for v in layer.trainable_variables]
    state = [v.value for v in layer.non_trainable_variables]

    def call(trainable, x, training=False):
        return layer.stateless_call(trainable, state, x, training=training)[0]

    one = jax.vmap(lambda x: call(trainable, x[None])[0])
    np.testing.assert_allclose(one(x), expected, atol=1e-5)
    total = jax.jit(jax.grad(lambda t: call(t, x, True).sum()))
    gradients = total(trainable)
    assert all(np.isfinite(g).all() and np.abs(g).max() > 0 for g in gradients)
    # Each member of an ensemble has its own kernel and its own state.
    kernels = [np.stack([v, 2 * v]) for v in map(np.asarray, trainable)]
    members = jax.vmap(lambda t: call(t, x))(kernels)
    np.testing.assert_allclose(members[0], expected, atol=1e-5)
    np.testing.assert_allclose(members[1], expected, atol=1e-4)
    assert isinstance(layer.layer.kernel, keras.Variable)


@only_on("torch")
def test_gradients_in_torch_threads():
    layer = SpectralNormalization(kl.Conv2D(4, 3))
    x = images(6, 6, 2)
    layer(x)

    def backward():
        for _ in range(5):
            layer(x, training=False).sum().backward()

    in_threads([backward] * 4)
    gradient = layer.layer.kernel.value.grad
    assert gradient is not None and bool(gradient.isfinite().all())


def test_dropout_in_a_recurrent_layer_draws_a_new_mask_each_call():
    layer = SpectralNormalization(kl.LSTM(4, dropout=0.5, seed=1))
    x = images(5, 3)
    outputs = [numpy(layer(x, training=True)) for _ in range(3)]
    # Masks differ by far more than the estimates of the norm move.
    for first, second in ((0, 1), (1, 2), (0, 2)):
        assert np.abs(outputs[first] - outputs[second]).max() > 1e-2
    np.testing.assert_array_equal(numpy(layer(x)), numpy(layer(x)))


@pytest.mark.parametrize(
    "make",
    [
        lambda **k: kl.Dense(3, **k),
        lambda **k: kl.EinsumDense("abc,cd->abd", (5, 3), **k),
    ],
)
def test_losses_of_activities_are_counted_once(make):
    inner = make(activity_regularizer=keras.regularizers.L2(0.25))
    layer = SpectralNormalization(inner)
    x = images(5, 4)
    for training in (False, True):
        outputs = numpy(layer(x, training=training))
        expected = 0.25 * np.sum(outputs.astype("float64") ** 2) / len(x)
        losses = [float(numpy(loss)) for loss in layer.losses]
        assert losses == pytest.approx([expected], 1e-5)


def test_losses_of_activities_in_a_model():
    inner = kl.Dense(3, activity_regularizer=keras.regularizers.L2(0.25))
    model = keras.Sequential([keras.Input((7,)), SpectralNormalization(inner)])
    # No learning: the loss is that of the outputs alone.
    model.compile(keras.optimizers.SGD(0.0), "mse")
    x = images(7)
    outputs = numpy(model(x)).astype("float64")
    expected = 0.25 * np.sum(outputs**2) / len(x) + np.mean(outputs**2)
    loss = model.fit(x, np.zeros((4, 3)), verbose=0).history["loss"][0]
    assert loss == pytest.approx(expected, rel=1e-4)


def test_statistics_of_batch_normalization_move():
    normalization = LipschitzBatchNormalization(kl.BatchNormalization(momentum=0.5))
    layer = SpectralNormalization(kl.Dense(3))
    model = keras.Sequential([keras.Input((7,)), layer, normalization])
    x = 3 + images(7)
    activations = numpy(layer(x))
    model(x, training=True)
    mean = numpy(normalization.layer.moving_mean)
    np.testing.assert_allclose(mean, 0.5 * activations.mean(axis=0), atol=1e-3)
    variance = numpy(normalization.layer.moving_variance)
    expected = 0.5 + 0.5 * activations.var(axis=0)
    np.testing.assert_allclose(variance, expected, rtol=1e-2)
    model.compile(keras.optimizers.SGD(0.01), "mse")
    model.fit(x, np.ones((4, 3)), verbose=0)
    assert not np.array_equal(numpy(normalization.layer.moving_mean), mean)


@pytest.mark.parametrize(
    "make, dtype",
    [
        (lambda: kl.Dense(3), "float64"),
        (lambda: kl.Dense(3), "float16"),
        (lambda: kl.Dense(3), "int32"),
        # Keras' convolutions take no integers.
        (lambda: kl.Conv1D(3, 1), "float64"),
        (lambda: kl.Conv1D(3, 1), "float16"),
    ],
)
def test_inputs_are_cast_as_the_layer_casts_them(make, dtype):
    plain, layer = make(), SpectralNormalization(make())
    x = np.round(3 * images(5, 4)).astype(dtype)
    outputs, expected = layer(x), plain(x)
    assert outputs.dtype == expected.dtype
    plain.kernel.assign(layer.effective_kernel())
    np.testing.assert_allclose(numpy(outputs), numpy(plain(x)), atol=1e-5)
    model = keras.Sequential([keras.Input((5, 4), dtype=dtype), layer])
    np.testing.assert_allclose(numpy(model(x)), numpy(outputs), atol=1e-6)


def test_a_mask_goes_on_through_a_dense_layer():
    embedding = kl.Embedding(6, 4, mask_zero=True)
    layer, recurrent = SpectralNormalization(kl.Dense(3)), kl.LSTM(2)
    x = tokens()
    outputs = recurrent(layer(embedding(x)))
    # What follows the end of a sequence does not matter.
    longer = np.concatenate([x, np.zeros((4, 3), x.dtype)], axis=1)
    again = recurrent(layer(embedding(longer)))
    np.testing.assert_allclose(numpy(again), numpy(outputs), atol=1e-6)
