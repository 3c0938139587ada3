"""Training by `fit`: what moves, what does not, and what is saved."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_spectral import zoo
from keras_spectral.gan import GAN, OBJECTIVES
from keras_spectral.layers import SpectralNormalization

LOGITS = np.array([[-2.0], [0.5], [3.0]], "float32")
FAKE = np.array([[-3.0], [-0.5], [1.0]], "float32")


def test_the_hinge_by_hand():
    hinge = OBJECTIVES["hinge"]
    # max(0, 1 - real): 3, 0.5, 0; max(0, 1 + fake): 0, 0.5, 2.
    assert float(hinge.discriminator(LOGITS, FAKE)) == pytest.approx(3.5 / 3 + 2.5 / 3)
    assert float(hinge.generator(FAKE)) == pytest.approx(2.5 / 3)
    real = tf.constant([[1.5], [0.0]])
    with tf.GradientTape() as tape:
        tape.watch(real)
        loss = hinge.discriminator(real, tf.constant(FAKE))
    # Nothing pulls beyond the margin.
    np.testing.assert_allclose(tape.gradient(loss, real), [[0.0], [-0.5]])


def test_the_logistic_loss_is_keras():
    entropy = keras.losses.BinaryCrossentropy(from_logits=True)
    ones, zeros = np.ones((3, 1)), np.zeros((3, 1))
    logistic = OBJECTIVES["logistic"]
    expected = float(entropy(ones, LOGITS)) + float(entropy(zeros, FAKE))
    assert float(logistic.discriminator(LOGITS, FAKE)) == pytest.approx(expected)
    assert float(logistic.generator(FAKE)) == pytest.approx(float(entropy(ones, FAKE)))


def small(kind=zoo.sn_resnet_gan, **arguments):
    keras.utils.set_random_seed(0)
    arguments.setdefault("discriminator_steps", 2)
    return kind(width=8, generator_width=8, **arguments)


def tiny(discriminator_steps=1):
    """Two layers of each kind: what the step does is the same, and compiles sooner."""
    keras.utils.set_random_seed(0)
    kl, wrap = keras.layers, SpectralNormalization
    made = [kl.Dense(4 * 4 * 3), kl.BatchNormalization(), kl.ReLU()]
    generator = keras.Sequential([keras.Input((6,)), *made, kl.Reshape((4, 4, 3))])
    judged = [wrap(kl.Conv2D(4, 3, name="c1")), kl.ReLU(), kl.Flatten()]
    discriminator = keras.Sequential(
        [keras.Input((4, 4, 3)), *judged, wrap(kl.Dense(1))]
    )
    return GAN(generator, discriminator, discriminator_steps=discriminator_steps)


def images(rng, count=8, size=32):
    return rng.uniform(-1, 1, (count, size, size, 3)).astype("float32")


def updates(gan):
    wrappers = [
        layer
        for layer in gan.discriminator.layers
        if isinstance(layer, SpectralNormalization)
    ]
    return {int(layer.norm_states[0].updates) for layer in wrappers}


@pytest.mark.parametrize("jit", [False, True])
def test_vectors_move_once_a_discriminator_update(jit, rng):
    gan = tiny(discriminator_steps=3)
    gan.compile(jit_compile=jit)
    gan.fit(images(rng, 12, size=4), batch_size=6, verbose=0)
    assert updates(gan) == {6}
    assert int(gan.discriminator_optimizer.iterations) == 6
    assert int(gan.generator_optimizer.iterations) == 2


@pytest.mark.parametrize("conditional", [False, True])
def test_a_last_batch_of_fewer_images_than_steps(conditional, rng):
    gan = small(discriminator_steps=3, classes=4 if conditional else None)
    gan.compile(run_eagerly=True)
    seen = []
    step = gan._discriminator_step

    def recorded(images, labels, count, *more):
        seen.append((float(images[0, 0, 0, 0]), int(count)))
        return step(images, labels, count, *more)

    gan._discriminator_step = recorded
    x, y = images(rng, 8), np.arange(8) % 4
    history = gan.fit(
        x, y if conditional else None, batch_size=6, shuffle=False, verbose=0
    ).history
    assert np.isfinite(list(history.values())).all()
    assert all(np.isfinite(w).all() for w in gan.get_weights())
    # Two and two of six; then one of two, the second part being the first again.
    first = [float(x[n, 0, 0, 0]) for n in (0, 2, 4, 6, 6, 7)]
    assert seen == list(zip(first, [2, 2, 2, 1, 1, 1], strict=True))
    assert updates(gan) == {6}


def test_a_graph_takes_a_small_last_batch(rng):
    gan = small(discriminator_steps=2)
    gan.compile()
    gan.fit(images(rng, 5), batch_size=4, verbose=0)
    assert updates(gan) == {4}
    assert all(np.isfinite(w).all() for w in gan.get_weights())


@pytest.mark.parametrize("shape", [(4, 28, 28, 3), (4, 32, 32, 1), (4, 32, 32)])
def test_images_of_another_shape(shape):
    gan = small()
    gan.compile()
    with pytest.raises(ValueError, match=r"`x` must hold images.*\(32, 32, 3\)"):
        gan.fit(np.zeros(shape, "float32"), verbose=0)


def test_images_of_a_pipeline_that_knows_no_size(rng):
    gan = tiny()
    gan.compile()
    data = tf.data.Dataset.from_generator(
        lambda: iter([images(rng, 4, size=4)]),
        output_signature=tf.TensorSpec((None, None, None, 3)),
    )
    history = gan.fit(data, verbose=0).history
    assert np.isfinite(list(history.values())).all()


@pytest.mark.parametrize("classes", [None, 3])
def test_evaluation_gives_the_losses_and_moves_nothing(classes, rng):
    gan = small(classes=classes)
    gan.compile(run_eagerly=True)
    x, y = images(rng, 6), None if classes is None else np.arange(6) % 3
    before = [w.copy() for w in gan.get_weights()]
    state = np.array(gan.random.state)
    losses = gan.evaluate(x, y, batch_size=6, verbose=0, return_dict=True)

    def with_labels(z):
        return z if classes is None else [tf.constant(z), tf.constant(y)]

    fake = gan.generator(with_labels(keras.random.normal((6, 128), seed=0)))
    logits = [np.array(gan.discriminator(with_labels(z))) for z in (x, fake)]
    hinge = np.maximum(0, 1 - logits[0]).mean() + np.maximum(0, 1 + logits[1]).mean()
    assert losses["discriminator_loss"] == pytest.approx(hinge, rel=1e-5)
    assert losses["generator_loss"] == pytest.approx(-logits[1].mean(), rel=1e-5)
    for ours, old in zip(gan.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, old)
    np.testing.assert_array_equal(gan.random.state, state)
    history = gan.fit(x, y, validation_data=(x, y) if classes else (x,), verbose=0)
    assert "val_generator_loss" in history.history


def test_each_step_moves_one_network_only(rng):
    gan = small()
    gan.compile()
    generator, discriminator = (
        [w.numpy() for w in net.trainable_weights]
        for net in (gan.generator, gan.discriminator)
    )
    gan._discriminator_step(tf.constant(images(rng, 4)), None, 4)

    def moved(net, before):
        return [
            not np.array_equal(w, old)
            for w, old in zip(net.trainable_weights, before, strict=True)
        ]

    assert not any(moved(gan.generator, generator))
    assert all(moved(gan.discriminator, discriminator))
    discriminator = [w.numpy() for w in gan.discriminator.weights]
    gan._generator_step(4)
    assert all(
        np.array_equal(w, old)
        for w, old in zip(gan.discriminator.weights, discriminator, strict=True)
    )
    # The offset before batch normalization has no gradient.
    assert sum(moved(gan.generator, generator)) > 20


def test_a_discriminator_step_is_the_hand_written_one(rng):
    gan, twin = small(), small()
    twin.set_weights(gan.get_weights())
    gan.compile("sgd", keras.optimizers.SGD(0.1))
    real = images(rng, 4)
    gan._discriminator_step(tf.constant(real), None, 4)
    # The same latents: a copy of the same generator of random numbers.
    latents = keras.random.normal((4, 128), seed=twin.random)
    both = np.concatenate([real, twin.generator(latents, training=True)])
    with tf.GradientTape() as tape:
        logits = twin.discriminator(both, training=True)
        loss = tf.reduce_mean(tf.nn.relu(1 - logits[:4]))
        loss += tf.reduce_mean(tf.nn.relu(1 + logits[4:]))
    variables = twin.discriminator.trainable_variables
    for variable, gradient in zip(
        variables, tape.gradient(loss, variables), strict=True
    ):
        variable.assign_sub(0.1 * gradient)
    for ours, theirs in zip(
        gan.discriminator.weights, twin.discriminator.weights, strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("factor", [0.0, 10.0])
def test_penalties_of_layers_are_trained(factor, rng):
    keras.utils.set_random_seed(0)
    gan = zoo.low_rank_dcgan(
        orthogonal_factor=factor, d_optimal_factor=0.0, filters=(8, 16, 32)
    )
    layer = gan.discriminator.get_layer("main-2")
    factor_u = layer.second.kernel
    factor_u.assign(0.3 * rng.standard_normal(factor_u.shape))

    def defect():
        u = factor_u.numpy().reshape(factor_u.shape[-2:])
        gram = u @ u.T if u.shape[0] < u.shape[1] else u.T @ u
        return np.linalg.norm(gram - np.eye(len(gram)))

    before = defect()
    gan.compile(None, keras.optimizers.Adam(0.02))
    gan.fit(images(rng, 16), batch_size=8, epochs=20, verbose=0)
    # With a factor of zero nothing pulls the factor back.
    assert (defect() < 0.3 * before) == (factor > 0)


def test_a_gan_saves_before_it_is_compiled(tmp_path):
    gan = small()
    gan.save(tmp_path / "gan.keras")
    loaded = keras.models.load_model(tmp_path / "gan.keras")
    np.testing.assert_array_equal(loaded.generate(2, seed=0), gan.generate(2, seed=0))


def test_saving_and_the_next_step(tmp_path, rng):
    classes = 10
    gan = small(zoo.srn_resnet_gan, classes=classes, discriminator_steps=1)
    gan.compile(keras.optimizers.Adam(1e-3), "sgd")
    x = images(rng, 8)
    y = np.arange(8)
    gan.fit(x, y, batch_size=4, verbose=0)
    gan.save(tmp_path / "gan.keras")
    loaded = keras.models.load_model(tmp_path / "gan.keras")
    assert type(loaded) is GAN and loaded.classes == classes
    np.testing.assert_array_equal(loaded.generate(5, seed=1), gan.generate(5, seed=1))
    assert type(loaded.discriminator_optimizer) is keras.optimizers.SGD
    for optimizer in ("generator_optimizer", "discriminator_optimizer"):
        pairs = zip(
            getattr(loaded, optimizer).variables,
            getattr(gan, optimizer).variables,
            strict=True,
        )
        for ours, theirs in pairs:
            np.testing.assert_array_equal(ours, theirs)
    histories = [
        model.fit(x, y, batch_size=4, shuffle=False, verbose=0).history
        for model in (gan, loaded)
    ]
    for name, values in histories[0].items():
        assert values == pytest.approx(histories[1][name], rel=1e-4)
    for ours, theirs in zip(loaded.weights, gan.weights, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_callbacks_and_a_dataset(tmp_path, rng):
    gan = tiny(2)
    gan.compile()
    data = tf.data.Dataset.from_tensor_slices(images(rng, 8, 4)).batch(4).repeat()
    callbacks = [
        keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras"),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
    ]
    gan.fit(data, epochs=2, steps_per_epoch=2, callbacks=callbacks, verbose=0)
    assert (tmp_path / "2.keras").exists()
    assert "generator_loss" in (tmp_path / "log.csv").read_text()


def test_mixed_precision(rng):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        gan = small()
        gan.compile()
        history = gan.fit(images(rng), batch_size=4, epochs=2, verbose=0).history
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite(list(history.values())).all()
    assert gan.generate(2).dtype == "float32"


def test_generate(rng):
    gan = small(classes=3)
    made = gan.generate(7, seed=3, batch_size=4)
    assert made.shape == (7, 32, 32, 3) and made.dtype == "float32"
    assert np.abs(made).max() <= 1
    # The first of more are the same, and labels matter.
    np.testing.assert_allclose(gan.generate(3, seed=3), made[:3], atol=1e-6)
    gan.generator.get_layer("block2-b1").embeddings.assign(rng.standard_normal((3, 16)))
    changed = gan.generate(3, labels=[0, 2, 1], seed=3)
    same = gan.generate(3, labels=np.arange(3), seed=3)
    assert np.abs(changed[1] - same[1]).max() > 1e-4
    np.testing.assert_allclose(changed[0], same[0], atol=1e-6)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: small().generate(0), "`count`"),
        (lambda: small().generate(2, labels=1), "conditional GAN"),
        (lambda: small(classes=3).generate(2, labels=3), "from 0 to 2"),
        (lambda: small(discriminator_steps=0), "`discriminator_steps`"),
        (
            lambda: GAN(
                zoo.resnet_generator(32, classes=3, width=8),
                zoo.resnet_discriminator(32, classes=3, width=8),
                classes=2.5,
            ),
            "`classes` must be an integer >= 1",
        ),
        (
            lambda: GAN(zoo.dcgan_generator(), zoo.resnet_discriminator(width=8)),
            r"images of \(64, 64, 3\) and of \(32, 32, 3\)",
        ),
        (
            lambda: GAN(
                zoo.resnet_generator(32, classes=3, width=8),
                zoo.resnet_discriminator(32, width=8),
                classes=3,
            ),
            "`discriminator` must take labels",
        ),
        (lambda: small().fit(np.zeros((4, 32, 32, 3))), "compile"),
    ],
)
def test_bad_arguments(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_labels_where_there_are_none(rng):
    gan = small()
    gan.compile()
    with pytest.raises(ValueError, match="`y` must hold labels if and only if"):
        gan.fit(images(rng, 4), np.zeros(4), verbose=0)


def test_one_optimizer_for_both_is_refused():
    optimizer = keras.optimizers.SGD()
    with pytest.raises(ValueError, match="another instance"):
        small().compile(optimizer, optimizer)
