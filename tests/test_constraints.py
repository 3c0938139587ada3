import math

import keras
import numpy as np
import pytest
from keras import ops

from keras_spectral import constraints
from keras_spectral.constraints import LipschitzClip
from keras_spectral.linalg import circular_convolution_norm, convolution_operator
from tests.serialization import check_keras_makes_an_equal


@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_dense_kernels_are_clipped_to_the_bound(rng, p):
    kernel = rng.standard_normal((6, 4)).astype("float32")
    clipped = ops.convert_to_numpy(LipschitzClip(0.5, p, tolerance=1e-3)(kernel))
    assert 0.5 / 1.001 <= np.linalg.norm(clipped.T, p) <= 0.5 * (1 + 1e-6)
    np.testing.assert_allclose(
        clipped / np.linalg.norm(clipped), kernel / np.linalg.norm(kernel), rtol=1e-5
    )
    kept = ops.convert_to_numpy(LipschitzClip(100, p)(kernel))
    np.testing.assert_array_equal(kept, kernel)


@pytest.mark.parametrize("p", [1, 2, math.inf])
@pytest.mark.parametrize("strides, padding", [(1, "same"), (2, "same"), (1, "valid")])
def test_convolutions_obey_the_lipschitz_inequality(rng, p, strides, padding):
    """On impulses and on random pairs, for the layer as a user trains it."""
    layer = keras.layers.Conv2D(
        3,
        3,
        strides=strides,
        padding=padding,
        kernel_constraint=LipschitzClip(1.0, p),
    )
    model = keras.Sequential([keras.Input((7, 6, 2)), layer])
    model.compile(keras.optimizers.SGD(1.0), "mse")
    x = rng.standard_normal((8, 7, 6, 2)).astype("float32")
    model.fit(x, 100 * model.predict(x, verbose=0), verbose=0)
    operator = convolution_operator(layer.kernel, (7, 6), strides, padding)
    impulses = np.eye(84, dtype="float32").reshape(84, 1, 7, 6, 2)
    matrix = np.array(
        [ops.convert_to_numpy(operator.matvec(x)).ravel() for x in impulses]
    ).T
    exact = np.linalg.norm(matrix, p)
    assert exact <= 1 + 1e-5
    assert exact > 0.3
    y = rng.standard_normal(x.shape).astype("float32")
    difference = np.asarray(model(x)) - np.asarray(model(y))
    for output, step in zip(difference, x - y, strict=True):
        assert np.linalg.norm(output.ravel(), p) <= np.linalg.norm(step.ravel(), p) * (
            1 + 1e-5
        )


@pytest.mark.parametrize("tolerance", [0.002, 0.04, 0.2])
@pytest.mark.parametrize("shape", [(20, 12), (3, 3, 5, 8), (3, 3, 12, 12), (5, 4, 3)])
def test_the_tolerance_is_what_is_lost_at_most(rng, shape, tolerance):
    for kernel in (rng.standard_normal(shape), np.ones(shape)):
        clip = LipschitzClip(0.5, tolerance=tolerance)
        clipped = ops.convert_to_numpy(clip(10 * kernel)).astype("float64")
        if len(shape) == 2:
            norm = np.linalg.norm(clipped, 2)
        else:
            norm = circular_convolution_norm(clipped, (96,) * (len(shape) - 2))
        # The norm on 96 points may be below that on an unbounded image.
        assert 0.5 / (1 + tolerance) - 1e-3 <= norm <= 0.5 * (1 + 1e-6)
    # What was clipped stays: the bound that was found scales with the kernel.
    np.testing.assert_allclose(ops.convert_to_numpy(clip(clipped)), clipped, 1e-12)


@pytest.mark.parametrize(
    "constraint",
    [
        LipschitzClip(2.0, math.inf),
        LipschitzClip(2.0, 2, "depthwise", 0.01),
        constraints.SpectralClip(2.0, -2),
        constraints.StableRank(0.5, 2, -2),
        constraints.StableRank(stable_rank=2.0),
        constraints.MaxRank(0.5, -2),
        constraints.MaxRank(rank=3),
        constraints.Orthonormal(2.0, -2),
    ],
)
def test_keras_makes_an_equal_constraint(constraint):
    check_keras_makes_an_equal(constraint, keras.constraints)


