"""Files that ask for little at a time, and many times."""

import io
import json
import zipfile

import h5py
import numpy as np
import torch

from tests.faults.cases import Case


def shards(folder):
    """An index of shards, each of which runs a million instructions."""
    names = {}
    for number in range(12):
        torch.save({f"w{number}": torch.ones(2)}, path := folder / f"{number}.bin")
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                if name.endswith("data.pkl"):
                    content = content[:-1] + b"N0" * 600_000 + b"."
                archive.writestr(name, content)
        names[f"w{number}"] = path.name
    index = folder / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return index


def names_of_a_type(folder):
    """HDF5: one type under very many names."""
    path = folder / "w.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file["layers/dense/vars/0"] = np.ones((2, 2))
        file["type"] = np.dtype("f4")
        kind = file["type"]
        for number in range(110_000):
            file[f"t{number}"] = kind
    return path


def arrays(folder):
    """One number an array, very many of them."""
    stream = io.BytesIO()
    np.save(stream, np.float32(1))
    with zipfile.ZipFile(folder / "a.npz", "w") as archive:
        for number in range(60_000):
            archive.writestr(f"{number}.npy", stream.getvalue())
    return folder / "a.npz"


CASES = {
    "shards of a million instructions": Case(shards, says="instructions"),
    "one type by many names": Case(names_of_a_type, says="names"),
    "one number an array": Case(arrays, says="arrays"),
}
