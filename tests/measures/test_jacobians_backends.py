"""Products with Jacobians against torch.autograd in float64, on every backend."""

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from keras import layers as kl
from keras import ops

from keras_spectral.layers import InvertibleResidual, SpectralNormalization
from keras_spectral.linalg import operator_singular_values
from keras_spectral.measures import Linearization

JAX = keras.backend.backend() == "jax"
TENSORFLOW = keras.backend.backend() == "tensorflow"
# JAX computes in float32 by default.
CLOSE = dict(rtol=2e-4, atol=2e-5) if JAX else dict(rtol=1e-8, atol=1e-9)


def array(x):
    return ops.convert_to_numpy(x).astype("float64")


def tensor(weight):
    return torch.tensor(array(weight))


def randomized(model, rng):
    for weight in model.weights:
        if "seed" not in weight.path:
            value = 0.5 * rng.normal(size=weight.shape)
            weight.assign(np.abs(value) + 0.5 if "variance" in weight.path else value)
    return model


def residual(rng):
    """A branch with a convolution, a sum, and a model inside that is used twice."""
    inputs = keras.Input((5, 5, 2))
    x = kl.Conv2D(3, 3, padding="same", name="first")(inputs)
    x = kl.BatchNormalization(name="norm")(x)
    x = kl.PReLU(shared_axes=[1, 2], name="prelu")(x)
    branch = kl.Conv2D(3, 3, padding="same", use_bias=False, name="branch")(x)
    x = kl.Add(name="sum")([kl.Activation("tanh", name="tanh")(branch), x])
    x = kl.Flatten()(kl.MaxPooling2D(2)(x))
    head = keras.Sequential(
        [keras.Input((12,)), kl.Dense(12, name="inner"), kl.Activation("silu")],
        name="head",
    )
    first = head(x)
    return randomized(keras.Model(inputs, head(first)), rng), first


def parts_of(model):
    """The same in torch: from the inputs to the sum's two parts, and from these on."""
    first, norm, prelu, branch = map(
        model.get_layer, ("first", "norm", "prelu", "branch")
    )
    (inner, _) = model.get_layer("head").layers
    scale = tensor(norm.gamma) / (tensor(norm.moving_variance) + norm.epsilon).sqrt()

    def convolved(layer, x):
        x = functional.conv2d(
            x.permute(2, 0, 1)[None],
            tensor(layer.kernel).permute(3, 2, 0, 1),
            padding=1,
        )
        return x[0].permute(1, 2, 0)

    def start(x):
        x = convolved(first, x) + tensor(first.bias)
        x = (x - tensor(norm.moving_mean)) * scale + tensor(norm.beta)
        return torch.where(x > 0, x, x * tensor(prelu.alpha))

    def finish(branch, skip):
        x = (branch.tanh() + skip).permute(2, 0, 1)[None]
        x = functional.max_pool2d(x, 2)[0].permute(1, 2, 0).flatten()
        for _ in range(2):
            x = functional.silu(x @ tensor(inner.kernel) + tensor(inner.bias))
        return x

    return start, lambda x: convolved(branch, x), finish


