import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl

from keras_spectral.layers import InvertibleResidual
from tests.layers.kinds import images


def dense(activation="elu", dtype="float64", size=5, **arguments):
    layers = [
        kl.Dense(7, activation, dtype=dtype),
        kl.Dense(6, activation, dtype=dtype),
        kl.Dense(size, dtype=dtype),
    ]
    return InvertibleResidual(layers, dtype=dtype, **arguments)


def convolution(dtype="float64", **arguments):
    layers = [
        kl.Conv2D(3, 3, padding="same", activation="softplus", dtype=dtype),
        kl.Conv2D(3, 1, dtype=dtype),
        kl.LeakyReLU(0.2, dtype=dtype),
        kl.Conv2D(2, 2, padding="same", dilation_rate=2, dtype=dtype),
    ]
    return InvertibleResidual(layers, dtype=dtype, **arguments)


CASES = {"dense": (dense, images(5)), "convolution": (convolution, images(5, 4, 2))}


def wild(layer, x, scale=3.0):
    """A block whose kernels are far above the bound, with biases."""
    layer.build((None, *x.shape[1:]))
    for weight in layer.trainable_weights:
        weight.assign(scale * np.random.standard_normal(weight.shape))
    return layer


def jacobian(function, x):
    """The full Jacobian of each sample, (batch, n, n)."""
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    size = int(np.prod(x.shape[1:]))
    return tape.batch_jacobian(y, x).numpy().reshape(len(x), size, size)


def test_the_certificate_bounds_every_jacobian():
    layer = wild(dense("gelu"), images(5))
    bound = layer.lipschitz_bound()
    assert 0 < bound <= 0.9 + 1e-12
    x = 4 * np.random.standard_normal((200, 5))
    norms = np.linalg.norm(jacobian(layer.branch, x), 2, axis=(1, 2))
    assert norms.max() <= bound


@pytest.mark.parametrize(
    "layer, shape",
    [
        (kl.Conv1D(2, 3, padding="causal", dtype="float64"), (6, 2)),
        (kl.Conv2D(4, 3, padding="same", groups=2, dtype="float64"), (4, 5, 4)),
        (kl.Conv3D(2, 2, padding="same", dtype="float64"), (3, 3, 3, 2)),
        (kl.DepthwiseConv1D(3, padding="same", dtype="float64"), (6, 3)),
        (kl.DepthwiseConv2D(3, padding="same", dtype="float64"), (4, 5, 3)),
        (kl.Conv2DTranspose(2, 3, padding="same", dtype="float64"), (4, 5, 2)),
        (kl.Dense(3, dtype="float64"), (4, 3)),
    ],
)
def test_every_kind_of_layer_obeys_its_certificate(layer, shape):
    """A linear branch, whose norm is that of one matrix."""
    block = InvertibleResidual([layer], dtype="float64")
    inputs = int(np.prod(shape))
    impulses = np.eye(inputs).reshape(inputs, *shape)
    wild(block, impulses)
    matrix = block.branch(impulses) - block.branch(0 * impulses)
    norm = np.linalg.norm(np.asarray(matrix).reshape(inputs, -1), 2)
    # Zero padding alone keeps the norm below the certificate.
    assert 0.6 < norm <= block.lipschitz_bound() * (1 + 1e-9) <= 0.9 * (1 + 1e-9)


def test_the_lipschitz_inequality_on_random_pairs():
    layer = wild(convolution(), images(5, 4, 2))
    x, y = np.random.standard_normal((2, 64, 5, 4, 2))
    norm = lambda z: np.linalg.norm(np.asarray(z).reshape(64, -1), axis=1)  # noqa: E731
    ratios = norm(layer.branch(x) - layer.branch(y)) / norm(x - y)
    assert ratios.max() <= layer.lipschitz_bound()


def test_a_linear_branch_reaches_its_bound():
    branch = [kl.Dense(5, dtype="float64")]
    layer = wild(InvertibleResidual(branch, dtype="float64"), images(5))
    norms = np.linalg.norm(jacobian(layer.branch, images(5)[:1]), 2, axis=(1, 2))
    assert norms[0] == pytest.approx(0.9, rel=1e-6) == layer.lipschitz_bound()


