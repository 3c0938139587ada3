"""Constraints and regularizers for every kind of layer, by its own view."""

import keras
import numpy as np
import pytest
from keras import layers as kl

import keras_spectral as ks
from keras_spectral.constraints import LipschitzClip, SpectralClip
from keras_spectral.layers import SpectralNormalization
from keras_spectral.models import weights
from keras_spectral.regularizers import SpectralNorm
from tests.layers.kinds import ATTENTION, KINDS, images, numpy
from tests.linalg.reference import clip

ALL = [*KINDS, *ATTENTION]


def model_of(kind):
    """A model of one layer, with kernels of norms above one, and a batch."""
    if kind in ATTENTION:
        layer, batch = ATTENTION[kind](name="layer"), images(5, 6)
    else:
        make, batch = KINDS[kind]
        layer = make(name="layer")
    inputs = keras.Input(batch.shape[1:], dtype=batch.dtype)
    outputs = layer(inputs, inputs) if kind in ATTENTION else layer(inputs)
    model = keras.Model(inputs, outputs)
    for weight in weights(model):
        weight.variable.assign(3 * numpy(weight.variable) + 0.3)
    # One step each: quicker than what compiling takes, but where each operation is
    # compiled.
    eager = keras.backend.backend() != "jax"
    model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=eager)
    return model, batch


def matrices(model):
    return {weight.name: weight.matrix() for weight in weights(model)}


def step(model, batch):
    model.train_on_batch(batch, np.zeros_like(numpy(model(batch))))


@pytest.mark.parametrize("kind", ALL)
def test_singular_values_are_clipped_in_the_layers_view(kind, tmp_path):
    model, batch = model_of(kind)
    before = matrices(model)
    constrained = ks.constrain(model, SpectralClip(1.0))
    step(constrained, batch)
    for name, matrix in matrices(constrained).items():
        assert np.linalg.norm(before[name], 2) > 1.01
        np.testing.assert_allclose(matrix, clip(before[name], 1.0), atol=1e-5)
    for name, matrix in matrices(model).items():
        np.testing.assert_array_equal(matrix, before[name])
    # A copy from a file is constrained as well.
    ks.constrain(model, SpectralClip(1.0)).save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    step(loaded, batch)
    for name, matrix in matrices(loaded).items():
        np.testing.assert_allclose(matrix, clip(before[name], 1.0), atol=1e-5)


@pytest.mark.parametrize("kind", ALL)
def test_penalties_are_of_the_layers_view(kind, tmp_path):
    model, _ = model_of(kind)
    regularized = ks.regularize(model, SpectralNorm(0.1))
    expected = 0.05 * sum(np.linalg.norm(m, 2) ** 2 for m in matrices(model).values())
    assert float(sum(regularized.losses)) == pytest.approx(expected, rel=1e-5)
    regularized.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert float(sum(loaded.losses)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ALL)
def test_lipschitz_clip_knows_the_kind(kind):
    model, batch = model_of(kind)
    before = {w.name: numpy(w.variable) for w in weights(model)}
    constrained = ks.constrain(model, LipschitzClip(1.0))
    step(constrained, batch)
    for weight in weights(constrained):
        induced = weight.slot.induced
        if induced == "dense":
            norm = np.linalg.norm(weight.matrix(), 2)
            assert norm == pytest.approx(1.0, abs=0.08)
        else:
            # That of the matrix is no bound of it, nor the other way around.
            expected = LipschitzClip(1.0, kind=induced)(before[weight.name])
            np.testing.assert_allclose(
                numpy(weight.variable), numpy(expected), atol=1e-6
            )


def test_where():
    model, batch = model_of("lstm")
    one = ks.constrain(model, SpectralClip(1.0), where=["layer/recurrent_kernel"])
    before = matrices(model)
    step(one, batch)
    after = matrices(one)
    np.testing.assert_array_equal(after["layer/kernel"], before["layer/kernel"])
    assert np.linalg.norm(after["layer/recurrent_kernel"], 2) <= 1 + 1e-5


def test_layers_of_one_name_are_told_apart():
    def block(name, units):
        dense = kl.Dense(units, name="a")
        return keras.Sequential([keras.Input((4,)), dense], name=name)

    model = keras.Sequential([keras.Input((4,)), block("first", 4), block("last", 2)])
    constrained = ks.constrain(
        model, SpectralClip(1.0), where=lambda weight: weight.matrix().shape == (2, 4)
    )
    first, last = (block.layers[0].kernel for block in constrained.layers)
    assert first.constraint is None and last.constraint is not None


def test_wrapped_kernels_are_left_out():
    wrapped = SpectralNormalization(kl.Dense(3, name="wrapped"))
    model = keras.Sequential([keras.Input((4,)), wrapped, kl.Dense(3, name="plain")])
    constrained = ks.constrain(model, SpectralClip(1.0))
    assert constrained.get_layer("plain").kernel.constraint is not None
    assert constrained.get_layer("wrapped").kernel.constraint is None
    with pytest.raises(ValueError, match="only wrapped ones"):
        ks.constrain(model, SpectralClip(1.0), where=["wrapped"])


@pytest.mark.parametrize(
    "kind, constraint, where, match",
    [
        ("lstm", "max_norm", None, "`constraint` must be a"),
        ("lstm", SpectralClip(1.0, output_axis=-2), None, "leave `output_axis`"),
        ("lstm", LipschitzClip(kind="dense"), None, "leave `output_axis` and `kind`"),
        ("lstm", SpectralClip(), ["layer/kernal"], "Did you mean layer/kernel"),
        ("attention", SpectralClip(), ["layer/query"], "all of layer/query, layer/key"),
        ("bidirectional", SpectralClip(), ["layer/forward_kernel"], "all of"),
    ],
)
def test_bad_arguments(kind, constraint, where, match):
    with pytest.raises(ValueError, match=match):
        ks.constrain(model_of(kind)[0], constraint, where)


def test_kernels_of_attention_that_look_alike_are_refused():
    inputs = keras.Input((4, 2))
    layer = kl.MultiHeadAttention(2, 2, output_shape=2)
    model = keras.Model(inputs, layer(inputs, inputs))
    with pytest.raises(ValueError, match="told apart by their shapes"):
        ks.constrain(model, SpectralClip(1.0))


def test_another_layers_view_is_refused():
    model, _ = model_of("einsum")
    constraint = ks.constrain(model, SpectralClip(1.0)).layers[1].kernel.constraint
    with pytest.raises(ValueError, match="another layer"):
        constraint(np.ones((2, 2), "float32"))