def test_a_residual_network(rng):
    model, middle = residual(rng)
    points = [model.inputs[0], "branch", middle, model.outputs[0]]
    at = Linearization(model, points, dtype="float64", batch_size=5)
    x = rng.normal(size=(2, 5, 5, 2))
    start, branch, finish = parts_of(model)
    values = [array(value) for value in at.values(x)]
    cotangents = rng.normal(size=(3, 2, 12))
    pulled = [array(found) for found in at.vjp(x, cotangents)]
    tangents = rng.normal(size=(3, 2, 5, 5, 3))
    # Seven samples and probes at most: the three probes are two parts.
    along = array(at.jvp(x, tangents, "branch")[-1])
    from_inputs = array(at.jvp(x, np.ones((1, 1, 5, 5, 2)), points[0])[-1])
    for sample in range(2):
        image = torch.tensor(x[sample])
        skip = start(image)
        inside = branch(skip)
        np.testing.assert_allclose(values[1][sample], inside, **CLOSE)
        np.testing.assert_allclose(values[3][sample], finish(inside, skip), **CLOSE)
        jacobian = torch.autograd.functional.jacobian
        # What goes around the branch stays as it is.
        by_branch = jacobian(lambda y, skip=skip: finish(y, skip), inside).numpy()
        whole = jacobian(lambda x: finish(branch(start(x)), start(x)), image).numpy()
        for probe in range(3):
            c, v = cotangents[probe, sample], tangents[probe, sample]
            expected = np.tensordot(c, by_branch, 1)
            np.testing.assert_allclose(pulled[1][probe, sample], expected, **CLOSE)
            expected = np.tensordot(c, whole, 1)
            np.testing.assert_allclose(pulled[0][probe, sample], expected, **CLOSE)
            expected = np.tensordot(by_branch, v, 3)
            np.testing.assert_allclose(along[probe, sample], expected, **CLOSE)
        expected = whole.sum((1, 2, 3))
        np.testing.assert_allclose(from_inputs[0, sample], expected, **CLOSE)


def test_the_gradient_of_a_margin(rng):
    model, middle = residual(rng)
    at = Linearization(model, ["prelu", middle, "sum", model.outputs[0]], "float64")
    x, labels = rng.normal(size=(3, 5, 5, 2)), np.array([4, 0, 11])

    def margin(logits, labels):
        own = ops.one_hot(labels, 12, dtype=logits.dtype)
        others = ops.max(logits - 1e9 * own, axis=-1)
        return ops.sum(logits * own, axis=-1) - others

    found = at.gradients(x, margin, arguments=[labels])
    start, branch, finish = parts_of(model)
    for sample, label in enumerate(labels):

        def of_point(skip, label=label):
            logits = finish(branch(skip), skip)
            return (
                logits[label] - torch.cat([logits[:label], logits[label + 1 :]]).max()
            )

        point = start(torch.tensor(x[sample])).requires_grad_()
        result = of_point(point)
        (slope,) = torch.autograd.grad(result, point)
        np.testing.assert_allclose(array(found.results)[sample], result.item(), **CLOSE)
        np.testing.assert_allclose(
            array(found.values[0])[sample], point.detach(), **CLOSE
        )
        np.testing.assert_allclose(array(found.gradients[0])[sample], slope, **CLOSE)
    assert [x.shape[1:] for x in map(array, found.gradients)] == [
        (5, 5, 3),
        (12,),
        (5, 5, 3),
    ]


def test_what_is_shifted(rng):
    """Finite differences, which tell the derivative besides."""
    model, _ = residual(rng)
    at = Linearization(model, ["branch", "sum"], dtype="float64")
    x, shift = rng.normal(size=(2, 5, 5, 2)), rng.normal(size=(2, 1, 5, 5, 3))
    clean = [array(value) for value in at.values(x)]
    step = 1e-3 if JAX else 1e-6
    moved = [array(value) for value in at.moved(x, step * shift, "branch")]
    np.testing.assert_allclose(
        moved[0], clean[0] + step * np.broadcast_to(shift, (2, 2, 5, 5, 3)), rtol=1e-5
    )
    slopes = array(at.jvp(x, shift, "branch", ["sum"])[0])
    differences = (moved[1] - clean[1]) / step
    np.testing.assert_allclose(differences, slopes, atol=2e-2 if JAX else 1e-5)


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_linear_networks_have_the_norm_of_their_product(rng, data_format):
    if data_format == "channels_first" and TENSORFLOW:
        pytest.skip("TensorFlow has no such convolution on a CPU")
    shape = (2, 4, 4) if data_format == "channels_first" else (4, 4, 2)
    inputs = keras.Input(shape)
    x = kl.Conv2D(3, 2, use_bias=False, data_format=data_format)(inputs)
    x = kl.Conv2D(2, 2, use_bias=False, data_format=data_format, name="end")(x)
    model = randomized(keras.Model(inputs, x), rng)
    at = Linearization(model, dtype="float64")
    zero = np.zeros((1, *shape))
    operator = at.operator(zero, inputs, "end")
    matrix = array(at.jvp(zero, np.eye(32).reshape(32, 1, *shape), inputs, ["end"])[0])
    impulses = model.predict(np.eye(32).reshape(32, *shape), verbose=0)
    np.testing.assert_allclose(matrix[:, 0], impulses, rtol=1e-4, atol=1e-5)
    norm = np.linalg.norm(matrix.reshape(32, -1), 2)
    found = operator_singular_values(operator, count=1)[0]
    assert found == pytest.approx(norm, rel=1e-5)


