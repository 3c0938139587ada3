"""Derivatives of derivatives of the layers, against differences of NumPy's SVD."""

import functools

import keras
import numpy as np
import pytest
from keras import layers as kl
from keras import ops

from keras_spectral.layers import SpectralNormalization, StableRankNormalization
from tests.linalg import reference
from tests.linalg.reference import (
    gradient,
    gradient_of,
    gradient_of_squared_gradient,
    penalty,
    relative_error,
    slope_by_differences,
    squared_gradient_by_differences,
    with_spectrum,
)

BACKEND = keras.backend.backend()

# name -> (layer, shape of one input): a block of all vectors, and of eight of 20.
INNER = {
    "dense": (lambda **k: kl.Dense(5, use_bias=False, **k), (7,)),
    "wide dense": (lambda **k: kl.Dense(24, use_bias=False, **k), (20,)),
    "conv": (lambda **k: kl.Conv2D(4, 3, use_bias=False, **k), (4, 4, 2)),
}
# What the estimate of a block of eight leaves; the others have converged.
TOLERANCES = {("wide dense", "block"): 2e-4}


@pytest.fixture(params=[False, True], ids=["eager", "compiled"], autouse=True)
def compiled(request, monkeypatch):
    """Graphs of TensorFlow call functions that layers share, with own gradients."""
    if request.param and BACKEND != "tensorflow":
        pytest.skip("`test_compiled` is enough where nothing is shared.")
    monkeypatch.setattr(reference, "compiled_by_default", request.param)
    return request.param


pytestmark = pytest.mark.usefixtures("jax_makes_float64")


METHODS = ("block", "power_iteration", "exact")
SRN = functools.partial(StableRankNormalization, stable_rank_ratio=0.3)


def made(rng, name, wrap, gaps=True, dtype="float64"):
    """Return a built layer, with singular values that are distinct or equal."""
    inner, shape = INNER[name]
    layer = wrap(inner(dtype=dtype))
    layer.build((None, *shape))
    size = layer.kernel.shape
    p = min(np.prod(size[:-1]), size[-1])
    values = np.linspace(2.0, 0.5, p) if gaps else np.full(p, 1.5)
    matrix = with_spectrum(rng, (np.prod(size[:-1]), size[-1]), values)
    layer.kernel.assign(matrix.reshape(size).astype(dtype))
    layer.restart_power_iteration()
    for _ in range(60):
        layer(np.zeros((1, *shape), dtype), training=True)
    return layer, rng.standard_normal((3, *shape)).astype(dtype)


def outputs_of(layer):
    """Return (x, kernel) -> outputs, as training computes them."""
    state = [ops.convert_to_tensor(w) for w in layer.non_trainable_variables]

    def function(x, kernel):
        return layer.stateless_call([kernel], state, x, training=True)[0]

    return function


def loss_of(layer):
    function = outputs_of(layer)
    return lambda x, kernel: ops.sum(function(x, kernel) ** 3)


def numpy_loss(x, kernel):
    """The loss, and its gradients by x and by the kernel, in NumPy."""
    matrix = kernel.reshape(-1, kernel.shape[-1])
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    scaled = matrix / s[0]
    if x.ndim == 2:
        rows = x
    else:
        rows = patches(x).reshape(-1, len(matrix))
    cube = rows @ scaled
    by_scaled = rows.T @ (3 * cube**2)
    turned = (by_scaled * scaled).sum() / s[0] * np.outer(u[:, 0], vt[0])
    by_rows = 3 * cube**2 @ scaled.T
    return by_rows, (by_scaled / s[0] - turned).reshape(kernel.shape)


