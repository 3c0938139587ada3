"""Factorized networks against float64 loops, the originals and Keras' own counts."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers as kl

from keras_spectral.compression.factorization import factorize
from keras_spectral.layers import MaskedConv2D, SpectralNormalization


def low_rank(layer, rank, seed=0):
    """Give a layer a kernel of that rank and a bias that is not zero."""
    rng = np.random.default_rng(seed)
    shape = tuple(layer.kernel.shape)
    m, n = int(np.prod(shape[:-1])), shape[-1]
    matrix = rng.standard_normal((m, rank)) @ rng.standard_normal((rank, n)) / m
    layer.kernel.assign(matrix.reshape(shape))
    layer.bias.assign(rng.standard_normal(n))


def images_model():
    inputs = keras.Input((12, 11, 3))
    x = kl.Conv2D(16, 3, strides=2, padding="same", activation="relu", name="a")(inputs)
    x = kl.Conv2D(16, 3, dilation_rate=2, activation="tanh", name="b")(x)
    x = kl.Flatten()(x)
    x = kl.Dense(32, activation="relu", name="c")(x)
    return keras.Model(inputs, kl.Dense(10, activation="softmax", name="d")(x))


def same(model, copy, x, tolerance=1e-5):
    before = keras.ops.convert_to_numpy(model(x))
    after = keras.ops.convert_to_numpy(copy(x))
    np.testing.assert_allclose(after, before, atol=tolerance * abs(before).max())


def test_all_singular_values_give_the_same_outputs(rng):
    model = images_model()
    for layer in model.layers:
        if layer.weights:
            layer.bias.assign(rng.standard_normal(layer.bias.shape))
    copy, rows = factorize(model, delta=1e-12, only_if_smaller=False)
    x = rng.standard_normal((5, 12, 11, 3)).astype("float32")
    same(model, copy, x)
    names = [layer.name for layer in copy.layers if layer.weights]
    assert names == ["a-left", "a", "b-left", "b", "c-left", "c", "d-left", "d"]
    assert copy.output_names == model.output_names
    assert type(copy) is type(model)
    assert [row.left_as_it_was for row in rows] == [None] * 5
    assert not copy.get_layer("a-left").use_bias
    assert copy.get_layer("a-left").activation is keras.activations.linear
    assert copy.get_layer("a").kernel.shape == (1, 1, 16, 16)


@settings(max_examples=15, deadline=None)
@given(
    size=st.integers(1, 3), stride=st.integers(1, 2), dilation=st.integers(1, 2),
    padding=st.sampled_from(["same", "valid"]), rank=st.integers(1, 3),
)  # fmt: skip
def test_a_convolution_of_low_rank_stays_itself(size, stride, dilation, padding, rank):
    dilation = 1 if stride > 1 else dilation
    layer = kl.Conv2D(8, size, stride, padding, dilation_rate=dilation, name="a")
    model = keras.Sequential([keras.Input((8, 9, 4)), layer])
    low_rank(layer, rank)
    copy, rows = factorize(model, delta=1e-5, only_if_smaller=False)
    assert rows[0].rank == min(rank, 4 * size**2)
    x = np.random.default_rng(1).standard_normal((2, 8, 9, 4)).astype("float32")
    same(model, copy, x)


def test_kernels_are_the_truncated_svd(rng):
    dense = kl.Dense(24, name="dense")
    model = keras.Sequential([keras.Input((40,)), dense])
    copy, rows = factorize(model, rank_ratio=0.25)
    kernel = keras.ops.convert_to_numpy(dense.kernel).astype("float64")
    s = np.linalg.svd(kernel, compute_uv=False)
    left, right = (keras.ops.convert_to_numpy(x.kernel) for x in copy.layers)
    assert left.shape == (40, 6) and right.shape == (6, 24)
    error = np.linalg.norm(kernel - left.astype("float64") @ right, 2)
    assert error == pytest.approx(s[6], rel=1e-5)
    assert rows[0].relative_error == pytest.approx(s[6] / s[0], rel=1e-9)
    # Outputs differ by no more than the first singular value left out.
    x = rng.standard_normal((50, 40)).astype("float32")
    change = keras.ops.convert_to_numpy(copy(x) - model(x))
    allowed = s[6] * np.linalg.norm(x, axis=1)
    assert (np.linalg.norm(change, axis=1) <= allowed * (1 + 1e-4)).all()
    bound = np.sum(s**2) / (0.5 * s[0]) ** 2
    assert factorize(model, delta=0.5)[1][0].rank <= bound


def test_parameters_and_multiply_adds_by_hand():
    model = images_model()
    low_rank(model.get_layer("a"), 2)
    low_rank(model.get_layer("c"), 3)
    copy, rows = factorize(model, delta=1e-4, where=["a", "c"])
    a, b, c, d, total = rows
    assert (a.rank, c.rank) == (2, 3)
    # 12 x 11 pixels at stride 2, "same": 6 x 6 outputs.
    assert a.multiply_adds_before == 36 * 27 * 16
    assert a.multiply_adds_after == 36 * (27 * 2 + 2 * 16)
    assert a.parameters_after == 27 * 2 + 2 * 16 + 16
    assert c.multiply_adds_before == 64 * 32 and c.multiply_adds_after == 3 * 96
    assert c.parameters_after == 3 * 96 + 32
    assert b.left_as_it_was == d.left_as_it_was == "not chosen by `where`"
    assert b.multiply_adds_after == b.multiply_adds_before == 4 * 144 * 16
    for row in rows:
        if row.left_as_it_was is None and row.name != "total":
            parts = (copy.get_layer(f"{row.name}-left"), copy.get_layer(row.name))
            counted = sum(part.count_params() for part in parts)
            assert row.parameters_after == counted
    assert total.parameters_before == model.count_params()
    assert total.parameters_after == copy.count_params() < model.count_params()
    assert total.multiply_adds_after == sum(r.multiply_adds_after for r in rows[:4])
    assert "a" in str(rows) and len(rows.to_dicts()) == 5


def test_layers_that_would_not_get_smaller_stay():
    model = keras.Sequential([keras.Input((10,)), kl.Dense(10, name="a")])
    copy, rows = factorize(model, rank_ratio=0.5)
    assert [layer.name for layer in copy.layers] == ["a"]
    assert rows[0].left_as_it_was == "rank 5 is not smaller"
    np.testing.assert_array_equal(copy.get_weights()[0], model.get_weights()[0])
    assert factorize(model, delta=0.0)[1][0].left_as_it_was == "rank 10 is not smaller"
    assert factorize(model, rank_ratio=0.4)[1][0].rank == 4
    with_five, _ = factorize(model, rank_ratio=0.5, only_if_smaller=False)
    assert with_five.count_params() == 110


def test_save_load_and_train_on(tmp_path, rng):
    model = images_model()
    low_rank(model.get_layer("c"), 4)
    model.compile("adam", loss=lambda y, p: keras.ops.mean((y - p) ** 2))
    copy, _ = factorize(model, rank_ratio=0.3)
    assert model.compiled and not copy.compiled
    copy.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = rng.standard_normal((32, 12, 11, 3)).astype("float32")
    same(copy, loaded, x, 1e-6)
    y = np.eye(10, dtype="float32")[rng.integers(0, 10, 32)]
    before = loaded.get_weights()
    loaded.compile(keras.optimizers.Adam(1e-2), {"d": "categorical_crossentropy"})
    losses = loaded.fit(x, y, epochs=15, verbose=0).history["loss"]
    assert losses[-1] < 0.7 * losses[0]
    for one, two in zip(before, loaded.get_weights(), strict=True):
        assert (one != two).any()


def test_shared_and_nested_layers_stay_shared(rng):
    shared = kl.Dense(20, activation="relu", name="shared")
    inner = keras.Sequential([keras.Input((20,)), shared, kl.Dropout(0.1)], name="in")
    one, two = keras.Input((20,), name="one"), keras.Input((20,), name="two")
    nested = keras.Model(*[(i := keras.Input((20,))), kl.Dense(20, name="deep")(i)])
    outputs = kl.Dense(3, name="head")(
        kl.Concatenate()([inner(one), inner(two), shared(one), nested(two)]) * 2.0
    )
    model = keras.Model({"one": one, "two": two}, {"logits": outputs})
    copy, rows = factorize(model, delta=0.0, only_if_smaller=False)
    assert [row.name for row in rows] == ["shared", "deep", "head", "total"]
    assert len(copy.weights) == 3 * 3
    x = {n: rng.standard_normal((4, 20)).astype("float32") for n in ("one", "two")}
    before, after = model(x)["logits"], copy(x)["logits"]
    np.testing.assert_allclose(before, after, atol=1e-5)
    again, _ = factorize(copy, delta=0.0, only_if_smaller=False)
    np.testing.assert_allclose(before, again(x)["logits"], atol=1e-4)


def test_what_cannot_be_factorized_is_left_with_the_reason_or_refused():
    wrapped = SpectralNormalization(kl.Conv2D(8, 3, name="wrapped"))
    model = keras.Sequential(
        [
            keras.Input((12, 12, 4)),
            kl.Conv2D(8, 3, groups=2, name="grouped"),
            MaskedConv2D(8, 3, name="masked"),
            wrapped,
            kl.TimeDistributed(kl.Dense(8), name="timed"),
            kl.BatchNormalization(name="norm"),
            kl.Conv2D(8, 3, name="plain"),
        ]
    )
    copy, rows = factorize(model, rank_ratio=0.25)
    reasons = {row.name: row.left_as_it_was for row in rows}
    assert reasons["grouped"] == "a convolution of 2 groups"
    assert reasons["masked"] == "a MaskedConv2D"
    assert "unwrap" in reasons[wrapped.name]
    assert reasons["timed"] == "a TimeDistributed"
    assert reasons["plain"] is None and "norm" not in reasons
    x = np.ones((1, 12, 12, 4), "float32")
    full, _ = factorize(model, delta=0.0, only_if_smaller=False)
    same(model, full, x)
    for name in ("grouped", "masked", wrapped.name, "norm"):
        with pytest.raises(ValueError, match=f"'{name}'"):
            factorize(model, rank_ratio=0.25, where=[name])


def test_settings_move_to_the_second_layer():
    layer = kl.Dense(
        16, activation="relu", kernel_regularizer="l2", bias_regularizer="l1",
        kernel_constraint="non_neg", bias_constraint="max_norm", name="a",
        activity_regularizer="l2", dtype="mixed_float16", trainable=False,
    )  # fmt: skip
    model = keras.Sequential([keras.Input((32,)), layer])
    copy, _ = factorize(model, rank_ratio=0.25)
    left, right = copy.layers
    for part in (left, right):
        assert part.kernel_regularizer is None and part.kernel_constraint is None
        assert part.dtype_policy.name == "mixed_float16" and not part.trainable
    assert left.bias_regularizer is None and left.activity_regularizer is None
    assert right.bias_regularizer is not None and right.bias_constraint is not None
    assert right.activity_regularizer is not None
    assert right.activation is keras.activations.relu


def test_masks_of_padded_steps_pass_through(rng):
    inputs = keras.Input((5,), dtype="int32")
    x = kl.Embedding(7, 16, mask_zero=True)(inputs)
    x = kl.Dense(16, name="a")(x)
    model = keras.Model(inputs, kl.LSTM(4)(x))
    copy, rows = factorize(model, delta=0.0, where=["a"], only_if_smaller=False)
    same(model, copy, np.array([[1, 2, 3, 0, 0], [4, 0, 0, 0, 0]]))
    # A row of 5 steps.
    (row,) = [row for row in rows if row.name == "a"]
    assert row.multiply_adds_before == 5 * 256


def test_images_of_any_size_have_no_count():
    layers = [keras.Input((None, None, 8)), kl.Conv2D(8, 3, name="a")]
    _, rows = factorize(keras.Sequential(layers), rank_ratio=0.25)
    assert rows[0].multiply_adds_after is None and rows[-1].multiply_adds_before is None
    assert rows[0].parameters_after == 2 * 80 + 8


def test_a_zero_kernel_keeps_one_channel():
    layer = kl.Dense(8, kernel_initializer="zeros", bias_initializer="ones", name="a")
    model = keras.Sequential([keras.Input((8,)), layer])
    copy, rows = factorize(model, delta=0.1)
    assert rows[0].rank == 1 and rows[0].relative_error == 0
    same(model, copy, np.ones((2, 8), "float32"))


def test_names_that_are_taken():
    layers = [keras.Input((8,)), kl.Dense(8, name="a-left"), kl.Dense(8, name="a")]
    copy, _ = factorize(keras.Sequential(layers), rank_ratio=0.2)
    names = [layer.name for layer in copy.layers]
    assert names == ["a-left-left", "a-left", "a-left-left-left", "a"]


def test_wrong_arguments():
    model = keras.Sequential([keras.Input((8,)), kl.Dense(8, name="hidden")])
    for arguments, text in (
        ({}, "One of"),
        (dict(delta=0.1, rank_ratio=0.5), "One of"),
        (dict(delta=-0.1), "`delta`"),
        (dict(rank_ratio=0.0), "`rank_ratio`"),
        (dict(delta=0.1, where=["hiden"]), "Did you mean hidden"),
        (dict(delta=0.1, where="hidden"), "list of names"),
    ):
        with pytest.raises(ValueError, match=text):
            factorize(model, **arguments)

    class Own(keras.Model):
        pass

    with pytest.raises(ValueError, match="functional"):
        factorize(Own(), delta=0.1)
    with pytest.raises(ValueError, match="must be built"):
        factorize(keras.Sequential([kl.Dense(2)]), delta=0.1)
    model.layers[0].kernel.assign(np.full((8, 8), np.nan))
    with pytest.raises(ValueError, match="finite"):
        factorize(model, delta=0.1)


def test_statistics_of_normalization_are_kept():
    x = np.random.default_rng(0).normal(3, 5, size=(50, 4)).astype("float32")
    normalization = keras.layers.Normalization()
    normalization.adapt(x)
    model = keras.Sequential([keras.Input((4,)), normalization, keras.layers.Dense(2)])
    factored, _ = factorize(model, rank_ratio=1.0)
    np.testing.assert_allclose(factored(x), model(x), rtol=1e-4, atol=1e-5)


def test_where_is_that_of_all_tools():
    layers = [keras.Input((40,)), kl.Dense(30, name="a"), kl.Dense(20, name="b")]
    model = keras.Sequential(layers)
    copy, _ = factorize(
        model, rank_ratio=0.2, where=lambda weight: weight.matrix().shape[0] == 20
    )
    assert [layer.name for layer in copy.layers] == ["a", "b-left", "b"]
    with pytest.raises(ValueError, match="Did you mean a"):
        factorize(model, rank_ratio=0.2, where=["a1"])
