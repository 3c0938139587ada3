import json
import math
import os
import pickle
import re
import subprocess
import sys
import textwrap
import zipfile

import keras
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from keras_spectral import convert
from keras_spectral.convert import CheckpointError, UnsafeCheckpointError
from tests.convert import corpus
from tests.convert.corpus import LEGACY, STATE, torch_bytes

READER = """
import json, pathlib, re, resource, sys
import numpy, h5py, ml_dtypes
from keras_spectral.convert import CheckpointError, UnsafeCheckpointError
from keras_spectral.convert import read_checkpoint
size = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (size + 512 * 2**20,) * 2)
resource.setrlimit(resource.RLIMIT_CPU, (120, 120))
outcomes = {}
for name in json.loads(pathlib.Path("expected.json").read_text()):
    try:
        state = read_checkpoint(name)
        outcomes[name] = ["ok", str({k: v.shape for k, v in dict(state).items()})]
    except UnsafeCheckpointError as error:
        outcomes[name] = ["unsafe", str(error)]
    except CheckpointError as error:
        outcomes[name] = ["unreadable", str(error)]
    except BaseException as error:
        outcomes[name] = ["crash", repr(error)]
heavy = {"keras", "tensorflow", "torch", "jax"} & set(sys.modules)
print(json.dumps([outcomes, sorted(heavy)]))
"""


def test_every_file_of_the_corpus_gets_its_outcome_in_half_a_gibibyte(tmp_path):
    expected = corpus.write(tmp_path)
    before = sorted(tmp_path.iterdir())
    # Another process: limits cannot be taken back, and nothing may be imported.
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(READER)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    outcomes, heavy = json.loads(done.stdout)
    assert heavy == []
    wrong = [
        (want["name"], want["outcome"], want["match"], outcomes[name])
        for name, want in expected.items()
        if outcomes[name][0] != want["outcome"]
        or not re.search(want["match"], outcomes[name][1])
    ]
    assert wrong == []
    assert len(expected) > 100
    # Nothing ran, and nothing was written.
    assert sorted(tmp_path.iterdir()) == before
    for name, (_, message) in outcomes.items():
        assert "weights_only" not in message
        assert outcomes[name][0] == "ok" or name in message


def test_the_payloads_of_the_corpus_do_run_where_pickles_are_trusted(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name in ("exec", "shell", "shell by INST"):
        pickle.loads(corpus.files()[name][0])
        (tmp_path / "EXECUTED").unlink()


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "deflated"])
def test_values_are_what_pytorch_reads(kind, tmp_path):
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(6, 5, 4, generator=generator)
    state = {
        "a": base,
        "view": base[1:3, ::2],
        "t": base.permute(2, 0, 1),
        "s": base.sum(),
    }
    if kind == "safetensors":
        content = save({key: value.contiguous() for key, value in state.items()})
    elif kind == "deflated":
        content = corpus.rezipped(torch_bytes(state), zipfile.ZIP_DEFLATED)
    else:
        content = torch_bytes(state, **(LEGACY if kind == "legacy" else {}))
    path = tmp_path / "w"
    path.write_bytes(content)
    read = convert.read_checkpoint(path)
    assert read.container.endswith("zip" if kind == "deflated" else kind)
    assert read.shapes == {key: tuple(value.shape) for key, value in state.items()}
    for key, value in state.items():
        np.testing.assert_array_equal(read[key], value.numpy())


def test_a_fingerprint_does_not_depend_on_the_container(tmp_path):
    prefixed = {"state_dict": {f"module.{k}": v for k, v in STATE.items()}}
    contents = [torch_bytes(STATE), torch_bytes(STATE, **LEGACY), save(STATE)]
    prints = set()
    for content in (*contents, torch_bytes(prefixed)):
        (tmp_path / "w").write_bytes(content)
        prints.add(convert.read_checkpoint(tmp_path / "w").fingerprint())
    assert len(prints) == 1
    assert prints == {convert.StateDict(STATE).fingerprint()}
    other = {**STATE, "fc.bias": STATE["fc.bias"] - 1}
    assert convert.StateDict(other).fingerprint() not in prints


