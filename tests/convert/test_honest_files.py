"""Files that people really write, by the libraries that write them, are read."""

import argparse
import collections
import datetime
import enum
import functools
import gc
import io
import operator
import pathlib
import re
import types
import warnings
import zipfile

import h5py
import numpy as np
import pytest
import torch

from keras_spectral.convert import CheckpointError, read_checkpoint
from tests.convert.corpus import LEGACY, STATE

FORMATS = {"zip": {}, "legacy": LEGACY}


def saved(path, content, **arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(content, path, **arguments)
    return read_checkpoint(path)


def assert_state(state, expected=STATE):
    assert set(state) == set(expected)
    for key, value in expected.items():
        np.testing.assert_array_equal(state[key], value.numpy())


def quantized(dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.ones(5), 0.1, 0, dtype)


class Colour(enum.Enum):
    RED = 1


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Outer:
    class Inner:
        pass

    def method(self):
        pass


BESIDE = {
    "sparse": torch.eye(3).to_sparse(),
    "compressed rows": torch.eye(3).to_sparse_csr(),
    "qint8": quantized(torch.qint8),
    "quint8": quantized(torch.quint8),
    "qint32": quantized(torch.qint32),
    "half complex": torch.ones(3, dtype=torch.complex32),
    "sixteen bits": torch.ones(3, dtype=torch.uint16),
    "a storage": torch.ones(3).untyped_storage(),
    "type(None)": type(None),
    "...": ...,
    "NotImplemented": NotImplemented,
    "an exception": ValueError("nan", 3),
    "a class of errors": KeyboardInterrupt,
    "a bound method": Outer().method,
    "a class in a class": Outer.Inner,
    "a function of Python": len,
    "Namespace": argparse.Namespace(lr=0.1, path=pathlib.Path("/data")),
    "path": pathlib.PurePosixPath("/home"),
    "datetime": datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC),
    "enum": Colour.RED,
    "flag": Access.READ | Access.WRITE,
    "device": torch.device("cuda", 0),
    "dtype": torch.float32,
    "generator": torch.Generator(),
    "NumPy": [np.float32(1), np.int64(3), np.arange(4), np.dtype("f4"), np.array("a")],
    "NumPy's generator": np.random.default_rng(0),
    "NumPy's state": np.random.RandomState(0).get_state(),
    "partial": functools.partial(max, 3),
    "itemgetter": operator.itemgetter(0),
    "bytes": io.BytesIO(b"abc"),
    "defaultdict": collections.defaultdict(list, a=[1]),
    "namespace": types.SimpleNamespace(a=1),
    "data set": torch.utils.data.TensorDataset(torch.ones(4)),
    "loader": torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.ones(4))
    ),
    "large numbers": [2**2100, -(2**2100), 10**5000, {2**3000: 2**3000}],
    "parameters": torch.optim.Adam(torch.nn.Linear(2, 3).parameters()),
    "network": torch.nn.Sequential(torch.nn.Linear(2, 3)),
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", BESIDE)
def test_what_lies_beside_a_state_dict_is_passed_over(name, kind, protocol, tmp_path):
    content = {"beside": BESIDE[name], "state_dict": STATE, "again": [BESIDE[name]]}
    arguments = {**FORMATS[kind], "pickle_protocol": protocol}
    try:
        state = saved(tmp_path / "w.pth", content, **arguments)
    except CheckpointError:
        raise
    except Exception as error:
        pytest.skip(f"PyTorch cannot write it: {error!r}"[:200])
    assert_state(state)


HARMLESS = {
    "a dict": {"lr": 0.1, "steps": [1, 2]},
    "a Namespace": argparse.Namespace(lr=0.1),
    "a path": pathlib.PurePosixPath("/home"),
    "a list": ["cat", "dog"],
    "a NumPy scalar": np.float32(1),
    "a large number": 2**3000,
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", HARMLESS)
def test_what_lies_among_the_weights_is_passed_over(name, kind, tmp_path):
    content = {**STATE, "args": HARMLESS[name]}
    state = saved(tmp_path / "w.pth", content, **FORMATS[kind])
    assert_state(state)


class Scaled(torch.nn.Linear):
    """A layer that keeps more than its tensors, as those of float8 training do."""

    extra = None

    def get_extra_state(self):
        return self.extra


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    "extra",
    [
        {"scale": torch.ones(2), "history": [1.0]},
        {"recipe": argparse.Namespace(a=1), "lags": 2**3000},
        None,
        io.BytesIO(b"abc"),
    ],
    ids=["tensors", "objects", "nothing", "bytes"],
)
def test_extra_state(extra, kind, tmp_path):
    network = torch.nn.Sequential(Scaled(2, 3), torch.nn.Linear(3, 1))
    network[0].extra = extra
    state = saved(tmp_path / "w.pth", network.state_dict(), **FORMATS[kind])
    expected = network.state_dict()
    del expected["0._extra_state"]
    assert_state(state, expected)


