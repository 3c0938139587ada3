"""Compressed checkpoints: there and back, their sizes, and fine-tuning."""

import math

import keras
import numpy as np
import pytest
import safetensors.numpy

from keras_spectral import compression, zoo


@pytest.fixture
def model(small_network):
    return small_network


def equal(model, other):
    for one, two in zip(model.get_weights(), other.get_weights(), strict=True):
        assert one.dtype == two.dtype
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("index", ["auto", "bitmap", "delta"])
@pytest.mark.parametrize("rule", ["magnitude", "signed"])
@pytest.mark.parametrize("replacement", ["gaussian", "matched", "zero"])
def test_float32_comes_back_bit_for_bit(model, path, rule, replacement, index):
    compressed = compression.compress(
        model, ["hidden", "head"], rule, replacement, seed=2**40
    )
    rows = compression.save_compressed(compressed, path, values="float32", index=index)
    loaded = compression.load_compressed(path)
    equal(loaded, compressed)
    assert loaded.name == "net" and not loaded.compiled
    x = np.ones((3, 60), "float32")
    np.testing.assert_array_equal(loaded(x), compressed(x))
    assert [row.error for row in rows if row.kept] == [0.0, 0.0]
    # What is known of it comes along: it is saved again as it was.
    again = path.with_name("again.safetensors")
    compression.save_compressed(loaded, again, values="float32", index=index)
    third = path.with_name("third.safetensors")
    loaded = compression.load_compressed(again)
    compression.save_compressed(loaded, third, values="float32", index=index)
    assert again.read_bytes() == third.read_bytes()
    equal(loaded, compressed)


@pytest.mark.parametrize("values", ["float16", "bfloat16", "int8"])
def test_narrow_values_are_rounded_and_the_rest_is_exact(model, path, values):
    compressed = compression.compress(model, ["hidden"], replacement="matched", seed=4)
    rows = compression.save_compressed(compressed, path, values=values)
    loaded = compression.load_compressed(path)
    kept = compression.compression_of(compressed)[0].kept
    before, after = compressed.get_weights(), loaded.get_weights()
    for old, new in zip(before[1:], after[1:], strict=True):
        np.testing.assert_array_equal(old, new)
    np.testing.assert_array_equal(before[0][~kept], after[0][~kept])
    old, new = before[0][kept], after[0][kept]
    if values == "int8":
        assert np.abs(old - new).max() <= 0.5001 * np.abs(old).max() / 127
    else:
        digits = {"float16": 2**-11, "bfloat16": 2**-8}[values]
        assert (np.abs(old - new) <= digits * np.abs(old) + 2**-25).all()
    error = np.linalg.norm(after[0] - before[0]) / np.linalg.norm(before[0])
    assert rows[0].error == pytest.approx(error, rel=1e-4)
    # Once rounded, nothing more is lost.
    compression.save_compressed(loaded, path, values=values)
    equal(compression.load_compressed(path), loaded)


def entropy(p):
    return -(p * math.log2(p) + (1 - p) * math.log2(1 - p))


@pytest.mark.parametrize("values, bits", [("float16", 16), ("int8", 8)])
@pytest.mark.parametrize("deviations", [1, 2, 3])
def test_sizes_are_near_the_entropy(rng, path, values, bits, deviations):
    """Laplace weights: p = exp(-sqrt(2) tau), and 32 / (H(p) + p bits)."""
    weights = rng.laplace(size=(512, 500)).astype("float32")
    weights[np.abs(weights) <= deviations * math.sqrt(2)] = 0
    layer = keras.layers.Dense(500, use_bias=False)
    model = keras.Sequential([keras.Input((512,)), layer])
    layer.kernel.assign(weights)
    rows = compression.save_compressed(model, path, values=values)
    row, rest, total = rows
    p = math.exp(-math.sqrt(2) * deviations)
    assert row.kept == pytest.approx(p, rel=0.04)
    bound = 32 / (entropy(row.kept) + row.kept * bits)
    assert 0.93 * bound < row.float32_ratio < bound
    assert bound == pytest.approx(32 / (entropy(p) + p * bits), rel=0.04)
    assert total.bytes == path.stat().st_size == row.bytes + rest.bytes
    assert row.float32_bytes == 4 * weights.size == 2 * row.float16_bytes
    assert row.int8_bytes == weights.size + 4
    assert rest.bytes < 2000


