"""Every family against pytorchcv, in float64, with weights that hide no mistake."""

import functools
import re

import keras
import numpy as np
import pytest
import torch
from pytorchcv.model_provider import get_model
from pytorchcv.models.preresnet_cifar import get_preresnet_cifar
from pytorchcv.models.seresnet_cifar import get_seresnet_cifar

from keras_spectral import convert, zoo
from keras_spectral.convert.rules import slots
from keras_spectral.layers import SpectralNormalization
from keras_spectral.models.weights import leaf_layers
from tests.convert.reference import (
    random_network,
    randomized,
    relative_error,
    torch_logits,
)
from tests.zoo.papers import PARAMETERS

# The smallest registered network of each family and kind of unit.
FAMILIES = (
    "resnet20_cifar10",
    "preresnet20_cifar100",
    "seresnet20_svhn",
    "sepreresnet20_cifar10",
    "densenet40_k12_cifar10",
    "densenet40_k12_bc_cifar10",
    "xdensenet40_2_k24_bc_cifar10",
)
# Too many layers for every test. Other units of three convolutions are compared in a
# shallow network, and `pyramidnet110` is one of the 43.
LARGE_FAMILIES = ("resnet164bn_cifar10", "sepreresnet164bn_svhn",
                  "pyramidnet164_a270_bn_cifar10", "wrn16_10_cifar100")  # fmt: skip
SHALLOW_BOTTLENECKS = {
    get_preresnet_cifar: functools.partial(zoo.cifar_preresnet, 20, bottleneck=True),
    get_seresnet_cifar: functools.partial(
        zoo.cifar_resnet, 20, bottleneck=True, squeeze_excitation=True
    ),
}
ENTRIES = {name: zoo.entry(name) for name in zoo.list_models()}
FROM_PYTORCHCV = [n for n, e in ENTRIES.items() if "pytorchcv" in e["source"]]


def architecture(name):
    """What makes a network, but for the number of its outputs."""
    config = {k: v for k, v in ENTRIES[name]["config"].items() if k != "classes"}
    return ENTRIES[name]["builder"], str(sorted(config.items()))


# One name an architecture, one of the 43 if there is one: data sets differ in nothing
# else, and the number of classes in the last layer only.
DISTINCT = {
    architecture(name): name
    for name in sorted(ENTRIES, key=lambda name: name in PARAMETERS)
}


def count(weights):
    return int(sum(np.prod(w.shape) for w in weights))


def test_the_43_names_of_the_paper_are_registered():
    assert len(PARAMETERS) == 43
    assert zoo.heavy_tail_models() == list(PARAMETERS)
    assert {name: ENTRIES[name]["parameters"] for name in PARAMETERS} == PARAMETERS


@pytest.mark.parametrize("name", FROM_PYTORCHCV)
def test_the_registry_counts_what_pytorchcv_has(name):
    with torch.device("meta"):
        network = get_model(name)
    entry = ENTRIES[name]
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    statistics = sum(b.numel() for k, b in network.named_buffers() if "running" in k)
    everything = sum(p.numel() for p in network.parameters()) + statistics
    assert entry["parameters"] == trained
    assert entry["batch_normalization_statistics"] == statistics
    assert entry["total_parameters"] == everything
    assert entry["head_shape"] == list(network.output.weight.shape)


def check_counts_and_keys(model, name):
    entry = ENTRIES[name]
    assert model.name == name
    assert count(model.trainable_weights) == entry["parameters"]
    assert count(model.weights) == entry["total_parameters"]
    last = model.layers[-1]
    if isinstance(last, keras.layers.Dense):
        assert entry["head_shape"] == list(reversed(last.kernel.shape))
    else:
        assert entry["head_shape"] is None
    if name in FROM_PYTORCHCV:
        with torch.device("meta"):
            theirs = get_model(name).state_dict()
        theirs = {k: v for k, v in theirs.items() if "num_batches" not in k}
        ours = {key: slot.torch_shape for key, slot in slots(model).items()}
        assert ours == {key: tuple(value.shape) for key, value in theirs.items()}


# The same network under the name of another data set is one network.
CONFIGS = {
    str(ENTRIES[n]["builder"]) + str(ENTRIES[n]["config"]): n for n in PARAMETERS
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS.values())
def test_all_43_agree_in_float64(name, float64, rng):
    network = random_network(name).double()
    model = convert.from_torch(network.state_dict(), name, verify=False)
    check_counts_and_keys(model, name)
    x = rng.standard_normal((1, 32, 32, 3))
    assert relative_error(model(x).numpy(), torch_logits(network, x)) <= 1e-10


