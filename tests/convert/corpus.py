"""Some hundred files that a converter must not trust, made here and never committed.

`python -m tests.convert.corpus FOLDER` writes them with `expected.json`. A payload, if
it ran, would make the file `EXECUTED` in the working folder.
"""

# One file a line reads better than one a paragraph.
# ruff: noqa: E501

import argparse
import collections
import io
import json
import pickle
import struct
import sys
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save as safetensors_bytes

OK, UNREADABLE, UNSAFE = "ok", "unreadable", "unsafe"
STATE = {"fc.weight": torch.ones(2, 3), "fc.bias": torch.zeros(2)}
LEGACY = dict(_use_new_zipfile_serialization=False)
PAYLOAD = "open('EXECUTED', 'w').close()"


class Runs:
    """What pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Net(torch.nn.Module):
    """A class that the reader cannot know."""


def torch_bytes(value, **arguments):
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(value, stream, **arguments)
    return stream.getvalue()


def zip_bytes(members, method=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", method) as archive:
        warnings.simplefilter("ignore")  # Duplicate names are meant.
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


def overlapping_zip():
    """A zip with a member that lies inside another one; the local headers agree."""
    inner, stream = zip_bytes([("a/data/0", ONES)]), io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a/data.pkl", inner)
        with zipfile.ZipFile(io.BytesIO(inner)) as other:
            (member,) = other.infolist()
        member.header_offset = stream.getvalue().index(inner)
        archive.filelist.append(member)
    return stream.getvalue()


def rezipped(content, method=zipfile.ZIP_STORED, edit=lambda name, data: data):
    """Write a PyTorch zip again, packed or with other members."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(n, edit(n, archive.read(n))) for n in archive.namelist()]
    return zip_bytes([m for m in members if m[1] is not None], method)


def tensor_zip(numel, offset, shape, stride, data, key="0", kind="FloatStorage"):
    """A zip whose one tensor claims whatever is wanted."""

    def number(n):
        return b"\x8a" + bytes([9]) + n.to_bytes(9, "little", signed=True)

    def text(s):
        return b"X" + struct.pack("<I", len(s)) + s.encode()

    pickled = (
        b"\x80\x02}" + text("w") + b"ctorch._utils\n_rebuild_tensor_v2\n(("
        + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu")
        + number(numel) + b"tQ" + number(offset)
        + b"(" + b"".join(map(number, shape)) + b"t"
        + b"(" + b"".join(map(number, stride)) + b"t"
        + b"\x89ccollections\nOrderedDict\n)RtRs."
    )  # fmt: skip
    return zip_bytes([("a/data.pkl", pickled), ("a/data/0", data)])


def safetensors_header(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def index_bytes(**names):
    return json.dumps({"metadata": {}, "weight_map": names}).encode()


def tar_bytes(hostile):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        content = pickle.dumps(hostile, 2)
        entry = tarfile.TarInfo("storages")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def script_bytes():
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), stream)
    return stream.getvalue()


def flipped(content, what):
    content = bytearray(content)
    content[content.index(what)] ^= 1
    return bytes(content)


def npz_bytes(**arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def npy_header(shape, descr="<f4"):
    head = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode()


def hdf5_bytes(write):
    import h5py

    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        write(file)
    return stream.getvalue()


def mapped_file(file):
    file.create_dataset("w", (4,), "f4", external=[("/etc/hostname", 0, 16)])


def linked_file(file):
    import h5py

    file["w"] = h5py.ExternalLink("/etc/other.h5", "w")


def endless_groups(file):
    group = file.create_group("a")
    group["a"] = group


def quantized():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)


def deep_tuple_key():
    """A dict with a key of a million tuples in tuples: hashing it overflows."""
    return b"\x80\x02})" + b"\x85" * 900_000 + b"K\x01s."


ZIP = torch_bytes(STATE)
OLD = torch_bytes(STATE, **LEGACY)
ONES = np.ones(6, "<f4").tobytes()
HOSTILE = Runs(exec, PAYLOAD)
SHELL = Runs(__import__("os").system, "touch EXECUTED")
NETWORK = Net()