def test_rows_compare_with_plain_files(model, path, tmp_path):
    rows = compression.save_compressed(compression.compress(model, ["head"]), path)
    weights = {str(i): w for i, w in enumerate(model.get_weights())}
    plain = tmp_path / "plain.safetensors"
    sizes = {}
    for kind in ("float32", "float16"):
        cast = {key: array.astype(kind) for key, array in weights.items()}
        safetensors.numpy.save_file(cast, plain)
        sizes[kind] = plain.stat().st_size
    total = rows[-1]
    # Theirs hold the Keras config too, of about a kilobyte.
    assert 0 < total.float32_bytes - sizes["float32"] < 2500
    assert 0 < total.float16_bytes - sizes["float16"] < 2500
    assert total.float32_bytes - total.float16_bytes == pytest.approx(
        2 * model.count_params(), abs=16
    )
    stored = [row.stored for row in rows]
    assert stored[:3] == ["float32"] * 3 and stored[6] == "delta, float16"
    assert "smaller on disk, not faster" in rows.caption
    assert rows.to_dicts()[6]["shape"] == [50, 10] and "fp32" in str(rows)


def test_a_model_pruned_elsewhere_is_stored_sparse(model, path):
    weights = model.get_weights()
    weights[0][np.abs(weights[0]) < 2] = 0
    weights[0][0, 0] = -0.0
    weights[6][0, 0] = 0  # One zero is chance, and no mask.
    model.set_weights(weights)
    rows = compression.save_compressed(model, path, values="float32")
    assert rows[0].kept == pytest.approx((weights[0] != 0).mean(), abs=1e-3)
    assert rows[6].kept is None
    loaded = compression.load_compressed(path)
    equal(loaded, model)
    assert np.signbit(loaded.get_weights()[0][0, 0])
    rows = compression.save_compressed(model, path, compression={})
    assert {row.kept for row in rows} == {None}
    equal(compression.load_compressed(path), model)


def test_other_types_and_models(rng, path):
    layers = keras.layers
    x = keras.Input((8, 8, 3))
    y = layers.Conv2D(4, 3, dtype="bfloat16")(x)
    y = layers.Flatten()(layers.DepthwiseConv2D(2, dtype="mixed_float16")(y))
    inner = keras.Sequential([keras.Input((100,)), layers.Dense(100, name="shared")])
    y = layers.Dense(7, dtype="float16", name="half")(inner(inner(y)))
    model = keras.Model(x, y)
    compressed = compression.compress(model, ["shared", "half"])
    rows = compression.save_compressed(compressed, path, values="float32")
    assert [row.stored for row in rows if row.kept] == [
        "bitmap, float32", "bitmap, float16",
    ]  # fmt: skip
    loaded = compression.load_compressed(path)
    equal(loaded, compressed)
    x = rng.standard_normal((2, 8, 8, 3)).astype("float32")
    np.testing.assert_array_equal(loaded(x), compressed(x))
    # A graph with additions.
    network = zoo.cifar_resnet(8, 10)
    compression.save_compressed(network, path)
    equal(compression.load_compressed(path), network)


def compile_and_fit(model, optimizer="adam"):
    model.compile(optimizer, "mse")
    x = np.random.default_rng(1).standard_normal((64, 60)).astype("float32")
    model.fit(x, np.ones((64, 10)), batch_size=16, epochs=1, verbose=0)


@pytest.mark.parametrize(
    "replacement, optimizer",
    [
        ("zero", keras.optimizers.AdamW),
        ("gaussian", keras.optimizers.Adam),
        ("matched", keras.optimizers.SGD),
    ],
)
def test_fine_tuning_keeps_the_mask(model, path, replacement, optimizer):
    arguments = {"weight_decay": 1e-2, "gradient_accumulation_steps": 2}
    if optimizer is keras.optimizers.SGD:
        arguments = {"momentum": 0.9, "use_ema": True, "ema_momentum": 0.9}
    optimizer = optimizer(1e-4, **arguments)
    compressed = compression.compress(
        model, ["hidden", "head"], replacement=replacement
    )
    before = compressed.get_weights()
    masks = compression.compression_of(compressed)
    compression.keep_mask(compressed)
    compile_and_fit(compressed, optimizer)
    if optimizer.use_ema:
        assert (compressed.get_weights()[0] != before[0]).mean() > 0.9
        compression.keep_mask(compressed)
    after = compressed.get_weights()
    assert sorted(masks) == [0, 6]
    for index, record in masks.items():
        kept = record.kept
        np.testing.assert_array_equal(after[index][~kept], before[index][~kept])
        assert (after[index][kept] != before[index][kept]).mean() > 0.5
    assert (after[1] != before[1]).any()
    # It is saved with that mask, and goes on after loading.
    compression.save_compressed(compressed, path, values="float32")
    loaded = compression.load_compressed(path)
    equal(loaded, compressed)
    compression.keep_mask(loaded)
    compile_and_fit(loaded)
    frozen = loaded.get_weights()[0][~masks[0].kept]
    np.testing.assert_array_equal(frozen, before[0][~masks[0].kept])