@pytest.mark.parametrize("case", CASES)
def test_a_branch_within_the_bound_is_left_alone(case):
    make, x = CASES[case]
    x = x.astype("float64")
    layer = wild(make(), x, scale=1e-3)
    np.testing.assert_allclose(layer(x), x + layer.function(x), rtol=1e-12)
    assert layer.lipschitz_bound() < 0.1


@pytest.mark.parametrize("case", CASES)
def test_inverse(case):
    make, x = CASES[case]
    x = x.astype("float64")
    layer = wild(make(), x)
    found = layer.inverse(layer(x), tolerance=1e-10)
    assert found.residual <= 1e-9
    error = np.linalg.norm((found.x.numpy() - x).reshape(4, -1), axis=1)
    size = np.linalg.norm(layer(x).numpy().reshape(4, -1), axis=1)
    assert (error <= 1e-10 * size).all()
    # The certified rate holds for the measured one.
    assert 0 < found.rate <= layer.lipschitz_bound() * (1 + 1e-6)
    certified = np.log(1e-12) / np.log(layer.lipschitz_bound())
    assert 2 <= found.iterations <= certified + 5
    # In a compiled function the same, but nothing can be raised there.
    compiled = tf.function(layer.inverse)
    again = compiled(layer(x), tolerance=1e-10)
    np.testing.assert_allclose(again.x, found.x, rtol=1e-12)
    assert int(again.iterations) == found.iterations
    assert np.isnan(compiled(layer(x), max_iterations=1).x).all()


def test_a_linear_branch_converges_at_its_rate():
    layer = InvertibleResidual([kl.Dense(3, use_bias=False, dtype="float64")])
    layer.build((None, 3))
    layer.function.layers[0].kernel.assign(0.5 * np.eye(3))
    found = layer.inverse(np.ones((1, 3)), tolerance=1e-8)
    np.testing.assert_allclose(found.x, np.full((1, 3), 1 / 1.5), rtol=1e-8)
    assert found.rate == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
def test_inverse_at_every_scale(scale):
    layer = InvertibleResidual([kl.Dense(5, use_bias=False), kl.ReLU()])
    x = (scale * images(5)).astype("float32")
    found = layer.inverse(layer(x), tolerance=1e-5)
    np.testing.assert_allclose(found.x, x, atol=1e-4 * scale)


def test_inverse_says_when_it_fails():
    layer = wild(dense(), images(5))
    y = layer(images(5))
    with pytest.raises(RuntimeError, match="max_iterations=2"):
        layer.inverse(y, tolerance=1e-12, max_iterations=2)
    with pytest.raises(RuntimeError, match="not the tolerance"):
        layer.inverse(np.full((1, 5), np.nan), max_iterations=3)
    for method in (dense().inverse, dense().log_determinant):
        with pytest.raises(ValueError, match="must be built"):
            method(np.ones((1, 5)))
    with pytest.raises(ValueError, match="`tolerance`"):
        layer.inverse(y, tolerance=0)


@pytest.mark.parametrize("case", CASES)
def test_log_determinant_against_the_full_jacobian(case):
    make, x = CASES[case]
    x = x.astype("float64")
    layer = wild(make(bound=0.6), x)
    exact = np.linalg.slogdet(jacobian(layer, x))[1]
    terms, samples = 20, 500
    # Each copy of a sample has a probe of its own.
    copies = np.repeat(x, samples, axis=0)
    draws = layer.log_determinant(copies, power_terms=terms, seed=1).numpy()
    draws = draws.reshape(len(x), samples).T
    truncation = layer.truncation_error(terms, int(np.prod(x.shape[1:])))
    assert truncation < 1e-3
    error = draws.std(axis=0, ddof=1) / np.sqrt(len(draws))
    assert (np.abs(draws.mean(axis=0) - exact) < 4.5 * error + truncation).all()
    assert (error < 0.1).all()
    # Probes are averaged: a quarter of the variance.
    few = layer.log_determinant(copies, power_terms=terms, probes=4, seed=2).numpy()
    ratio = few.reshape(len(x), samples).std(axis=1) / draws.std(axis=0)
    np.testing.assert_allclose(ratio, 0.5, rtol=0.25)