def test_wrappers_are_what_they_compute_with(rng):
    dense = SpectralNormalization(kl.Dense(4, use_bias=False, name="fc"), bound=0.5)
    block = InvertibleResidual([kl.Dense(4, use_bias=False)], name="block")
    model = keras.Sequential([keras.Input((3,)), dense, block])
    at = Linearization(model, ["fc", "block"], dtype="float64")
    by_block = array(at.vjp(np.zeros((1, 3)), np.eye(4)[:, None], ["fc"])[0])[:, 0]
    kernel = array(ops.convert_to_tensor(block.function.layers[0].kernel))
    kernel *= min(1, 0.9 / np.linalg.norm(kernel, 2))
    np.testing.assert_allclose(by_block, (np.eye(4) + kernel).T, rtol=1e-2, atol=1e-2)
    by_input = array(
        at.vjp(np.zeros((1, 3)), np.eye(4)[:, None], model.inputs, "fc")[0]
    )
    np.testing.assert_allclose(
        array(by_input)[:, 0], array(dense.effective_kernel()).T, rtol=1e-5, atol=1e-6
    )


def test_its_own_dtype_is_that_of_a_plain_copy_where_it_is_equal(rng):
    """Wrappers are left out of the graph; half precision and own layers stay."""

    class Own(kl.Layer):
        def __init__(self, factor):  # Without a configuration.
            super().__init__()
            self.factor = factor

        def call(self, x):
            return self.factor * x

    def network(last, **arguments):
        wrapped = SpectralNormalization(kl.Dense(4, "tanh", **arguments), name="fc")
        return keras.Sequential([keras.Input((3,)), wrapped, last])

    x, rows = rng.normal(size=(5, 3)), np.eye(2)[:, None]
    model = network(SpectralNormalization(kl.Dense(2)))
    own, itself = Linearization(model, dtype="own"), Linearization(model)
    assert [type(layer) for layer in own.model.layers] == [kl.Dense, kl.Dense]
    for of in (lambda at: at.vjp(x, rows)[0], lambda at: at.values(x, ["fc"])[0]):
        np.testing.assert_allclose(array(of(own)), array(of(itself)), rtol=1e-5)
    for kept in (
        network(Own(2.0)),
        network(kl.Dense(2), dtype="mixed_float16"),
        own.model,
    ):
        assert Linearization(kept, dtype="own").model is kept


def test_weights_that_change(rng):
    """The model itself is as it is now; a copy stays as the model was."""
    model = keras.Sequential([keras.Input((2,)), kl.Dense(2, use_bias=False)])
    itself, copy = Linearization(model), Linearization(model, dtype="float32")
    before = array(model.layers[0].kernel)
    for kernel in (before, 3 * before):
        model.layers[0].kernel.assign(kernel)
        for at, expected in ((itself, kernel), (copy, before)):
            found = array(at.vjp(np.ones((1, 2)), np.eye(2)[:, None])[0])
            np.testing.assert_allclose(found[:, 0], expected.T, rtol=1e-6)


