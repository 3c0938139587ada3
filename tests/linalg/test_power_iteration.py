import numpy as np
import pytest
import tensorflow as tf
import torch
from keras import ops

from keras_spectral import linalg
from keras_spectral.linalg import convolution_operator, power_iteration


@pytest.mark.parametrize("order", ["v_first", "u_first"])
@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (1, 6), (6, 1)])
def test_matrix_against_numpy_svd(rng, shape, order):
    matrix = rng.standard_normal(shape)
    u, sigma, v = (
        ops.convert_to_numpy(part)
        for part in power_iteration(matrix, iterations=800, update_order=order)
    )
    left, singular, right = np.linalg.svd(matrix)
    assert sigma == pytest.approx(singular[0], rel=1e-10)
    assert abs(u @ left[:, 0]) == pytest.approx(1, abs=1e-8)
    assert abs(v @ right[0]) == pytest.approx(1, abs=1e-8)
    # The signs of u and v belong together.
    assert u @ matrix @ v == pytest.approx(singular[0], rel=1e-10)


def test_is_an_estimate_from_below(rng):
    matrix = rng.standard_normal((40, 40))
    exact = np.linalg.norm(matrix, 2)
    estimates = [
        float(power_iteration(matrix, iterations=n).sigma) for n in (1, 5, 20, 80)
    ]
    assert estimates == sorted(estimates)
    assert 0 < estimates[-1] <= exact * (1 + 1e-12)
    assert estimates[0] < 0.9 * exact


def test_convolution_against_its_impulse_response_matrix(rng):
    operator = convolution_operator(
        rng.standard_normal((3, 3, 2, 3)), (7, 6), strides=2, padding="same"
    )
    size = int(np.prod(operator.input_shape))
    impulses = np.eye(size).reshape(size, *operator.input_shape)
    columns = [
        ops.convert_to_numpy(operator.matvec(ops.convert_to_tensor(x))).ravel()
        for x in impulses
    ]
    exact = np.linalg.norm(np.array(columns), 2)
    u = np.ones(operator.output_shape) / np.sqrt(np.prod(operator.output_shape))
    float32 = convolution_operator(
        rng.standard_normal((1, 1, 1, 1)).astype("float32"), (2, 2)
    )
    assert power_iteration(float32, 3).sigma.dtype.name == "float32"
    triplet = power_iteration_float64(operator, u)
    assert float(triplet.sigma) == pytest.approx(exact, rel=1e-8)


def power_iteration_float64(operator, u):
    from keras_spectral.linalg import SingularTriplet, iterate, rayleigh_quotient

    v = np.ones(operator.input_shape) / np.sqrt(np.prod(operator.input_shape))
    u, v = ops.convert_to_tensor(u), ops.convert_to_tensor(v)
    u, v = iterate(operator, u, v, iterations=400)
    return SingularTriplet(u, rayleigh_quotient(operator, u, v), v)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e12, 1e30])
def test_scales_inside_float32(rng, scale):
    matrix = (rng.standard_normal((6, 4)) * scale).astype("float32")
    expected = np.linalg.norm(matrix.astype("float64"), 2)
    sigma = float(power_iteration(matrix, iterations=300).sigma)
    assert sigma == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("fill", [0.0, np.nan, np.inf])
def test_degenerate_matrices_leave_finite_vectors(fill):
    u, _, v = power_iteration(np.full((3, 4), fill, "float32"), iterations=3)
    for vector in (u, v):
        assert np.linalg.norm(ops.convert_to_numpy(vector)) == pytest.approx(1, 1e-5)


def test_bad_arguments():
    with pytest.raises(ValueError, match="`iterations`"):
        power_iteration(np.eye(2), iterations=0)
    with pytest.raises(ValueError, match="`update_order`"):
        power_iteration(np.eye(2), update_order="both")


def test_an_operator_in_float64_stays_there(rng):
    kernel = rng.standard_normal((3, 3, 2, 4))
    operator = convolution_operator(kernel, (6, 6))
    triplet = power_iteration(operator, iterations=400)
    exact = np.linalg.norm(operator.to_matrix(), 2)
    assert float(triplet.sigma) == pytest.approx(exact, rel=1e-10)


@pytest.mark.parametrize("order", ["v_first", "u_first"])
def test_one_step_is_pytorchs(rng, order):
    """PyTorch's older normalization goes by v first, its parametrization by u."""
    matrix = torch.from_numpy(rng.standard_normal((5, 8)))
    layer = torch.nn.Linear(8, 5, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(matrix)
    if order == "v_first":
        torch.nn.utils.spectral_norm(layer, eps=0.0)
        theirs, names = layer, ("weight_u", "weight_v")
    else:
        torch.nn.utils.parametrizations.spectral_norm(layer, eps=0.0)
        theirs, names = layer.parametrizations.weight[0], ("_u", "_v")
    start = [vector / np.linalg.norm(vector) for vector in map(rng.random, (5, 8))]
    for name, vector in zip(names, start, strict=True):
        getattr(theirs, name).copy_(torch.from_numpy(vector))
    layer.train()
    layer(torch.zeros(1, 8, dtype=torch.float64))
    u, sigma, v = power_iteration(matrix.numpy(), 1, *start, update_order=order)
    np.testing.assert_allclose(u, getattr(theirs, names[0]).numpy(), rtol=1e-12)
    np.testing.assert_allclose(v, getattr(theirs, names[1]).numpy(), rtol=1e-12)
    normalized = layer.eval().weight.detach().numpy()
    np.testing.assert_allclose(matrix.numpy() / float(sigma), normalized, rtol=1e-12)


@pytest.mark.parametrize(
    "function",
    [
        linalg.leading_triplet,
        lambda x: linalg.normalized(x, x),
        lambda x: linalg.normalizing_scale(x[0, 0]),
        lambda x: linalg.block_iterate(linalg.dense_operator(x), x[:2], x[:2]),
    ],
)
def test_kernels_of_one_shape_share_what_is_traced(function):
    """What makes a network's first step slow is the number of operations."""

    @tf.function(autograph=False)
    def network(*kernels):
        return [function(kernel) for kernel in kernels]

    shapes = [tf.TensorSpec((6, 6))] * 3
    operations = network.get_concrete_function(*shapes).graph.get_operations()
    calls = [each for each in operations if "PartitionedCall" in each.type]
    assert len(calls) == 3
    assert len({call.get_attr("f").name for call in calls}) == 1