@pytest.mark.parametrize("kind", FORMATS)
def test_expanded_tensors(kind, tmp_path):
    module = torch.nn.Linear(2, 3)
    module.register_buffer("ones", torch.ones(1).expand(1000))
    module.register_buffer("square", torch.full((1,), 2.0).expand(300, 300))
    module.register_buffer("rows", torch.arange(4.0).expand(50, 4))
    module.register_buffer("short", torch.ones(1, 3).half().expand(50, 3))
    state = saved(tmp_path / "w.pth", module.state_dict(), **FORMATS[kind])
    assert_state(state, module.state_dict())


@pytest.mark.parametrize("kind", FORMATS)
def test_a_vocabulary_of_400_000_words(kind, tmp_path):
    words = {f"word{n}of the vocabulary": n for n in range(400_000)}
    content = {"state_dict": STATE, "stoi": words, "itos": list(words)}
    assert_state(saved(tmp_path / "w.pth", content, **FORMATS[kind]))


@pytest.mark.parametrize("size", [512, 2048, 65536])
def test_hdf5_with_a_user_block(size, tmp_path):
    with h5py.File(tmp_path / "w.h5", "w", userblock_size=size) as file:
        file["a/w"] = np.arange(6.0)
    with (tmp_path / "w.h5").open("r+b") as file:
        file.write(b"{'made by': 'a microscope'}")
    state = read_checkpoint(tmp_path / "w.h5")
    assert state.container == "hdf5"
    np.testing.assert_array_equal(state["a/w"], np.arange(6.0))


def test_hdf5_with_links_to_itself(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["model/dense/w"] = np.arange(6.0)
        file["model/best"] = h5py.SoftLink("dense/w")
        file["first"] = h5py.SoftLink("/model/dense/w")
        file["second"] = h5py.SoftLink("/first")
        file["through"] = h5py.SoftLink("/latest/./w")
        file["latest"] = h5py.SoftLink("/model/dense")
        file["nowhere"] = h5py.SoftLink("/was/deleted")
    state = read_checkpoint(tmp_path / "w.h5")
    names = {"model/dense/w", "model/best", "first", "second", "through"}
    assert set(state) == names
    assert set(state.aliases) == names - {"first"}
    assert any("nowhere" in note for note in state.notes)
    for name in names:
        np.testing.assert_array_equal(state[name], np.arange(6.0))


def test_hdf5_with_a_group_under_two_names(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["a/b/w"] = np.arange(6.0)
        file["c"] = file["a/b"]
        file["a/b/up"] = file["a"]
    state = read_checkpoint(tmp_path / "w.h5")
    assert set(state) == {"a/b/w"}
    np.testing.assert_array_equal(state["a/b/w"], np.arange(6.0))


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_versions_of_numpys_format(version, tmp_path):
    w, stream = np.arange(6.0).reshape(2, 3), io.BytesIO()
    np.lib.format.write_array(stream, w, version=version)
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        archive.writestr("w.npy", stream.getvalue())
    np.testing.assert_array_equal(read_checkpoint(tmp_path / "w.npz")["w"], w)


def test_npz_with_records_beside_weights(tmp_path):
    table = np.zeros(3, [("größe", "f4"), ("長さ", "i4"), ("\U0001f600", "U3")])
    wide = np.zeros(2, [(f"column {n} of the table", "f4") for n in range(3000)])
    w = np.arange(6.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.savez(tmp_path / "w.npz", w=w, table=table, wide=wide)
    state = read_checkpoint(tmp_path / "w.npz")
    np.testing.assert_array_equal(state["w"], w)
    assert state.shapes["table"] == (3,)


@pytest.mark.parametrize("how", ["a\0b", "folder/\0"])
def test_a_path_with_a_nul(how):
    with pytest.raises(CheckpointError, match=r"\\x00.* is no path"):
        read_checkpoint(how)


def test_a_folder_with_a_link_to_itself(tmp_path):
    torch.save(STATE, tmp_path / "w.pth")
    (tmp_path / "loop.pth").symlink_to("loop.pth")
    assert_state(read_checkpoint(tmp_path))
    with pytest.raises(CheckpointError, match="loop"):
        read_checkpoint(tmp_path / "loop.pth")


def test_a_path_is_said_once(tmp_path):
    torch.save({"a" * 600: torch.ones(2)}, path := tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=f"^{re.escape(str(path))} holds the key"):
        read_checkpoint(path)


FLOAT4 = getattr(torch, "float4_e2m1fn_x2", None)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("dtype", [torch.complex32, FLOAT4])
def test_numbers_of_other_types(dtype, kind, tmp_path):
    w = torch.zeros(4, dtype=torch.uint8).view(dtype)
    with pytest.raises(CheckpointError, match="`w` in .*rule. Convert it to float32.$"):
        saved(tmp_path / "w.pth", {"w": w}, **FORMATS[kind])["w"]


def test_a_file_is_closed_with_its_last_tensor(tmp_path):
    """Nothing holds itself: what was read can be written anew."""
    path = tmp_path / "a.weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/dense/vars/0"] = np.ones((2, 2))
    gc.collect()
    gc.disable()
    try:
        state = read_checkpoint(path)
        assert len(state) == 1
        del state
        with h5py.File(path, "w"):
            pass
    finally:
        gc.enable()
