import keras
import numpy as np
import pytest
from keras import layers as kl

import keras_spectral as ks
from keras_spectral.layers import (
    OptimalSpectralNormalization,
    SpectralNormalization,
    StableRankNormalization,
)
from keras_spectral.layers.reparametrization import Reparametrization
from keras_spectral.models.slots import kernel_slots
from keras_spectral.surgery import copy_weights
from tests.layers.kinds import images, tokens


def functional():
    """A shared layer, a nested model, two inputs, a branch and attention."""
    image, words = (
        keras.Input((8, 8, 3), name="image"),
        keras.Input((4,), dtype="int32"),
    )
    x = kl.Conv2D(6, 3, padding="same", activation="relu", name="conv")(image)
    x = kl.BatchNormalization(name="norm")(x)
    x = kl.Add()([x, kl.DepthwiseConv2D(3, padding="same", name="depth")(x)])
    nested = keras.Sequential(
        [keras.Input((8, 8, 6)), kl.Conv2D(4, 3, strides=2, name="inner")],
        name="nested",
    )
    x = kl.GlobalAveragePooling2D()(nested(x))
    y = kl.Embedding(6, 4, mask_zero=True, name="words")(words)
    y = kl.MultiHeadAttention(2, 3, name="attention")(y, y)
    y = kl.LSTM(4, name="recurrent")(y)
    shared = kl.Dense(5, activation="tanh", name="shared")
    outputs = kl.Dense(2, name="head")(kl.Concatenate()([shared(x), shared(y)]))
    return keras.Model([image, words], outputs)


@pytest.fixture
def inputs():
    return [images(8, 8, 3), tokens()]


def sequential():
    return keras.Sequential(
        [keras.Input((8, 8, 3)), kl.Conv2D(4, 3), kl.Flatten(), kl.Dense(3)]
    )


def wrappers(model):
    return [
        layer.name
        for layer in model._flatten_layers()
        if isinstance(layer, Reparametrization)
    ]


def fit(model, inputs):
    model.compile("adam", "mse")
    model.fit(inputs, np.ones((4, 2)), epochs=2, verbose=0)


@pytest.mark.filterwarnings("ignore:The target stable rank")
def test_wrap_train_save_unwrap(inputs, tmp_path):
    model = functional()
    before = model(inputs)
    wrapped = ks.wrap(model, StableRankNormalization, stable_rank_ratio=0.3)
    assert sorted(wrappers(wrapped)) == sorted(
        ["conv", "depth", "inner", "words", "attention", "recurrent", "shared", "head"]
    )
    # The model that was wrapped is as it was, and its kernels are the copy's.
    np.testing.assert_array_equal(model(inputs), before)
    for name in ("conv", "shared"):
        raw = wrapped.get_layer(name).kernel.numpy()
        np.testing.assert_array_equal(raw, model.get_layer(name).kernel)
    fit(wrapped, inputs)
    outputs = wrapped(inputs)
    plain = ks.unwrap(wrapped)
    assert wrappers(plain) == []
    # The plain kernels are converged: outputs move by the norm's error.
    np.testing.assert_allclose(plain(inputs), outputs, atol=1e-5)
    weighted = [[x.name for x in m.layers if x.weights] for m in (plain, model)]
    assert weighted[0] == weighted[1]
    wrapped.save(tmp_path / "wrapped.keras")
    loaded = keras.models.load_model(tmp_path / "wrapped.keras")
    np.testing.assert_allclose(ks.unwrap(loaded)(inputs), outputs, atol=1e-5)


def test_an_unwrapped_model_needs_no_package(inputs, tmp_path):
    plain = ks.unwrap(ks.wrap(functional(), SpectralNormalization))
    plain.save(tmp_path / "plain.keras")
    with keras.saving.custom_object_scope({}):
        assert "keras_spectral" not in plain.to_json()
    loaded = keras.models.load_model(tmp_path / "plain.keras")
    np.testing.assert_array_equal(loaded(inputs), plain(inputs))