# Of networks of more than 200 layers the deepest: each takes ten seconds or twenty.
TOO_DEEP = {n for n, e in ENTRIES.items() if e["config"].get("depth", 0) > 200}
TOO_DEEP -= {DISTINCT[architecture("resnet1202_svhn")]}
# Built in test_imagenet: half a gigabyte each.
LARGE = {n for n, e in ENTRIES.items() if e["builder"].startswith("imagenet")}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", sorted(set(DISTINCT.values()) - set(PARAMETERS) - TOO_DEEP - LARGE)
)
def test_every_other_registered_network_builds(name):
    check_counts_and_keys(zoo.build(name), name)


def test_a_network_is_as_deep_as_its_name_says():
    depths = {
        n: e["config"]["depth"] for n, e in ENTRIES.items() if "depth" in e["config"]
    }
    assert TOO_DEEP <= depths.keys()
    for name, depth in depths.items():
        assert depth == int(re.search(r"\d+", name).group()), name


@pytest.mark.parametrize(
    ("name", "size"),
    [
        *((name, size) for name in FAMILIES for size in (26, 33)),
        ("pyramidnet110_a48_svhn", 33),
    ],
)
def test_even_and_odd_images(name, size, float64, rng):
    network = random_network(name).double()
    # pytorchcv's pool of 8 pixels is a global one only for 32.
    network.features.final_pool = torch.nn.AdaptiveAvgPool2d(1)
    model = zoo.build(name, input_shape=(None, None, 3))
    convert.from_torch(network.state_dict(), model, verify=False)
    x = rng.standard_normal((2, size, size + 2, 3))
    assert relative_error(model(x).numpy(), torch_logits(network, x)) <= 1e-10


@pytest.mark.parametrize("theirs", SHALLOW_BOTTLENECKS)
def test_shallow_networks_of_three_convolutions_a_unit(theirs, float64, rng):
    network = randomized(theirs(num_classes=10, blocks=20, bottleneck=True)).double()
    model = SHALLOW_BOTTLENECKS[theirs](classes=10)
    convert.from_torch(network.state_dict(), model, verify=False)
    x = rng.standard_normal((1, 32, 32, 3))
    assert relative_error(model(x).numpy(), torch_logits(network, x)) <= 1e-10


@pytest.mark.parametrize("name", (*FAMILIES, *LARGE_FAMILIES))
def test_each_family_has_a_certificate_for_the_whole_network(name):
    network = random_network(name)
    model = convert.from_torch(network.state_dict(), name)
    certificate = convert.provenance(model)["verification"]
    assert certificate["scope"] == "network" and certificate["status"] == "passed"
    # Every layer with weights was reached, and the whole state comes back.
    assert certificate["layers"] == sum(bool(lay.weights) for lay in model.layers)
    back = convert.to_torch(model)
    assert back.keys() == network.state_dict().keys()
    for key, value in network.state_dict().items():
        np.testing.assert_array_equal(back[key], value.numpy())


def test_masks_and_masked_weights_both_survive():
    network = random_network("xdensenet40_2_k24_bc_svhn")
    model = convert.from_torch(network.state_dict(), "xdensenet40_2_k24_bc_svhn")
    state = {key: torch.tensor(value) for key, value in convert.to_torch(model).items()}
    other = get_model("xdensenet40_2_k24_bc_svhn")
    other.load_state_dict(state, strict=True)
    path = "features.stage1.unit1.conv1.conv"
    mask, weight = state[f"{path}.mask"], state[f"{path}.weight"]
    assert 0 < mask.mean() < 1
    assert weight[mask == 0].abs().min() > 0


@pytest.mark.parametrize("name", FAMILIES)
def test_every_kernel_is_normalized(name):
    model = zoo.build(name, normalize=functools.partial(SpectralNormalization, bound=2))
    kernels = [
        layer
        for layer in leaf_layers(model)
        if layer.weights and not isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert all(isinstance(layer, SpectralNormalization) for layer in kernels)
    assert len(kernels) == len(
        [k for k in slots(zoo.build(name)) if _is_kernel(k, name)]
    )
    assert model.get_layer("output").bound == 2


def _is_kernel(key, name):
    bare = key.endswith(("init_block.weight", "identity_conv.weight", "output.weight"))
    return key.endswith("weight") and ".bn." not in key or bare


@pytest.mark.parametrize("name", [*FAMILIES, "mnist_convnet_svd25", "alexnet_cifar100"])
def test_save_and_load(name, tmp_path, rng):
    model = zoo.build(name)
    x = rng.standard_normal((2, *model.input_shape[1:])).astype("float32")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))