def test_a_model_that_was_traced_before_keeps_its_mask_too(model, path):
    compressed = compression.compress(model, ["hidden"], replacement="zero")
    compile_and_fit(compressed)
    with pytest.raises(ValueError, match="have changed since it was compressed"):
        compression.save_compressed(compressed, path)
    assert not path.exists()
    compressed = compression.compress(model, ["hidden"], replacement="zero")
    compressed.compile("adam", "mse")
    x, y = np.ones((8, 60), "float32"), np.ones((8, 10))
    compressed.train_on_batch(x, y)
    pruned = compression.compress(model, ["hidden"], replacement="zero")
    compressed.set_weights(pruned.get_weights())
    compression.keep_mask(compressed)
    compressed.train_on_batch(x, y)
    compression.save_compressed(compressed, path)


def test_keras_files_hold_no_constraint_and_masks_can_be_handed_on(
    model, path, tmp_path
):
    compressed = compression.compress(model, ["hidden"], replacement="matched")
    compression.keep_mask(compressed)
    compressed.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("hidden").kernel.constraint is None
    assert compression.compression_of(loaded) == {}
    known = compression.compression_of(compressed)
    compression.keep_mask(loaded, known)
    compile_and_fit(loaded)
    compression.save_compressed(loaded, path, compression=known)
    compression.save_compressed(compressed, path)


def test_what_keep_mask_and_save_refuse(model, path):
    with pytest.raises(ValueError, match="`model` must be compressed"):
        compression.keep_mask(model)
    for wrong in ([], {0: "mask"}):
        with pytest.raises(ValueError, match="`compression` must be what"):
            compression.keep_mask(model, wrong)
    record = compression.ReplacedKernel(np.ones((2, 2), bool))
    for index in (0, 99):
        with pytest.raises(ValueError, match="`compression` must be one of 'net'"):
            compression.save_compressed(model, path, compression={index: record})
    compressed = compression.compress(model, ["head"])
    for arguments, match in [
        ({"values": "int4"}, "`values`"),
        ({"index": "csr"}, "`index`"),
    ]:
        with pytest.raises(ValueError, match=match):
            compression.save_compressed(compressed, path, **arguments)
    with pytest.raises(ValueError, match="must end in .safetensors"):
        compression.save_compressed(compressed, path.with_suffix(".keras"))
    compressed.get_layer("head").kernel.constraint = keras.constraints.NonNeg()
    with pytest.raises(ValueError, match="NonNeg"):
        compression.keep_mask(compressed)
    large = compression.compress(model, ["head"])
    kernel = np.array(large.get_layer("head").kernel)
    kernel[compression.compression_of(large)[6].kept] = 1e5
    large.get_layer("head").kernel.assign(kernel)
    with pytest.raises(ValueError, match="too large for float16"):
        compression.save_compressed(large, path)
    with pytest.raises(ValueError, match="`model` must be built"):
        compression.save_compressed(keras.Sequential([keras.layers.Dense(2)]), path)
    code = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x)])
    with pytest.raises(ValueError, match="Python lambda"):
        compression.save_compressed(code, path)
    assert not path.exists()


def test_a_kernel_of_zeros_alone_is_no_mask_and_trains(tmp_path, rng):
    """Such as an adapter's, which begins at zero; before saving and after."""
    inputs = keras.Input((20,))
    adapter = keras.layers.Dense(20, kernel_initializer="zeros", name="adapter")
    tensor = keras.layers.Add()([inputs, adapter(inputs)])
    model = keras.Model(inputs, keras.layers.Dense(10, name="head")(tensor))
    model = compression.compress(model, ["head"], replacement="zero")
    path = tmp_path / "model.safetensors"
    compression.save_compressed(model, path)
    x, y = rng.normal(size=(32, 20)), rng.normal(size=(32, 10))
    for trained in (model, compression.load_compressed(path)):
        frozen = trained.get_layer("head").get_weights()[0] == 0
        compression.keep_mask(trained)
        trained.compile("adam", "mse")
        trained.fit(x, y, verbose=0)
        assert np.any(trained.get_layer("adapter").get_weights()[0])
        assert not trained.get_layer("head").get_weights()[0][frozen].any()
        compression.save_compressed(trained, path)
