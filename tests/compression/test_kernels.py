"""Which kernels are compressed: one `where`, and every kind of layer."""

import keras
import numpy as np
import pytest

import keras_spectral
from keras_spectral import compression, convert, zoo
from keras_spectral.layers import SpectralNormalization, SVDDense
from tests.layers import kinds


@pytest.fixture
def model():
    return keras.Sequential(
        [
            keras.Input((30,)),
            keras.layers.Dense(20, name="hidden"),
            keras.layers.Dense(10, name="head"),
        ],
        name="net",
    )


def test_names_are_checked_before_anything_is_evaluated(model):
    def evaluate(model):
        raise AssertionError("evaluated")

    for where, match in [
        (["haed"], "`where` must name .* Did you mean head"),
        (["head/kernel"], "Did you mean head"),
        ("head", "`where` must be a list"),
        ("all", "or None for all"),
        ([], "`where` must be a list"),
        (lambda weight: False, "`where` must choose at least one"),
    ]:
        with pytest.raises(ValueError, match=match):
            compression.compare_replacements(model, where, evaluate=evaluate)
        with pytest.raises(ValueError, match=match):
            compression.compress(model, where)
    for arguments in (
        {"trials": 1},
        {"trials": True},
        {"seed": -1},
        {"rules": ("small",)},
        {"replacements": ("noise",)},
    ):
        with pytest.raises(ValueError, match=f"`{next(iter(arguments))}`"):
            compression.compare_replacements(model, evaluate=evaluate, **arguments)


