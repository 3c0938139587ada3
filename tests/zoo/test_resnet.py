import functools

import keras
import numpy as np
import pytest

from keras_spectral import zoo
from keras_spectral.layers import SpectralNormalization

# Counted on pytorchcv 0.0.67: trainable parameters and batch norm statistics.
PYTORCHCV = {
    "resnet20_cifar10": (272_474, 1_568),
    "resnet56_cifar10": (855_770, 4_256),
    "resnet110_cifar10": (1_730_714, 8_288),
    "resnet20_cifar100": (278_324, 1_568),
    "resnet56_cifar100": (861_620, 4_256),
    "resnet110_cifar100": (1_736_564, 8_288),
    "resnet20_svhn": (272_474, 1_568),
    "resnet56_svhn": (855_770, 4_256),
    "resnet110_svhn": (1_730_714, 8_288),
    "resnet20_digits": (272_474, 1_568),
}


def count(weights):
    return int(sum(np.prod(w.shape) for w in weights))


@pytest.mark.parametrize("name", PYTORCHCV)
def test_parameter_counts(name):
    model = zoo.build(name)
    entry = zoo.entry(name)
    counts = count(model.trainable_weights), count(model.non_trainable_weights)
    assert counts == PYTORCHCV[name]
    assert counts == (entry["parameters"], entry["batch_normalization_statistics"])
    assert model.name == name


def test_layer_names_are_pytorchcvs_module_paths():
    from pytorchcv.model_provider import get_model

    theirs = {
        key.rsplit(".", 1)[0].replace(".", "-")
        for key in get_model("resnet20_cifar10").state_dict()
    }
    model = zoo.build("resnet20_cifar10")
    assert {layer.name for layer in model.layers if layer.weights} == theirs


def test_every_convolution_and_dense_is_normalized():
    model = zoo.build(
        "resnet20_cifar10", normalize=functools.partial(SpectralNormalization, bound=2)
    )
    kinds = [type(layer).__name__ for layer in model.layers if layer.weights]
    assert kinds.count("SpectralNormalization") == 22
    assert set(kinds) == {"SpectralNormalization", "BatchNormalization"}
    assert model.get_layer("output").bound == 2


def test_save_and_load(tmp_path, rng):
    model = zoo.cifar_resnet(8, classes=3, input_shape=(16, 16, 1))
    x = rng.standard_normal((2, 16, 16, 1)).astype("float32")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))


@pytest.mark.parametrize("depth", [7, 21, 2, 20.0])
def test_bad_depth(depth):
    with pytest.raises(ValueError, match="`depth`"):
        zoo.cifar_resnet(depth, 10)


def test_bad_classes():
    with pytest.raises(ValueError, match="`classes`"):
        zoo.cifar_resnet(20, 0)


def test_unknown_names_are_answered_with_the_nearest():
    for call in (zoo.build, zoo.entry, zoo.checkpoint):
        with pytest.raises(ValueError, match="resnet20_cifar10"):
            call("resnet20_cifar_10")
    with pytest.raises(ValueError, match="No weights are bundled"):
        zoo.checkpoint("resnet20_cifar10")


def test_registry_invents_nothing():
    assert zoo.list_models("resnet*_cifar100") == [
        f"resnet{depth}_cifar100" for depth in (20, 56, 110)
    ]
    names = zoo.list_models()
    assert set(names) == set(PYTORCHCV)
    assert len(names) == len(set(names))
    for name in names:
        entry = zoo.entry(name)
        if entry["checkpoint"] is None:
            assert entry["reference_metric"] is None and entry["sha256"] is None
            assert "not verified here" in entry["notes"]
    assert zoo.entry("resnet20_svhn")["input"]["mean"] is None
