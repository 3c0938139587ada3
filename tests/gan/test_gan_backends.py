"""A training step of each backend against the same step in NumPy, float64."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_spectral.gan import GAN, GradientPenalty
from keras_spectral.gan.inputs import checked
from keras_spectral.layers import SpectralNormalization

RATE, SHAPE, PARTS = 0.5, (2, 2, 1), 2


class AtAQuarter(GradientPenalty):
    """Random numbers are each backend's own; this has none."""

    def points(self, real, fake, seed):
        return real + 0.25 * (fake - real)


def small(**arguments):
    kl = keras.layers
    made = [kl.Dense(4, name="g"), kl.BatchNormalization(epsilon=1e-3, name="n")]
    generator = keras.Sequential([keras.Input((3,)), *made, kl.Reshape(SHAPE)])
    hidden = kl.Dense(5, activation="tanh", use_bias=False, name="d1")
    hidden = SpectralNormalization(hidden, method="power_iteration")
    judged = [kl.Flatten(), hidden, kl.Dense(1, name="d2")]
    discriminator = keras.Sequential([keras.Input(SHAPE), *judged])
    return GAN(generator, discriminator, discriminator_steps=PARTS, **arguments)


class Numpy:
    """The same networks and step; gradients are central differences."""

    def __init__(self, gan, kind):
        def array(x):
            return keras.ops.convert_to_numpy(x).astype("float64")

        g, n = (gan.generator.get_layer(name) for name in "gn")
        d1, d2 = (gan.discriminator.get_layer(name) for name in ("d1", "d2"))
        self.g = [array(x) for x in (g.kernel, g.bias, n.gamma, n.beta)]
        self.d = [array(x) for x in (d1.kernel, d2.kernel, d2.bias)]
        self.u, self.v = (array(x) for x in (d1.norm_states[0].u, d1.norm_states[0].v))
        self.mean, self.variance = np.zeros(4), np.ones(4)
        self.kind = kind

    def generate(self, g, z):
        y = z @ g[0] + g[1]
        mean, variance = y.mean(0), y.var(0)
        return (y - mean) / np.sqrt(variance + 1e-3) * g[2] + g[3], mean, variance

    def move_statistics(self, z):
        x, mean, variance = self.generate(self.g, z)
        self.mean = 0.99 * self.mean + 0.01 * mean
        self.variance = 0.99 * self.variance + 0.01 * variance
        return x

    def judge(self, d, x):
        w = d[0] / (self.v @ d[0] @ self.u)
        h = np.tanh(x @ w)
        by_x = ((1 - h**2) * d[1][:, 0]) @ w.T
        return (h @ d[1] + d[2])[:, 0], np.linalg.norm(by_x, axis=1)

    def loss(self, real, fake):
        soft = np.logaddexp
        return {
            "hinge": lambda: (
                np.maximum(0, 1 - real).mean() + np.maximum(0, 1 + fake).mean()
            ),
            "minimax": lambda: soft(0, -real).mean() + soft(0, fake).mean(),
            "wasserstein": lambda: fake.mean() - real.mean(),
            "relativistic_average": lambda: (
                soft(0, fake.mean() - real).mean() + soft(0, fake - real.mean()).mean()
            ),
        }[self.kind]()

    def update_discriminator(self, real, z):
        fake = self.move_statistics(z)
        self.v = self.d[0] @ self.u
        self.v /= np.linalg.norm(self.v)
        self.u = self.d[0].T @ self.v
        self.u /= np.linalg.norm(self.u)

        def loss(d):
            total = self.loss(self.judge(d, real)[0], self.judge(d, fake)[0])
            if self.kind == "wasserstein":
                norms = self.judge(d, real + 0.25 * (fake - real))[1]
                total += 10.0 * np.mean((norms - 1) ** 2)
            return total

        self.d = descended(loss, self.d)

    def update_generator(self, real, z):
        def loss(g):
            fake = self.judge(self.d, self.generate(g, z)[0])[0]
            if self.kind == "relativistic_average":
                return self.loss(fake, self.judge(self.d, real)[0])
            if self.kind == "minimax":
                return -np.logaddexp(0, fake).mean()
            return -fake.mean()

        self.move_statistics(z)
        self.g = descended(loss, self.g)


def descended(loss, weights, step=1e-5):
    found = [w.copy() for w in weights]
    for weight, new in zip(weights, found, strict=True):
        for index in np.ndindex(weight.shape):
            value, losses = weight[index], []
            for sign in (1, -1):
                weight[index] = value + sign * step
                losses.append(loss(weights))
            weight[index] = value
            new[index] -= RATE * (losses[0] - losses[1]) / (2 * step)
    return found


