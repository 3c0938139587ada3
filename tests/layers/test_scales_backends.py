"""Kernels whose squares, or norms, leave float32: a defined result, never zeros."""

import functools

import keras
import numpy as np
import pytest
from keras import ops

from keras_spectral import constraints, regularizers
from keras_spectral.layers import (
    OptimalSpectralNormalization,
    SpectralNormalization,
    StableRankNormalization,
)
from tests.layers.kinds import KINDS, numpy

# XLA divides by 1e38 as by the product with 1e-38, which it takes for zero.
LARGEST = [] if keras.backend.backend() == "jax" else [1e38, 3e38]
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


def matrices(layer, scale, wrapper):
    """Scale every kernel, and return pairs of flattened kernels, raw and effective."""
    for slot in layer.slots:
        raw = numpy(slot.variable).astype("float64")
        slot.variable.assign((raw / np.abs(raw).max() * scale).astype("float32"))
    layer.restart_power_iteration()
    for index, name in enumerate(layer.kernel_names):
        raw = numpy(layer.matrix(index)).astype("float64")
        effective = layer.effective_kernel(name)
        effective = layer.slots[index].view.flatten(numpy(effective))
        yield raw, np.asarray(effective, "float64"), wrapper


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("kind", SOME)
def test_wrappers(kind, wrapper):
    make, batch = KINDS[kind]
    layer = WRAPPERS[wrapper](make())
    layer(batch)
    for scale in SCALES:
        for raw, effective, _ in matrices(layer, scale, wrapper):
            assert np.isfinite(effective).all() and effective.any()
            norm, own = np.linalg.norm(effective, 2), np.linalg.norm(raw, 2)
            if wrapper == "operator":
                continue  # That norm is another one; see `test_operator_norms`.
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
        for raw, effective, _ in matrices(layer, scale, wrapper):
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
    kernel = np.random.default_rng(0).standard_normal(shape)
    kernel = (kernel / np.abs(kernel).max() * scale).astype("float32")
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
    kernel = np.random.default_rng(0).standard_normal((7, 5))
    kernel = (kernel / np.abs(kernel).max()).astype("float32")
    own = float(numpy(make(1.0)(ops.convert_to_tensor(kernel))))
    value = float(numpy(make(1.0)(ops.convert_to_tensor(kernel * np.float32(scale)))))
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