def test_several_inputs_and_what_has_no_derivative(rng):
    """Token numbers and the mask that goes with them; a path that bypasses a point."""
    tokens, image = keras.Input((4,), dtype="int32"), keras.Input((3,))
    words = kl.Embedding(5, 3, mask_zero=True, name="words")(tokens)
    mean = kl.GlobalAveragePooling1D(name="mean")(words)
    outputs = kl.Multiply(name="both")([mean, kl.Dense(3, name="fc")(image)])
    model = keras.Model([tokens, image], outputs)
    at = Linearization(model, dtype="float64")
    x = [np.array([[1, 2, 0, 0], [3, 1, 4, 0]]), rng.normal(size=(2, 3))]
    shift = np.ones((1, 1, 4, 3))
    (found,) = at.jvp(x, shift, "words", ["mean"])
    # Only the words that count are in the mean.
    np.testing.assert_allclose(array(found), np.ones((1, 2, 3)), rtol=1e-6)
    assert not array(at.jvp(x, shift, "words", ["fc"])[0]).any()
    assert not array(at.vjp(x, np.ones((1, 1, 3)), ["words"], "fc")[0]).any()
    with pytest.raises(ValueError, match="`sources` must be tensors of floats.*int32"):
        at.vjp(x, np.ones((1, 1, 3)))


def test_mistakes(rng):
    shared = kl.Dense(3, name="shared")
    inputs = keras.Input((3,))
    model = keras.Model(inputs, shared(shared(inputs)))
    for point, message in (
        ("nosuch", "which it has not.*shared"),
        ("shared", "which is 2 of its tensors"),
        (keras.Input((3,), name="other"), "'other', which it has not"),
    ):
        with pytest.raises(ValueError, match=f"`points` must.*{message}"):
            Linearization(model, [point])
    at = Linearization(model)
    with pytest.raises(ValueError, match=r"`x` must hold samples of shape \(3,\)"):
        at.values(np.ones((2, 4)))
    with pytest.raises(ValueError, match=r"`tangents` must have .*'probes', 2, 3"):
        at.jvp(np.ones((2, 3)), np.ones((2, 3)), inputs)
    with pytest.raises(ValueError, match="`dtype` must"):
        Linearization(model, dtype="float16")


class Own(keras.Model):
    def call(self, inputs):
        return 2 * super().call(inputs)


def test_models_that_are_more_than_their_graph(rng):
    inputs = keras.Input((3,))
    own = Own(inputs, kl.Dense(3, name="inner")(inputs), name="own")
    with pytest.raises(ValueError, match="no `call` of its own.*'own'"):
        Linearization(own)
    # Inside it is one operation.
    at = Linearization(keras.Model(inputs, own(inputs)))
    jacobian = array(at.vjp(np.ones((1, 3)), np.eye(3)[:, None])[0])[:, 0]
    kernel = array(own.get_layer("inner").kernel)
    np.testing.assert_allclose(jacobian, 2 * kernel.T, rtol=1e-6)


@pytest.mark.skipif(not TENSORFLOW, reason="others differentiate an interpolation")
def test_a_derivative_that_tensorflow_lacks_is_named():
    layer = kl.UpSampling2D(2, interpolation="bilinear", name="up")
    x = keras.Input((2, 2, 1))
    around = kl.Add()([layer(x), kl.UpSampling2D(2)(x)])
    at = Linearization(keras.Model(x, around))
    with pytest.raises(ValueError, match="Received: 'up' between them"):
        at.jvp(np.ones((1, 2, 2, 1)), np.ones((1, 1, 2, 2, 1)), x)


def test_recurrent_layers(rng):
    x = keras.Input((3, 2))
    model = keras.Model(x, kl.SimpleRNN(2, use_bias=False, name="rnn")(x))
    at = Linearization(model, dtype="float64")
    data, tangent = rng.normal(size=(1, 3, 2)), rng.normal(size=(1, 1, 3, 2))
    found = array(at.jvp(data, tangent, x, ["rnn"])[0])[0, 0]
    kernel, recurrent = (tensor(weight) for weight in model.get_layer("rnn").weights)

    def run(sequence):
        state = torch.zeros(2, dtype=torch.float64)
        for step in sequence:
            state = torch.tanh(step @ kernel + state @ recurrent)
        return state

    jacobian = torch.autograd.functional.jacobian(run, torch.tensor(data[0])).numpy()
    np.testing.assert_allclose(found, np.tensordot(jacobian, tangent[0, 0], 2), **CLOSE)