@pytest.mark.parametrize(
    "kind", ["hinge", "minimax", "wasserstein", "relativistic_average"]
)
def test_a_step_is_numpy_s(kind, rng):
    penalty = AtAQuarter(10.0) if kind == "wasserstein" else None
    gan = small(objective=kind, penalty=penalty, ema_momentum=0.5)
    gan.compile(keras.optimizers.SGD(RATE), keras.optimizers.SGD(RATE))
    images = rng.uniform(-1, 1, (6, *SHAPE)).astype("float32")
    latents = rng.standard_normal((PARTS + 1, 6, 3)).astype("float32")
    calls = iter(range(100))
    # A function may be traced more than once.
    gan._latents = lambda count: keras.ops.convert_to_tensor(
        latents[next(calls) % (PARTS + 1)][:count]
    )
    expected = Numpy(gan, kind)
    gan.fit(images, batch_size=6, shuffle=False, verbose=0)
    flat = images.reshape(6, 4).astype("float64")
    for part in range(PARTS):
        expected.update_discriminator(flat[3 * part :][:3], latents[part][:3])
    expected.update_generator(flat[3:], latents[-1])

    g, n = (gan.generator.get_layer(name) for name in "gn")
    d1, d2 = (gan.discriminator.get_layer(name) for name in ("d1", "d2"))
    state = d1.norm_states[0]
    pairs = [
        *zip((g.kernel, g.bias, n.gamma, n.beta), expected.g, strict=True),
        *zip((d1.kernel, d2.kernel, d2.bias), expected.d, strict=True),
        *zip((state.u, state.v), (expected.u, expected.v), strict=True),
        *zip(
            (n.moving_mean, n.moving_variance),
            (expected.mean, expected.variance),
            strict=True,
        ),
    ]
    for ours, theirs in pairs:
        ours = keras.ops.convert_to_numpy(ours)
        # Float32, three updates, each by a gradient of order one.
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5)
    assert int(state.updates) == PARTS
    # The first update of the average is the weights themselves.
    average = gan.averaged_generator.get_weights()
    for ours, theirs in zip(average, gan.generator.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


class Batches(keras.utils.PyDataset):
    def __init__(self, images):
        super().__init__()
        self.images = images

    def __len__(self):
        return len(self.images) // 4

    def __getitem__(self, index):
        return (self.images[4 * index :][:4],)


def test_batches_of_a_dataset_train_and_evaluate_in_a_run_that_resumes(rng, tmp_path):
    images = rng.uniform(-1, 1, (8, *SHAPE)).astype("float32")
    gan = small(seed=3, ema_momentum=0.5)
    gan.compile()
    seen = []

    class Sampling(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(gan.generate(2, seed=0))

    gan.fit(Batches(images), callbacks=[Sampling()], verbose=0, shuffle=False)
    # Within an epoch JAX's trainer has the weights.
    assert np.abs(seen[1] - seen[0]).max() > 0
    np.testing.assert_array_equal(gan.generate(2, seed=0), seen[1])
    gan.save(tmp_path / "gan.keras")
    loaded = keras.models.load_model(tmp_path / "gan.keras")
    for model in (gan, loaded):
        model.fit(Batches(images), verbose=0, shuffle=False)
    for ours, theirs in zip(
        [*loaded.variables, *loaded.optimizer.variables],
        [*gan.variables, *gan.optimizer.variables],
        strict=True,
    ):
        np.testing.assert_array_equal(
            *map(keras.ops.convert_to_numpy, (ours, theirs)), ours.path
        )
    losses = [x.evaluate(images, verbose=0) for x in (gan, loaded)]
    assert np.isfinite(losses).all() and losses[0] == losses[1]


@pytest.mark.skipif(
    keras.backend.backend() == "tensorflow", reason="of the other backends"
)
def test_training_needs_no_tensorflow():
    program = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "import numpy as np\n"
        "from tests.gan.test_gan_backends import small\n"
        "gan = small(); gan.compile()\n"
        "x = np.zeros((4, 2, 2, 1), 'float32')\n"
        "gan.fit(x, batch_size=4, validation_data=(x,), verbose=0)\n"
        "print(gan.generate(1, seed=0).shape)\n"
    )
    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend()}
    made = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    assert made.stdout.strip() == "(1, 2, 2, 1)", made.stderr


def test_a_pipeline_of_tensorflow_is_checked_on_every_backend():
    tf = pytest.importorskip("tensorflow")
    images = np.linspace(-1, 1, 32).reshape(8, *SHAPE).astype("float32")
    batches = tf.data.Dataset.from_tensor_slices(images).batch(4)
    found = np.concatenate([batch.numpy() for batch in checked(batches, None, None)])
    np.testing.assert_array_equal(found, images)
    bytes_of = batches.map(lambda x: 127.5 * (x + 1))
    with pytest.raises(tf.errors.InvalidArgumentError, match="`x` must hold images"):
        list(checked(bytes_of, None, None))


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="Keras refuses it.")
def test_steps_per_execution_change_nothing(rng):
    images = rng.uniform(-1, 1, (8, *SHAPE)).astype("float32")
    weights = []
    for steps in (1, 2):
        keras.utils.set_random_seed(0)
        gan = small(seed=0, ema_momentum=0.5)
        gan.compile("sgd", "sgd", steps_per_execution=steps)
        gan.fit(images, batch_size=2, shuffle=False, verbose=0)
        weights.append(np.concatenate([w.ravel() for w in gan.get_weights()]))
    np.testing.assert_array_equal(*weights)


def test_a_single_batch_of_arrays_with_labels_trains(rng):
    kl = keras.layers
    latents, images = keras.Input((3,)), keras.Input(SHAPE)
    labels = [keras.Input((), dtype="int32") for _ in range(2)]
    made = kl.Add()([kl.Dense(4)(latents), kl.Embedding(5, 4)(labels[0])])
    logits = kl.Dot(1)([kl.Flatten()(images), kl.Embedding(5, 4)(labels[1])])
    gan = GAN(
        keras.Model([latents, labels[0]], kl.Reshape(SHAPE)(made)),
        keras.Model([images, labels[1]], logits),
        classes=5,
        discriminator_steps=PARTS,
    )
    gan.compile()
    batch = rng.uniform(-1, 1, (4, *SHAPE)).astype("float32"), np.arange(4)
    losses = [gan.train_on_batch(*batch), gan.test_on_batch(*batch)]
    assert np.shape(losses) == (2, 2) and np.isfinite(losses).all()
