import hashlib
import json

import keras
import numpy as np
import pytest
import torch

from keras_spectral import convert, data, zoo
from keras_spectral.layers import SpectralNormalization
from tests.convert.reference import random_network, relative_error, torch_logits

# The criterion of parity in float32; the mutations below must fail it clearly.
CRITERION = 1e-4


@pytest.mark.parametrize("name", ["resnet20_cifar10", "resnet56_cifar100"])
def test_float32_parity_with_pytorchcv(name, rng):
    network = random_network(name)
    model = convert.from_torch(network.state_dict(), name)
    x = rng.standard_normal((4, 32, 32, 3)).astype("float32")
    assert relative_error(model(x).numpy(), torch_logits(network, x)) <= CRITERION


def test_float64_parity_with_pytorchcv(float64, rng):
    network = random_network("resnet20_cifar10").double()
    model = convert.from_torch(network.state_dict(), "resnet20_cifar10")
    x = rng.standard_normal((4, 32, 32, 3))
    assert relative_error(model(x).numpy(), torch_logits(network, x)) <= 1e-10


def swap(first, second):
    def mutate(state):
        return {
            key: state[key.replace(f".{first}", f".{second}")]
            if key.endswith(f"bn.{first}")
            else state[key.replace(f".{second}", f".{first}")]
            if key.endswith(f"bn.{second}")
            else value
            for key, value in state.items()
        }

    return mutate


def transposed(state):
    return {
        key: value.transpose(2, 3) if value.ndim == 4 else value
        for key, value in state.items()
    }


def flipped(state):
    return {
        key: value.flip(2, 3) if value.ndim == 4 else value
        for key, value in state.items()
    }


def channels_swapped(state):
    return {
        key: value.transpose(0, 1)
        if value.ndim == 4 and value.shape[0] == value.shape[1]
        else value
        for key, value in state.items()
    }


def statistics_left(state):
    return {
        key: torch.zeros_like(value)
        if key.endswith("running_mean")
        else torch.ones_like(value)
        if key.endswith("running_var")
        else value
        for key, value in state.items()
    }


@pytest.mark.parametrize(
    "mutate",
    [transposed, flipped, channels_swapped, swap("weight", "bias"), statistics_left],
    ids=["transposed", "flipped", "channels", "gamma and beta", "statistics"],
)
def test_the_criterion_catches_a_wrong_converter(mutate, rng):
    network = random_network("resnet20_cifar10")
    model = convert.from_torch(mutate(network.state_dict()), "resnet20_cifar10")
    x = rng.standard_normal((4, 32, 32, 3)).astype("float32")
    assert relative_error(model(x).numpy(), torch_logits(network, x)) > 10 * CRITERION


def keras_epsilon(model):
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.epsilon = 1e-3


def same_padding(model):
    # What `padding="same"` does to an even image before a stride of 2.
    for stage in (2, 3):
        name = f"features-stage{stage}-unit1-body-conv1-conv-pad"
        model.get_layer(name).padding = ((0, 1), (0, 1))


