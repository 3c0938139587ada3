"""Kernels whose squares, or norms, leave float32: a defined result, never zeros."""

import functools

import keras
import numpy as np
import pytest
from keras import ops

from keras_spectral import constraints, layers, regularizers
from keras_spectral.layers import (
    OptimalSpectralNormalization,
    SpectralNormalization,
    StableRankNormalization,
)
from tests.layers.kinds import KINDS, numpy

LARGEST = [1e38, 3e38]
# Of the largest entry. Numbers below 1.2e-38 some backends take for zero.
SCALES = [1e-35, 1e-25, 1e-20, 1e-15, 1e15, 1e20, 1e25, 1e36]
SOME = ["dense", "einsum", "conv2d", "conv2d transpose", "depthwise conv2d", "gru"]
WRAPPERS = {
    "sn": SpectralNormalization,
    "operator": functools.partial(SpectralNormalization, norm="operator"),
    "power": functools.partial(SpectralNormalization, method="power_iteration"),
    "exact": functools.partial(SpectralNormalization, method="exact"),
    "clip": functools.partial(SpectralNormalization, clip=True),
    "srn": functools.partial(StableRankNormalization, stable_rank_ratio=0.5),
    "srn exact": functools.partial(
        StableRankNormalization, stable_rank_ratio=0.5, gradient="exact"
    ),
    "optimal": OptimalSpectralNormalization,
}


def scaled(kernel, scale):
    """Return a kernel whose largest entry is `scale`; of a shape, a random one."""
    if isinstance(kernel, tuple):
        kernel = np.random.default_rng(0).standard_normal(kernel)
    kernel = np.asarray(kernel, "float64")
    return (kernel / np.abs(kernel).max() * scale).astype("float32")


def matrices(layer, scale):
    """Scale every kernel, and yield pairs of flattened kernels, raw and effective."""
    for slot in layer.slots:
        slot.variable.assign(scaled(numpy(slot.variable), scale))
    layer.restart_power_iteration()
    for index, name in enumerate(layer.kernel_names):
        raw = numpy(layer.matrix(index)).astype("float64")
        effective = layer.effective_kernel(name)
        effective = layer.slots[index].view.flatten(numpy(effective))
        yield raw, np.asarray(effective, "float64")


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("kind", SOME)
def test_wrappers(kind, wrapper):
    make, batch = KINDS[kind]
    layer = WRAPPERS[wrapper](make())
    layer(batch)
    for scale in SCALES:
        for raw, effective in matrices(layer, scale):
            assert np.isfinite(effective).all() and effective.any()
            norm, own = np.linalg.norm(effective, 2), np.linalg.norm(raw, 2)
            if wrapper == "operator":
                continue  # That norm is another one; another test's.
            if wrapper in ("clip", "optimal"):
                assert norm == pytest.approx(min(own, 1.0), rel=1e-2)
            else:
                # Up to epsilon a kernel is used as it is.
                wanted = 1.0 if own > 1e-12 else own
                assert norm == pytest.approx(wanted, rel=5e-2)
            if "srn" in wrapper and own > 1e-12:
                stable_rank = (effective**2).sum() / norm**2
                assert stable_rank <= max(1.0, 0.5 * min(raw.shape)) * 1.05


@pytest.mark.parametrize("wrapper", [name for name in WRAPPERS if name != "optimal"])
@pytest.mark.parametrize("kind", SOME)
def test_norms_that_leave_float32_are_not_hidden(kind, wrapper):
    make, batch = KINDS[kind]
    layer = WRAPPERS[wrapper](make())
    layer(batch)
    for scale in LARGEST:
        for raw, effective in matrices(layer, scale):
            # Right, or not finite: never the zeros that the quotient would make.
            finite = np.isfinite(effective).all()
            norm = np.linalg.norm(effective, 2) if finite else None
            assert norm is None or 0.3 < norm < 3, (raw.shape, norm)


CONSTRAINTS = {
    "lipschitz 1": functools.partial(constraints.LipschitzClip, p=1),
    "lipschitz 2": constraints.LipschitzClip,
    "lipschitz inf": functools.partial(constraints.LipschitzClip, p="inf"),
    "clip": constraints.SpectralClip,
    "orthonormal": constraints.Orthonormal,
    "stable rank": functools.partial(constraints.StableRank, 0.5),
    "rank": functools.partial(constraints.MaxRank, 0.5),
}


@pytest.mark.parametrize("name", CONSTRAINTS)
@pytest.mark.parametrize("shape", [(6, 5), (3, 3, 4, 5)])
@pytest.mark.parametrize("scale", [*SCALES, *LARGEST])
def test_constraints(name, shape, scale):
    kernel = scaled(shape, scale)
    result = numpy(CONSTRAINTS[name]()(ops.convert_to_tensor(kernel)))
    result = result.astype("float64").reshape(-1, 5)
    if name.startswith("lipschitz") or name in ("clip", "orthonormal"):
        assert np.isfinite(result).all() and result.any()
        norm = np.linalg.norm(result, 2)
        own = np.linalg.norm(kernel.astype("float64").reshape(-1, 5), 2)
        if name == "orthonormal":
            assert norm == pytest.approx(1, rel=1e-3)
        elif name == "clip" or (name == "lipschitz 2" and len(shape) == 2):
            assert norm == pytest.approx(min(own, 1.0), rel=0.09)
        elif scale < 1e-3:
            np.testing.assert_array_equal(result, kernel.reshape(-1, 5))
    else:
        # These keep the norm, which may leave float32 then: not finite, or right.
        assert not np.isfinite(result).all() or result.any()
        assert np.isfinite(result).all() or scale >= 1e38


