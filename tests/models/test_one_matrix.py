"""One notion of a model's weights: whatever treats a kernel treats the same matrix."""

import keras
import numpy as np
import pytest

import keras_spectral as ks
from keras_spectral import experiments, measures, models
from keras_spectral.constraints import SpectralClip
from keras_spectral.layers import SpectralNormalization
from keras_spectral.regularizers import SpectralNorm
from tests.layers.kinds import ATTENTION, KINDS, images, numpy

ALL = [*KINDS, *ATTENTION]
# PyTorch has no module for a layer that is applied in time.
EXPORTED = [
    kind
    for kind in KINDS
    if kind.startswith(("dense", "conv", "depthwise", "embedding"))
    and kind != "convolution in time"
]


def model_of(kind):
    if kind in ATTENTION:
        layer, batch = ATTENTION[kind](name="mine"), images(5, 6)
    else:
        make, batch = KINDS[kind]
        layer = make(name="mine")
    inputs = keras.Input(batch.shape[1:], dtype=batch.dtype)
    outputs = layer(inputs, inputs) if kind in ATTENTION else layer(inputs)
    model = keras.Model(inputs, outputs)
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=w.shape) for w in model.weights])
    return model, batch


def norms(rows):
    return {row.name: row.spectral_norm for row in rows}


@pytest.fixture
def exact():
    """Float64: the clip's own rounding would be some 1e-6 in float32."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(before)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("kind", ALL)
def test_whatever_treats_a_kernel_treats_the_same_matrix(kind, tmp_path):
    model, batch = model_of(kind)
    expected = {w.name: np.linalg.norm(w.matrix(), 2) for w in models.weights(model)}

    def alike(found, scale=1.0):
        assert found.keys() == expected.keys()
        for name, norm in found.items():
            assert norm == pytest.approx(scale * expected[name], rel=1e-6)

    alike(norms(measures.spectrum(model)))
    alike(norms(experiments.analyze_model(model)))
    model.save(tmp_path / "model.keras")
    alike(norms(experiments.analyze_checkpoint(tmp_path / "model.keras")))
    model.save_weights(tmp_path / "model.weights.h5")
    bare = experiments.analyze_checkpoint(tmp_path / "model.weights.h5")
    if all(row.note is None for row in bare):
        alike(norms(bare))
    assert {row.name for row in bare} == expected.keys()

    wrapped = ks.wrap(model, SpectralNormalization)
    found = {w.name: w.matrix() for w in models.weights(wrapped)}
    for weight in models.weights(model):
        np.testing.assert_allclose(
            found[weight.name] * expected[weight.name], weight.matrix(), atol=1e-5
        )

    largest = max(expected.values())
    constrained = ks.constrain(model, SpectralClip(2 * largest))
    constrained.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
    constrained.train_on_batch(batch, np.zeros_like(numpy(model(batch))))
    alike(norms(measures.spectrum(constrained)))
    constrained = ks.constrain(model, SpectralClip(0.5 * min(expected.values())))
    constrained.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
    constrained.train_on_batch(batch, np.zeros_like(numpy(model(batch))))
    for norm in norms(measures.spectrum(constrained)).values():
        assert norm == pytest.approx(0.5 * min(expected.values()), rel=1e-6)

    regularized = ks.regularize(model, SpectralNorm(2.0))
    penalty = float(sum(regularized.losses))
    assert penalty == pytest.approx(sum(n**2 for n in expected.values()), rel=1e-6)


@pytest.mark.parametrize("kind", EXPORTED)
def test_a_file_for_pytorch_has_the_same_matrix(kind, tmp_path):
    model, _ = model_of(kind)
    ks.convert.to_torch(model, tmp_path / "model.pth")
    (row,) = measures.spectrum(model)
    (found,) = experiments.analyze_checkpoint(tmp_path / "model.pth")
    assert found.name == "mine.weight"
    assert found.spectral_norm == pytest.approx(row.spectral_norm, rel=1e-6)
    assert found.note is None
