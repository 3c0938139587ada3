"""Sharded checkpoints and folders: one checkpoint, and nothing beside its folder."""

import json
import os

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from keras_spectral import convert
from keras_spectral.convert import CheckpointError, UnsafeCheckpointError

STATE = {
    "a.weight": torch.arange(6.0).reshape(2, 3),
    "a.bias": torch.ones(2),
    "b.weight": torch.arange(4.0).reshape(2, 2) - 1,
}
PLACES = {"a.weight": 0, "a.bias": 1, "b.weight": 0}


def write(folder, suffix="safetensors", places=None, state=None):
    """Write a checkpoint as Hugging Face's libraries do; return the index."""
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    places, state = places or PLACES, state or STATE
    count = max(places.values()) + 1
    names = [f"{stem}-{n + 1:05}-of-{count:05}.{suffix}" for n in range(count)]
    folder.mkdir(exist_ok=True, parents=True)
    for number, name in enumerate(names):
        part = {key: state[key] for key in state if places[key] == number}
        save = save_file if suffix == "safetensors" else torch.save
        save(part, folder / name)
    index = {
        "metadata": {"total_size": 48},
        "weight_map": {key: names[n] for key, n in places.items()},
    }
    path = folder / f"{stem}.{suffix}.index.json"
    path.write_text(json.dumps(index))
    return path


def rewrite(index, **names):
    """Change where an index says that tensors are."""
    content = json.loads(index.read_text())
    content["weight_map"] |= {key.replace("_", "."): n for key, n in names.items()}
    index.write_text(json.dumps(content))


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize("whole", ["index", "folder"])
def test_shards_are_one_checkpoint(suffix, whole, tmp_path):
    index = write(tmp_path, suffix)
    state = convert.read_checkpoint(index if whole == "index" else tmp_path)
    assert list(state) == list(STATE)
    for key, value in STATE.items():
        np.testing.assert_array_equal(state[key], value.numpy())
    assert state.fingerprint() == convert.StateDict(STATE).fingerprint()
    assert "2 shards" in state.notes and state.container.startswith("sharded ")


def test_a_folder_as_hugging_face_leaves_it(tmp_path):
    index = write(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    torch.save({"state": {}}, tmp_path / "optimizer.pt")
    torch.save({"state": {}}, tmp_path / "rng_state_0.pth")
    save_file(STATE, tmp_path / "other.safetensors")
    state = convert.read_checkpoint(tmp_path)
    assert f"the folder's `{index.name}` was read" in state.notes
    assert "`other.safetensors` is in the folder, and not in its index" in state.notes
    for path in tmp_path.glob("model*"):
        path.unlink()
    assert convert.read_checkpoint(tmp_path).container == "safetensors"
    save_file(STATE, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"a\.safetensors, other\.safetensors"):
        convert.read_checkpoint(tmp_path)


def test_two_indexes_are_listed(tmp_path):
    write(tmp_path)
    write(tmp_path, "bin")
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json, pyt"):
        convert.read_checkpoint(tmp_path)


def test_one_shard_is_open_at_a_time(tmp_path, monkeypatch):
    count = 40
    state = {f"w{n}": torch.full((3,), float(n)) for n in range(count)}
    index = write(tmp_path, "bin", {f"w{n}": n for n in range(count)}, state)
    before = len(os.listdir("/proc/self/fd"))
    read = convert.read_checkpoint(index)
    for key in read:
        np.testing.assert_array_equal(read[key], state[key].numpy())
        assert len(os.listdir("/proc/self/fd")) <= before + 2


def test_a_network_is_imported_from_its_shards(tmp_path):
    import keras

    state = {"fc.weight": STATE["a.weight"], "fc.bias": STATE["a.bias"]}
    write(tmp_path, places={"fc.weight": 0, "fc.bias": 1}, state=state)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="fc")])
    convert.from_torch(tmp_path, model)
    np.testing.assert_array_equal(model.layers[0].kernel, STATE["a.weight"].T)
    assert convert.provenance(model)["container"] == "sharded safetensors"


@pytest.mark.parametrize(
    "name",
    [
        "../secret.safetensors",
        "/etc/passwd",
        "sub/model.safetensors",
        "..",
        "",
        "C:model.safetensors",
        "..\\secret.safetensors",
        "\x1b[31m.safetensors",
        "a\0b",
        "x" * 300,
        7,
        None,
        ["model.safetensors"],
    ],
)
def test_names_that_lead_elsewhere_are_unsafe(name, tmp_path):
    index = write(tmp_path / "model")
    save_file(STATE, tmp_path / "secret.safetensors")
    rewrite(index, a_weight=name)
    for path in (index, index.parent):
        with pytest.raises(UnsafeCheckpointError, match="no name of a file") as error:
            convert.read_checkpoint(path)
        assert str(error.value).isprintable()