@pytest.mark.slow
def test_a_network_too_deep_for_keras_recursion(tmp_path, rng):
    model = zoo.build("resnet272bn_cifar10")
    x = rng.standard_normal((1, 32, 32, 3)).astype("float32")
    convert.save_model(model, tmp_path / "deep.keras")
    loaded = convert.load_model(tmp_path / "deep.keras")
    np.testing.assert_array_equal(loaded(x), model(x))


SMALL = {
    "resnet": functools.partial(zoo.cifar_resnet, 6, squeeze_excitation=True,
                                filters=(16, 32)),
    "preresnet": functools.partial(zoo.cifar_preresnet, 5, bottleneck=True,
                                   filters=(16,)),
    "wrn": functools.partial(zoo.cifar_wrn, 10, 1),
    "xdensenet": functools.partial(zoo.cifar_densenet, 10, 4, bottleneck=True,
                                   expand_ratio=2),
    "pyramidnet": functools.partial(zoo.cifar_pyramidnet, 8, 9),
}  # fmt: skip


@pytest.mark.parametrize(
    ("family", "policy"),
    list(zip(SMALL, ["float32", "mixed_bfloat16"] * 2 + ["float32"], strict=True)),
)
def test_training_by_fit(family, policy, rng):
    """Compiled by XLA, which takes its time for a block of vectors: for one family."""
    method = "block" if family == "resnet" else "power_iteration"
    wrap = functools.partial(SpectralNormalization, method=method)
    keras.config.set_dtype_policy(policy)
    try:
        model = SMALL[family](classes=3, input_shape=(16, 16, 3), normalize=wrap)
    finally:
        keras.config.set_dtype_policy("float32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, jit_compile=True)
    x = rng.standard_normal((12, 16, 16, 3)).astype("float32")
    history = model.fit(x, np.arange(12) % 3, epochs=8, batch_size=12, verbose=0)
    losses = history.history["loss"]
    assert np.isfinite(losses).all() and losses[-1] < losses[0]


def test_the_stable_rank_papers_counts():
    counts = {
        name: ENTRIES[name]["parameters"]
        for name in (
            "densenet100_k12_bc_cifar100", "wrn28_10_cifar100",
            "wrn28_10_shortcut_bn_cifar100", "vgg19_bn_cifar100",
            "vgg19_bn_1000_cifar100", "alexnet_cifar100", "resnet110_cifar100",
        )
    }  # fmt: skip
    assert list(counts.values()) == [
        800_032, 36_536_884, 36_539_124, 20_086_692, 20_548_392, 2_495_396, 1_736_564,
    ]  # fmt: skip


def test_the_low_rank_papers_counts():
    names = zoo.list_models("mnist_convnet*")
    assert [ENTRIES[name]["parameters"] for name in names] == [
        33_580, 36_663, 26_837, 18_373, 8_547,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: zoo.cifar_resnet(21, 10), "`depth` must be 6n"),
        (lambda: zoo.cifar_resnet(26, 10, bottleneck=True), "`depth` must be 9n"),
        (lambda: zoo.cifar_resnet(20, 0), "`classes`"),
        (lambda: zoo.cifar_wrn(28, 0, 10), "`width`"),
        (lambda: zoo.cifar_wrn(27, 1, 10), r"`depth` must be 6n \+ 4"),
        (lambda: zoo.cifar_densenet(41, 12, 10), "`depth`"),
        (lambda: zoo.cifar_densenet(40, 0, 10), "`growth_rate`"),
        (lambda: zoo.cifar_pyramidnet(20, 0, 10), "`alpha`"),
        (lambda: zoo.cifar_preresnet(20, 10, shortcut_from="x"), "`shortcut_from`"),
        (lambda: zoo.cifar_vgg(17, 10), "`depth`"),
        (lambda: zoo.mnist_convnet(rank_ratio=0), "`rank_ratio`"),
    ],
)
def test_bad_arguments(call, match):
    with pytest.raises(ValueError, match=match):
        call()