def test_wrapped_layers_are_refused_with_the_way_on(rng):
    wrapped = zoo.cifar_resnet(8, 10, normalize=SpectralNormalization)
    with pytest.raises(ValueError, match="keras_spectral.unwrap"):
        compression.compare_replacements(wrapped)
    # ... which works, and is what an export gives.
    plain = keras_spectral.unwrap(wrapped)
    x = rng.standard_normal((2, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(plain(x), wrapped(x), rtol=1e-4, atol=1e-5)
    rows = compression.compare_replacements(plain, ["output"], trials=2)
    assert len(rows) == 6
    other = convert.from_torch(convert.to_torch(wrapped), zoo.cifar_resnet(8, 10))
    np.testing.assert_array_equal(other(x), plain(x))


def test_layers_of_one_name_in_nested_models():
    def block(name):
        dense = keras.layers.Dense(9, name="a")
        return keras.Sequential([keras.Input((9,)), dense], name=name)

    first, last = block("first"), block("last")
    middle = keras.layers.Dense(9, name="b")
    model = keras.Sequential([keras.Input((9,)), first, middle, last])
    before = model.get_weights()
    with pytest.raises(ValueError, match="'a', the name of 2 layers"):
        compression.compare_replacements(model, ["a"], trials=2)
    # They can be told apart by what they are, although the copy has others.
    last = last.layers[0]
    after = compression.compress(
        model, lambda weight: weight.layer is last, replacement="zero"
    ).get_weights()
    same = [np.array_equal(old, new) for old, new in zip(before, after, strict=True)]
    assert same == [True, True, True, True, False, True]


def test_wrapped_and_factored_layers_are_left_out_if_asked():
    """By default they are refused, not passed over: most of a network may be so."""
    wrapped = SpectralNormalization(keras.layers.Conv2D(1, 1, name="conv"))
    layers = [keras.layers.Dense(8, name="dense"), wrapped, SVDDense(3, name="svd")]
    model = keras.Sequential([keras.Input((4, 4, 6)), *layers])
    for where in (None, ["conv"], lambda weight: weight.name != "conv"):
        with pytest.raises(ValueError, match="not weight.is_wrapped"):
            compression.compare_replacements(model, where, trials=2)

    def plain(weight):
        return not weight.is_wrapped

    rows = compression.compare_replacements(model, plain, trials=2)
    assert rows[0].name == "dense"
    assert [left.name for left in rows.left_out] == ["conv", "svd"]
    found = compression.compression_of(compression.compress(model, plain))
    assert list(found) == [0]


def test_kernels_that_cannot_be_replaced_are_refused(model):
    unbuilt = keras.Sequential([keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="`model` must be built"):
        compression.compare_replacements(unbuilt, trials=2)
    model.get_layer("hidden").enable_lora(2)
    model.get_layer("head").quantize("int8")
    before = model.get_weights()
    for name, match in [("hidden", "LoRA"), ("head", "int8 kernel")]:
        with pytest.raises(ValueError, match=match):
            compression.compare_replacements(
                model, [name], trials=2, evaluate=lambda model: 0.5
            )
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    with pytest.raises(ValueError, match="head .Dense.: int8 kernel; hidden .Dense.:"):
        compression.compare_replacements(model)


def test_quantized_kernels_inside_of_attention(rng):
    inputs = keras.Input((5, 6))
    attention = keras.layers.MultiHeadAttention(2, 3, name="mha")
    head = keras.layers.Dense(4, name="head")
    model = keras.Model(inputs, head(attention(inputs, inputs)))
    attention.query_dense.quantize("int8")
    attention.key_dense.enable_lora(2)
    for name, match in [("query", "int8 kernel"), ("key", "LoRA")]:
        with pytest.raises(ValueError, match=f"mha/{name} .*{match}"):
            compression.compress(model, [f"mha/{name}"])
    rows = compression.compare_replacements(model, trials=2)
    assert rows[0].name == "mha/value, mha/output, head"
    assert [left.name for left in rows.left_out] == ["mha/query", "mha/key"]
    assert "Left out: mha/query (MultiHeadAttention): int8 kernel" in rows.caption
    assert (
        "Left out"
        not in compression.compare_replacements(model, ["head"], trials=2).caption
    )


def test_masked_layers_are_refused():
    model = zoo.build("xdensenet40_2_k24_bc_cifar10")
    name = "features-stage1-unit1-conv1-conv"
    with pytest.raises(ValueError, match="sparse already"):
        compression.compress(model, [name])
    with pytest.raises(ValueError, match="scales channels"):
        compression.compress(model, ["features-stage1-unit1-conv1-bn"])
    found = compression.compression_of(compression.compress(model))
    layer = model.get_layer(name)
    places = [place for place, w in enumerate(model.weights) if w is layer.kernel]
    assert len(places) == 1 and places[0] not in found and len(found) > 1
    with pytest.raises(ValueError, match="`deviations`"):
        compression.compress_matrix(np.ones(3), deviations=0)


def test_all_layers_at_once():
    model = zoo.build("resnet20_cifar10")
    copy = compression.compress(model, replacement="zero")
    frozen = compression.compression_of(copy)
    assert len(frozen) == 22
    for index, record in frozen.items():
        weights = keras.ops.convert_to_numpy(copy.weights[index])
        np.testing.assert_array_equal(weights != 0, record.kept)
    rows = compression.compare_replacements(
        model, rules=["magnitude"], replacements=["zero"]
    )
    assert rows[0].name == "features-init_block-conv ... output (22 kernels)"
    assert "21 BatchNormalization: scales channels" in rows.caption
    kept = sum(record.kept.sum() for record in frozen.values())
    total = sum(record.kept.size for record in frozen.values())
    assert rows[0].kept == kept / total
    with pytest.raises(ValueError, match="with no weights"):
        compression.compress(keras.Sequential([keras.Input((3,))]))


def test_a_layer_by_itself_and_in_time_is_compressed_once():
    dense = keras.layers.Dense(6, name="dense")
    inputs = keras.Input((3, 6))
    flat = keras.layers.Flatten()(keras.layers.TimeDistributed(dense)(inputs))
    outputs = dense(keras.layers.Dense(6, name="first")(flat))
    model = keras.Model(inputs, outputs)
    row = compression.compare_replacements(
        model, rules=["magnitude"], replacements=["zero"]
    )[0]
    kernels = [model.get_layer(name).kernel.numpy() for name in ("dense", "first")]
    kept = [np.abs(w) > w.astype("float64").std() for w in kernels]
    assert row.kept == sum(k.sum() for k in kept) / sum(k.size for k in kept)


def attention_network():
    inputs = keras.Input((3, 6))
    layer = kinds.attention(name="layer")
    return keras.Model(inputs, layer(inputs, inputs)), kinds.images(3, 6)


def network(kind):
    """A model of one layer called "layer", with biases that are no kernels."""
    if kind == "attention":
        return attention_network()
    make, x = kinds.KINDS[kind]
    model = keras.Sequential([keras.Input(x.shape[1:]), make(name="layer")])
    return model, x


def kernels(model):
    """The places of the variables that Keras itself calls kernels."""
    names = ("kernel", "embeddings")
    return [
        place
        for place, weight in enumerate(model.weights)
        if weight.name.endswith(names)
    ]


@pytest.mark.parametrize("kind", [*kinds.KINDS, "attention"])
def test_every_kind_of_layer_there_and_back(kind, rng, path, tmp_path):
    model, x = network(kind)
    before = [rng.laplace(size=w.shape).astype("float32") for w in model.weights]
    model.set_weights(before)
    copy = compression.compress(model, ["layer"], replacement="zero")
    places, after = kernels(model), copy.get_weights()
    for place, (old, new) in enumerate(zip(before, after, strict=True)):
        small = np.abs(old) <= old.std(dtype="float64")
        assert 0.5 < small.mean() < 0.95 or place not in places
        expected = np.where(small, 0, old) if place in places else old
        np.testing.assert_array_equal(new, expected)
    found = compression.compression_of(copy)
    assert list(found) == places
    for loaded in (
        saved_compressed(copy, path),
        saved_by_keras(copy, tmp_path / "model.keras"),
    ):
        for old, new in zip(after, loaded.get_weights(), strict=True):
            np.testing.assert_array_equal(new, old)
        expected = kinds.numpy(copy(x))
        np.testing.assert_allclose(kinds.numpy(loaded(x)), expected, atol=1e-5)
        compression.keep_mask(loaded, found)


def saved_compressed(model, path):
    rows = compression.save_compressed(model, path, values="float32")
    kept = [record.kept.mean() for record in compression.compression_of(model).values()]
    assert [row.kept for row in rows if row.kept] == kept
    loaded = compression.load_compressed(path)
    assert list(compression.compression_of(loaded)) == kernels(model)
    return loaded


def saved_by_keras(model, path):
    model.save(path)
    return keras.models.load_model(path)


@pytest.mark.parametrize("kind", ["lstm", "bidirectional", "separable conv2d"])
def test_noise_and_fine_tuning_of_several_kernels(kind, rng, path):
    model, x = network(kind)
    copy = compression.compress(model, replacement="matched", seed=7)
    before, masks = copy.get_weights(), compression.compression_of(copy)
    # Each kernel has noise of its own.
    assert len({record.key for record in masks.values()}) == len(masks) > 1
    compression.keep_mask(copy)
    copy.compile(keras.optimizers.SGD(0.5), "mse")
    copy.fit(x, rng.standard_normal(copy(x).shape), verbose=0)
    loaded = saved_compressed(copy, path)
    for place, record in masks.items():
        new = loaded.get_weights()[place]
        np.testing.assert_array_equal(new[~record.kept], before[place][~record.kept])
        assert (new[record.kept] != before[place][record.kept]).any()


def test_one_kernel_of_several():
    model, _ = network("attention")
    copy = compression.compress(model, ["layer/value"], replacement="zero")
    changed = [
        weight.path
        for weight, old in zip(copy.weights, model.get_weights(), strict=True)
        if not np.array_equal(weight, old)
    ]
    assert len(changed) == 1 and changed[0].endswith("value/kernel")
    for where in (["layer/values"], ["layer/value", "layr"]):
        with pytest.raises(ValueError, match="Did you mean layer"):
            compression.compress(model, where)