@pytest.mark.parametrize(
    "wrapper, arguments",
    [
        (SpectralNormalization, dict(clip=True, bound=1e3)),
        (OptimalSpectralNormalization, dict(bound=1e3)),
    ],
)
def test_clip_leaves_a_pretrained_model_as_it_was(wrapper, arguments, inputs):
    model = functional()
    fit(model, inputs)
    wrapped = ks.wrap(model, wrapper, **arguments)
    np.testing.assert_allclose(wrapped(inputs), model(inputs), atol=2e-7)


def test_where(inputs):
    model = functional()
    assert wrappers(ks.wrap(model, SpectralNormalization, ["conv", "inner"])) == [
        "conv",
        "inner",
    ]
    dense = ks.wrap(
        model, SpectralNormalization, where=lambda weight: weight.kind == "Dense"
    )
    assert sorted(wrappers(dense)) == ["head", "shared"]
    twice = ks.wrap(dense, OptimalSpectralNormalization, where=["conv"])
    assert sorted(wrappers(twice)) == ["conv", "head", "shared"]
    rest = ks.wrap(dense, SpectralNormalization)
    assert len(wrappers(rest)) == 8


def test_layers_of_one_name_are_told_apart():
    def block(name):
        return keras.Sequential([keras.Input((4,)), kl.Dense(4, name="a")], name=name)

    first, last = block("first"), block("last")
    model = keras.Sequential([keras.Input((4,)), first, last])
    where = lambda weight: weight.layer is last.layers[0]  # noqa: E731
    wrapped = ks.wrap(model, SpectralNormalization, where)
    kinds = [type(block.layers[0]).__name__ for block in wrapped.layers]
    assert kinds == ["Dense", "SpectralNormalization"]


@pytest.mark.parametrize(
    "where, match",
    [
        (["haed"], "haed"),
        ("head", "`where` must be a list"),
        ([], "`where` must be a list"),
        (["attention/query"], "whole layers.*a part of 'attention', without .*/key"),
        (lambda weight: weight.name.endswith("recurrent_kernel"), "a part of"),
        (lambda weight: False, "at least one layer"),
        (["norm"], "`layer` must be one of"),
    ],
)
def test_bad_where(where, match):
    with pytest.raises(ValueError, match=match):
        ks.wrap(functional(), SpectralNormalization, where)


def test_models_that_cannot_be_wrapped():
    class Subclassed(keras.Model):
        pass

    with pytest.raises(ValueError, match="Sequential"):
        ks.wrap(Subclassed(), SpectralNormalization)
    with pytest.raises(ValueError, match="must be built"):
        ks.wrap(keras.Sequential([kl.Dense(2)]), SpectralNormalization)
    wrapped = ks.wrap(sequential(), SpectralNormalization)
    with pytest.raises(ValueError, match="already"):
        ks.wrap(wrapped, SpectralNormalization, where=[wrapped.layers[0].name])
    inside = kl.TimeDistributed(SpectralNormalization(kl.Dense(2)))
    with pytest.raises(ValueError, match="outermost"):
        ks.unwrap(keras.Sequential([keras.Input((3, 4)), inside]))


def test_a_sequential_model_stays_one():
    model = keras.Sequential([kl.Conv2D(4, 3), kl.Flatten(), kl.Dense(3)])
    x = images(8, 8, 3)
    model(x)
    wrapped = ks.wrap(model, SpectralNormalization, norm="operator")
    assert type(wrapped) is keras.Sequential
    np.testing.assert_allclose(ks.unwrap(wrapped)(x), wrapped(x), atol=1e-6)


