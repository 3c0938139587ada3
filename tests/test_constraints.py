import math

import keras
import numpy as np
import pytest
from keras import ops

from keras_spectral.constraints import LipschitzClip
from keras_spectral.linalg import convolution_operator


@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_dense_kernels_are_clipped_to_the_bound(rng, p):
    kernel = rng.standard_normal((6, 4)).astype("float32")
    clipped = ops.convert_to_numpy(LipschitzClip(0.5, p)(kernel))
    assert np.linalg.norm(clipped.T, p) == pytest.approx(0.5, rel=1e-5)
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
    ],
)
def test_bad_arguments(arguments, match):
    with pytest.raises(ValueError, match=match):
        LipschitzClip(**arguments)


@pytest.mark.parametrize("kind, shape", [(None, (3, 3, 2)), ("dense", (3, 3, 2, 2))])
def test_bad_kernels(kind, shape):
    with pytest.raises(ValueError, match="Received: a kernel of shape"):
        LipschitzClip(1.0, kind=kind)(np.zeros(shape, "float32"))