def test_links_out_of_the_folder_are_unsafe(tmp_path):
    index = write(tmp_path / "model")
    shard = index.parent / "model-00001-of-00002.safetensors"
    shard.rename(tmp_path / "elsewhere")
    shard.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeCheckpointError, match="a link out of the folder"):
        convert.read_checkpoint(index)
    shard.unlink()
    shard.symlink_to(shard)
    with pytest.raises(CheckpointError, match=shard.name):
        convert.read_checkpoint(index)


def test_links_of_hugging_faces_cache_are_followed(tmp_path):
    # Index and shards are links into one folder of files named by their sums.
    index = write(tmp_path / "blobs")
    snapshot = tmp_path / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    for path in index.parent.iterdir():
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    state = convert.read_checkpoint(snapshot)
    assert state.fingerprint() == convert.StateDict(STATE).fingerprint()


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_a_missing_or_damaged_shard_is_named(suffix, tmp_path):
    index = write(tmp_path, suffix)
    (shard,) = tmp_path.glob("*00002-of*")
    content = shard.read_bytes()
    shard.write_bytes(content[:-20])
    with pytest.raises(CheckpointError, match=f"shard {shard.name}, which is cut off"):
        convert.read_checkpoint(index)
    shard.unlink()
    with pytest.raises(CheckpointError, match=f"shard {shard.name}, which is missing"):
        convert.read_checkpoint(index)
    shard.mkdir()
    with pytest.raises(CheckpointError, match=f"{shard.name}, which is no regular"):
        convert.read_checkpoint(index)
    shard.rmdir()
    shard.write_text(index.read_text())
    with pytest.raises(CheckpointError, match=f"{shard.name}, which is an index"):
        convert.read_checkpoint(index)
    torch.save({"w": print}, shard)
    with pytest.raises(UnsafeCheckpointError, match=f"{shard.name}.*print"):
        convert.read_checkpoint(index)


def test_index_and_shards_that_disagree(tmp_path):
    index = write(tmp_path)
    rewrite(index, a_bias="model-00001-of-00002.safetensors")
    with pytest.raises(CheckpointError, match="not in model-00001.*: a.bias"):
        convert.read_checkpoint(index)
    content = json.loads(index.read_text())
    del content["weight_map"]["a.bias"]
    index.write_text(json.dumps(content))
    state = convert.read_checkpoint(index)
    assert state.keys() == {"a.weight", "b.weight"}
    more = {**{k: STATE[k] for k in state}, "b.extra": torch.ones(1)}
    save_file(more, tmp_path / "model-00001-of-00002.safetensors")
    notes = " ".join(convert.read_checkpoint(index).notes)
    assert "not in the index, left out: b.extra" in notes


def test_a_shard_that_changes_meanwhile_is_refused(tmp_path):
    index = write(tmp_path)
    state = convert.read_checkpoint(index)
    shard = tmp_path / "model-00001-of-00002.safetensors"
    np.testing.assert_array_equal(state["a.bias"], 1)
    save_file({"a.weight": torch.ones(9)}, shard)
    with pytest.raises(CheckpointError, match="has changed meanwhile"):
        state["a.weight"]


@pytest.mark.parametrize(
    "text, match",
    [
        ("{}", "without the `weight_map`"),
        ('{"weight_map": []}', "without the `weight_map`"),
        ('{"weight_map": {}}', "holds no tensors"),
        ("{", "is damaged"),
        ('{"weight_map": ' + "[" * 100_000, "is damaged"),
        ('{"weight_map": {"a": "b", "a": "c"}}', "two entries"),
        ('{"weight_map": {"a": "b"}, "metadata": [' + "{}," * 1_000_001, "larger than"),
        (" " * 100 + '{"weight_map": {"a": "b"}}' + " " * 2**24, "larger than"),
    ],
)
def test_odd_indexes(text, match, tmp_path):
    path = tmp_path / "w.index.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=match):
        convert.read_checkpoint(path)


def test_a_safetensors_file_may_begin_with_a_brace(tmp_path):
    header = {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    text = json.dumps(header).encode().ljust(0x7B)
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    assert path.read_bytes()[:1] == b"{"
    assert convert.read_checkpoint(path).container == "safetensors"


def test_an_index_has_no_entries_to_choose_from(tmp_path):
    with pytest.raises(CheckpointError, match="entry='model'"):
        convert.read_checkpoint(write(tmp_path), entry="model")
