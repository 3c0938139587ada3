"""An error names the file once, all that does not fit, and has its reason as data."""

import pickle

import keras
import numpy as np
import pytest
import torch

from keras_spectral import convert
from keras_spectral.convert import (
    CheckpointError,
    MismatchError,
    UnsafeCheckpointError,
)
from keras_spectral.experiments import analyze_checkpoint
from tests.convert.corpus import STATE


@pytest.fixture
def damaged(tmp_path):
    """A file whose tensor `b` is found to be damaged when it is read."""
    path = tmp_path / "w.npz"
    np.savez(path, a=np.eye(3), b=np.arange(10_000.0).reshape(100, 100))
    content, last = path.read_bytes(), np.float64(9999).tobytes()
    assert content.count(last) == 1
    path.write_bytes(content.replace(last, np.float64(1).tobytes()))
    return path


@pytest.mark.parametrize(
    "read",
    [
        lambda state: state["b"],
        lambda state: state.stored("b"),
        lambda state: state.count("b"),
        lambda state: state.fingerprint(),
    ],
)
def test_whatever_reads_a_damaged_tensor_says_which_and_where(damaged, read):
    state = convert.read_checkpoint(damaged)
    with pytest.raises(CheckpointError) as error:
        read(state)
    assert str(error.value) == f"{damaged} {error.value.reason}"
    assert error.value.reason.startswith("is damaged (Bad CRC-32")
    assert error.value.reason.endswith(", at `b`.")


def test_a_skipped_tensors_reason_is_without_the_file(damaged):
    reasons = analyze_checkpoint(damaged).skipped
    assert reasons["b"].startswith("is damaged") and reasons["b"].endswith("at `b`.")


def test_an_error_survives_another_process():
    error = pickle.loads(pickle.dumps(UnsafeCheckpointError("is odd", "w.pth")))
    assert (str(error), error.reason) == ("w.pth is odd", "is odd")
    assert isinstance(error, UnsafeCheckpointError)


@pytest.fixture
def model():
    layers = [keras.Input((3,)), keras.layers.Dense(2, name="fc")]
    model = keras.Sequential(layers)
    before = model.get_weights()
    yield model
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_one_error_lists_every_key_and_nothing_is_assigned(model):
    state = {"fc.weight": np.ones((3, 2)), "other": np.ones(1), "more.w": np.ones(1)}
    with pytest.raises(CheckpointError) as error:
        convert.from_torch(state, model)
    for part in (
        "1 keys are missing, 2 unused, 1 of another shape",
        "Missing: fc.bias.",
        "Unused: more.w, other.",
        "fc.weight (3, 2), not (2, 3)",
    ):
        assert part in str(error.value)
    state = {"fc.weight": np.ones((3, 2)), "fc.bias": np.ones(4)}
    with pytest.raises(CheckpointError) as error:
        convert.from_torch(state, model)
    for part in ("fc.weight (3, 2), not (2, 3)", "fc.bias (4,), not (2,)"):
        assert part in str(error.value)


def test_counters_are_accounted_for():
    layer = keras.layers.BatchNormalization(epsilon=1e-5, name="bn")
    model = keras.Sequential([keras.Input((4,)), layer])
    state = {f"bn.{k}": v for k, v in torch.nn.BatchNorm1d(4).state_dict().items()}
    key = "bn.num_batches_tracked"
    convert.from_torch({**state, key: torch.tensor([7])}, model)
    assert convert.to_torch(model)[key] == 7
    for bad in (torch.tensor([1, 2]), torch.tensor(float("nan"))):
        with pytest.raises(CheckpointError, match=f"`{key}` in .*one integer"):
            convert.from_torch({**state, key: bad}, model)
    # PyTorch would not load it strictly, and neither do we.
    with pytest.raises(CheckpointError, match="Unused: other.num_batches_tracked"):
        convert.from_torch({**state, "other.num_batches_tracked": state[key]}, model)


def test_a_long_list_is_whole(model):
    state = {f"layer{i:02}.w": np.ones(1) for i in range(25)}
    with pytest.raises(CheckpointError) as error:
        convert.from_torch(state, model)
    assert all(key in str(error.value) for key in state)
    state = {f"a.layer.of.a.long.name.{i:02}.w": np.ones(1) for i in range(99)}
    with pytest.raises(MismatchError) as error:
        convert.from_torch({**state, "fc.bias": np.ones(3)}, model)
    assert len(str(error.value)) < 1000 and "99 unused" in str(error.value)
    again = pickle.loads(pickle.dumps(error.value))
    found = again.missing, again.unused, again.misshaped
    assert found == (["fc.weight"], sorted(state), ["fc.bias"])


@pytest.mark.parametrize("state", [None, 3, {1: np.ones(2)}])
def test_a_source_that_is_no_state_dict(state, model):
    with pytest.raises(CheckpointError, match="must be a dict from string to tensor"):
        convert.from_torch(state, model)


def test_nan_in_a_state_dict_is_refused(model):
    state = {"fc.weight": np.full((2, 3), np.nan), "fc.bias": np.ones(2)}
    with pytest.raises(CheckpointError, match="6 NaN or infinite values of 6"):
        convert.from_torch(state, model)


def test_keys_of_another_architecture():
    from tests.convert.reference import random_network

    state = random_network("preresnet20_cifar10").state_dict()
    with pytest.raises(CheckpointError, match="keys are missing"):
        convert.from_torch(state, "resnet20_cifar10")


def test_layers_without_a_rule_are_named():
    layer = keras.layers.EinsumDense("ab,bc->ac", 2, name="act")
    model = keras.Sequential([keras.Input((3,)), layer])
    with pytest.raises(ValueError, match=r"act \(EinsumDense\)"):
        convert.from_torch({}, model)
    with pytest.raises(ValueError, match=r"act \(EinsumDense\)"):
        convert.to_torch(model)


def test_a_layer_with_more_weights_than_its_rule_is_named():
    class Scaled(keras.layers.Dense):
        def build(self, input_shape):
            super().build(input_shape)
            self.scale = self.add_weight(shape=(), name="scale")

    model = keras.Sequential([keras.Input((3,)), Scaled(2, name="fc")])
    with pytest.raises(ValueError, match=r"fc \(Scaled\)"):
        convert.from_torch(STATE, model)


def test_a_model_that_is_not_built():
    with pytest.raises(ValueError, match="must be built"):
        convert.to_torch(keras.Sequential([keras.layers.Dense(2)]))


def test_a_failed_write_leaves_nothing(model, tmp_path):
    with pytest.raises(ValueError, match="must end in"):
        convert.to_torch(model, tmp_path / "model.onnx")
    with pytest.raises(OSError):
        convert.to_torch(model, tmp_path / "missing" / "model.safetensors")
    assert list(tmp_path.iterdir()) == []