PENALTIES = {
    "norm": (regularizers.SpectralNorm, 2),
    "frobenius": (regularizers.Frobenius, 2),
    "orthonormal": (regularizers.Orthonormal, 4),
    "orthogonal": (functools.partial(regularizers.Orthonormal, diagonal=False), 4),
    "stable rank": (regularizers.StableRank, 0),
    "d-optimal": (regularizers.DOptimal, 0),
    "divergence": (regularizers.Divergence, 0),
}


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("scale", [*SCALES, *LARGEST])
def test_penalties(name, scale):
    make, power = PENALTIES[name]
    own, value = (
        float(numpy(make(1.0)(ops.convert_to_tensor(scaled((7, 5), each)))))
        for each in (1.0, scale)
    )
    assert not np.isnan(value)
    if power == 0:
        assert value == pytest.approx(own, rel=1e-3)
    elif scale >= 1e19:
        # Squares and fourth powers that no float32 holds: infinite, and said so.
        assert value == np.inf
    else:
        assert 0 <= value


def test_a_step_on_such_a_kernel_moves_it():
    layer = SpectralNormalization(keras.layers.Dense(5, use_bias=False))
    layer.build((None, 7))
    kernel = np.random.default_rng(0).standard_normal((7, 5)) * 1e25
    layer.kernel.assign(kernel.astype("float32"))
    layer.restart_power_iteration()
    outputs = numpy(layer(np.ones((2, 7), "float32"), training=True))
    expected = np.ones((2, 7)) @ (kernel / np.linalg.norm(kernel, 2))
    np.testing.assert_allclose(outputs, expected, rtol=1e-3)


EXTREMES = [1e-30, 1e-20, 1e20, 1e36]


@pytest.mark.parametrize("scale", [*EXTREMES, 1e38])
@pytest.mark.parametrize(
    "make, shape",
    [
        (functools.partial(keras.layers.Dense, 5), (7,)),
        (functools.partial(keras.layers.Conv2D, 5, 3), (6, 6, 3)),
        (functools.partial(keras.layers.Conv2DTranspose, 5, 3), (6, 6, 3)),
    ],
)
def test_a_decomposed_kernel_is_the_kernel(make, shape, scale):
    plain = make(use_bias=False)
    plain.build((None, *shape))
    plain.kernel.assign(scaled(tuple(plain.kernel.shape), scale))
    kernel = numpy(plain.kernel).astype("float64")
    layer = getattr(layers, f"SVD{type(plain).__name__}").from_layer(plain)
    for found in (layer.effective_kernel(), layer.to_layer().kernel):
        np.testing.assert_allclose(numpy(found), kernel, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("scale", [*EXTREMES, *LARGEST])
def test_only_the_ratios_of_a_spectrum_count(scale):
    layer = layers.SVDDense(5)
    layer.build((None, 7))
    ratios = np.array([0.5, 0.75, 0.25, -1.0, 0.0], "float32")
    layer.e.assign(ratios * np.float32(scale))
    np.testing.assert_allclose(numpy(layer.singular_values()), ratios, rtol=1e-6)


def test_a_norm_that_no_scale_holds_is_refused():
    plain = keras.layers.Dense(5, name="far")
    plain.build((None, 7))
    plain.kernel.assign(scaled((7, 5), 3e38))
    with pytest.raises(ValueError, match="whose norm float32 holds.*'far'"):
        layers.SVDDense.from_layer(plain)


@pytest.mark.parametrize("make", [
    lambda name: keras.layers.Dense(3, name=name),
    lambda name: keras.layers.Conv2D(3, 3, padding="same", name=name),
])  # fmt: skip
def test_invertible_blocks(make):
    block = layers.InvertibleResidual([make("first"), make("second")])
    inputs = np.random.default_rng(0).standard_normal((2, 6, 6, 3)).astype("float32")
    block(inputs)
    for scale in (*EXTREMES, *LARGEST):
        for layer in block.function.layers:
            layer.kernel.assign(scaled(tuple(layer.kernel.shape), scale))
        kernels = [numpy(kernel) for _, kernel in block._bounded()[0]]
        if not all(np.isfinite(kernel).all() for kernel in kernels):
            assert scale >= 1e38  # The reciprocal of the norm is no float32.
            with pytest.raises(ValueError, match="of layer 'first'"):
                block.lipschitz_bound()
            continue
        assert all(kernel.any() for kernel in kernels)
        bound = block.lipschitz_bound()
        assert bound == pytest.approx(0.9 if scale > 1 else 0, rel=1e-5, abs=1e-30)
        moved = np.linalg.norm(numpy(block(inputs)) - inputs)
        assert moved <= 0.9 * np.linalg.norm(inputs) * 1.001


@pytest.mark.parametrize("variance", [1e-35, 1e-10, 1.0, 1e20, 1e36])
def test_lipschitz_batch_normalization(variance):
    inner = keras.layers.BatchNormalization(epsilon=1e-6)
    layer = layers.LipschitzBatchNormalization(inner, bound=0.5)
    layer.build((None, 4))
    inner.moving_variance.assign(np.full(4, variance, "float32"))
    for scale in (*EXTREMES, *LARGEST):
        gamma = np.linspace(0.25, 1, 4) * scale
        inner.gamma.assign(gamma.astype("float32"))
        root = np.sqrt(variance + 1e-6)
        wanted = gamma / max(1, gamma.max() / root / 0.5)
        found = numpy(layer.effective_gamma())
        if np.isfinite(found).all():
            np.testing.assert_allclose(found, wanted, rtol=1e-4)
        else:
            # NaN, and never the zeros that the quotient would make.
            assert np.isnan(found).any() and gamma.max() / root > 4e37
