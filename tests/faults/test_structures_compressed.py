"""Compressed files built from their parts: loaded, or refused by a `ValueError`."""

import hashlib
import json
import zlib

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open

from keras_spectral.compression import coding, reading, storage
from tests.faults.test_structures_tensors import NAMES, NUMBERS, several

VALUES = st.one_of(
    NUMBERS,
    st.lists(NUMBERS, max_size=3),
    st.sampled_from(["delta", "bitmap", "float32", "int8", "gaussian", "zero", "F32"]),
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("structures") / "a.safetensors"


@st.composite
def files(draw):
    """Return (tensors, metadata) of weights that are whole, or lie in one part."""
    tensors, weights = {}, []
    for index in range(draw(st.integers(0, 3))):
        shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
        kept = np.arange(int(np.prod(shape))) % 2 == 0
        weight = dict(
            name="w", path=draw(NAMES), shape=shape, dtype="float32", sha256="",
            coded=None,
        )  # fmt: skip
        key, dense = f"{index}.{weight['path']}", np.zeros(shape, "float32")
        if draw(st.booleans()):
            form, packed = coding.encode_index(
                kept, draw(st.sampled_from(coding.INDICES))
            )
            tensors |= {
                f"{key}.values": np.zeros(int(kept.sum()), "float32"),
                f"{key}.index": packed,
            }
            weight["coded"] = dict(
                count=int(kept.sum()), index=form, values="float32", scale=1.0,
                replacement="zero", rule=None, threshold=None, mean=0.0, deviation=0.0,
                seed=[0], key=[], normals_sha256=None,
            )  # fmt: skip
            if draw(st.booleans()):
                part = draw(st.sampled_from(sorted(weight["coded"])))
                weight["coded"][part] = draw(VALUES)
            if draw(st.integers(0, 3)) == 0:
                raw = draw(st.sampled_from([b"", b"x", b"\xff" * 9, bytes(10**5)]))
                raw = zlib.compress(raw) if draw(st.booleans()) else raw
                tensors[f"{key}.index"] = np.frombuffer(raw, "u1")
        else:
            tensors[key] = dense
        weight["sha256"] = hashlib.sha256(dense.tobytes()).hexdigest()
        if draw(st.integers(0, 2)) == 0:
            weight[draw(st.sampled_from([*weight, "more"]))] = draw(VALUES)
        weights.append(weight)
    content = {"config": {}, "weights": weights}
    if draw(st.integers(0, 5)) == 0:
        content[draw(st.sampled_from(["config", "weights", "more"]))] = draw(VALUES)
    packed = zlib.compress(json.dumps(content).encode())
    head = {"sha256": hashlib.sha256(packed).hexdigest(), "version": 1}
    if draw(st.integers(0, 9)) == 0:
        head[draw(st.sampled_from(["sha256", "version"]))] = draw(VALUES)
    tensors[reading.DESCRIPTION] = np.frombuffer(packed, "uint8")
    return tensors, {reading.METADATA: json.dumps(head)}


@several
@given(files())
def test_compressed(path, file):
    safetensors.numpy.save_file(file[0], path, file[1])
    try:
        reading.check_header(path)
        with safe_open(path, "np") as opened:
            _, stored = reading.read_description(opened)
            reading.check_tensors(opened, stored)
            for index, weight in enumerate(stored):
                if weight.size < 10**6:
                    storage._decode(opened, index, weight)
    except (ValueError, SafetensorError) as error:
        assert not isinstance(error, UnicodeError)
        assert len(str(error)) < 600
