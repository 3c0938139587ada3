"""Two networks of a few weights: seeds, replicas, callbacks, what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_spectral.gan import GAN, GradientPenalty
from keras_spectral.layers import SpectralNormalization

SHAPE = (2, 2, 1)


def tiny(classes=None, normalization=False, seed=None, **arguments):
    latents, images = keras.Input((3,)), keras.Input(SHAPE)
    labels = [] if classes is None else [keras.Input((), dtype="int32")]

    def joined(x):
        embedded = [keras.layers.Embedding(classes, x.shape[-1])(y) for y in labels]
        return keras.layers.Add()([x, *embedded]) if embedded else x

    made = keras.layers.Dense(4, activation="tanh")(joined(latents))
    generator = keras.Model([latents, *labels], keras.layers.Reshape(SHAPE)(made))
    hidden = SpectralNormalization(keras.layers.Dense(5, name="hidden"))
    read = joined(keras.layers.Flatten()(images))
    read = keras.layers.Dense(5)(read) if normalization else hidden(read)
    if normalization:
        read = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(read)
    logits = keras.layers.Dense(1)(keras.layers.LeakyReLU(0.2)(read))
    discriminator = keras.Model([images, *labels], logits)
    arguments.setdefault("discriminator_steps", 1)
    return GAN(generator, discriminator, classes=classes, seed=seed, **arguments)


def pixels(count=8):
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (count, *SHAPE)).astype("float32")


def test_each_of_two_replicas_draws_its_own():
    devices = tf.config.list_logical_devices("CPU")
    # Collectives of two strategies in one process share their keys, so another model's
    # gradients, in another test, would be taken for these.
    strategy = tf.distribute.MirroredStrategy(
        [d.name for d in devices[:2]],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )
    assert strategy.num_replicas_in_sync == 2
    with strategy.scope():
        gan = tiny(classes=50, seed=0)
        gan.compile()
    seen = []
    for draw in (gan._latents, gan._labels):
        for replica in strategy.run(tf.function(draw), (20,)).values:
            seen.append(replica.numpy())
    assert (seen[0] != seen[1]).all()
    assert (seen[2] != seen[3]).mean() > 0.5
    gan.fit(pixels(), np.arange(8), batch_size=8, verbose=0)
    count, _ = gan.discriminator_optimizer.iterations._value.values
    assert int(count) == 1
    layer = gan.discriminator.get_layer("hidden")
    first, second = layer.norm_states[0].u._value.values
    np.testing.assert_array_equal(first, second)


def test_latents_follow_the_seed():
    def drawn(global_seed, seed):
        keras.utils.set_random_seed(global_seed)
        return tiny(seed=seed)._latents(3).numpy()

    assert np.array_equal(drawn(1, None), drawn(1, None))
    assert not np.array_equal(drawn(1, None), drawn(2, None))
    assert np.array_equal(drawn(1, 5), drawn(2, 5))
    assert not np.array_equal(drawn(1, 5), drawn(1, 6))
    assert tiny(seed=5).get_config()["seed"] == 5


@pytest.mark.parametrize("classes", [None, 4])
def test_training_resumes_bit_for_bit(classes, tmp_path):
    gan = tiny(classes, discriminator_steps=2)
    gan.compile(run_eagerly=True)
    x, y = pixels(), None if classes is None else np.arange(8) % 4
    gan.fit(x, y, verbose=0)
    gan.save(tmp_path / "gan.keras")
    loaded = keras.models.load_model(tmp_path / "gan.keras")
    for model in (gan, loaded):
        model.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    for ours, theirs in zip(loaded.get_weights(), gan.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("count", [32, 7, 2])
def test_no_image_of_a_batch_is_left_out(count):
    gan = tiny(discriminator_steps=5)
    gan.compile(run_eagerly=True)
    seen = []
    gan._discriminator_step = lambda images, *more: seen.append(images.numpy())
    gan.discriminator_loss.update_state(0.0)
    x = pixels(count)
    gan.train_step((tf.constant(x),))
    assert len(seen) == 5
    assert {len(part) for part in seen} <= {max(1, count // 5), -(-count // 5)}
    if count >= 5:
        np.testing.assert_array_equal(np.concatenate(seen), x)
    assert {p.tobytes() for part in seen for p in part} == {p.tobytes() for p in x}


def test_callbacks_set_both_learning_rates():
    gan = tiny()
    gan.compile(*(keras.optimizers.SGD(rate, name="sgd") for rate in (0.5, 0.25)))
    callbacks = [
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2),
        keras.callbacks.ReduceLROnPlateau(
            "generator_loss", factor=0.1, patience=1, min_delta=1e9, mode="min"
        ),
    ]
    logs = gan.fit(pixels(), epochs=2, callbacks=callbacks, verbose=0).history
    assert float(gan.generator_optimizer.learning_rate) == pytest.approx(0.0125)
    assert float(gan.discriminator_optimizer.learning_rate) == pytest.approx(0.00625)
    # Two of one name have two columns.
    assert logs["learning_rate_generator_sgd"] == pytest.approx([0.25, 0.125])
    assert logs["learning_rate_discriminator_sgd"] == pytest.approx([0.125, 0.0625])


@pytest.mark.parametrize("swapped", [False, True])
def test_averaged_weights_are_what_a_trained_generator_has(swapped):
    momentum, seen = 0.7, []
    gan = tiny()
    optimizer = keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=momentum)
    gan.compile(optimizer, "sgd")

    class Recorded(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(gan.generator.get_weights())

    swap = [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)] if swapped else []
    gan.fit(pixels(12), batch_size=4, callbacks=[Recorded(), *swap], verbose=0)
    # Keras' average starts from the first weights it sees.
    for index, weight in enumerate(gan.generator.get_weights()):
        steps = [w[index].astype("float64") for w in seen]
        average = steps[0]
        for step in steps[1:]:
            average = momentum * average + (1 - momentum) * step
        np.testing.assert_allclose(weight, average, atol=1e-6)
        if np.any(steps[-1] != steps[0]):
            assert np.abs(weight - steps[-1]).max() > 1e-5


def dataset(x, y=None):
    return tf.data.Dataset.from_tensor_slices(x if y is None else (x, y)).batch(4)


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y=None):
        super().__init__()
        self.batch, self.begun = (x,) if y is None else (x, y), 0

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return tuple(part[4 * index :][:4] for part in self.batch)

    def on_epoch_begin(self):
        self.begun += 1


BYTES = np.full((8, *SHAPE), 200.0, "float32")
SEVEN = np.array([0, 1, 2, 3, 7, 0, 0, 0])
EIGHT = np.zeros(8, "int32")


@pytest.mark.parametrize(
    ("classes", "arguments", "match"),
    [
        (None, {"x": BYTES}, r"`x` must hold images in \[-1, 1\].*200"),
        (None, {"x": BYTES.astype("uint8")}, r"`x` must hold images in \[-1, 1\]"),
        (None, {"x": dataset(BYTES.astype("uint8"))}, "`x` must hold images.*uint8"),
        (None, {"x": np.full((8, *SHAPE), np.nan)}, "`x` must hold images.*nan"),
        (None, {"x": dataset(BYTES)}, r"`x` must hold images in \[-1, 1\]"),
        (None, {"x": pixels(), "validation_data": (BYTES,)}, "`x` must hold images"),
        (None, {"x": pixels(), "validation_data": dataset(BYTES)}, "`x` must hold"),
        (None, {"x": Batches(BYTES)}, "`x` must hold images.*200"),
        (None, {"x": pixels(), "validation_data": Batches(BYTES)}, "`x` must hold"),
        (None, {"x": (batch for batch in Batches(BYTES))}, "`x` must hold images"),
        (None, {"x": [pixels()]}, "`x` must be an array.*Received: list"),
        (4, {"x": Batches(pixels(), SEVEN)}, "`y` must hold labels from 0 to 3.* 7"),
        (4, {"x": pixels(), "y": EIGHT + 0.5}, "`y` must hold labels.*Received: 0.5"),
        (4, {"x": dataset(pixels(), EIGHT + 0.5)}, "`y` must hold labels from 0"),
        (4, {"x": pixels(), "y": SEVEN}, "`y` must hold labels from 0 to 3.* 7"),
        (4, {"x": pixels(), "y": -SEVEN}, "`y` must hold labels from 0 to 3"),
        (4, {"x": dataset(pixels(), SEVEN + 4)}, "`y` must hold labels from 0 to 3"),
        (
            4,
            {"x": pixels(), "y": EIGHT, "sample_weight": np.ones(8)},
            "`sample_weight` has no place",
        ),
        (4, {"x": pixels(), "y": EIGHT, "class_weight": {0: 2.0}}, "`sample_weight`"),
    ],
)
def test_what_would_train_on_nonsense_is_refused_before_a_step(
    classes, arguments, match
):
    gan = tiny(classes)
    # What XLA compiles drops assertions; the steps before validation are right.
    held_out = "validation_data" in arguments
    gan.compile(jit_compile=not held_out, run_eagerly=held_out)
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=match):
        gan.fit(**arguments, verbose=0)
    if not held_out:
        assert int(gan.discriminator_optimizer.iterations) == 0


def test_batches_that_fit_train_as_arrays_do():
    weights = []
    y = np.arange(8) % 4
    batches = Batches(pixels(), y)
    for x in batches, (batch for batch in Batches(pixels(), y)), dataset(pixels(), y):
        keras.utils.set_random_seed(0)
        gan = tiny(4, seed=0)
        gan.compile(run_eagerly=True)
        gan.fit(x, validation_data=Batches(pixels(), y), shuffle=False, verbose=0)
        weights.append(np.concatenate([w.ravel() for w in gan.get_weights()]))
    np.testing.assert_array_equal(weights[0], weights[1])
    np.testing.assert_array_equal(weights[0], weights[2])
    assert batches.begun == 1


@pytest.mark.parametrize("name", ["metrics", "loss", "optimizer", "weighted_metrics"])
def test_compile_refuses_what_it_would_drop(name):
    with pytest.raises(ValueError, match=f"`{name}`.*generator_optimizer"):
        tiny().compile(**{name: ["mse"]})


def test_batch_normalization_sees_real_and_generated_apart_as_in_pytorch():
    torch = pytest.importorskip("torch")
    gan = tiny(normalization=True, objective="logistic")
    gan.compile(keras.optimizers.SGD(0.5), keras.optimizers.SGD(0.5))
    real, latents = pixels(6), np.random.default_rng(1).standard_normal((2, 6, 3))
    given = iter(latents.astype("float32"))
    gan._latents = lambda count: tf.constant(next(given))

    def linear(layer):
        module = torch.nn.Linear(*layer.kernel.shape)
        module.weight.data = torch.tensor(layer.kernel.numpy().T)
        module.bias.data = torch.tensor(layer.bias.numpy())
        return module

    first, last = (
        layer
        for layer in gan.discriminator.layers
        if isinstance(layer, keras.layers.Dense)
    )
    nn = torch.nn
    normalized = nn.BatchNorm1d(5, eps=1e-5, momentum=0.1)
    critic = nn.Sequential(
        nn.Flatten(), linear(first), normalized, nn.LeakyReLU(0.2), linear(last)
    )
    maker = nn.Sequential(linear(gan.generator.layers[1]), nn.Tanh())
    steps = [torch.optim.SGD(net.parameters(), 0.5) for net in (critic, maker)]
    loss, ones = nn.BCEWithLogitsLoss(), torch.ones(6, 1)
    draws = torch.tensor(latents, dtype=torch.float32)
    # pytorch/examples, dcgan/main.py.
    loss(critic(torch.tensor(real)), ones).backward()
    loss(critic(maker(draws[0]).detach()), 0 * ones).backward()
    steps[0].step()
    loss(critic(maker(draws[1])), ones).backward()
    steps[1].step()

    gan._discriminator_step(tf.constant(real), None, 6)
    gan._generator_step(6)
    for layer, module in ((first, critic[1]), (last, critic[4])):
        expected = module.weight.detach().numpy().T
        np.testing.assert_allclose(layer.kernel, expected, atol=1e-5)
    expected = maker[0].weight.detach().numpy().T
    np.testing.assert_allclose(gan.generator.layers[1].kernel, expected, atol=1e-5)
    moving = gan.discriminator.layers[3].moving_mean
    np.testing.assert_allclose(moving, normalized.running_mean, atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (0.7, "`labels` must hold labels from 0 to 2. Received: 0.7"),
        (3, "`labels` must hold labels from 0 to 2"),
        ([0, 1, 2], r"`labels` must be one integer, or one for each of 2.*\(3,\)"),
    ],
)
def test_generate_refuses_labels(labels, match):
    with pytest.raises(ValueError, match=match):
        tiny(classes=3).generate(2, labels=labels)


def test_generate_runs_a_graph():
    gan = tiny(classes=3)
    eager = []

    class Seen(keras.layers.Layer):
        def call(self, inputs):
            eager.append(tf.executing_eagerly())
            return inputs

    generator = gan.generator
    outputs = Seen()(generator.outputs[0])
    gan.generator = keras.Model(generator.inputs, outputs)
    eager.clear()
    made = gan.generate(7, seed=0, batch_size=3)
    assert made.shape == (7, *SHAPE) and not any(eager)
    latents = np.random.default_rng(0).standard_normal((7, 3)).astype("float32")
    expected = generator([latents, np.arange(7) % 3])
    np.testing.assert_allclose(made, expected, atol=1e-6)


def test_vectors_move_once_an_update_beside_batch_normalization():
    kl = keras.layers
    spectral = SpectralNormalization(
        kl.Conv2D(4, 1, name="c"), method="power_iteration"
    )
    judged = [spectral, kl.BatchNormalization(), kl.Flatten(), kl.Dense(1)]
    discriminator = keras.Sequential([keras.Input(SHAPE), *judged])
    gan = GAN(tiny().generator, discriminator, discriminator_steps=2)
    gan.compile(run_eagerly=True)
    seen = []
    call = spectral.call

    def recorded(*arguments, **settings):
        outputs = call(*arguments, **settings)
        seen.append(spectral.effective_kernel().numpy())
        return outputs

    spectral.call = recorded
    gan.fit(pixels(), batch_size=8, verbose=0)
    assert int(spectral.norm_states[0].updates) == 2
    # Real and generated images are judged with one kernel.
    assert len(seen) == 5
    np.testing.assert_array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[1], seen[2])


def test_layers_of_a_discriminator_know_when_they_are_trained():
    """So that its `Dropout` works in its own updates alone, as the page says."""
    calls = []

    class Noted(keras.layers.Layer):
        def call(self, x, training=None):
            calls.append(training)
            return x

    images = keras.Input(SHAPE)
    judged = keras.layers.Flatten()(Noted()(images))
    discriminator = keras.Model(images, keras.layers.Dense(1)(judged))
    penalty = GradientPenalty(1.0)
    gan = GAN(tiny().generator, discriminator, discriminator_steps=1, penalty=penalty)
    gan.compile(run_eagerly=True)
    gan.fit(pixels(4), verbose=0)
    assert calls[-3:] == [True, False, False]


def test_validation_data_by_position_is_checked():
    gan = tiny()
    gan.compile()
    before = (None, 4, 1, 0, None, 0.0)
    with pytest.raises(ValueError, match="`x` must hold images.*200"):
        gan.fit(pixels(), *before, (BYTES,))
    assert int(gan.discriminator_optimizer.iterations) == 0


def test_a_learning_rate_falls_to_zero_in_a_line():
    steps, epochs = 2, 3
    gan = tiny(discriminator_steps=steps)
    updates = [epochs * 2, epochs * 2 * steps]
    gan.compile(
        *(
            keras.optimizers.SGD(keras.optimizers.schedules.PolynomialDecay(0.5, n, 0))
            for n in updates
        )
    )
    seen = []

    class Recorded(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            both = gan.generator_optimizer, gan.discriminator_optimizer
            seen.append([float(one.learning_rate) for one in both])

    gan.fit(pixels(), batch_size=4, epochs=epochs, callbacks=[Recorded()], verbose=0)
    expected = 0.5 * (1 - np.arange(1, epochs + 1) / epochs)
    np.testing.assert_allclose(seen, np.stack([expected, expected], 1), atol=1e-6)


def test_a_summary_shows_what_is_wrapped_and_counts_parameters_alone():
    gan, lines = tiny(), []
    gan.summary(line_length=99, print_fn=lines.append)
    text = "".join(lines)
    assert "hidden (SpectralNormalization)" in text and "hidden (Dense)" in text
    # Two dense layers in each: 3 x 4 + 4; 4 x 5 + 5 and 5 + 1.
    assert "Total params: 47 " in text and "Non-trainable params: 0 " in text
    # What is saved and copied has the vectors.
    assert sum(w.size for w in gan.get_weights()) > 47
