"""All layers of the Inception network, its file, and what would go unseen."""

import keras
import numpy as np
import pytest
import torch
from keras import layers

from keras_spectral import convert, zoo
from keras_spectral.gan import metrics
from keras_spectral.gan.metrics import features as features_module
from tests.gan.inception_state import IMAGES, state

# First three numbers of each image, and the sum of all: pytorch-fid's, in float64.
VECTORS = {
    "64": ((0.0919500, 2.0596025, 0), (0.0669077, 2.1210458, 0), 69.5059),
    "192": (
        (1.5571737, 0.0152902, 0.8094687),
        (1.7805301, 0.0135142, 0.7621282),
        312.6573,
    ),
    "768": (
        (4.878164, 0.3884438, 10.905467),
        (4.940150, 0.3994217, 10.948119),
        5128.586,
    ),
    "2048": ((18.967615, 0.0476458, 0), (18.440256, 0.0567979, 0), 23148.92),
    "logits_unbiased": (
        (-5.677569, -1.556324, -6.776163),
        (-5.524997, -2.450612, -6.776614),
        -847.519,
    ),
    "logits": (
        (-5.708039, -1.737129, -6.776077),
        (-5.555467, -2.631417, -6.776529),
        -845.680,
    ),
}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save({key: torch.tensor(value) for key, value in state().items()}, path)
    return path


@pytest.fixture(scope="module")
def model(file):
    return convert.from_torch(file, zoo.fid_inception(), verify=False)


def test_the_images_and_the_network_are_those_of_the_vector(model):
    assert IMAGES.astype(int).sum(axis=(1, 2, 3)).tolist() == [396_133, 392_704]
    trainable = sum(np.prod(w.shape) for w in model.trainable_weights)
    statistics = sum(np.prod(w.shape) for w in model.non_trainable_weights)
    assert (trainable, statistics) == (23_850_960, 34_432)
    assert trainable - 1008 * 2049 == 21_785_568
    assert len(state()) == 566


def test_every_layer_is_pytorch_fids(model):
    # One run for all: what `inception` takes of each layer is the next test's.
    taken = features_module._INCEPTION_LAYERS
    names = list(dict.fromkeys(taken.values()))
    network = keras.Model(
        model.inputs, [model.get_layer(name).output for name in names]
    )
    inputs = (metrics.resized(IMAGES, (299, 299), "tensorflow1") - 128) / 128
    outputs = dict(zip(names, map(np.asarray, network([inputs])), strict=True))
    for layer, (first, second, total) in VECTORS.items():
        found = outputs[taken[layer]]
        found = found.mean(axis=(1, 2)) if found.ndim == 4 else found
        if layer == "logits_unbiased":
            found = found @ np.asarray(model.get_layer("fc").kernel)
        np.testing.assert_allclose(
            found[:, :3], [first, second], rtol=1e-5, atol=1e-6, err_msg=layer
        )
        # Its last printed digit, and rounding in float32 of terms of both signs.
        tolerance = 1e-6 * np.abs(found).sum() + 0.5 * 10.0 ** -(
            7 - len(str(int(abs(total))))
        )
        assert abs(found.sum(dtype="float64") - total) <= tolerance, layer


def test_layers_by_their_names(model, file):
    early = metrics.inception(model, layer="64", batch_size=2)
    first, second, _ = VECTORS["64"]
    np.testing.assert_allclose(
        early(IMAGES)[:, :3], [first, second], rtol=1e-5, atol=1e-6
    )
    unbiased = metrics.inception(model, layer="logits_unbiased", batch_size=2)
    first, second, _ = VECTORS["logits_unbiased"]
    np.testing.assert_allclose(unbiased(IMAGES)[:, :3], [first, second], rtol=1e-5)
    assert unbiased.name == "Inception of unknown weights, logits_unbiased, TF1 resize"
    # Whoever has other weights has no FID, whatever the file is called.
    other = metrics.inception(model, file)
    assert (other.name, other.is_fid) == (
        "Inception of unknown weights, TF1 resize",
        False,
    )
    with pytest.raises(ValueError, match="`layer` must be one of"):
        metrics.inception(model, layer="1024")


def test_the_published_file_gives_the_name(model, file, monkeypatch):
    monkeypatch.setattr(features_module, "_WEIGHTS", features_module._sha256(file)[:8])
    named = metrics.inception(model, file, resize="clean")
    assert (named.name, named.is_fid) == ("Inception 2015-12-05, clean resize", True)


class CountingPool(layers.AveragePooling2D):
    """An average over padding too, as torch.nn.AvgPool2d has it."""

    def call(self, x):
        x = keras.ops.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
        return keras.ops.average_pool(x, 3, 1, "valid")


@pytest.mark.parametrize("mistake", ["average in 7c", "padding counts"])
def test_mistakes_would_be_seen(model, mistake):
    """Only the last blocks: the rest of the network is the same."""

    def changed(layer):
        if mistake == "average in 7c" and layer.name == "Mixed_7c-branch_pool-pool":
            return layers.AveragePooling2D(3, 1, "same", name=layer.name)
        if mistake == "padding counts" and isinstance(layer, layers.AveragePooling2D):
            return CountingPool(3, 1, "same", name=layer.name)
        return layer.__class__.from_config(layer.get_config())

    start, end = model.get_layer("Mixed_7a").output, model.get_layer("pool").output
    tail = keras.Model(start, end)
    wrong = keras.models.clone_model(tail, clone_function=changed)
    wrong.set_weights(tail.get_weights())
    x = np.maximum(np.random.default_rng(0).normal(size=(1, 8, 8, 1280)), 0)
    right = np.asarray(tail(x))
    assert np.abs(np.asarray(wrong(x)) - right).max() > 1e-2 * np.abs(right).max()
