"""A hundred thousand tensors, and more, in the memory that any file may take."""

import io
import os
import pickle
import pickletools
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_spectral.convert import UnsafeCheckpointError
from keras_spectral.convert.files import pickle_memo, pickle_source
from keras_spectral.convert.files.pickles import read_pickle
from tests.faults.programs import ORDERED, REBUILD, get, put, storage

COUNT = 100_000
# Nothing is imported after the limit, of less than 1,024 bytes a tensor, with names and
# all; 64 MiB are too few. What is printed is compared with PyTorch's.
READER = """
import pathlib, resource, sys
import h5py, ml_dtypes, numpy
from keras_spectral.convert import read_checkpoint
size = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (size + 96 * 2**20,) * 2)
state = read_checkpoint(sys.argv[1])
print(len(state), len(state.aliases), set(state.shapes.values()))
print(state["layer7.weight"], state["layer99999.weight"])
"""


def test_100_000_tensors(tmp_path):
    base = torch.arange(2.0 * COUNT).reshape(COUNT, 2)
    torch.save({f"layer{n}.weight": base[n] for n in range(COUNT)}, tmp_path / "w")
    done = subprocess.run(
        [sys.executable, "-c", READER, tmp_path / "w"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    rows = base[7].numpy(), base[99_999].numpy()
    expected = f"{COUNT} 0 {{(2,)}}\n{rows[0]} {rows[1]}\n"
    assert done.stdout == expected, done.stderr[-2000:]


def tree(leaves, shared):
    """Nested containers of which some hang at many places, which are kept by number."""
    inner = [
        list(leaves),
        tuple(leaves),
        {str(n): leaf for n, leaf in enumerate(leaves)},
    ]
    return {"a": [inner] * 3, "b": [inner[n % 3] for n in shared], "c": f"j{leaves}"}


@settings(max_examples=60, deadline=None)
@given(
    leaves=st.lists(st.text(max_size=9) | st.integers(), max_size=400),
    shared=st.lists(st.integers(0, 9), max_size=9),
    protocol=st.integers(2, 5),
    chunk=st.integers(5, 300),
)
def test_what_the_memo_does_not_keep_is_not_needed(leaves, shared, protocol, chunk):
    content = pickle.dumps(tree([f"{leaf}" for leaf in leaves], shared), protocol)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pickle_memo, "CHUNK", chunk)
        fetched = pickle_memo.fetched(io.BytesIO(content))
    found = read_pickle(io.BytesIO(content), fetched=fetched)
    assert found == pickle.loads(content)
    numbers = [
        argument
        for opcode, argument, _ in pickletools.genops(content)
        if opcode.name in ("BINGET", "LONG_BINGET")
    ]
    assert np.frombuffer(fetched, "u1")[numbers].all()


def program(keeps):
    """Many tensors that are deleted at once; what they were made of may be kept."""
    head = b"".join(
        part + put(n) + b"0" for n, part in enumerate([REBUILD, storage(), ORDERED])
    )
    numbers = b"K\x00K\x02K\x03\x86K\x03K\x01\x86\x89"
    made = get(0) + b"(" + get(1) + numbers + get(2) + b")Rt"
    made += b"q\x03R0h\x03" if keeps else b"R0"
    return b"\x80\x02" + head + b"(" + made * 5_000 + b"t."


def test_what_is_deleted_is_given_back(monkeypatch):
    monkeypatch.setattr(pickle_source, "MOST_MADE", 1_600_000)
    for keeps in (False, True):
        content = program(keeps)
        fetched = pickle_memo.fetched(io.BytesIO(content))
        if keeps:
            with pytest.raises(UnsafeCheckpointError, match="objects"):
                read_pickle(io.BytesIO(content), fetched=fetched)
        else:
            assert read_pickle(io.BytesIO(content), fetched=fetched) == ()
