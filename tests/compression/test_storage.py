"""Compressed checkpoints: there and back, their sizes, and hostile files."""

import concurrent.futures
import hashlib
import json
import math
import zlib

import keras
import numpy as np
import pytest
import safetensors.numpy
from safetensors import safe_open

from keras_spectral import compression, zoo
from keras_spectral.compression import coding, reading
from keras_spectral.layers import SpectralNormalization


@pytest.fixture
def model(rng):
    model = keras.Sequential(
        [
            keras.Input((60,)),
            keras.layers.Dense(50, activation="relu", name="hidden"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dropout(0.1, name="drop"),
            keras.layers.Dense(10, name="head"),
        ],
        name="net",
    )
    model.set_weights([rng.laplace(size=w.shape) ** 2 for w in model.weights])
    return model


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def equal(model, other):
    for one, two in zip(model.get_weights(), other.get_weights(), strict=True):
        assert one.dtype == two.dtype
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("index", ["auto", "bitmap", "delta"])
@pytest.mark.parametrize("rule", ["magnitude", "signed"])
@pytest.mark.parametrize("replacement", ["gaussian", "matched", "zero"])
def test_float32_comes_back_bit_for_bit(model, path, rule, replacement, index):
    compressed = compression.apply(
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
    compressed = compression.apply(model, ["hidden"], replacement="matched", seed=4)
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
    rows = compression.save_compressed(compression.apply(model), path)
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
    compressed = compression.apply(model, ["shared", "half"])
    rows = compression.save_compressed(compressed, path, values="float32")
    assert [row.stored for row in rows if row.kept] == [
        "bitmap, float32", "bitmap, float16",
    ]  # fmt: skip
    loaded = compression.load_compressed(path)
    equal(loaded, compressed)
    x = rng.standard_normal((2, 8, 8, 3)).astype("float32")
    np.testing.assert_array_equal(loaded(x), compressed(x))
    # Wrapped layers with integer state, and a graph with additions.
    wrapped = zoo.cifar_resnet(8, 10, normalize=SpectralNormalization)
    compression.save_compressed(wrapped, path)
    equal(compression.load_compressed(path), wrapped)


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
    compressed = compression.apply(model, ["hidden", "head"], replacement=replacement)
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
    compressed = compression.apply(model, ["hidden"], replacement="zero")
    compile_and_fit(compressed)
    with pytest.raises(ValueError, match="have changed since it was compressed"):
        compression.save_compressed(compressed, path)
    assert not path.exists()
    compressed = compression.apply(model, ["hidden"], replacement="zero")
    compressed.compile("adam", "mse")
    x, y = np.ones((8, 60), "float32"), np.ones((8, 10))
    compressed.train_on_batch(x, y)
    pruned = compression.apply(model, ["hidden"], replacement="zero")
    compressed.set_weights(pruned.get_weights())
    compression.keep_mask(compressed)
    compressed.train_on_batch(x, y)
    compression.save_compressed(compressed, path)


def test_keras_files_hold_no_constraint_and_masks_can_be_handed_on(
    model, path, tmp_path
):
    compressed = compression.apply(model, ["hidden"], replacement="matched")
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
    compressed = compression.apply(model, ["head"])
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
    large = compression.apply(model, ["head"])
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


SAVED = []


@pytest.fixture
def saved(model, path):
    if not SAVED:  # One model for all of the tests, for time.
        compressed = compression.apply(model, ["hidden", "head"])
        compression.save_compressed(compressed, path, index="bitmap")
        SAVED.append(path.read_bytes())
    path.write_bytes(SAVED[0])
    return path


def refused(path, match="", **arguments):
    with pytest.raises(ValueError, match="`path` must be a compressed") as error:
        compression.load_compressed(path, **arguments)
    assert match in str(error.value)


def test_every_damaged_byte_is_found(saved):
    good = saved.read_bytes()
    start = 8 + int.from_bytes(good[:8], "little")
    rng = np.random.default_rng(0)
    # Spaces may pad the header: other blanks there change nothing.
    padding = start - len(good[:start].rstrip())
    header = rng.integers(0, start - padding, 60)
    for place in [*range(8), *header, *rng.integers(start, len(good), 60)]:
        data = bytearray(good)
        data[place] ^= 1 << int(rng.integers(8))
        saved.write_bytes(data)
        refused(saved)
    for length in [0, 3, 8, 100, start, *rng.integers(0, len(good), 9)]:
        saved.write_bytes(good[:length])
        refused(saved, "cut off")
    saved.write_bytes(good + b"\0")
    refused(saved, "cut off, damaged")


def test_foreign_files(tmp_path, model):
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file({"a": np.ones(3)}, path, {"format": "pt"})
    refused(path, "a safetensors file of something else")
    model.save(tmp_path / "model.keras")
    path.write_bytes((tmp_path / "model.keras").read_bytes())
    refused(path, "no safetensors file")
    path.write_bytes(b"\x80\x04\x95" + bytes(90))
    refused(path, "no safetensors file")
    with pytest.raises(FileNotFoundError):
        compression.load_compressed(tmp_path / "none.safetensors")


def forge(path, change, tensors=None):
    """Rewrite a file's description and tensors, with a right checksum over it."""
    with safe_open(path, "np") as file:
        metadata = file.metadata()
        arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    content = json.loads(zlib.decompress(arrays[reading.DESCRIPTION].tobytes()))
    change(content)
    arrays.update(tensors or {})
    packed = zlib.compress(json.dumps(content).encode())
    head = json.loads(metadata[reading.METADATA])
    head["sha256"] = hashlib.sha256(packed).hexdigest()
    arrays[reading.DESCRIPTION] = np.frombuffer(packed, "uint8")
    arrays = {key: array for key, array in arrays.items() if array is not None}
    safetensors.numpy.save_file(arrays, path, {reading.METADATA: json.dumps(head)})


def weight(number, **values):
    return lambda content: content["weights"][number].update(values)


def coded(number, **values):
    return lambda content: content["weights"][number]["coded"].update(values)


def units(content, number):
    for layer in content["config"]["config"]["layers"]:
        if layer["config"]["name"] == "head":
            layer["config"]["units"] = number


@pytest.mark.parametrize(
    "change, match",
    [
        (weight(0, shape=[10**9, 10**9]), "unpack to"),
        (weight(0, shape=[10**30, 0]), "strange `count`"),
        (weight(1, shape=[10**30, 0]), "described as F32"),
        (weight(0, shape=[-1, 3]), "strange `shape`"),
        (weight(0, shape=[1.5]), "strange `shape`"),
        (weight(0, shape=[60, 51]), "in place of"),
        (weight(0, dtype="float8"), "strange `dtype`"),
        (weight(0, dtype="int8"), "strange `dtype`"),
        (weight(1, dtype="float64"), "described as F64"),
        (weight(1, shape=[51]), "described as F32 [51]"),
        (weight(0, sha256="0"), "checksum differs"),
        (weight(1, sha256="0"), "checksum differs"),
        (weight(0, extra=1), "other fields"),
        (weight(0, coded=[]), "strange `coded`"),
        (weight(0, path="elsewhere"), "not those it describes"),
        (coded(0, count=1), "described as F16 [1]"),
        (coded(0, count=10**9), "strange `count`"),
        (coded(0, count=True), "strange `count`"),
        (coded(0, values="float32"), "described as F32"),
        (coded(0, values="pickle"), "strange `values`"),
        (coded(0, index="delta"), "its index"),
        (coded(0, index="csr"), "strange `index`"),
        (coded(0, seed=[1]), "noise comes out differently"),
        (coded(0, seed=[-1]), "strange `seed`"),
        (coded(0, seed=[1] * 99), "strange `seed`"),
        (coded(0, mean=0.5), "checksum differs"),
        (coded(0, mean=10**400), "strange `mean`"),
        (coded(0, mean=math.inf), "strange `mean`"),
        (coded(0, deviation=-1.0), "strange `count` or `deviation`"),
        (coded(0, replacement="zero"), "checksum differs"),
        (coded(0, rule="small"), "strange `rule`"),
        (lambda content: content["weights"].pop(), "not those it describes"),
        (lambda content: content.pop("config"), "other fields"),
        (lambda content: content.update(config={}), "no built model"),
        (lambda content: content.update(config={"a": 1}), "no built model"),
        (lambda content: units(content, 10**11), "in place of"),
        (lambda content: units(content, 11), "in place of"),
        (lambda content: units(content, "x"), "cannot build"),
        (
            lambda content: content["config"].update(class_name="PickleModel"),
            "cannot build",
        ),
    ],
)
def test_forged_descriptions(saved, change, match):
    """Before memory is taken, and by a reason that names what is wrong."""
    forge(saved, change)
    refused(saved, match)


def test_forged_indices(saved):
    size = 3000
    with safe_open(saved, "np") as file:
        keys = list(file.keys())
        kernel = next(k for k in keys if k.startswith("0.") and k.endswith(".index"))
        count = file.get_slice(kernel.replace(".index", ".values")).get_shape()[0]
    good = saved.read_bytes()
    fewer = coding.encode_index(np.arange(size) < count - 1, "bitmap")[1]
    moved = coding.encode_index(np.arange(size) < count, "bitmap")[1]
    longer = coding.encode_index(np.arange(size + 8) < count, "bitmap")[1]
    bomb = np.frombuffer(zlib.compress(bytes(10**7)), "uint8")
    for packed, match in [
        (fewer, f"names {count - 1:,} entries instead of {count:,}"),
        (moved, "checksum differs"),
        (longer, "wrong length"),
        (bomb, "wrong length"),
        (np.zeros(5, "uint8"), "cannot be inflated"),
        (np.zeros((5, 5), "uint8"), "described as U8"),
        (None, "not those it describes"),
    ]:
        saved.write_bytes(good)
        forge(saved, lambda content: None, {kernel: packed})
        refused(saved, match)
    saved.write_bytes(good)
    forge(saved, lambda content: None, {"more": np.ones(3)})
    refused(saved, "not those it describes (`more`)")


def test_code_in_a_config_is_refused_even_where_keras_would_run_it(saved):
    code = {"class_name": "__lambda__", "config": {"value": "4wEAAA=="}}
    layer = {
        "module": "keras.layers", "class_name": "Lambda", "registered_name": None,
        "config": {"name": "run", "function": code},
    }  # fmt: skip
    forge(saved, lambda content: content["config"]["config"]["layers"].append(layer))
    refused(saved, "it holds the code of a Python lambda")

    def unsafe():
        keras.config.enable_unsafe_deserialization()
        refused(saved, "it holds the code of a Python lambda")

    # Keras has no way to undo this, but it holds for one thread only.
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        thread.submit(unsafe).result()


def test_limits_and_versions(saved):
    assert compression.load_compressed(saved, memory_limit=10**6).built
    refused(saved, "raise `memory_limit`", memory_limit=1000)
    with pytest.raises(ValueError, match="`memory_limit` must be an integer"):
        compression.load_compressed(saved, memory_limit=-1)
    data = saved.read_bytes()
    newer = data.replace(b'\\"version\\": 1', b'\\"version\\": 2')
    assert newer != data
    saved.write_bytes(newer)
    refused(saved, "version 2")


def test_a_kernel_of_zeros_alone_is_no_mask_and_trains(tmp_path, rng):
    """Such as an adapter's, which begins at zero; before saving and after."""
    inputs = keras.Input((20,))
    adapter = keras.layers.Dense(20, kernel_initializer="zeros", name="adapter")
    tensor = keras.layers.Add()([inputs, adapter(inputs)])
    model = keras.Model(inputs, keras.layers.Dense(10, name="head")(tensor))
    model = compression.apply(model, ["head"], replacement="zero")
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
