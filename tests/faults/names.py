"""Files that hold a hostile name in every place where a file has names."""

import io
import json
import pickle
import struct

import h5py
import numpy as np
import torch

from tests.convert import corpus
from tests.convert.corpus import npz_bytes, safetensors_header, torch_bytes, zip_bytes

ONE = torch.ones(2, 2)
# Commands of a terminal in 7 and 8 bits, a line break, a turn of the direction of
# writing, no width, the half of a pair, the end of a string in C.
COMMANDS = "\x1b[2J\x1b]0;owned\x07\x9b31m\r\n\u202e\u200b\u2066\x7f"
NAMES = {
    "commands": COMMANDS,
    "half a pair": f"\ud800{COMMANDS}",
    "a NUL": f"\0{COMMANDS}",
    "markup": "[red]x[/red][link=https://e.org]y[/link][/] :skull: $x$ {z} %s",
    "a megabyte": "a" * 2**20,
    "many commands": COMMANDS * 2**13,
}


def text(value):
    """A pickle's instruction that puts down any string."""
    content = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(content)) + content


def calling(module, name):
    """A pickle of one call of a function of any name."""
    return b"\x80\x04" + text(module) + text(name) + b"\x93)R."


def in_zip(pickled):
    return zip_bytes([("a/data.pkl", pickled), ("a/version", b"3")])


def edited_zip(old, new):
    """A PyTorch zip of which a string in the pickle is another."""

    def edit(name, content):
        if not name.endswith("data.pkl"):
            return content
        return content.replace(text(old), text(new))

    return corpus.rezipped(torch_bytes({"w": ONE}), edit=edit)


def header(key="w", dtype="F32", metadata=None, **more):
    entry = {"dtype": dtype, "shape": [2], "data_offsets": [0, 8], **more}
    table = {key: entry}
    if metadata is not None:
        table["__metadata__"] = metadata
    return safetensors_header(table, bytes(8))


def hdf5(write):
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        write(file)
    return stream.getvalue()


def keras_model(name="d", kind="Dense", key="0", card=None):
    """A `.keras` file, made without Keras."""
    layer = {
        "module": "keras.layers",
        "class_name": kind,
        "config": {"name": name, "units": 2, "activation": "linear"},
        "build_config": {"input_shape": [None, 2]},
    }
    start = {
        "module": "keras.layers",
        "class_name": "InputLayer",
        "config": {"batch_shape": [None, 2], "name": f"i{name}"},
    }
    model = {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": f"m{name}", "layers": [start, layer]},
    }

    def weights(file):
        group = file.create_group("layers/dense/vars")
        group.attrs["name"] = name.replace("\0", "").encode("utf-8", "replace")
        group[key] = np.ones((2, 2), "f4")
        group["1"] = np.ones(2, "f4")

    return zip_bytes(
        [
            (
                "metadata.json",
                json.dumps({"keras_version": "3.15.0", "keras_spectral": card}),
            ),
            ("config.json", json.dumps(model)),
            ("model.weights.h5", hdf5(weights)),
        ]
    )


def files(name):
    """Return {place: bytes} of files with a name in one place each."""
    plain = name.replace("\0", "").encode("utf-8", "replace").decode()[:20_000]
    short = plain[:60].replace("/", "")
    compound = np.dtype([(short, "f4")])
    pickles = {
        "key": {name: ONE},
        "key of a number": {name: 3},
        "key of an object": {"state_dict": {name: corpus.NETWORK, "w": ONE}},
        "key beside": {"state_dict": {"w": ONE}, name: {"w": ONE, name: ONE}},
        "entries": {name: {"a.w": ONE}, f"{name}2": {"a.w": ONE}},
        "sparse": {name: ONE.to_sparse()},
        "integers": {name: ONE.to(torch.int8)},
        "NaN": {name: ONE * torch.nan},
        "object": {"w": {name: {3, 4}}},
        "text": name,
    }
    found = {f"torch, {place}": pickled(value) for place, value in pickles.items()}
    found |= {
        "function": in_zip(calling("a", name)),
        "module": in_zip(calling(name, "b")),
        "unsafe function": in_zip(calling("os", name)),
        "unsafe function alone": calling("os", name),
        "function alone": calling(name, name),
        "kind of tensor": in_zip(
            b"\x80\x04}" + text("w")
            + calling("torch._utils", f"_rebuild_{name}")[2:-1] + b"s."
        ),
        "storage": edited_zip("0", name),
        "device": edited_zip("cpu", name),
        "magic": pickle.dumps(name.encode("utf-8", "replace").decode()),
        "header's key": header(key=name),
        "header's type": header(dtype=name),
        "header's field": header(**{name: 3}),
        "header's shape": header(shape=[name]),
        "header's offsets": header(data_offsets=name),
        "tied": header(metadata={name: "w"}),
        "metadata": header(metadata={"format": name, "w": name}),
        "index's key": corpus.index_bytes(**{name: "missing.pth"}),
        "index's shard": corpus.index_bytes(w=name),
        "index's table": json.dumps({name: name}).encode(),
        "member": zip_bytes([(f"{short}.npy", b"x")]),
        "member's type": npz_bytes(w=np.zeros(2, compound)),
        "objects": npz_bytes(**{short: np.array([None])}),
        "array": npz_bytes(**{short: np.ones((2, 2), "f4")}),
        "zip of text": zip_bytes([(short, b"x")]),
        "data set": hdf5(lambda file: file.update({plain: np.ones((2, 2), "f4")})),
        "data set's type": hdf5(lambda f: f.update(w=np.zeros(2, compound))),
        "link": hdf5(lambda f: f.update({plain: h5py.SoftLink(plain)})),
        "layer": keras_model(name=name),
        "class": keras_model(kind=name),
        "variable": keras_model(key=short),
        "card": keras_model(card={"notes": [name], "not_seen": [name]}),
        "dialect": keras_model(card={"dialect": name, "shapes": {name: [1]}}),
    }  # fmt: skip
    return found


def pickled(value):
    """A PyTorch zip; halves of pairs, which `torch.save` refuses too, put in after."""
    if "\ud800" not in repr_of(value):
        return torch_bytes(value)
    return corpus.rezipped(torch_bytes(replaced(value)), edit=with_halves)


def repr_of(value):
    if isinstance(value, dict):
        return "".join(f"{key}{repr_of(item)}" for key, item in value.items())
    return value if isinstance(value, str) else ""


def replaced(value):
    if isinstance(value, dict):
        return {
            key.replace("\ud800", "\u4321"): replaced(item)
            for key, item in value.items()
        }
    return value.replace("\ud800", "\u4321") if isinstance(value, str) else value


def with_halves(name, content):
    old, new = "\u4321".encode(), b"\xed\xa0\x80"
    return content.replace(old, new) if name.endswith("data.pkl") else content
