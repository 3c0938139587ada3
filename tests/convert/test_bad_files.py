import argparse
import io
import pickle
import sys
import tarfile
import warnings
import zipfile

import keras
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from safetensors.torch import save

from keras_spectral import convert
from keras_spectral.convert import CheckpointError


class Hostile:
    def __reduce__(self):
        return print, ("this must not run",)


def torch_bytes(value, **arguments):
    stream = io.BytesIO()
    torch.save(value, stream, **arguments)
    return stream.getvalue()


def safetensors_bytes(tmp_path):
    save_file({"w": np.ones((4, 4), "float32")}, tmp_path / "whole")
    return (tmp_path / "whole").read_bytes()


def tar_bytes():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    return stream.getvalue()


def flipped_bit():
    """A zip whose first weight lost one bit: PyTorch alone would load it."""
    content = bytearray(torch_bytes(STATE))
    content[content.index(np.ones(6, "<f4").tobytes())] ^= 1
    return bytes(content)


def script_bytes():
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), stream)
    return stream.getvalue()


def zip_bytes(name, content=b"x"):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, content)
    return stream.getvalue()


STATE = {"fc.weight": torch.ones(2, 3), "fc.bias": torch.zeros(2)}
LEGACY = dict(_use_new_zipfile_serialization=False)
FILES = {
    "empty": (lambda _: b"", "is empty"),
    "one byte": (lambda _: b"\x80", "is damaged"),
    "web page": (lambda _: b"<!DOCTYPE html><html>", "web page"),
    "LFS pointer": (lambda _: b"version https://git-lfs.github.com/spec/v1", "LFS"),
    "text": (lambda _: b"hello", "neither a .safetensors file nor"),
    "random": (lambda _: bytes(range(7, 250)), "neither a .safetensors file nor"),
    "cut zip": (lambda _: torch_bytes(STATE)[:-100], "is cut off"),
    "cut legacy": (lambda _: torch_bytes(STATE, **LEGACY)[:-10], "is damaged"),
    "cut safetensors": (lambda t: safetensors_bytes(t)[:-5], "is damaged"),
    "cut safetensors header": (lambda t: safetensors_bytes(t)[:20], "is cut off"),
    "flipped bit": (lambda _: flipped_bit(), "the checksum of .* is wrong"),
    "float8 safetensors": (
        lambda _: save({"w": torch.ones(3).to(torch.float8_e4m3fn)}),
        "`w` in F8_E4M3",
    ),
    "integer safetensors": (
        lambda _: save({"w": torch.ones(3, dtype=torch.int32)}),
        "`w` in int32",
    ),
    "empty safetensors": (lambda _: save({}), "holds no tensors"),
    "tar": (lambda _: tar_bytes(), "tar archive"),
    "TorchScript": (lambda _: script_bytes(), "TorchScript program"),
    "NumPy pickle": (
        lambda _: pickle.dumps({"w": np.ones(3)}, 4),
        "not a plain state dict",
    ),
    "npz": (lambda _: zip_bytes("w.npy"), "zip archive without PyTorch weights"),
    "zipped pth": (lambda _: zip_bytes("net.pth"), "Unpack it first"),
    "hostile pickle": (lambda _: pickle.dumps(Hostile(), 2), "objects|damaged"),
    "hostile zip": (lambda _: torch_bytes({"w": Hostile()}), "Python objects"),
    "hostile legacy": (lambda _: torch_bytes({"w": Hostile()}, **LEGACY), "objects"),
    "module": (lambda _: torch_bytes(torch.nn.Linear(2, 2)), "Python objects"),
    "namespace": (
        lambda _: torch_bytes({"state_dict": STATE, "args": argparse.Namespace()}),
        "Python objects",
    ),
    "tensor": (lambda _: torch_bytes(torch.ones(3)), "not a state dict"),
    "empty dict": (lambda _: torch_bytes({}), "holds no tensors"),
    "integer key": (lambda _: torch_bytes({1: torch.ones(3)}), "the key 1"),
    "sparse": (lambda _: torch_bytes({"w": torch.eye(3).to_sparse()}), "sparse_coo"),
    "float8": (
        lambda _: torch_bytes({"w": torch.ones(3).to(torch.float8_e4m3fn)}),
        "float8",
    ),
    "no data": (
        lambda _: torch_bytes({"w": torch.ones(3, device="meta")}),
        "without data",
    ),
    "64 GiB in one number": (
        lambda _: torch_bytes({"w": torch.ones(1).expand(2**34)}),
        "expanded",
    ),
    "booleans": (
        lambda _: torch_bytes({"w": torch.ones(3, dtype=torch.bool)}),
        "`w` in bool",
    ),
    "numbers": (lambda _: torch_bytes({"epoch": 3, "lr": 0.1}), "are no tensors"),
    "NaN": (
        lambda _: torch_bytes({**STATE, "fc.bias": torch.tensor([0, torch.nan])}),
        "1 NaN or infinite values of 2 in `fc.bias`",
    ),
    "infinity": (
        lambda _: torch_bytes({**STATE, "fc.bias": torch.tensor([0, torch.inf])}),
        "`fc.bias`",
    ),
    "integers": (
        lambda _: torch_bytes({"fc.weight": torch.ones(2, 3, dtype=torch.int8)}),
        "`fc.weight` in int8",
    ),
    "complex": (
        lambda _: torch_bytes({"fc.weight": torch.ones(2, 3, dtype=torch.complex64)}),
        "complex64",
    ),
    "variance": (
        lambda _: torch_bytes({"bn.running_var": torch.tensor([-1.0])}),
        "negative variance",
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_each_bad_file_gets_its_own_sentence(kind, tmp_path, capsys):
    make, match = FILES[kind]
    path = tmp_path / "checkpoint.pth"
    path.write_bytes(make(tmp_path))
    with pytest.raises(CheckpointError, match=match) as error:
        convert.read_checkpoint(path)
    assert str(path) in str(error.value)
    # PyTorch's own messages advise to turn the protection off.
    assert "weights_only" not in str(error.value)
    assert capsys.readouterr().out == ""


WHOLE = {
    "zip": torch_bytes(STATE),
    "legacy": torch_bytes(STATE, **LEGACY),
    "safetensors": save(STATE),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(sorted(WHOLE)),
    changes=st.lists(
        st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=4
    ),
)
def test_a_damaged_file_is_refused_or_read_and_nothing_else(
    kind, changes, tmp_path_factory
):
    content = bytearray(WHOLE[kind])
    for position, value in changes:
        content[position % len(content)] = value
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content)
    try:
        state = convert.read_checkpoint(path)
    except CheckpointError as error:
        assert "weights_only" not in str(error)
    else:
        assert all(np.isfinite(value).all() for value in state.values())


def test_the_protection_does_not_follow_the_environment(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path = tmp_path / "hostile.pth"
    path.write_bytes(torch_bytes({"w": Hostile()}))
    with pytest.raises(CheckpointError, match="Python objects"):
        convert.read_checkpoint(path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("found", ["no PyTorch", "PyTorch 2.9.1"])
def test_a_missing_or_old_pytorch(found, tmp_path, monkeypatch):
    (tmp_path / "w.pth").write_bytes(WHOLE["zip"])
    (tmp_path / "w.safetensors").write_bytes(WHOLE["safetensors"])
    if found == "no PyTorch":
        monkeypatch.setitem(sys.modules, "torch", None)
    else:
        monkeypatch.setattr(torch, "__version__", "2.9.1")
    with pytest.raises(CheckpointError, match=rf"{found}.*keras-spectral\[torch\]"):
        convert.read_checkpoint(tmp_path / "w.pth")
    assert convert.read_checkpoint(tmp_path / "w.safetensors").keys() == STATE.keys()


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        convert.read_checkpoint(tmp_path / "nothing.pth")
    with pytest.raises(CheckpointError, match="is a folder"):
        convert.read_checkpoint(tmp_path)


def test_a_keras_model_is_no_checkpoint(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    model.save(tmp_path / "model.keras")
    with pytest.raises(CheckpointError, match="is a Keras model"):
        convert.read_checkpoint(tmp_path / "model.keras")


@pytest.mark.parametrize("container", ["state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_containers_and_prefixes_are_unwrapped(container, prefix, tmp_path):
    state = {prefix + key: value for key, value in STATE.items()}
    path = tmp_path / "misnamed.safetensors"
    path.write_bytes(torch_bytes({container: state, "epoch": 3}))
    assert convert.read_checkpoint(path).keys() == STATE.keys()


@pytest.mark.parametrize("write", [torch_bytes, save])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype, write, tmp_path):
    values = torch.tensor([[0.1, -3.0, 100.0]], dtype=dtype)
    path = tmp_path / "half"
    path.write_bytes(write({"w": values}))
    read = convert.read_checkpoint(path)["w"]
    assert read.dtype == "float32"
    np.testing.assert_array_equal(read, values.float().numpy())


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


def test_a_long_list_is_whole(model):
    state = {f"layer{i:02}.w": np.ones(1) for i in range(25)}
    with pytest.raises(CheckpointError) as error:
        convert.from_torch(state, model)
    assert all(key in str(error.value) for key in state)


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
    model = keras.Sequential([keras.Input((3,)), keras.layers.PReLU(name="act")])
    with pytest.raises(ValueError, match=r"act \(PReLU\)"):
        convert.from_torch({}, model)
    with pytest.raises(ValueError, match=r"act \(PReLU\)"):
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