def test_log_determinant_of_a_diagonal_branch_is_exact():
    """One probe suffices: v'Dv is the trace for a diagonal D."""
    layer = InvertibleResidual([kl.Dense(3, use_bias=False, dtype="float64")])
    layer.build((None, 3))
    diagonal = np.array([0.5, -0.25, 0.1])
    layer.function.layers[0].kernel.assign(np.diag(diagonal))
    estimate = layer.log_determinant(np.ones((2, 3)), power_terms=3).numpy()
    series = sum((-1) ** (k + 1) * (diagonal**k).sum() / k for k in (1, 2, 3))
    np.testing.assert_allclose(estimate, series, rtol=1e-12)
    exact = np.log1p(diagonal).sum()
    assert abs(series - exact) <= layer.truncation_error(3, 3)


@pytest.mark.parametrize("case", CASES)
def test_gradient_against_finite_differences(case):
    """Of the output and the log-determinant, through the certificate."""
    make, x = CASES[case]
    x = x[:1].astype("float64")
    layer = wild(make(), x, scale=1.0)
    (slot, _), *_ = layer._weighted
    kernel = slot.variable.numpy()

    @tf.function
    def value():
        determinant = layer.log_determinant(x, power_terms=3, seed=1)
        return tf.reduce_sum(layer(x) ** 2) + tf.reduce_sum(determinant)

    def value_at(step):
        slot.variable.assign(kernel + step * direction)
        return float(value())

    with tf.GradientTape() as tape:
        total = value()
    gradient = tape.gradient(total, slot.variable.value).numpy()
    found, expected = [], []
    for _ in range(8):
        direction = np.random.standard_normal(kernel.shape)
        found.append((gradient * direction).sum())
        expected.append((value_at(1e-6) - value_at(-1e-6)) / 2e-6)
    # A convolution's certificate has the gradient of the norm that it bounds, which
    # it exceeds by a share that moves with the kernel.
    close = 0.03 if case == "convolution" else 1e-5
    error = np.linalg.norm(np.subtract(found, expected))
    assert error <= close * np.linalg.norm(expected)
    assert np.linalg.norm(expected) > 1e-2


def test_zero_kernels_have_finite_gradients():
    layer = InvertibleResidual(
        [kl.Conv2D(3, 3, padding="same", activation="elu"), kl.Conv2D(2, 1)]
    )
    layer.build((None, 4, 4, 2))
    layer.function.layers[1].kernel.assign(np.zeros((1, 1, 3, 2)))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(images(4, 4, 2)) ** 2)
    for gradient in tape.gradient(total, layer.trainable_variables):
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision(dtype):
    x = images(5)
    layer, full = dense("elu", dtype), dense("elu", "float32")
    layer.build((None, 5)), full.build((None, 5))
    full.set_weights(layer.get_weights())
    np.testing.assert_allclose(layer(x), full(x), atol=0.03)
    pair = [block.log_determinant(x, probes=2, seed=1) for block in (layer, full)]
    np.testing.assert_allclose(*pair, atol=0.05)
    assert pair[0].dtype == "float32"
    found = layer.inverse(tf.cast(layer(x), "bfloat16"), tolerance=0.05)
    assert found.x.dtype == "float32"
    np.testing.assert_allclose(found.x, x, atol=0.1)


def functional(*layers, finish=lambda x, inputs: x):
    inputs = outputs = keras.Input((5,))
    for layer in layers:
        outputs = layer(outputs)
    return keras.Model(inputs, finish(outputs, inputs))


def test_a_functional_branch(tmp_path):
    x = images(5)
    layer = InvertibleResidual(functional(kl.Dense(7, "elu"), kl.Dense(5)))
    model = keras.Sequential([keras.Input((5,)), layer])
    found = layer.inverse(layer(x))
    np.testing.assert_allclose(found.x, x, atol=1e-4)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))