def test_copy_weights_both_ways():
    plain = sequential()
    wrapped = ks.wrap(sequential(), SpectralNormalization)
    x = images(8, 8, 3)
    wrapped(x, training=True)
    copy_weights(plain, wrapped)
    for ours, theirs in zip(plain.layers, wrapped.layers, strict=True):
        for w, v in zip(ours.get_weights(), theirs.get_weights(), strict=False):
            np.testing.assert_array_equal(w, v)
    # Stale singular vectors would give another norm.
    head = wrapped.layers[-1]
    assert np.linalg.norm(head.effective_kernel(), 2) == pytest.approx(1, rel=0.05)
    assert int(head.norm_states[0].updates) == 0
    wrapped.layers[0].kernel.assign(wrapped.layers[0].kernel * 2)
    copy_weights(wrapped, plain)
    np.testing.assert_array_equal(plain.layers[0].kernel, wrapped.layers[0].kernel)


def matrices(model, layer):
    """Return the float64 matrices of a plain layer's kernels."""
    return [
        np.asarray(slot.view.flatten(np.asarray(slot.value, "float64")))
        for slot in kernel_slots(model.get_layer(layer))
    ]


def stirred(model):
    """Give every wrapper a kernel that its singular vectors were not found on."""
    rng = np.random.default_rng(0)
    for layer in model._flatten_layers():
        if isinstance(layer, Reparametrization):
            for slot in layer.slots:
                shape = tuple(slot.variable.shape)
                slot.variable.assign(rng.standard_normal(shape).astype("float32"))
    return model


BOUND = 0.7
KERNELS = {
    "dense": (lambda: kl.Dense(9), (12,)),
    "wide": (lambda: kl.Dense(1100), (1100,)),
    "convolution": (lambda: kl.Conv2D(6, 3), (7, 7, 4)),
    "transposed": (lambda: kl.Conv2DTranspose(6, 3), (7, 7, 4)),
    "separable": (lambda: kl.SeparableConv2D(6, 3, depth_multiplier=2), (7, 7, 4)),
    "LSTM": (lambda: kl.LSTM(5), (3, 4)),
    "bidirectional": (lambda: kl.Bidirectional(kl.GRU(5)), (3, 4)),
}


@pytest.mark.parametrize("method", ["block", "power_iteration"])
@pytest.mark.parametrize("kind", KERNELS)
def test_unwrapped_norms_are_the_bounds(kind, method):
    make, shape = KERNELS[kind]
    layer = SpectralNormalization(make(), bound=BOUND, method=method, name="layer")
    layer.layer.name = "layer"
    model = stirred(keras.Sequential([keras.Input(shape), layer]))
    for matrix in matrices(ks.unwrap(model), "layer"):
        assert np.linalg.norm(matrix, 2) == pytest.approx(BOUND, rel=1e-6)


def test_unwrapped_attention_has_its_bounds():
    x = keras.Input((4, 6))
    attention = SpectralNormalization(kl.MultiHeadAttention(2, 3, name="a"), BOUND)
    model = stirred(keras.Model(x, attention(x, x)))
    found = matrices(ks.unwrap(model), "a")
    assert len(found) == 4
    for matrix in found:
        assert np.linalg.norm(matrix, 2) == pytest.approx(BOUND, rel=1e-6)


@pytest.mark.parametrize("size", [12, 1100])
def test_unwrapped_stable_ranks_are_capped(size):
    layer = StableRankNormalization(kl.Dense(size, name="a"), 0.1 if size > 99 else 0.3)
    model = stirred(keras.Sequential([keras.Input((size,)), layer]))
    (matrix,) = matrices(ks.unwrap(model), "a")
    singular = np.linalg.svd(matrix, compute_uv=False)
    assert singular[0] == pytest.approx(1, rel=1e-6)
    assert (singular**2).sum() / singular[0] ** 2 <= layer.stable_rank() * (1 + 1e-6)


def test_unwrapped_singular_values_are_clipped():
    layer = OptimalSpectralNormalization(kl.Dense(9, name="a"), BOUND)
    model = stirred(keras.Sequential([keras.Input((12,)), layer]))
    raw = layer.kernel.numpy().astype("float64")
    (matrix,) = matrices(ks.unwrap(model), "a")
    u, s, v = np.linalg.svd(raw, full_matrices=False)
    np.testing.assert_allclose(matrix, u * np.minimum(s, BOUND) @ v, atol=1e-7)
    assert np.linalg.norm(matrix, 2) <= BOUND * (1 + 1e-6)