@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_round_trip_in_a_saved_model(p, tmp_path):
    constraint = LipschitzClip(0.5, p, kind="dense")
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3, kernel_constraint=constraint)]
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].kernel_constraint.get_config() == constraint.get_config()
    assert loaded.layers[0].kernel_constraint.p == p


@pytest.mark.parametrize("shape", [(6, 4), (3, 3, 2, 2)])
@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_clip_of_nan_and_extreme_kernels(rng, p, shape):
    kernel = rng.standard_normal(shape).astype("float32")
    constraint = LipschitzClip(1.0, p)
    clipped = ops.convert_to_numpy(constraint(kernel))
    assert abs(clipped).max() < abs(kernel).max()
    huge = ops.convert_to_numpy(constraint(kernel * np.float32(1e36)))
    np.testing.assert_allclose(huge, clipped, rtol=1e-3)
    tiny = kernel * np.float32(1e-36)
    np.testing.assert_array_equal(ops.convert_to_numpy(constraint(tiny)), tiny)
    kernel[0, 0] = np.nan
    assert np.isnan(ops.convert_to_numpy(constraint(kernel))).any()


@pytest.mark.parametrize("p", [1, 2, math.inf])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_adds_no_more_than_its_rounding(rng, dtype, p):
    for shape in [(6, 4), (64, 32), (5, 5)]:
        kernel = ops.cast(10 * rng.standard_normal(shape), dtype)
        clipped = LipschitzClip(0.7, p)(kernel)
        assert keras.backend.standardize_dtype(clipped.dtype) == dtype
        clipped = ops.convert_to_numpy(ops.cast(clipped, "float32")).astype("float64")
        rounding = {"float16": 5e-4, "bfloat16": 3e-3}[dtype]
        assert 0.6 <= np.linalg.norm(clipped.T, p) <= 0.7 * (1 + rounding)


def test_zero_kernel_stays_zero():
    for shape in [(4, 3), (3, 3, 2, 2)]:
        clipped = ops.convert_to_numpy(LipschitzClip(1.0)(np.zeros(shape, "float32")))
        np.testing.assert_array_equal(clipped, 0)


@pytest.mark.parametrize(
    "arguments, match",
    [
        (dict(bound=0), "`bound`"),
        (dict(bound=math.inf), "`bound`"),
        (dict(p=3), "`p`"),
        (dict(kind="conv"), "`kind`"),
        (dict(tolerance=0), "`tolerance`"),
    ],
)
def test_bad_arguments(arguments, match):
    with pytest.raises(ValueError, match=match):
        LipschitzClip(**arguments)


@pytest.mark.parametrize(
    "kind, shape", [(None, (3,)), ("dense", (3, 3, 2, 2)), ("depthwise", (3, 3))]
)
def test_bad_kernels(kind, shape):
    with pytest.raises(ValueError, match="`kernel` must have the axes"):
        LipschitzClip(1.0, kind=kind)(np.zeros(shape, "float32"))


@pytest.mark.parametrize(
    "layer, kind, shape",
    [
        (keras.layers.Conv1D(3, 3), None, (9, 2)),
        (keras.layers.Conv3D(3, 2), None, (4, 3, 4, 2)),
        (keras.layers.DepthwiseConv2D(3, depth_multiplier=2), "depthwise", (6, 5, 2)),
        (keras.layers.Conv2DTranspose(3, 3, strides=2), "transposed", (4, 5, 2)),
    ],
)
def test_other_convolutions_obey_the_lipschitz_inequality(rng, layer, kind, shape):
    layer.build((None, *shape))
    layer.kernel.assign(10 * rng.standard_normal(layer.kernel.shape))
    layer.kernel.assign(LipschitzClip(1.0, kind=kind)(layer.kernel))
    inputs = int(np.prod(shape))
    answers = layer(np.eye(inputs, dtype="float32").reshape(-1, *shape)) - layer.bias
    norm = np.linalg.norm(np.asarray(answers).reshape(inputs, -1), 2)
    assert 0.4 < norm <= 1 + 1e-5