def files():
    """Return {name: (bytes, outcome, regular expression of the message)}."""
    corpus = {
        # What is read.
        "zip": (ZIP, OK, ""),
        "legacy": (OLD, OK, ""),
        "safetensors": (safetensors_bytes(STATE), OK, ""),
        "npz": (npz_bytes(w=np.ones(3, "f4")), OK, ""),
        "h5": (hdf5_bytes(lambda f: f.update(w=np.ones(3, "f4"))), OK, ""),
        "protocol 4": (torch_bytes(STATE, pickle_protocol=4), OK, ""),
        "deflated": (rezipped(ZIP, zipfile.ZIP_DEFLATED), OK, ""),
        "parameters": (torch_bytes(torch.nn.Linear(2, 2).state_dict(keep_vars=True)), OK, ""),
        **{name: (torch_bytes({"w": torch.ones(3, dtype=getattr(torch, name))}), OK, "")
           for name in ("half", "bfloat16", "double")},
        "float8": (torch_bytes({"w": torch.ones(3).to(torch.float8_e4m3fn)}), OK, ""),
        "float8 safetensors": (safetensors_bytes({"w": torch.ones(3).to(torch.float8_e5m2)}), OK, ""),
        "transposed view": (torch_bytes({"w": torch.ones(3, 2).T}), OK, ""),
        "small view": (torch_bytes({"w": torch.ones(100_000)[5:9]}), OK, ""),
        "shared": (torch_bytes({"a": STATE["fc.bias"], "b": STATE["fc.bias"]}), OK, ""),
        "scalar": (torch_bytes({"w": torch.tensor(1.0)}), OK, ""),
        "no rows": (torch_bytes({"w": torch.ones(0, 3)}), OK, ""),
        "training checkpoint": (torch_bytes({
            "epoch": 3, "state_dict": STATE, "best": np.float64(0.9),
            "args": argparse.Namespace(lr=0.1), "log": collections.Counter("ab"),
            "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}},
            "where": Path("/home"),
        }), OK, ""),
        "object beside": (torch_bytes({"state_dict": STATE, "net": NETWORK}), OK, ""),
        "object in a state dict": (torch_bytes({**STATE, "x": NETWORK}), OK, ""),
        "getattr beside": (
            torch_bytes({"state_dict": STATE, "x": Runs(getattr, "", "upper")}), OK, ""),
        "few numbers expanded": (torch_bytes({"w": torch.ones(1).expand(1000)}), OK, ""),
        # What is something else.
        "empty": (b"", UNREADABLE, "is empty"),
        "one byte": (b"\x80", UNREADABLE, "is damaged"),
        "web page": (b"<!DOCTYPE html><html>", UNREADABLE, "web page"),
        "LFS pointer": (b"version https://git-lfs.github.com/spec/v1", UNREADABLE, "LFS"),
        "text": (b"hello", UNREADABLE, "neither a PyTorch checkpoint nor"),
        "random": (bytes(range(7, 250)), UNREADABLE, "neither a PyTorch checkpoint nor"),
        "gzip": (b"\x1f\x8b\x08" + bytes(60), UNREADABLE, "gzip"),
        "empty tar": (tar_bytes(3), UNREADABLE, "tar archive"),
        "TorchScript": (script_bytes(), UNREADABLE, "TorchScript program"),
        "zipped pth": (zip_bytes([("net.pth", b"x")]), UNREADABLE, "Unpack it first"),
        "zip of text": (zip_bytes([("a.txt", b"x")]), UNREADABLE, "zip archive without"),
        "pickled arrays": (pickle.dumps({"w": np.ones(3)}, 4), UNREADABLE, "plain pickle"),
        "tensor": (torch_bytes(torch.ones(3)), UNREADABLE, "not a state dict"),
        "list": (torch_bytes([torch.ones(3)]), UNREADABLE, "holds a list"),
        "empty dict": (torch_bytes({}), UNREADABLE, "holds no tensors"),
        "empty safetensors": (safetensors_bytes({}), UNREADABLE, "holds no tensors"),
        "numbers": (torch_bytes({"epoch": 3, "lr": 0.1}), UNREADABLE, "are no tensors"),
        "integer key": (torch_bytes({1: torch.ones(3)}), UNREADABLE, "the key 1"),
        "two networks": (torch_bytes({"G": STATE, "D": STATE}), UNREADABLE, "`entry`"),
        "keras without weights": (
            zip_bytes([("config.json", "{}")]), UNREADABLE, "without weights"),
        "JSON": (b'{"a": 1}', UNREADABLE, "without the `weight_map`"),
        "index of nothing": (index_bytes(), UNREADABLE, "holds no tensors"),
        "index of a missing shard": (
            index_bytes(w="no.bin"), UNREADABLE, "the shard no.bin, which is missing"),
        "index of an empty file": (
            index_bytes(w="023.pth"), UNREADABLE, "the shard 023.pth, which is empty"),
        # What is damaged.
        "cut zip": (ZIP[:-100], UNREADABLE, "is cut off"),
        "half a zip": (ZIP[: len(ZIP) // 2], UNREADABLE, "is cut off"),
        "cut legacy": (OLD[:-10], UNREADABLE, "is cut off"),
        "long legacy": (OLD + b"x", UNREADABLE, "goes on after"),
        "half a legacy": (OLD[: len(OLD) // 2], UNREADABLE, "is damaged"),
        "cut safetensors": (safetensors_bytes(STATE)[:-5], UNREADABLE, "is cut off"),
        "cut safetensors header": (safetensors_bytes(STATE)[:20], UNREADABLE, "is cut off"),
        "long safetensors": (safetensors_bytes(STATE) + b"x", UNREADABLE, "too long"),
        "cut h5": (
            hdf5_bytes(lambda f: f.update(w=np.ones(9)))[:1000], UNREADABLE, "damaged"),
        "flipped bit": (flipped(ZIP, ONES), UNREADABLE, "CRC"),
        "flipped deflated bit": (
            flipped(rezipped(ZIP, zipfile.ZIP_DEFLATED), b"PK\x03\x04"), UNREADABLE,
            "neither|damaged"),
        "missing record": (
            rezipped(ZIP, edit=lambda n, d: None if n.endswith("/data/0") else d),
            UNREADABLE, "is missing"),
        "short record": (
            rezipped(ZIP, edit=lambda n, d: d[:16] if n.endswith("/data/0") else d),
            UNREADABLE, "of 6 numbers has 16 bytes"),
        "big-endian": (
            rezipped(ZIP, edit=lambda n, d: b"big" if n.endswith("order") else d),
            UNREADABLE, "big-endian"),
        "beyond its storage": (tensor_zip(6, 3, [2, 3], [3, 1], ONES), UNREADABLE,
                               "beyond its storage"),
        "negative size": (tensor_zip(6, 0, [-2, 3], [3, 1], ONES), UNREADABLE, "shape"),
        "negative stride": (tensor_zip(6, 5, [6], [-1], ONES), UNREADABLE, "shape"),
        "negative offset": (tensor_zip(6, -1, [6], [1], ONES), UNREADABLE, "shape"),
        "strides too few": (tensor_zip(6, 0, [2, 3], [1], ONES), UNREADABLE, "storage"),
        "unknown storage": (
            tensor_zip(6, 0, [6], [1], ONES, kind="QuarterStorage"), UNREADABLE,
            "`w`.*unknown type"),
        "path as a key": (
            tensor_zip(6, 0, [6], [1], ONES, key="../../etc/passwd"), UNREADABLE,
            "is missing"),
        "header of a list": (safetensors_header([1]), UNREADABLE, "is neither"),
        "header of text": (safetensors_header(b"{]"), UNREADABLE, "no JSON"),
        "header of brackets": (
            safetensors_header(b'{"a":' + b"[" * 100_000), UNREADABLE, "no JSON"),
        "holes": (safetensors_header({"w": {"dtype": "F32", "shape": [1],
                  "data_offsets": [4, 8]}}, bytes(8)), UNREADABLE, "the place of"),
        "offsets of another shape": (safetensors_header({"w": {"dtype": "F32",
                  "shape": [2], "data_offsets": [0, 4]}}, bytes(4)), UNREADABLE,
                  "the place of"),
        "npz of another size": (zip_bytes([("w.npy", npy_header((9,)) + bytes(8))]),
                                UNREADABLE, "the size of"),
        "packed by bzip2": (rezipped(ZIP, zipfile.ZIP_BZIP2), UNREADABLE, "another way"),
        # What are no weights.
        "sparse": (torch_bytes({"w": torch.eye(3).to_sparse()}), UNREADABLE, "`w`.*sparse"),
        "quantized": (torch_bytes({"w": quantized()}), UNREADABLE, "`w`.*quantized"),
        "no data": (torch_bytes({"w": torch.ones(3, device="meta")}), UNREADABLE,
                    "without data"),
        "booleans": (torch_bytes({"w": torch.ones(3) > 0}), UNREADABLE, "`w` in bool"),
        "integers": (torch_bytes({"w": torch.ones(3, dtype=torch.int8)}), UNREADABLE,
                     "`w` in int8"),
        "integer safetensors": (safetensors_bytes({"w": torch.ones(3, dtype=torch.int32)}),
                                UNREADABLE, "`w` in int32"),
        "complex": (torch_bytes({"w": torch.ones(3, dtype=torch.complex64)}), UNREADABLE,
                    "complex64"),
        "NaN": (torch_bytes({**STATE, "fc.bias": torch.tensor([0, torch.nan])}), UNREADABLE,
                "1 NaN or infinite values of 2 in `fc.bias`"),
        "infinity": (safetensors_bytes({"w": torch.tensor([torch.inf])}), UNREADABLE,
                     "1 NaN or infinite values of 1 in `w`"),
        "variance": (torch_bytes({"bn.running_var": torch.tensor([-1.0])}), UNREADABLE,
                     "negative variance"),
        "module in a state dict": (
            torch_bytes({**STATE, "x": torch.nn.Linear(2, 2)}), UNREADABLE, "`x` is a"),
        # What asks for code or memory.
        "exec": (pickle.dumps(HOSTILE, 2), UNSAFE, "builtin.*exec"),
        "exec, protocol 5": (pickle.dumps(HOSTILE, 5), UNSAFE, "exec"),
        "exec, protocol 0": (pickle.dumps(HOSTILE, 0), UNSAFE, "exec"),
        "shell": (pickle.dumps(SHELL, 4), UNSAFE, "posix.system"),
        "shell in a zip": (torch_bytes({"w": SHELL}), UNSAFE, "posix.system"),
        "shell in a legacy": (torch_bytes({"w": SHELL}, **LEGACY), UNSAFE, "posix.system"),
        "shell beside weights": (torch_bytes({"state_dict": STATE, "x": SHELL}), UNSAFE,
                                 "posix.system"),
        "shell in a tar": (tar_bytes(SHELL), UNREADABLE, "tar archive"),
        "shell by INST": (b"(S'touch EXECUTED'\nios\nsystem\n.", UNSAFE, "os.system"),
        "getattr": (torch_bytes({"w": Runs(getattr, "", "upper")}), UNSAFE, "getattr"),
        "import": (torch_bytes({"w": Runs(__import__, "antigravity")}), UNSAFE,
                   "__import__"),
        "module": (torch_bytes(torch.nn.Linear(2, 2)), UNSAFE, "pickled object of torch"),
        "module in a dict": (torch_bytes({"net": NETWORK}), UNSAFE, "pickled objects: net"),
        "unknown function": (torch_bytes(Runs(argparse.Namespace)), UNSAFE,
                             "argparse.Namespace"),
        "3 GiB by bytearray": (torch_bytes({"state_dict": STATE,
                               "x": Runs(bytearray, 3 * 2**30)}), OK, ""),
        "memo of 2^31": (b"\x80\x02K\x01r\xff\xff\xff\x7f.", UNREADABLE, "plain pickle"),
        "hash overflow": (deep_tuple_key(), UNREADABLE, "plain pickle"),
        "string of 2^62": (b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x.", UNREADABLE,
                           "damaged"),
        "ten million instructions": (b"\x80\x02" + b"N0" * 5_000_000 + b"].", UNSAFE,
                                   "instructions"),
        "64 GiB in one number": (torch_bytes({"w": torch.ones(1).expand(2**34)}), UNSAFE,
                                 "expanded"),
        "a TiB declared": (tensor_zip(2**40, 0, [2**40], [1], ONES), UNREADABLE,
                           "has 24 bytes"),
        "2^38 expanded": (tensor_zip(6, 0, [2**38], [0], ONES), UNSAFE, "expanded"),
        "zeros deflated": (zip_bytes([("a/data.pkl", b"x"), ("a/data/0", bytes(2**28))],
                           zipfile.ZIP_DEFLATED), UNSAFE, "unpacks"),
        "npz of 8 TiB": (zip_bytes([("w.npy", npy_header((2**41,)))]), UNREADABLE,
                         "the size of"),
        "npz of objects": (npz_bytes(w=np.array([HOSTILE])), UNSAFE, "Python objects"),
        "h5 of 4 TiB": (hdf5_bytes(lambda f: f.create_dataset("w", (2**40,), "f4",
                        chunks=(2**20,))), UNSAFE, "unpacks"),
        "h5 of another file": (hdf5_bytes(mapped_file), UNSAFE, "in another file"),
        "h5 link": (hdf5_bytes(linked_file), UNSAFE, "link to somewhere else"),
        "h5 of endless groups": (hdf5_bytes(endless_groups), UNREADABLE, "no tensors"),
        "safetensors of 2^62": (safetensors_header({"w": {"dtype": "F32",
                                "shape": [2**60], "data_offsets": [0, 2**62]}}),
                                UNREADABLE, "is cut off"),
        "index of another folder": (index_bytes(w="../../etc/passwd"), UNSAFE,
                                    "no name of a file beside it"),
        "index of any file": (index_bytes(w="/dev/zero"), UNSAFE, "no name of a file"),
        "index twice": (b'{"weight_map": {"w": "a", "w": "b"}}', UNSAFE, "two entries"),
        "index of brackets": (b'{"weight_map": ' + b"[" * 100_000, UNREADABLE, "no JSON"),
        "index of a million lists": (b'{"weight_map": [' + b"[]," * 1_000_001, UNSAFE,
                                     "larger than any index"),
        "two of one name": (safetensors_header(
            b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
            b'"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)), UNSAFE,
            "two entries of one name"),
        "two members of one name": (
            zip_bytes([("a/data.pkl", b"x")] * 2), UNSAFE, "two members of one name"),
        "overlapping members": (overlapping_zip(), UNSAFE, "members in its zip that overlap"),
    }  # fmt: skip
    # A chain of references in which every level has the one below twice.
    laughs = b"\x80\x02]q\x00" + b"".join(
        b"](h" + bytes([n]) + b"h" + bytes([n]) + b"eq" + bytes([n + 1])
        for n in range(200)
    )
    corpus["billion laughs"] = (laughs + b".", UNREADABLE, "plain pickle")
    return corpus


def write(folder):
    """Write every file and `expected.json` into a folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    expected = {}
    for number, (name, (content, outcome, match)) in enumerate(files().items()):
        # A name that tells nothing, since extensions are not to be trusted.
        path = folder / f"{number:03}.pth"
        path.write_bytes(content)
        expected[path.name] = {"name": name, "outcome": outcome, "match": match}
    (folder / "expected.json").write_text(json.dumps(expected, indent=1))
    return expected


if __name__ == "__main__":
    print(len(write(sys.argv[1])), "files")