def patches(x):
    """Of 3 x 3 pixels, in the order of a kernel."""
    return np.stack(
        [
            x[:, i : i + 3, j : j + 3, :].reshape(len(x), -1)
            for i in range(x.shape[1] - 2)
            for j in range(x.shape[2] - 2)
        ],
        axis=1,
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", INNER)
def test_second_derivative_by_the_kernel(rng, name, method):
    wrap = functools.partial(SpectralNormalization, method=method)
    layer, x = made(rng, name, wrap)
    kernel = ops.convert_to_numpy(layer.kernel)
    loss, inputs = loss_of(layer), ops.convert_to_tensor(x)
    found = gradient_of_squared_gradient(lambda w: loss(inputs, w), kernel)
    expected = slope_by_differences(
        lambda w: (numpy_loss(x, w)[1] ** 2).sum(), kernel, 1e-5
    )
    tolerance = TOLERANCES.get((name, method), 1e-6)
    assert relative_error(found, expected) <= tolerance


@pytest.mark.parametrize("method", METHODS)
def test_a_step_of_gradient_descent_is_differentiated(rng, method):
    """As in meta-learning: the loss after a step, by the kernel before it."""
    wrap = functools.partial(SpectralNormalization, method=method)
    layer, x = made(rng, "dense", wrap)
    kernel = ops.convert_to_numpy(layer.kernel)
    loss, inputs = loss_of(layer), ops.convert_to_tensor(x)

    def numpy_stepped(kernel):
        kernel = kernel - 1e-3 * numpy_loss(x, kernel)[1]
        return ((x @ kernel / np.linalg.norm(kernel, 2)) ** 3).sum()

    def stepped(kernel):
        after = kernel - 1e-3 * recorded_gradient(lambda w: loss(inputs, w), kernel)
        # Exact vectors of the kernel after the step, which has moved.
        norm = ops.norm(after, ord=2)
        return ops.sum((inputs @ after / norm) ** 3)

    expected = slope_by_differences(numpy_stepped, kernel, 1e-5)
    assert relative_error(gradient(stepped, kernel), expected) <= 1e-6


def recorded_gradient(function, x):
    """The gradient of a scalar function, which can be differentiated again."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x)
        return tape.gradient(value, x)
    if BACKEND == "jax":
        import jax

        return jax.grad(function)(x)
    import torch

    return torch.autograd.grad(function(x), x, create_graph=True)[0]


WRAPPERS = {
    **{m: functools.partial(SpectralNormalization, method=m) for m in METHODS},
    "operator": functools.partial(SpectralNormalization, norm="operator"),
    "estimator": SRN,
    "estimator, operator": functools.partial(SRN, norm="operator"),
}


@pytest.mark.parametrize("name", INNER)
@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_gradient_penalty_raises_nothing_and_factors_nothing(
    rng, monkeypatch, wrap, name
):
    """By x, then by the kernel: compared with NumPy where that has the norm."""
    # Keras' products round float64 to float32 on torch, whose convolutions then fail.
    dtype = "float32" if "operator" in wrap else "float64"
    layer, x = made(rng, name, WRAPPERS[wrap], dtype=dtype)
    kernel = ops.convert_to_numpy(layer.kernel)
    monkeypatch.setattr(ops, "solve", lambda *_: pytest.fail("A system was solved."))
    found = gradient(penalty(loss_of(layer), x), kernel)
    assert np.isfinite(found).all() and np.abs(found).max() > 0
    if wrap not in METHODS or name == "conv":
        return

    def numpy_penalty(kernel):
        return (numpy_loss(x, kernel)[0] ** 2).sum()

    expected = slope_by_differences(numpy_penalty, kernel)
    assert relative_error(found, expected) <= TOLERANCES.get((name, wrap), 1e-6)


REFUSED = {
    "operator": ("conv", "`norm` must be \"reshaped\".*Received: norm='operator'"),
    "estimator": ("dense", "`gradient` must be \"exact\".*gradient='estimator'"),
    "estimator, operator": ("conv", '`gradient` must be "exact"'),
}


@pytest.mark.parametrize("wrap", REFUSED)
def test_what_is_not_known_is_refused(rng, wrap):
    name, message = REFUSED[wrap]
    dtype = "float32" if "operator" in wrap else "float64"
    layer, x = made(rng, name, WRAPPERS[wrap], dtype=dtype)
    kernel = ops.convert_to_numpy(layer.kernel)
    loss, inputs = loss_of(layer), ops.convert_to_tensor(x)
    with pytest.raises(NotImplementedError, match=message):
        gradient_of_squared_gradient(lambda w: loss(inputs, w), kernel)
    # The first derivative is not.
    assert np.isfinite(gradient(lambda w: loss(inputs, w), kernel)).all()


def test_the_remedy_of_the_refusal_is_right(rng):
    layer, x = made(rng, "dense", functools.partial(SRN, gradient="exact"))
    kernel = ops.convert_to_numpy(layer.kernel)
    loss, inputs = loss_of(layer), ops.convert_to_tensor(x)
    found = gradient_of_squared_gradient(lambda w: loss(inputs, w), kernel)
    # Keras' `Dense` on torch has the precision of float32.
    expected = squared_gradient_by_differences(lambda w: loss(inputs, w), kernel, 1e-3)
    assert relative_error(found, expected) <= 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_where_the_largest_singular_values_are_equal_it_is_nan(rng, method):
    wrap = functools.partial(SpectralNormalization, method=method)
    layer, x = made(rng, "dense", wrap, gaps=False)
    kernel = ops.convert_to_numpy(layer.kernel)
    loss, inputs = loss_of(layer), ops.convert_to_tensor(x)
    found = gradient_of_squared_gradient(lambda w: loss(inputs, w), kernel)
    assert np.isnan(found).all()
    assert np.isfinite(gradient(lambda w: loss(inputs, w), kernel)).all()


def test_where_an_estimate_lags_far_behind_it_is_nan(rng):
    wrap = functools.partial(SpectralNormalization, method="power_iteration")
    layer, x = made(rng, "dense", wrap)
    kernel = with_spectrum(rng, layer.kernel.shape, np.linspace(2.0, 0.5, 5))
    loss, inputs = loss_of(layer), ops.convert_to_tensor(x)
    found = gradient_of_squared_gradient(lambda w: loss(inputs, w), kernel)
    assert np.isnan(found).all()


def test_a_zero_kernel_is_the_kernel_itself(rng):
    layer, x = made(rng, "dense", SpectralNormalization)
    function, inputs = outputs_of(layer), ops.convert_to_tensor(x)

    def loss(w):
        # The slope of a cube is zero at zero.
        return ops.sum((function(inputs, w) + 1.0) ** 3)

    found = gradient_of_squared_gradient(loss, np.zeros(layer.kernel.shape))
    by_kernel = 3 * x.T @ np.ones((3, 5))
    np.testing.assert_allclose(found, 2 * x.T @ (x @ by_kernel * 6), rtol=1e-6)


@pytest.mark.parametrize("compiled", [False], indirect=True)
@pytest.mark.parametrize("name", INNER)
def test_compiled(rng, name):
    """On TensorFlow and JAX by XLA, compared with operations one by one."""
    layer, x = made(rng, name, SpectralNormalization)
    kernel = ops.convert_to_numpy(layer.kernel)
    loss, inputs = loss_of(layer), ops.convert_to_tensor(x)

    def squared(kernel):
        slope = recorded_gradient(lambda w: loss(inputs, w), kernel)
        return ops.sum(slope**2)

    found = gradient(squared, kernel, compiled="xla")
    expected = gradient(squared, kernel, compiled=False)
    assert relative_error(found, expected) <= 1e-6


# TensorFlow's forward mode takes no custom gradients in graphs.
@pytest.mark.parametrize("compiled", [False], indirect=True)
@pytest.mark.parametrize("name", ["dense", "wide dense"])
def test_forward_mode(rng, name):
    """The gradient's change along a direction, of the norm by the whole triplet."""
    wrap = functools.partial(SpectralNormalization, method="exact")
    layer, x = made(rng, name, wrap)
    kernel = ops.convert_to_numpy(layer.kernel)
    direction = rng.standard_normal(kernel.shape)
    loss, inputs = loss_of(layer), ops.convert_to_tensor(x)
    found = change_of_gradient(lambda w: loss(inputs, w), kernel, direction)
    ahead, behind = (
        numpy_loss(x, kernel + step * direction)[1] for step in (1e-5, -1e-5)
    )
    assert relative_error(found, (ahead - behind) / 2e-5) <= 1e-6


def change_of_gradient(function, x, direction):
    """The derivative of the gradient along a direction, by forward mode."""
    x, direction = ops.convert_to_tensor(x), ops.convert_to_tensor(direction)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.autodiff.ForwardAccumulator(x, direction) as forward:
            slope = recorded_gradient(function, x)
        return forward.jvp(slope).numpy()
    if BACKEND == "jax":
        import jax

        return np.asarray(jax.jvp(jax.grad(function), (x,), (direction,))[1])
    import torch

    return torch.func.jvp(torch.func.grad(function), (x,), (direction,))[1].numpy()


def test_third_derivative(rng):
    """How the vectors turn depends on the kernel, too."""
    wrap = functools.partial(SpectralNormalization, method="exact")
    layer, x = made(rng, "dense", wrap)
    kernel = ops.convert_to_numpy(layer.kernel)
    loss, inputs = loss_of(layer), ops.convert_to_tensor(x)

    def squared(kernel):
        slope = recorded_gradient(lambda w: loss(inputs, w), kernel)
        return ops.sum(slope**2)

    first = gradient_of(squared)
    found = gradient(lambda w: ops.sum(recorded_gradient(squared, w) ** 2), kernel)
    direction = rng.standard_normal(kernel.shape)
    # Keras' `Dense` on torch has the precision of float32.
    step, tolerance = (1e-3, 1e-3) if BACKEND == "torch" else (1e-5, 1e-5)
    ahead, behind = ((first(kernel + h * direction) ** 2).sum() for h in (step, -step))
    expected = (ahead - behind) / (2 * step)
    assert (found * direction).sum() == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("wrap", ["estimator", "operator"])
def test_a_gradient_that_is_not_differentiated_is_not_refused(rng, wrap):
    """The first-order variant of meta-learning: the inner gradient is a constant."""
    name = "conv" if wrap == "operator" else "dense"
    layer, x = made(rng, name, WRAPPERS[wrap], dtype="float32")
    kernel = ops.convert_to_numpy(layer.kernel)
    loss, inputs = loss_of(layer), ops.convert_to_tensor(x)

    def stepped(kernel):
        slope = recorded_gradient(lambda w: loss(inputs, w), kernel)
        return loss(inputs, kernel - 1e-3 * ops.stop_gradient(slope))

    assert np.isfinite(gradient(stepped, kernel)).all()