def singular_values(kernel, axis=-1):
    kernel = np.moveaxis(np.asarray(kernel, "float64"), axis, -1)
    return np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), compute_uv=False)


def expected_values(name, s):
    """What each projection makes of the singular values."""
    if name == "clip":
        return np.minimum(s, 0.7)
    if name == "max rank":
        return np.where(np.arange(len(s)) < max(1, int(0.5 * len(s))), s, 0)
    if name == "orthonormal":
        return np.full(len(s), 0.7)
    target = max(1.0, 0.4 * len(s)) * s[0] ** 2 - s[0] ** 2
    rest = (s[1:] ** 2).sum()
    return np.r_[s[0], s[1:] * np.sqrt(min(1, target / rest))]


SPECTRUM = {
    "clip": constraints.SpectralClip(0.7),
    "max rank": constraints.MaxRank(0.5),
    "orthonormal": constraints.Orthonormal(0.7),
    "stable rank": constraints.StableRank(0.4),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("axis", [-1, -2])
@pytest.mark.parametrize("shape", [(7, 5), (5, 7), (3, 2, 4, 6)])
@pytest.mark.parametrize("name", SPECTRUM)
def test_projections_within_rounding_of_float64(rng, name, shape, axis, dtype):
    kernel = rng.standard_normal(shape).astype(dtype)
    constraint = type(SPECTRUM[name]).from_config(
        {**SPECTRUM[name].get_config(), "output_axis": axis}
    )
    projected = ops.convert_to_numpy(constraint(kernel))
    assert projected.dtype == dtype
    moved = np.moveaxis(kernel.astype("float64"), axis, -1)
    u, s, vt = np.linalg.svd(moved.reshape(-1, moved.shape[-1]), full_matrices=False)
    expected = ((u * expected_values(name, s)) @ vt).reshape(moved.shape)
    expected = np.moveaxis(expected, -1, axis)
    tolerance = 2e-6 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(projected, expected, atol=tolerance * s[0])
    # A projection moves nothing that is projected.
    again = ops.convert_to_numpy(constraint(projected))
    np.testing.assert_allclose(again, projected, atol=10 * tolerance)


@pytest.mark.parametrize("name", SPECTRUM)
def test_projections_are_the_nearest_kernels(rng, name):
    """No matrix of the set that was drawn at random is nearer."""
    kernel = rng.standard_normal((5, 4))
    projected = ops.convert_to_numpy(SPECTRUM[name](kernel))
    distance = np.linalg.norm(kernel - projected)
    for _ in range(300):
        step = rng.standard_normal((5, 4)) * rng.choice([0.01, 0.1, 1])
        other = ops.convert_to_numpy(SPECTRUM[name](projected + step))
        if name == "stable rank":
            # The set has the norm and the leading direction of the kernel.
            u, s, vt = np.linalg.svd(kernel)
            lead = s[0] * np.outer(u[:, 0], vt[0])
            rest = step - u[:, :1] @ u[:, :1].T @ step
            rest = rest - rest @ vt[:1].T @ vt[:1]
            limit = np.sqrt(max(1.0, 0.4 * 4) - 1) * s[0]
            rest *= min(1, limit / np.linalg.norm(rest))
            other = lead + rest
        assert np.linalg.norm(kernel - other) >= distance * (1 - 1e-9)


@pytest.mark.parametrize("name", SPECTRUM)
def test_zero_nan_and_extreme_kernels(rng, name):
    constraint = SPECTRUM[name]
    kernel = rng.standard_normal((6, 4)).astype("float32")
    zero = ops.convert_to_numpy(constraint(np.zeros((6, 4), "float32")))
    if name == "orthonormal":
        np.testing.assert_allclose(singular_values(zero), 0.7, rtol=1e-5)
    else:
        np.testing.assert_array_equal(zero, 0)
    broken = kernel.copy()
    broken[0, 0] = np.nan
    assert np.isnan(ops.convert_to_numpy(constraint(broken))).any()
    # Beyond float32's normal numbers nothing is exact, but nothing breaks either.
    subnormal = ops.convert_to_numpy(constraint(kernel * np.float32(1e-38)))
    assert np.abs(subnormal).max() < (1 if name == "orthonormal" else 1e-36)
    for scale in (1e-30, 1e-18, 1e5, 1e18, 1e37):
        scaled = kernel * np.float32(scale)
        s = singular_values(scaled)
        expected = expected_values(name, s)
        # Relative to what comes out: 0.7 of a norm of 1e37 too.
        values = singular_values(constraint(scaled)) / expected[0]
        np.testing.assert_allclose(values, expected / expected[0], atol=1e-5)
    # Half precision is projected in float32 and comes back as it was.
    half = constraint(kernel.astype("float16"))
    assert ops.convert_to_numpy(half).dtype == "float16"


@pytest.mark.parametrize("name", SPECTRUM)
def test_constraints_hold_after_training_and_in_a_saved_model(name, rng, tmp_path):
    layer = keras.layers.Conv2D(6, 3, kernel_constraint=SPECTRUM[name])
    model = keras.Sequential([keras.Input((7, 6, 2)), layer])
    for jit in (False, True):
        model.compile(keras.optimizers.SGD(0.5), "mse", jit_compile=jit)
        x = rng.standard_normal((8, 7, 6, 2)).astype("float32")
        model.fit(x, 3 * model.predict(x, verbose=0) + 1, verbose=0)
        s = singular_values(layer.kernel)
        np.testing.assert_allclose(s, expected_values(name, s), atol=1e-4)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    config = loaded.layers[0].kernel_constraint.get_config()
    assert config == SPECTRUM[name].get_config()


def test_a_rank_or_a_ratio(rng):
    kernel = rng.standard_normal((3, 2, 8)).astype("float32")
    s = singular_values(kernel)
    capped = constraints.StableRank(stable_rank=1.7, preserved=2)
    values = singular_values(capped(kernel))
    assert (values**2).sum() / values[0] ** 2 == pytest.approx(1.7, rel=1e-5)
    np.testing.assert_allclose(values[0], s[0], rtol=1e-5)
    values = singular_values(constraints.MaxRank(rank=2)(kernel))
    np.testing.assert_allclose(values, [*s[:2], 0, 0, 0, 0], atol=1e-5)
    for constraint in (capped, constraints.MaxRank(rank=2)):
        again = type(constraint).from_config(constraint.get_config())
        np.testing.assert_array_equal(again(kernel), constraint(kernel))


@pytest.mark.parametrize(
    "make, match",
    [
        (lambda: constraints.SpectralClip(0), "`bound`"),
        (lambda: constraints.StableRank(0), "`stable_rank_ratio`"),
        (lambda: constraints.StableRank(0.5, preserved=-1), "`preserved`"),
        (lambda: constraints.StableRank(), "Pass either `stable_rank_ratio`"),
        (lambda: constraints.StableRank(0.5, stable_rank=2), "Pass either"),
        (lambda: constraints.StableRank(stable_rank=0.5), "`stable_rank` must"),
        (lambda: constraints.MaxRank(2), "`rank_ratio`"),
        (lambda: constraints.MaxRank(), "Pass either `rank_ratio` or `rank`"),
        (lambda: constraints.MaxRank(rank=0), "`rank` must"),
        (lambda: constraints.Orthonormal(-1), "`gain`"),
        (lambda: constraints.Orthonormal(output_axis=0), "`output_axis`"),
        (lambda: constraints.Orthonormal()(np.zeros(3)), "two axes"),
    ],
)
def test_bad_arguments_of_the_projections(make, match):
    with pytest.raises(ValueError, match=match):
        make()