def test_keras_files_are_read_by_path(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="fc")])
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    for name in ("model.keras", "model.weights.h5"):
        state = convert.read_checkpoint(tmp_path / name)
        kernel = state["layers/dense/vars/0"]
        np.testing.assert_array_equal(kernel, model.layers[0].kernel.numpy())
        with pytest.raises(CheckpointError, match="keras.models.load_model"):
            convert.from_torch(tmp_path / name, model)


def test_the_entry_of_several(tmp_path):
    other = {key: value + 1 for key, value in STATE.items()}
    content = torch_bytes({"net": {"G": STATE, "D": other}, "model_ema": other})
    (tmp_path / "w").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"net\.G, net\.D, model_ema.*`entry`"):
        convert.read_checkpoint(tmp_path / "w")
    state = convert.read_checkpoint(tmp_path / "w", entry="net.D")
    assert state["fc.bias"][0] == 1
    assert "an average (EMA) is at the entry `model_ema`" in state.notes
    with pytest.raises(CheckpointError, match="entry='x'.*net.G"):
        convert.read_checkpoint(tmp_path / "w", entry="x")


def test_an_average_is_told_from_data_parallel(tmp_path):
    average = torch.optim.swa_utils.AveragedModel(torch.nn.Linear(3, 2))
    (tmp_path / "w").write_bytes(torch_bytes(average.state_dict()))
    state = convert.read_checkpoint(tmp_path / "w")
    assert state.keys() == {"weight", "bias"}
    assert any("AveragedModel" in note for note in state.notes)


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
        state = dict(convert.read_checkpoint(path))
    except CheckpointError as error:
        assert "damaged" in str(error)
    else:
        assert all(np.isfinite(value).all() for value in state.values())


@pytest.mark.parametrize(
    "key, changed, match",
    [
        ("a", {"shape": 5}, "'a': Expected `array`, got `int` - at `$.shape`"),
        ("a", {"shape": None}, "got `null` - at `$.shape`"),
        ("a", {"shape": [True]}, "got `bool` - at `$.shape[0]`"),
        ("a", {"shape": [1.0]}, "got `float` - at `$.shape[0]`"),
        ("a", {"shape": [math.nan]}, "its header is no JSON"),
        ("a", {"shape": [-1]}, "`a` has the shape (-1,)"),
        ("a", {"shape": [10**30, 0]}, "`a` has the shape (1000000000"),
        ("a", {"dtype": ["F32"]}, "got `array` - at `$.dtype`"),
        ("a", {"dtype": "\x1b[31m" * 99}, "is damaged (the type of `a`)"),
        ("a", {"data_offsets": {}}, "got `object` - at `$.data_offsets`"),
        ("a", {"data_offsets": [0]}, "of length 2 - at `$.data_offsets`"),
        ("a", {"data_offsets": [-4, 0]}, ">= 0 - at `$.data_offsets[0]`"),
        ("a", {"data_offsets": [False, 4]}, "got `bool` - at `$.data_offsets[0]`"),
        # Half of a character, and a word to the terminal.
        ("\ud800", {}, "its header is no JSON"),
        ("\x1b[31m", {}, "holds the key '\\x1b[31m'"),
        ("\x1b[31m", {"shape": 5}, "'\\x1b[31m': Expected `array`"),
    ],
)
def test_odd_headers_of_safetensors(key, changed, match, tmp_path):
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **changed}
    header = json.dumps({key: entry}).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(CheckpointError) as error:
        convert.read_checkpoint(path)
    message = str(error.value)
    assert message.startswith(str(path)) and match in message
    assert message.isprintable() and len(message) < 300


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_short_floats_in_memory_are_a_files(dtype, tmp_path):
    w = torch.randn(3, 4).to(dtype)
    state = {"w": w.T, "scalar": w[0, 0]}
    torch.save(state, tmp_path / "w.pth")
    here, there = convert.StateDict(state), convert.read_checkpoint(tmp_path / "w.pth")
    assert here.fingerprint() == there.fingerprint()
    for key, value in state.items():
        np.testing.assert_array_equal(here[key], value.float().numpy())