@pytest.mark.parametrize("mutate", [keras_epsilon, same_padding])
def test_the_criterion_catches_a_wrong_architecture(mutate, rng):
    network = random_network("resnet20_cifar10")
    model = convert.from_torch(network.state_dict(), "resnet20_cifar10")
    mutate(model)
    x = rng.standard_normal((4, 32, 32, 3)).astype("float32")
    assert relative_error(model(x).numpy(), torch_logits(network, x)) > 10 * CRITERION


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_round_trip_is_bit_exact_and_loads_strictly(suffix, tmp_path):
    network = random_network("resnet20_cifar10")
    source = tmp_path / f"source{suffix}"
    if suffix == ".pth":
        torch.save(network.state_dict(), source)
    else:
        from safetensors.torch import save_file

        save_file(network.state_dict(), source)
    model = convert.from_torch(source, "resnet20_cifar10")
    again = tmp_path / f"again{suffix}"
    returned = convert.to_torch(model, again)
    read = convert.read_checkpoint(again)
    original = {key: value.numpy() for key, value in network.state_dict().items()}
    assert original.keys() == read.keys() == returned.keys()
    for key, value in original.items():
        np.testing.assert_array_equal(read[key], value)
        assert read[key].dtype == value.dtype
    fresh = random_network("resnet20_cifar10", seed=1)
    state = {key: torch.tensor(value) for key, value in read.items()}
    fresh.load_state_dict(state, strict=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == [again.name, source.name]


def test_a_wrapped_model_takes_raw_kernels_and_gives_effective_ones(rng):
    network = random_network("resnet20_cifar10")
    model = convert.from_torch(
        network.state_dict(),
        zoo.build("resnet20_cifar10", normalize=SpectralNormalization),
    )
    head = model.get_layer("output")
    np.testing.assert_array_equal(
        head.kernel.numpy().T, network.output.weight.detach().numpy()
    )
    state = convert.to_torch(model)
    exported = {key: torch.tensor(value) for key, value in state.items()}
    network.load_state_dict(exported, strict=True)
    assert np.linalg.norm(state["output.weight"], 2) == pytest.approx(1, rel=0.05)
    x = rng.standard_normal((4, 32, 32, 3)).astype("float32")
    assert relative_error(model(x).numpy(), torch_logits(network, x)) <= 1e-4


def test_new_weights_in_a_trained_wrapper_get_new_singular_vectors(rng):
    wrapped = SpectralNormalization(keras.layers.Dense(32, name="fc"))
    model = keras.Sequential([keras.Input((64,)), wrapped])
    for _ in range(30):
        model(rng.standard_normal((2, 64)), training=True)
    kernel = rng.standard_normal((32, 64)).astype("float32")
    convert.from_torch({"fc.weight": kernel, "fc.bias": np.zeros(32)}, model)
    exported = convert.to_torch(model)["fc.weight"]
    # 15 power iterations find the norm from below.
    expected = kernel / np.linalg.norm(kernel, 2)
    assert relative_error(exported, expected) <= 0.05


def test_bfloat16_weights_leave_as_float32(tmp_path):
    layers = [keras.Input((3,)), keras.layers.Dense(2, name="fc", dtype="bfloat16")]
    model = keras.Sequential(layers)
    for suffix in (".pth", ".safetensors"):
        state = convert.to_torch(model, tmp_path / f"weights{suffix}")
        read = convert.read_checkpoint(tmp_path / f"weights{suffix}")
        for key, value in state.items():
            assert value.dtype == "float32"
            np.testing.assert_array_equal(read[key], value)


def test_the_bundled_checkpoint_is_what_its_card_says():
    weights, card_path = zoo.checkpoint("resnet20_digits")
    card = json.loads(card_path.read_text())
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert digest == card["sha256"] == zoo.entry("resnet20_digits")["sha256"]
    test = data.load("digits", image_size=32, channels=3).test
    x = test.inputs()
    split = hashlib.sha256(x.tobytes() + test.labels.tobytes())
    assert split.hexdigest() == card["split"]["test_sha256"]
    model = convert.from_torch(weights, "resnet20_digits")
    logits = model.predict(x, batch_size=64, verbose=0)
    reference = np.array(card["reference_logits"])
    assert relative_error(logits[: len(reference)], reference) <= 1e-4
    accuracy = np.mean(logits.argmax(-1) == test.labels)
    assert accuracy == card["test_accuracy"] >= 0.98
    # PyTorch itself, from the file.
    network = random_network("resnet20_cifar10")
    state = convert.read_checkpoint(weights)
    network.load_state_dict({k: torch.tensor(v) for k, v in state.items()})
    assert relative_error(torch_logits(network, x[:8]), reference) < 1e-4


def test_nested_models_and_a_bias(rng):
    inner = keras.Sequential(
        [keras.Input((8, 8, 2)), keras.layers.Conv2D(3, 3, name="body-conv")]
    )
    model = keras.Sequential(
        [inner, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2, name="fc")]
    )
    theirs = torch.nn.ModuleDict(
        {
            "body": torch.nn.ModuleDict({"conv": torch.nn.Conv2d(2, 3, 3)}),
            "fc": torch.nn.Linear(3, 2),
        }
    )
    convert.from_torch(theirs.state_dict(), model)
    x = rng.standard_normal((2, 8, 8, 2)).astype("float32")
    with torch.no_grad():
        hidden = theirs["body"]["conv"](torch.tensor(x.transpose(0, 3, 1, 2)))
        expected = theirs["fc"](hidden.mean((2, 3))).numpy()
    np.testing.assert_allclose(model(x), expected, atol=1e-5)