def test_unwrapped_operators_have_their_bounds():
    layer = SpectralNormalization(
        kl.Conv2D(3, 3, strides=2, padding="same", name="a"), BOUND, norm="operator"
    )
    model = stirred(keras.Sequential([keras.Input((6, 6, 2)), layer]))
    plain = ks.unwrap(model).get_layer("a")
    plain.bias.assign(np.zeros(3))
    impulses = np.eye(72, dtype="float32").reshape(72, 6, 6, 2)
    operator = np.asarray(plain(impulses), "float64").reshape(72, -1)
    assert np.linalg.norm(operator, 2) == pytest.approx(BOUND, rel=1e-4)


@pytest.mark.parametrize("weight, bound", [(0.5, 1.0), (1e-14, 1e3)])
def test_unwrapping_leaves_what_is_not_scaled(weight, bound):
    # Within the bound of a clipped layer, and under epsilon.
    clip = weight > 0.1
    layer = SpectralNormalization(kl.Dense(4, name="a"), bound, clip=clip)
    model = keras.Sequential([keras.Input((4,)), layer])
    layer.kernel.assign(weight * np.eye(4))
    np.testing.assert_array_equal(ks.unwrap(model).get_layer("a").kernel, layer.kernel)


def test_an_unwrapped_svd_layer_computes_the_same():
    layer = ks.layers.SVDDense(5, rank_ratio=0.5, name="a")
    model = keras.Sequential([keras.Input((8,)), layer])
    layer.e.assign(np.linspace(-2, 1, layer.rank))
    x = images(8)
    np.testing.assert_allclose(ks.unwrap(model)(x), model(x), atol=1e-6)


def test_singular_vectors_are_copied_where_both_keep_the_same():
    def model(method, **arguments):
        layer = SpectralNormalization(kl.Dense(9), method=method, **arguments)
        made = keras.Sequential([keras.Input((12,)), layer])
        for _ in range(3):
            made(images(12), training=True)
        return made

    for method in ("block", "power_iteration"):
        source, target = model(method), model(method)
        copy_weights(source, target)
        for ours, theirs in zip(source.weights, target.weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    pairs = [
        (model("power_iteration"), model("block")),
        (model("block"), model("power_iteration")),
        (model("block", block_size=2), model("block")),
        (model("exact"), model("block")),
    ]
    for source, target in pairs:
        source.layers[0].kernel.assign(source.layers[0].kernel[::-1] * 2)
        copy_weights(source, target)
        layer = target.layers[0]
        np.testing.assert_array_equal(layer.kernel, source.layers[0].kernel)
        assert int(layer.norm_states[0].updates) == 0
        norm = np.linalg.norm(layer.effective_kernel(), 2)
        assert norm == pytest.approx(1, rel=1e-5)


def test_copy_weights_refuses_other_models_and_copies_nothing():
    source, target = sequential(), functional()
    before = target.get_weights()
    with pytest.raises(ValueError, match="as many layers"):
        copy_weights(source, target)
    wider = keras.Sequential([keras.Input((4,)), kl.Dense(2), kl.Dense(3)])
    other = keras.Sequential([keras.Input((4,)), kl.Dense(2), kl.Dense(5)])
    kept = other.get_weights()
    with pytest.raises(ValueError, match="same shapes"):
        copy_weights(wider, other)
    for a, b in zip(
        [*before, *kept], [*target.get_weights(), *other.get_weights()], strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_a_model_with_a_loss_of_its_own_is_wrapped():
    def loss(truth, prediction):
        return keras.ops.mean((truth - prediction) ** 2)

    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
    model.compile("adam", loss)
    wrapped = ks.wrap(model, SpectralNormalization)
    assert model.compiled and not wrapped.compiled
    model.compile("adam", "mse")
    assert ks.wrap(model, SpectralNormalization).compiled