def test_the_order_of_bytes_does_not_matter(tmp_path, rng):
    w = rng.standard_normal((2, 3)).astype("float32")
    states = []
    for order in "<>":
        np.savez(tmp_path / "w.npz", w=w.astype(f"{order}f4"))
        states.append(convert.read_checkpoint(tmp_path / "w.npz"))
        np.testing.assert_array_equal(states[-1]["w"], w)
        assert states[-1]["w"].dtype.isnative
        states[-1] = states[-1].fingerprint()
    assert states[0] == states[1]


def test_a_whole_module_of_the_older_format_is_unsafe(tmp_path):
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 3)), tmp_path / "w.pth", **LEGACY)
    with pytest.raises(UnsafeCheckpointError, match="pickled object of torch.nn"):
        convert.read_checkpoint(tmp_path / "w.pth")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        convert.read_checkpoint(tmp_path / "nothing.pth")
    with pytest.raises(CheckpointError, match="is a folder"):
        convert.read_checkpoint(tmp_path)


@pytest.mark.parametrize("container", ["state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_containers_and_prefixes_are_unwrapped(container, prefix, tmp_path):
    state = {prefix + key: value for key, value in STATE.items()}
    path = tmp_path / "misnamed.safetensors"
    path.write_bytes(torch_bytes({container: state, "epoch": 3}))
    assert convert.read_checkpoint(path).keys() == STATE.keys()


@pytest.mark.parametrize("container", ["state_dict", "net"])
@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_beside_the_state_dict_are_passed_over(container, legacy, tmp_path):
    # PyTorch's ImageNet example keeps `best_acc1` as a tensor; many keep `rng_state`.
    content = {
        "epoch": 3,
        container: STATE,
        "best_acc1": torch.tensor(91.2),
        "rng_state": torch.get_rng_state(),
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": []},
    }
    path = tmp_path / "w.pth"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    state = convert.read_checkpoint(path)
    assert dict(state).keys() == STATE.keys()
    assert state.notes[0] == f"the entry `{container}` was read"


def test_weights_beside_a_state_dict_are_not_dropped(tmp_path):
    torch.save({"fc.weight": torch.ones(2, 2), "head": STATE}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="not a plain state dict: `head`"):
        convert.read_checkpoint(tmp_path / "w.pth")


@pytest.mark.parametrize("write", [torch_bytes, save])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype, write, tmp_path):
    values = torch.tensor([[0.1, -3.0, 100.0]], dtype=dtype)
    path = tmp_path / "half"
    path.write_bytes(write({"w": values}))
    read = convert.read_checkpoint(path)["w"]
    assert read.dtype == "float32"
    np.testing.assert_array_equal(read, values.float().numpy())


def test_tensors_of_one_storage_are_read_again_and_again(tmp_path):
    values = torch.arange(200.0).reshape(10, 20)
    torch.save({"a.w": values, "b.w": values[2:]}, tmp_path / "tied.pth")
    state = convert.read_checkpoint(tmp_path / "tied.pth")
    for _ in range(2):
        np.testing.assert_array_equal(state["a.w"], values)
        np.testing.assert_array_equal(state["b.w"], values[2:])


def test_asking_for_a_key_reads_nothing(tmp_path):
    content = {
        "fc.weight": torch.ones(2, 3),
        "count": torch.ones(2, dtype=torch.cfloat),
    }
    torch.save(content, tmp_path / "net.pth")
    state = convert.read_checkpoint(tmp_path / "net.pth")
    assert "count" in state and "fc.bias" not in state


def test_a_view_whose_numbers_are_others_than_those_stored_is_refused(tmp_path):
    torch.save({"a.w": torch._neg_view(torch.ones(3, 4))}, tmp_path / "turned.pth")
    with pytest.raises(CheckpointError, match="negated"):
        convert.read_checkpoint(tmp_path / "turned.pth")


@pytest.mark.parametrize("protocol", [2, 4])
def test_what_configurations_hold_beside_the_weights(protocol, tmp_path):
    beside = {"r": range(3), ((1, 2), 3): 1, 2**40: 2, torch.ones(2): 3}
    content = {"state_dict": STATE, "config": beside}
    torch.save(content, tmp_path / "net.pth", pickle_protocol=protocol)
    assert set(convert.read_checkpoint(tmp_path / "net.pth")) == set(STATE)