shared = kl.Dense(5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: functional(kl.Dense(5), finish=lambda x, _: 9 * x),
        lambda: functional(kl.Dense(5), finish=lambda x, y: kl.Add()([x, y])),
        lambda: functional(kl.Dense(5), finish=lambda x, y: [x, y]),
        lambda: functional(shared, shared),
    ],
)
def test_functional_branches_of_several_paths(make):
    with pytest.raises(ValueError, match="one path|cannot be bounded"):
        InvertibleResidual(make())


@pytest.mark.parametrize("jit", [False, True])
def test_fit_save_and_load(jit, tmp_path):
    # XLA is slow to compile Gram iterations: one block is enough there.
    blocks = [dense("elu", "mixed_bfloat16", size=2, name="second")]
    if not jit:
        blocks.append(InvertibleResidual([kl.Conv2D(2, 3, padding="same")]))
    model = keras.Sequential([keras.Input((5, 4, 2)), *blocks, kl.Flatten()])
    x = images(5, 4, 2)
    model.compile(keras.optimizers.Adam(0.02), "mse", jit_compile=jit)
    target = 2 * x.reshape(4, -1)
    loss = model.fit(x, target, epochs=10, verbose=0).history["loss"]
    assert loss[-1] < loss[0]
    for block in blocks:
        assert block.lipschitz_bound() <= 0.9
        assert block(x).dtype == "float32"
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    last = loaded.layers[len(blocks) - 1]
    if not jit:
        np.testing.assert_allclose(last.inverse(last(x)).x, x, atol=1e-3)


class Custom(kl.Layer):
    pass


class NineTimes(kl.Dense):
    def call(self, inputs):
        return 9 * super().call(inputs)


class NineTimesAll(keras.Sequential):
    def call(self, inputs, **arguments):
        return 9 * super().call(inputs, **arguments)


@pytest.mark.parametrize(
    "layers, match",
    [
        ([kl.BatchNormalization(name="norm")], "'norm'"),
        ([kl.Dropout(0.5, name="drop")], "'drop'"),
        ([Custom(name="custom")], "'custom'"),
        ([NineTimes(5, name="nine")], "'nine'"),
        (NineTimesAll([kl.Dense(5)]), "`function`"),
        ([kl.Dense(5), kl.ReLU(threshold=1.0, name="jump")], "'jump'"),
        ([kl.Activation("tanh", name="alone")], "'alone'"),
        ([kl.Conv2D(2, 3, strides=2, padding="same", name="strided")], "'strided'"),
        ([kl.Dense(5, "softmax", name="soft")], "softmax"),
        ([kl.Activation(tf.sin, name="sine")], "'sine'"),
        ([kl.MultiHeadAttention(2, 3, name="attention")], "'attention'"),
        ([kl.SeparableConv2D(2, 3, name="separable")], "'separable'"),
        (kl.Dense(5), "`function`"),
    ],
)
def test_branches_that_cannot_be_bounded(layers, match):
    with pytest.raises(ValueError, match=match):
        InvertibleResidual(layers)


def test_shapes_and_bounds_are_checked():
    with pytest.raises(ValueError, match="keep the shape"):
        InvertibleResidual([kl.Dense(4)]).build((None, 5))
    with pytest.raises(ValueError, match="keep the shape"):
        InvertibleResidual([kl.Conv2D(2, 3)]).build((None, 5, 5, 2))
    for bound in (0, 1, 1.5):
        with pytest.raises(ValueError, match="`bound`"):
            dense(bound=bound)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_layers_share_the_bound_so_that_their_product_reaches_it(count):
    """Multiples of orthogonal matrices: the norm of the product is that of norms."""
    layers = [kl.Dense(5, use_bias=False, dtype="float64") for _ in range(count)]
    block = wild(InvertibleResidual(layers, bound=0.8, dtype="float64"), images(5))
    for layer in layers:
        layer.kernel.assign(3 * np.linalg.qr(np.random.standard_normal((5, 5)))[0])
    (matrix,) = jacobian(block.branch, images(5)[:1].astype("float64"))
    singular = np.linalg.svd(matrix, compute_uv=False)
    np.testing.assert_allclose(singular, 0.8, rtol=1e-6)
    assert block.lipschitz_bound() == pytest.approx(0.8, rel=1e-6)
