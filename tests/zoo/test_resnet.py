import functools
import json

import keras
import numpy as np
import pytest

from keras_spectral import convert, zoo
from keras_spectral.layers import SpectralNormalization
from keras_spectral.zoo import registry


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
    assert zoo.list_models("resnet*_svhn") == [
        f"resnet{depth}_svhn"
        for depth in ("20", "56", "110", "164bn", "272bn", "542bn", "1001", "1202")
    ]
    names = zoo.list_models()
    assert len(names) == len(set(names))
    for name in names:
        entry = zoo.entry(name)
        if entry["checkpoint"] is None:
            unknown = ("reference_metric", "sha256", "fingerprint", "licence", "parity")
            assert all(entry[key] is None for key in unknown)
            assert "not verified here" in entry["notes"]
    assert zoo.entry("resnet20_svhn")["input"]["mean"] is None


def test_names_in_the_registry_are_unique(monkeypatch, tmp_path):
    twice = {"defaults": {}, "models": [{"name": "a"}, {"name": "a"}]}
    (tmp_path / "registry.json").write_text(json.dumps(twice))
    monkeypatch.setattr(registry, "_DATA", tmp_path)
    registry._entries.cache_clear()
    try:
        with pytest.raises(ValueError, match="two entries.*'a'"):
            zoo.list_models()
    finally:
        registry._entries.cache_clear()


def test_the_bundled_entry_knows_its_weights():
    entry = zoo.entry("resnet20_digits")
    card = json.loads(zoo.checkpoint("resnet20_digits").card.read_text())
    state = convert.read_checkpoint(zoo.checkpoint("resnet20_digits").weights)
    assert entry["fingerprint"] == state.fingerprint()
    assert entry["recipe"] == card["command"]
    np.testing.assert_allclose(
        entry["reference_logits"], card["reference_logits"][:8], atol=6e-4
    )
